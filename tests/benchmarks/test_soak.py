"""A short run of benchmarks/soak.py, and that the benchmark notices broken promises."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.measuring.slow_judge import mixed_verdict
from benchmarks.soak import MAX_FILES, MAX_GROWTH, SoakResult, expected
from tests.support.paths import ROOT

GOOD = SoakResult(
    judgements=10, faults=3, requests=13, lost=0, wrong=0, rows=10, doubled=0, intact=True, changed=0,
    memory=(90.0, 91.0, 95.0), growth=1.0, files=40, seconds=1.0,
)  # fmt: skip


@pytest.mark.slow
def test_two_thousand_judgements_by_a_judge_with_faults() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert (found["judgements"], found["rows"], found["lost"], found["broken"]) == (2000, 2000, 0, [])
    assert found["faults"] > 100
    assert found["requests"] >= 2000 + found["faults"]


@pytest.mark.parametrize(
    ("changed", "promise"),
    [
        ({"lost": 1}, "every judgement has a verdict"),
        ({"wrong": 1}, "each verdict belongs to its question"),
        ({"rows": 9}, "the cache has each verdict once"),
        ({"rows": 10, "doubled": 1}, "the cache has each verdict once"),
        ({"intact": False}, "the cache is intact"),
        ({"changed": 1}, "the cache is intact"),
        ({"growth": MAX_GROWTH}, f"memory grows by less than {MAX_GROWTH:g} MiB"),
        ({"files": MAX_FILES}, "connections are closed"),
    ],
)
def test_a_broken_promise_is_named(changed: dict[str, float], promise: str) -> None:
    assert GOOD.broken() == []
    assert replace(GOOD, **changed).broken() == [promise]


def test_verdicts_differ_from_question_to_question() -> None:
    assert {mixed_verdict(str(i)) for i in range(20)} == {-1, 0}
    assert {expected(i) for i in range(20)} == {None, 0}
