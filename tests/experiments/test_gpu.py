"""The GPU experiments on a processor: their world, their counts, and a dry run of the whole kit at tiny size."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.base_models.writers import PERFECT, Habits
from experiments.gpu import common, compare, examples, genrm, measured, policy, tied, turns, world
from fapo.config import from_dict
from fapo.data import read_jsonl, split_steps, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.data.miniature.world import Difficulty, Task, tasks
from fapo.errors import DataError
from fapo.judge import parse_verdict
from tests.support.paths import ROOT

TASK = Task(52, (("-", 17), ("*", 3)), "mod 10")
RIGHT = "Taking 17 away from 52 leaves 35.\nMultiplying 35 by 3 gives 105.\nDivided by 10, that leaves \\boxed{5}."
FLAWED = RIGHT.replace("35", "45").replace("105", "135")
KIT = ROOT / "experiments" / "gpu"


def test_a_task_in_sentences() -> None:
    assert world.question(TASK) == "Start with 52. Take away 17. Multiply by 3. What remains when it is divided by 10?"
    assert world.trace(random.Random(0), TASK, PERFECT) == RIGHT


@pytest.mark.parametrize("difficulty", [world.EASY, world.HARDER, world.EVERYTHING])
def test_questions_solutions_and_critiques_can_be_read_back(difficulty: Difficulty) -> None:
    rng = random.Random(1)
    for task in tasks(1, 200, difficulty):
        assert world.parse(world.question(task)) == task
        assert world.truth(task, world.trace(rng, task, PERFECT)).error_step is None
        response = world.trace(rng, task, Habits())
        critique = world.review(rng, task, response, PERFECT)
        verdict = parse_verdict(critique, len(split_steps(response, "lines")))
        assert (verdict.status, verdict.error_step) == ("ok", world.truth(task, response).error_step), response


def test_other_questions_are_refused() -> None:
    with pytest.raises(DataError, match="not a question of this world"):
        world.parse("What is 2 + 2?")


@pytest.mark.parametrize(
    ("response", "correct", "step", "flaw"),
    [
        (RIGHT, True, None, None),
        (FLAWED, True, 0, "slip"),
        ("Taking 17 away from 52 leaves 35.\nDivided by 10, that leaves \\boxed{5}.", True, 1, "guess"),
        (RIGHT.replace("Multiplying 35 by 3 gives", "Three times that is"), True, 1, "format"),
        (RIGHT.replace("{5}", "{6}"), False, 2, "guess"),
        (RIGHT.replace("by 10", "by 7"), False, 2, "format"),
        ("", False, 0, "format"),
    ],
)
def test_the_oracle_reads_sentences(response: str, correct: bool, step: int | None, flaw: str | None) -> None:
    found = world.truth(TASK, response)
    assert (world.is_correct(TASK, response), found.error_step, found.flaw) == (correct, step, flaw)


def test_critic_data_is_half_flawed() -> None:
    rows = examples.critic_rows(3, 40, "test")
    assert len(rows) == 40
    assert sum(row["label"] >= 0 for row in rows) == 20
    for row in rows:
        task, response = world.parse(row["problem"]), "".join(row["steps"])
        found = world.truth(task, response)
        assert world.is_correct(task, response)
        assert row["label"] == (-1 if found.error_step is None else found.error_step)


def rollout(run: str, response: str, correct: bool, status: str, error_step: int | None = None) -> dict[str, Any]:
    """Return a row of a run's rollouts, with the run it is to be written to."""
    flawed = None if status != "ok" else error_step is not None
    row = {"step": 0, "split": "validation", "problem": world.question(TASK), "response": response, "correct": correct}
    row |= {"status": status, "error_step": error_step, "flawed": flawed, "critique": "", "num_tokens": 10}
    return row | {"run": run}


def test_the_table_counts_by_the_oracle(tmp_path: Path) -> None:
    run = tmp_path / "runs/fapo-5e-05"
    run.mkdir(parents=True)
    rows = [
        rollout("fapo-5e-05", RIGHT, True, "ok"),
        rollout("fapo-5e-05", FLAWED, True, "ok", 0),
        rollout("fapo-5e-05", FLAWED, True, "ok"),
        rollout("fapo-5e-05", RIGHT, True, "ok", 1),
        rollout("fapo-5e-05", "I cannot.", False, "skipped"),
        rollout("fapo-5e-05", FLAWED, True, "unparsable"),
    ]
    write_jsonl(run / "rollouts.jsonl", rows)
    found = measured.measured(tmp_path)["fapo-5e-05"]["validation"]["0"]
    assert (found["accuracy"]["k"], found["accuracy"]["n"]) == (5, 6)
    assert found["right_for_the_right_reason"]["k"] == 2
    assert (found["flawed_positives"]["k"], found["flawed_positives"]["n"]) == (3, 5)
    judge = found["judge"]
    assert (judge["recall"]["k"], judge["recall"]["n"]) == (1, 3)
    assert (judge["false_positive_rate"]["k"], judge["false_positive_rate"]["n"]) == (1, 2)
    assert judge["J"] == pytest.approx(1 / 3 - 1 / 2, abs=1e-3)
    assert judge["unparsable"] == 1


def test_a_judge_of_all_rollouts_is_measured_on_wrong_solutions_too(tmp_path: Path) -> None:
    run = tmp_path / "runs/first_error-5e-05"
    run.mkdir(parents=True)
    wrong = RIGHT.replace("{5}", "{6}")  # its last step, 2, is wrong
    rows = [
        rollout("first_error-5e-05", RIGHT, True, "ok"),
        rollout("first_error-5e-05", FLAWED, True, "ok", 0),
        rollout("first_error-5e-05", wrong, False, "ok", 2),
        rollout("first_error-5e-05", wrong, False, "ok", 1),
        rollout("first_error-5e-05", wrong, False, "ok"),
        rollout("first_error-5e-05", wrong, False, "unparsable"),
    ]
    write_jsonl(run / "rollouts.jsonl", rows)
    (tmp_path / "out").mkdir()
    measured.table(tmp_path, tmp_path / "out")
    results = json.loads((tmp_path / "out/sentences.json").read_text(encoding="utf-8"))
    found = results["runs"]["first_error-5e-05"]["validation"]["0"]
    assert (found["judge"]["recall"]["k"], found["judge"]["recall"]["n"]) == (1, 1)
    judge = found["judge_of_wrong_solutions"]
    assert (judge["recall"]["k"], judge["recall"]["n"]) == (2, 4)
    assert (judge["location"]["k"], judge["location"]["n"]) == (1, 2)
    text = (tmp_path / "out/sentences.txt").read_text(encoding="utf-8")
    assert "judge of first_error at step 0, wrong solutions: recall 50.0 %" in text


def test_runs_are_compared_question_by_question() -> None:
    found = compare.paired([True] * 6 + [False] * 10, [True] * 4 + [False] * 2 + [True] * 10)
    assert (found["n"], found["first"], found["second"]) == (16, 0.375, 0.875)
    assert (found["only_first"], found["only_second"]) == (2, 10)
    exact = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12  # McNemar: 2 of 12 or fewer, both sides
    assert found["p"] == pytest.approx(exact, rel=0.02)
    low, high = found["interval"]
    assert low < found["difference"] == 0.5 < high


def test_the_comparison_takes_the_last_step_of_both() -> None:
    rows = [{**rollout("grpo-0.1", FLAWED, True, "skipped"), "step": step} for step in (0, 10, 20)]
    rows += [{**rollout("fapo-0.1", RIGHT, True, "ok"), "step": step} for step in (0, 10)]
    found = {row["measure"]: row for row in compare.compare(rows)}
    assert {row["step"] for row in found.values()} == {10}
    assert found["right"]["difference"] == 0
    assert found["right for the right reason"]["difference"] == 1
    assert found["flawed positive"]["difference"] == -1
    assert list(compare.compare(rows, step=20)) == []


def test_all_arms_are_compared_with_each_other() -> None:
    rows = [rollout("grpo-0.1", FLAWED, True, "skipped"), rollout("fapo-0.1", FLAWED, True, "ok")]
    rows.append(rollout("fapo2-0.1", RIGHT, True, "ok"))
    # a slow arm takes nothing from the comparison of two others
    rows += [{**rollout(f"{kind}-0.1", RIGHT, True, "ok"), "step": 10} for kind in ("grpo", "fapo")]
    found = {tuple(row["runs"]): row for row in compare.compare(rows) if row["measure"] == "right for the right reason"}
    assert {runs: (row["step"], row["difference"]) for runs, row in found.items()} == {
        ("grpo", "fapo"): (10, 0),
        ("grpo", "fapo2"): (0, 1),
        ("fapo", "fapo2"): (0, 1),
    }
    assert "fapo fapo2:   0.0 100.0 %" in compare.line_of(found["fapo", "fapo2"])


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        ([("validation", 0, 20, 0), ("train", 1, 25, 4)], 4 * 4 + 20),
        ([("validation", 0, 20, 0), ("train", 4, 40, 4), ("train", 5, 44, 6)], 20 + 5 * 6 + 20),
        ([("validation", 0, 20, 0), ("train", 5, 44, 6), ("validation", 5, 53, 0), ("train", 6, 58, 5)], 4 * 6 + 9),
        # the last step of the run is the ninth; it has a validation
        ([("train", 5, 44, 6), ("validation", 5, 53, 0), ("train", 8, 70, 6)], 6 + 9),
        ([("train", 5, 44, 6), ("validation", 5, 53, 0), ("train", 9, 76, 6)], 9),
        # a run that was resumed counts its seconds from 0 again
        ([("validation", 0, 90, 0), ("train", 5, 140, 9), ("train", 6, 12, 3)], 4 * 3),
    ],
)
def test_seconds_until_the_next_validation(seen: list[tuple[str, int, float, float]], seconds: float) -> None:
    rows = [{"kind": kind, "step": step, "seconds": at, "time/rollout": took} for kind, step, at, took in seen]
    assert turns.seconds_to_validation(rows, every=5, total=9 if seen[-1][1] > 7 else 60) == seconds


def critique(step: int, problem: str, said: int | None, label: int | None, correct: bool = True) -> dict[str, Any]:
    """Return a row of a GenRM's validation with the verdict `said`."""
    truth = {"error_step": label, "flaw": None, "answer_correct": correct}
    row = {"step": step, "split": "test", "problem_id": problem, "status": "ok", "flawed": said is not None}
    return row | {"error_step": said, "critique": "", "num_tokens": 14, "truth": truth}


def test_the_table_of_the_genrms(tmp_path: Path) -> None:
    labels = {"1": -1, "2": 0, "3": 2, "4": 1}
    rows = [
        {"id": i, "problem": f"problem {i}", "steps": ["a", "b", "c"], "label": label, "final_answer_correct": i != "4"}
        for i, label in labels.items()
    ]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data/test.jsonl", rows)
    said = {
        "genrm_step": {0: [1, None, 2, 1], 5: [None, 0, 2, 1]},
        "genrm_outcome": {0: [1, None, 2, 1], 5: [None, 1, 2, 1]},
    }
    for kind, steps in said.items():
        (tmp_path / kind).mkdir()
        written = [
            critique(step, i, verdict, None if labels[i] < 0 else labels[i], i != "4")
            for step, verdicts in steps.items()
            for i, verdict in zip(labels, verdicts, strict=True)
        ]
        write_jsonl(tmp_path / kind / "rollouts.jsonl", written)
    results = common.Results(tmp_path / "genrm.json")
    genrm.Watch(results, tmp_path).write({"genrm_step": {"exit_code": 0}})
    found = json.loads((tmp_path / "genrm.json").read_text(encoding="utf-8"))
    start = found["genrm_step"]["validation"]["0"]["all"]
    assert (start["n"], start["flawed"], start["valid"]["rate"]) == (4, 3, 1)
    assert start["recall"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert start["location"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["genrm_step"]["validation"]["5"]["right"]["n"] == 3
    assert found["genrm_step"]["validation"]["5"]["wrong"]["f1"]["value"] == 1
    by_pair = {(c["first_run"], c["second_run"], c["right"]): c for c in found["comparisons"]}
    assert by_pair["genrm_step 0", "genrm_step 5", "flag"]["difference"] == 0.5
    assert by_pair["genrm_outcome 5", "genrm_step 5", "step"]["difference"] == 0.25
    assert found["judge_is_better_than_chance"] is True
    del found["genrm_step"]["validation"]["5"]
    assert not genrm.is_better_than_chance(found, "genrm_step")
    text = (tmp_path / "genrm.txt").read_text(encoding="utf-8")
    assert "genrm_outcome step 5, all: n 4, flawed 3, valid 100.0 %" in text
    assert "step right, genrm_outcome 5 -> genrm_step 5: 75.0 -> 100.0 %" in text


def test_what_the_genrm_is_asked() -> None:
    given = argparse.Namespace(tiny=False, base="q", work="w", prompts=24, rate=5e-4, steps=60, limit=512)
    config = from_dict(genrm.settings("genrm_step", {"train": Path("a.jsonl"), "test": Path("b.jsonl")}, given))
    assert config.rollout.num_prompts * config.rollout.group_size % config.optim.micro_batch_size == 0
    assert config.genrm and config.genrm.template == "locate_small"


def test_the_reward_is_an_arm() -> None:
    given = argparse.Namespace(tiny=True, base="q", work="w", judge="j", rate=5e-4, steps=4)
    configs = {kind: from_dict(policy.settings(kind, {"train": Path("a.jsonl")}, given)) for kind in measured.KINDS}
    rewards = {kind: (config.reward.kind, config.reward.penalty) for kind, config in configs.items() if config.reward}
    assert rewards == {
        "grpo": ("fapo", 0),
        "fapo": ("fapo", 1),
        "first_error": ("first_error", 1),
        "fapo2": ("fapo", 2),
    }
    assert {kind for kind, config in configs.items() if config.judges_all} == {"first_error"}
    assert set(policy.ARMS) == set(measured.KINDS) - {"first_error"}


def test_an_arm_in_sentences_has_a_judge_unless_it_is_grpo(tmp_path: Path) -> None:
    from experiments.gpu.stages import Settings, run_config

    settings = Settings(tmp_path, tmp_path, 0.0)
    configs = {
        kind: from_dict({"name": kind, "output": "runs", **run_config(settings, kind, 1e-4)}) for kind in measured.KINDS
    }
    assert {kind for kind, config in configs.items() if config.judge} == set(measured.JUDGED)
    assert measured.JUDGED == ("fapo", "first_error", "fapo2")
    assert {kind for kind, config in configs.items() if config.judges_all} == {"first_error"}


@pytest.mark.parametrize(
    ("arms", "shares"),
    [
        (["grpo", "fapo"], [0.3, 0.32]),
        (["grpo", "fapo", "fapo2"], [0.18, 0.32, 0.32]),
        (["fapo", "first_error", "fapo2"], [0.3, 0.3, 0.3]),
        (["grpo", "fapo", "first_error", "fapo2"], [0.9 / 7, 1.8 / 7, 1.8 / 7, 1.8 / 7]),
    ],
)
def test_arms_share_the_memory_of_the_card(arms: list[str], shares: list[float]) -> None:
    from experiments.gpu.stages import share

    assert [share(arm, arms) for arm in arms] == pytest.approx(shares)


def test_the_weak_writer_is_mostly_wrong_and_mostly_flawed() -> None:
    rng, found = random.Random(0), []
    for task in tasks(5, 1000, world.EASY, "train"):
        response = world.trace(rng, task, examples.STARTS["weak"])
        found.append((world.is_correct(task, response), world.truth(task, response).flawed))
    right = [flawed for correct, flawed in found if correct]
    assert 0.15 < len(right) / len(found) < 0.23
    assert 0.58 < sum(right) / len(right) < 0.72


def test_the_results_of_the_first_run_are_read() -> None:
    results = json.loads((KIT / "results/2026-11-26-h200/sentences.json").read_text(encoding="utf-8"))
    found = results["runs"]["grpo-0.00012"]["validation"]["30"]["right_for_the_right_reason"]
    assert (found["k"], found["n"]) == (238, 512)


def test_the_results_of_the_second_run_are_read() -> None:
    with gzip.open(KIT / "results/2026-11-26-h200-2/sentences-rollouts.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = {(row["set"], row["measure"]): row for row in compare.compare(rows, step=20)}
    assert found["validation", "right for the right reason"]["difference"] == pytest.approx(125 / 512, abs=1e-4)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small model in the place of SmolLM2."""
    folder = tmp_path_factory.mktemp("model") / "stand-in"
    common.stand_in(folder)
    return folder


@pytest.mark.slow
def test_a_stopped_run_continues_at_its_checkpoint(stand_in: Path, tmp_path: Path) -> None:
    from experiments.gpu.stages import Settings, Stage, run_config

    settings = Settings(tmp_path, stand_in, time.time() + 600, tiny=True)
    stage = Stage("grpo", settings)
    stage.policy()
    table = run_config(settings, "grpo", 1e-4)
    table["optim"]["steps"] = 3
    table["data"]["validation"] = {}
    checkpoint = stage.train("grpo-0.0001", table, limit=0.0)  # asked to stop after step 1, which step 2 sees
    assert checkpoint and checkpoint.name == "checkpoint-2"
    assert stage.train("grpo-0.0001", table, limit=600.0) == tmp_path / "runs/grpo-0.0001/model"
    rows = list(read_jsonl(tmp_path / "runs/grpo-0.0001/metrics.jsonl"))
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3]


@pytest.mark.slow
def test_stages_without_time_end(stand_in: Path, tmp_path: Path) -> None:
    options = ["--work", str(tmp_path / "work"), "--base", str(stand_in), "--tiny", "--seconds", "12"]
    text = run(["python", "-m", "experiments.gpu.sentences", "all", "--out", str(tmp_path / "out"), *options])
    assert "ended for lack of time" in text or "exit code" in text
    assert json.loads((tmp_path / "out/sentences.json").read_text(encoding="utf-8"))["runs"] == {}


def run(command: list[str], **environment: str) -> str:
    """Run a command in the repository and return its output."""
    variables = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **environment}
    done = subprocess.run(
        [sys.executable if word == "python" else word for word in command],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of `run.sh smoke` with a kit that `kit.sh` has built; packages are those of this environment."""
    folder = tmp_path_factory.mktemp("kit")
    (folder / "weights.xz").write_bytes(b"no weights: the smoke test has a stand-in")
    (folder / "kit/first/wheels").mkdir(parents=True)
    (folder / "kit/first/wheels/none.whl").touch()  # nothing is downloaded
    (folder / "work/site/trl").mkdir(parents=True)  # nothing is installed
    run(["bash", str(KIT / "kit.sh"), str(folder / "kit"), str(folder / "weights.xz")])
    places = {"KIT": str(folder / "kit"), "OUT": str(folder / "out"), "TMP_DIR": str(folder / "work")}
    run(["bash", str(folder / "kit/code/experiments/gpu/run.sh"), "smoke", "900"], PY=sys.executable, **places)
    return folder / "out/smoke"


@pytest.mark.slow
def test_dry_run_of_the_check(smoke: Path) -> None:
    found = json.loads((smoke / "check.json").read_text(encoding="utf-8"))
    parts = {name: part for name, part in found.items() if isinstance(part, dict)}
    assert not {name: part for name, part in parts.items() if "error" in part or "left_out" in part}
    assert found["parity"]["ok"]
    assert found["steps"]["judged_ahead"]["asked"] == found["steps"]["judged_after"]["asked"]
    assert found["lora"]["trained"]
    assert found["lora"]["interrupted_and_whole"] == {"weights": 0.0, "same_rollouts": 1.0}
    assert found["adapter"]["adapter"]["judged"] == found["adapter"]["separate"]["judged"] > 0
    assert found["adapter"]["same_critiques"] == 1.0
    assert {"engine_started", "engine_running", "engine_for_each_call"} <= set(found["continuous"])


@pytest.mark.slow
def test_dry_run_of_the_miniature(smoke: Path) -> None:
    found = json.loads((smoke / "miniature.json").read_text(encoding="utf-8"))
    assert [(found[name]["exit_code"], found[name]["steps"]) for name in ("fapo", "grpo")] == [(0, 1), (0, 1)]


@pytest.mark.slow
def test_dry_run_of_the_sentences(smoke: Path) -> None:
    found = json.loads((smoke / "sentences.json").read_text(encoding="utf-8"))
    assert set(found["runs"]) == {"judge", "grpo-0.00012", "fapo-0.00012"}
    assert {len(parts["validation"]) for name, parts in found["runs"].items() if name != "judge"} == {3}
    files = {file.name for file in smoke.iterdir()}
    assert {"sentences.txt", "sentences-rollouts.jsonl.gz", "sentences-logs.txt.gz"} <= files


@pytest.mark.slow
def test_dry_run_of_the_genrms_and_of_policies_judged_by_one(stand_in: Path, tmp_path: Path) -> None:
    known = [row for row, _ in zip(read_jsonl(BASE_FOLDER / "critic-test.jsonl"), range(40), strict=False)]
    rows = [row | {"final_answer_correct": i % 4 > 0} for i, row in enumerate(known)]
    write_jsonl(tmp_path / "gsm8k.jsonl", rows)
    options = ["--out", tmp_path / "out", "--base", stand_in, "--tiny", "--seconds", "1000"]

    def dry_run(name: str, *more: str | Path) -> None:
        run([str(word) for word in ("python", "-m", f"experiments.gpu.{name}", *options, *more)])

    dry_run("genrm", "--work", tmp_path / "work", "--data", tmp_path / "gsm8k.jsonl")
    found = json.loads((tmp_path / "out/genrm.json").read_text(encoding="utf-8"))
    assert sum(found["rows"].values()) == len(rows)
    train, test = (list(read_jsonl(tmp_path / f"work/data/{name}.jsonl")) for name in ("train", "test"))
    assert not {row["problem"] for row in train} & {row["problem"] for row in test}
    for kind in genrm.KINDS:
        assert found[kind]["exit_code"] == 0, found[kind]
        assert set(found[kind]["validation"]) == {"0", "2"}
        assert found[kind]["validation"]["0"]["all"]["n"] == 4
    assert len(found["comparisons"]) == 6
    assert (tmp_path / "work/judge/adapter_config.json").exists()

    questions = [{"id": str(i), "problem": row["problem"], "answer": row["reference"]} for i, row in enumerate(known)]
    write_jsonl(tmp_path / "questions.jsonl", questions)
    judge, data = ("--judge", tmp_path / "work/judge"), ("--data", tmp_path / "questions.jsonl")
    dry_run("policy", "--work", tmp_path / "policies", *judge, *data)
    found = json.loads((tmp_path / "out/policy.json").read_text(encoding="utf-8"))
    for kind in policy.ARMS:
        assert found[kind]["exit_code"] == 0, found[kind]
        assert set(found[kind]["validation"]["questions"]) == {"0", "1", "2"}
        assert found[kind]["validation"]["questions"]["0"]["accuracy"]["n"] == 4
    assert {tuple(c["runs"]) for c in found["comparisons"]} == {("grpo", "fapo"), ("grpo", "fapo2"), ("fapo", "fapo2")}


@pytest.mark.slow
def test_a_run_ends_before_a_validation_that_would_be_too_late(stand_in: Path, tmp_path: Path) -> None:
    known = [row | {"final_answer_correct": True} for row in read_jsonl(BASE_FOLDER / "critic-test.jsonl")][:40]
    write_jsonl(tmp_path / "rows.jsonl", known)
    sets = common.halves([tmp_path / "rows.jsonl"], tmp_path / "data", genrm.TEST, genrm.MAX_CHARACTERS)
    given = argparse.Namespace(tiny=True, base=stand_in, work=str(tmp_path), prompts=2, rate=1e-3, steps=2, limit=4)
    table = genrm.settings("genrm_step", sets, given)
    table["optim"]["steps"] = 40
    turns.train_in_time(from_dict(table), end=time.time() + turns.GRACE)
    steps = [row["step"] for row in read_jsonl(tmp_path / "genrm_step/metrics.jsonl")]
    assert steps == [0, 1, 2, 3, 4, 5, 5, 6, 7]  # asked to stop after step 6, which step 7 sees
    found = turns.newest(tmp_path / "genrm_step")
    assert found and found.name == "checkpoint-7"


def test_a_gguf_file_without_its_second_embedding(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "all.gguf", "qwen2")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b"])
    for name in ("token_embd.weight", "output_norm.weight", "output.weight"):
        writer.add_tensor(name, values)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    tied.without_output(tmp_path / "all.gguf", tmp_path / "tied.gguf")
    found = gguf.GGUFReader(tmp_path / "tied.gguf")
    assert [tensor.name for tensor in found.tensors] == ["token_embd.weight", "output_norm.weight"]
    assert np.array_equal(found.tensors[0].data, values)
    assert found.fields["qwen2.block_count"].contents() == 1
    assert found.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    with pytest.raises(DataError, match="nothing to leave out"):
        tied.without_output(tmp_path / "tied.gguf", tmp_path / "again.gguf")


def test_models_travel_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "weights.xz").write_bytes(b"none")
    (tmp_path / "model.gguf").write_bytes(bytes(range(250)))
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "kit/first/wheels").mkdir(parents=True)
    (tmp_path / "kit/first/wheels/none.whl").touch()  # nothing is downloaded
    kit = [str(tmp_path / "kit"), str(tmp_path / "weights.xz"), str(tmp_path / "model.gguf")]
    run(["bash", str(KIT / "kit.sh"), *kit], PIECE_BYTES="100", DATA=str(tmp_path / "rows.jsonl"))
    pieces = sorted((tmp_path / "kit/pieces").glob("*/part.*"))
    assert [piece.parent.name for piece in pieces] == ["00", "01", "02"]
    assert b"".join(piece.read_bytes() for piece in pieces) == bytes(range(250))
    assert (tmp_path / "kit/first/pieces.expected").read_text(encoding="utf-8").strip() == "3"
    assert (tmp_path / "kit/first/data/rows.jsonl").exists()
    # a call brings one piece; the machine knows when all have come
    for piece, come in (("00", False), ("02", False), ("01", True)):
        call = tmp_path / f"call-{piece}"
        (call / "pieces").mkdir(parents=True)
        (tmp_path / "kit/pieces" / piece).rename(call / "pieces" / piece)
        if piece == "00":
            (tmp_path / "kit/first").rename(call / "first")
        script = f"{KIT}/setup.sh; take; come pieces && cat $TMP/pieces/part.* > $TMP/joined"
        places = {"KIT": str(call), "OUT": str(tmp_path / "out"), "TMP_DIR": str(tmp_path / "work")}
        run(["bash", "-c", f". {script}; true"], **places)
        assert (tmp_path / "work/joined").exists() is come
    assert (tmp_path / "work/joined").read_bytes() == bytes(range(250))


@pytest.mark.slow
def test_dry_run_of_a_session(stand_in: Path, tmp_path: Path) -> None:
    known = [row | {"final_answer_correct": True} for row in read_jsonl(BASE_FOLDER / "critic-test.jsonl")][:40]
    write_jsonl(tmp_path / "processbench_tiny.jsonl", known)
    questions = [{"id": str(i), "problem": row["problem"], "answer": row["reference"]} for i, row in enumerate(known)]
    write_jsonl(tmp_path / "questions.jsonl", questions)
    (tmp_path / "weights.xz").write_bytes(b"no weights: the stand-in is there already")
    (tmp_path / "kit/first/wheels").mkdir(parents=True)
    (tmp_path / "kit/first/wheels/none.whl").touch()  # nothing is downloaded
    kit = [
        "bash",
        str(KIT / "kit.sh"),
        str(tmp_path / "kit"),
        str(tmp_path / "weights.xz"),
        str(tmp_path / "weights.xz"),
    ]
    run(kit, DATA=f"{tmp_path}/processbench_tiny.jsonl {tmp_path}/questions.jsonl")
    work = tmp_path / "work"
    (work / "site/trl").mkdir(parents=True)  # nothing is installed
    for name in ("smollm2", "large"):
        shutil.copytree(stand_in, work / name)
    places = {"KIT": str(tmp_path / "kit"), "OUT": str(tmp_path / "out"), "TMP_DIR": str(work)}
    seconds = {"SESSION": "900", "IMITATION": "5", "GENRM": "300", "POLICY": "300", "PROBE": "200", "THREADS": "1"}
    script = tmp_path / "kit/code/experiments/gpu/session.sh"
    run(["bash", str(script), "all"], PY=sys.executable, TINY="1", **places, **seconds)
    log = (work / "logs/session.log").read_text(encoding="utf-8")
    for part in ("judge", "imitation", "genrm", "policy", "sentences"):
        assert f"{part} has ended: 0" in log, log
    assert "does not work here" not in log
    results = {
        name: json.loads((work / f"out/{name}.json").read_text("utf-8")) for name in ("genrm", "policy", "sentences")
    }
    assert {results["genrm"][kind]["exit_code"] for kind in genrm.KINDS} == {0}
    assert {results["policy"][kind]["exit_code"] for kind in policy.ARMS} == {0}
    assert set(results["sentences"]["runs"]) == {f"{kind}-0.00012" for kind in measured.JUDGED}
    assert set(results["sentences"]["runs"]["first_error-0.00012"]) == {"validation"}
    with tarfile.open(tmp_path / "out/session.tar.gz") as archive:
        names = archive.getnames()
    assert {"out/genrm.txt", "out/policy.txt", "out/sentences.txt", "back/policy/fapo2/validations.jsonl"} <= set(names)
    with tarfile.open(tmp_path / "out/judge.tar.gz.00") as archive:
        assert "judge/adapter_model.safetensors" in archive.getnames()


@pytest.mark.gpu
@pytest.mark.slow
def test_parity_on_the_card() -> None:
    import torch

    from experiments.gpu.parity import parity

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = parity(tiny=False)
    assert found["device"].startswith("cuda")
    assert found["ok"], found
