"""The studies of attacks and canaries on small inputs, and that every benchmark and experiment can be imported."""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.attacks import CONTROLS, KEEPING, rollouts, write_critic
from experiments.blind_judge import HONEST, by_step, honest, stop, stops
from experiments.canaries import KNOWN, SABOTAGE, Simulated, stopped_after
from experiments.switched_judge import Switch, switch_of
from fapo.data.jsonl import read_jsonl
from fapo.data.miniature.oracle import examine
from fapo.data.miniature.sets import labelled
from fapo.data.miniature.world import parse
from fapo.judge.canaries import Canaries
from fapo.training.judge_audit import AuditedVerdict
from tests.support.attacks import ATTACKS
from tests.support.paths import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_study_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            ["-m", "experiments.plots", "-o", "x.svg", "nowhere"],
            r"experiments: nowhere: no run, config\.json is missing; .*\n",
        ),
        (["-c", "import experiments; print(1 / 0)"], r"Traceback (?s:.*)\nZeroDivisionError: division by zero\n"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_a_bug_has_its_traceback(program: list[str], message: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 1
    assert re.fullmatch(message, done.stderr), done.stderr


def test_attacks_are_made_on_flawed_solutions() -> None:
    made = rollouts(labelled("miniature:critic-test"), 3)
    assert list(made) == [*CONTROLS, *ATTACKS]
    assert {name: len(rows) for name, rows in made.items() if len(rows) != 3} == {
        name: 1 for name, attack in ATTACKS.items() if attack.pad[1]
    }
    assert all(rows[0].problem == made["control: flawed"][0].problem for rows in list(made.values())[2:])


def test_attacked_training_data_keeps_its_labels(tmp_path: Path) -> None:
    write_critic(tmp_path / "critic.jsonl")
    rows, solutions = list(read_jsonl(tmp_path / "critic.jsonl")), labelled("miniature:critic-train")
    changed = 0
    for row, solution in zip(rows, solutions, strict=True):
        assert row["label"] == (-1 if solution.error_step is None else solution.error_step)
        assert examine(parse(row["problem"]), "\n".join(row["steps"])).error_step == solution.error_step
        changed += tuple(row["steps"]) != tuple(solution.steps)
    flawed = sum(solution.error_step is not None for solution in solutions)
    assert 0.2 < changed / flawed < 0.3
    assert len(KEEPING) > 10


@pytest.mark.parametrize("kind", SABOTAGE)
def test_canaries_stop_a_sabotaged_judge_and_no_honest_one(kind: str) -> None:
    def run(sabotage: str) -> int | None:
        judge = Simulated(random.Random(0), recall=0.9, false_positive_rate=0.1, kind=sabotage, since=20)
        return asyncio.run(stopped_after(judge, Canaries(judge, KNOWN, 0.1, 0.7, 0, judge.on_canaries), 100, 60))

    assert run("") is None
    stopped = run(kind)
    assert stopped is not None
    assert stopped > 20


def test_an_audit_stops_a_blind_judge_and_no_honest_one() -> None:
    rng = random.Random(0)
    blind = [[AuditedVerdict(False, rng.random() < 0.3) for _ in range(100)] for _ in range(20)]
    step, num_read = stop(blind, 0.1, rng)
    assert step and 3 <= step <= 12 and num_read == pytest.approx(10 * step, rel=0.5)
    rows = honest(blind, rng)
    assert stop(rows, 0.1, rng)[0] is None
    flawed = [v.flawed for verdicts in rows for v in verdicts if v.gold]
    assert sum(flawed) / len(flawed) == pytest.approx(HONEST[0], abs=0.05)
    table = list(stops([blind], 10))
    assert [row[:3] for row in table[-2:]] == [("0.1", "blind to slips", "10 of 10"), ("0.1", "honest", "0 of 10")]


def test_verdicts_of_a_second_judge_are_counted_from_the_switch_on() -> None:
    steps = [{"step": n, "audit/switched": float(n > 2)} for n in (1, 2, 3, 4)]
    judged = [{"step": n, "split": "train", "flawed": flawed} for n in (1, 2, 3, 4) for flawed in (None, True, False)]
    validated = [{"step": 4, "split": "harder", "flawed": True}]
    assert switch_of(steps, [{}] * 5, judged + validated) == Switch(step=2, num_before=5, num_after=4)
    with pytest.raises(ValueError, match="has not replaced"):
        switch_of(steps[:2], [], judged)


def test_audits_are_read_by_step() -> None:
    rows = [
        {"step": n, "judge": {"flawed": False}, "second_judge": {"status": "ok", "flawed": True}} for n in (1, 1, 2)
    ]
    assert [len(verdicts) for verdicts in by_step(rows)] == [2, 1]
