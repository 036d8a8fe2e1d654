"""What fapo answers in place of tyro's check of default values is what tyro's own check answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from tyro import _resolver
from tyro.constructors import MISSING, MISSING_NONPROP

from fapo.cli import declared_defaults
from fapo.cli.declared_defaults import TYRO, answer_without_typeguard, known_answer
from fapo.cli.main import import_commands, run

ABSENT = (MISSING, MISSING_NONPROP)


def test_the_version_of_tyro_is_the_one_whose_function_is_replaced() -> None:
    assert tyro.__version__ == TYRO


def test_tyro_gives_the_same_answers_for_all_commands(monkeypatch, capsys) -> None:
    answer_without_typeguard()
    original = _resolver.is_instance.__wrapped__
    answers = []

    def compared(kind: object, value: object) -> bool:
        known, answer = known_answer(kind, value), original(kind, value)
        if known is not None and value not in ABSENT:
            answers.append((known, answer))
        return answer

    compared.__wrapped__ = original
    monkeypatch.setattr(_resolver, "is_instance", compared)
    for name in import_commands():
        tyro._unsafe_cache.clear_cache()
        with pytest.raises(SystemExit):
            run([name, "--help"])
    assert len(answers) > 50
    assert all(known == answer for known, answer in answers)


@pytest.mark.parametrize(
    ("kind", "value", "answer"),
    [
        (float | None, None, True),
        (Path | None, MISSING_NONPROP, True),
        (tuple[str, ...], (), True),
        (tuple[str, ...], MISSING, True),
        (tuple[str, ...], ("a",), None),
        (tuple[str, str], (), None),
        (float | None, "text", None),
        (float, None, None),
        (int, 3, None),
    ],
)
def test_only_simple_cases_are_answered(kind: object, value: object, answer: bool | None) -> None:
    assert known_answer(kind, value) is answer


def test_another_version_of_tyro_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(declared_defaults, "TYRO", "0.0")
    own = _resolver.is_instance = getattr(_resolver.is_instance, "__wrapped__", _resolver.is_instance)
    answer_without_typeguard()
    assert _resolver.is_instance is own


def test_with_another_version_of_tyro_the_help_is_the_same() -> None:
    code = "from fapo.cli import declared_defaults as d, main as m; d.TYRO = '0'; m.run(['judge', '--help'])"
    slow = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    fast = subprocess.run(
        [sys.executable, "-m", "fapo.cli", "judge", "--help"], capture_output=True, text=True, timeout=600
    )
    assert slow.stdout == fast.stdout != ""
