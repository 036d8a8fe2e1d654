"""The study of judges that are trained together with the policy, at the smallest size."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cotraining import (
    ARMS,
    End,
    Sizes,
    both_examples,
    differences,
    end_of,
    known_quality,
    make_start,
    print_tables,
    rollout_quality,
    train_arm,
)
from fapo.data.miniature.sets import BASE_FOLDER

SMALL = Sizes(imitation=1, rounds=2, steps=1, prompts=2, judge_steps=1, judge_prompts=2, limit=16, judged=8, tested=32)
END = End(0.5, 0.4, 0.2, 0.1, 0.8)


def row(number: int, response: str, flawed: bool | None, error_step: int | None) -> dict:
    truth = {"error_step": error_step, "flaw": None if error_step is None else "slip"}
    task = {"problem_id": f"p{number}", "problem": "start 7, add 5; mod 5", "reference": "2"}
    return task | {"response": response, "flawed": flawed, "truth": truth}


RIGHT, WRONG = "7+5=12\n\\boxed{2}", "7+5=22\n\\boxed{2}"


def test_examples_hold_both_prompts() -> None:
    batch = next(both_examples(0))
    asked = [user for user, _ in batch]
    reviews = sum("\n#0 " in user for user in asked)
    assert (reviews, asked.count(""), len(batch)) == (24, 6, 62)


def test_a_judge_is_measured_on_its_rollouts() -> None:
    rows = [row(0, WRONG, True, 0), row(1, WRONG, False, 0), row(2, RIGHT, True, None), row(3, RIGHT, None, None)]
    found = rollout_quality(rows)
    assert (found.tp, found.fn, found.fp, found.tn) == (1, 1, 2, 0), "a row without a verdict counts as wrong"
    assert found.youden_j == pytest.approx(-0.5)


def test_differences_are_paired_by_seed() -> None:
    arm = {seed: replace(END, accuracy=0.5 + 0.1 * seed) for seed in (0, 1, 2)}
    control = {0: END, 1: END}
    assert differences(arm, {0: END}, "accuracy") == "+0.000"
    assert differences(arm, control, "accuracy") == "+0.050 (-0.585 to +0.685)"


def test_the_start_is_made_once(tmp_path: Path) -> None:
    folder = make_start(tmp_path / "start", 1)
    assert (folder / "model.safetensors").exists()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert make_start(folder, 1) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_rounds_go_on_from_policy_and_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(BASE_FOLDER / "policy", tmp_path / "start")  # it solves as the start of the study does
    found = {name: {0: train_arm(tmp_path, name, 0, SMALL)} for name in ARMS if name != "moving"}
    start = str(tmp_path / "start")

    def models(run: str) -> list[str]:
        config = json.loads((tmp_path / run / "config.json").read_text())
        return [table["model" if "kind" in table else "path"] for table in (config["model"], config["judge"]) if table]

    after_one = str(tmp_path / "start-0/policy-1/model")
    assert models("start-0/policy-1") == [start, start]
    assert models("fixed-0/policy-2") == [after_one, start]
    assert models("co-trained-0/judge-1") == [after_one]
    assert models("co-trained-0/policy-2") == [str(tmp_path / "co-trained-0/judge-1/model")] * 2
    own = str(tmp_path / "first-0/judge-0/model")
    assert models("first-0/judge-0") == [start]
    assert models("first-0/policy-1") == [start, own]
    assert models("first-0/policy-2") == [str(tmp_path / "first-0/policy-1/model"), own]
    assert {name: [r.labels for r in runs[0]] for name, runs in found.items()} == {
        "fixed": [0, 0],
        "co-trained": [2, 0],
        "first": [2, 0],
    }
    assert found["fixed"][0][0].test_f1 == known_quality(tmp_path / "start", SMALL.judged).f1

    again = {name: {0: train_arm(tmp_path, name, 0, SMALL)} for name in found}
    assert again == found
    ends = {name: {0: end_of(tmp_path, name, 0, runs[0], SMALL.tested)} for name, runs in found.items()}
    end = ends["fixed"][0]
    assert 0.2 < end.accuracy < 0.7 and end.reliable_accuracy == pytest.approx(end.accuracy * (1 - end.true_fp_ratio))
    print_tables(found, ends)
    printed = capsys.readouterr().out
    assert printed.count("| co-trained") == 4 and "minus fixed, same seeds" in printed
