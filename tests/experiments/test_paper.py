"""Figures of the paper in the miniature: the runs they need, and their claims on runs with known numbers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from experiments.base_models.build import WRITERS, Schedule, imitate
from experiments.paper.findings import LOOKS, all_findings
from experiments.paper.page import read_runs, write_findings
from experiments.paper.runs import BEYOND, COMPARED, JUDGES, VARIANTS, paper_jobs
from fapo.config.reader import load
from fapo.data.jsonl import write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.errors import DataError

SEEDS = (0, 1, 2)
ENDS = {"baseline": (0.90, 0.20, 0.40), "fapo": (0.92, 0.40, 0.02)}
"""Accuracy, accuracy on harder problems and FP ratio of two variants at the end; the others are in between."""


def rollout(step: int, problem: int, correct: bool, flaw: str | None, split: str = "train") -> dict:
    truth = {"error_step": None if flaw is None else 0, "flaw": flaw}
    return {"step": step, "split": split, "problem_id": str(problem), "correct": correct, "truth": truth}


def rollouts(variant: str) -> list[dict]:
    """Return rollouts: problem 1 has 2 of 8 right, both flawed; problem 2 has 7 of 8 right, one of them flawed."""
    rows = [rollout(1, 1, i < 2, "slip") for i in range(8)] + [rollout(1, 2, i < 7, None) for i in range(8)]
    rows[8]["truth"] = {"error_step": 0, "flaw": "slip"}
    flaws = ["skip", "guess", None, None] if variant == "step-ratio" else [None] * 4
    return rows + [rollout(50, i, True, flaw, "validation") for i, flaw in enumerate(flaws)]


def write_variant(folder: Path, variant: str, seed: int) -> None:
    """Write a run with metrics that move in a straight line to the end of its variant, a bit higher for each seed."""
    start, last = (0.4, 0.2, 0.3 if variant == "policy-careful" else 0.35), ENDS.get(variant, (0.91, 0.3, 0.2))
    rows = []
    for step in range(0, 51, 10):
        now = [a + (b - a) * step / 50 + 0.001 * seed for a, b in zip(start, last, strict=True)]
        row = dict(zip(("validation/accuracy", "harder/accuracy", "validation/true_fp_ratio"), now, strict=True))
        judge = {f"test/{name}": now[0] for name in ("precision", "recall", "f1", "location", "tokens")}
        row |= judge | {"validation/fp_ratio": now[2] + 0.01, "validation/length": 20.0}
        rows.append({"step": step, "kind": "validation", **row})
        rates = {"rollout/accuracy": now[0], "rollout/reliable_accuracy": now[0] * (1 - now[2])}
        rows.append({"step": step + 1, "kind": "train", **rates})
    (folder / "model").mkdir(parents=True)
    kind = {"genrm": "genrm_step", "genrm-outcome": "genrm_outcome", "baseline": "outcome"}.get(variant, "fapo")
    (folder / "config.json").write_text(json.dumps({"name": folder.name, "seed": seed, "reward": {"kind": kind}}))
    write_jsonl(folder / "metrics.jsonl", rows)
    write_jsonl(folder / "rollouts.jsonl", rollouts(variant))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three seeds of every run."""
    folder = tmp_path_factory.mktemp("paper")
    for variant in LOOKS:
        for seed in SEEDS:
            write_variant(folder / f"{variant}-{seed}", variant, seed)
    return folder


def test_every_run_has_a_valid_config_and_a_look(tmp_path: Path) -> None:
    jobs = paper_jobs(tmp_path, SEEDS)
    assert (
        len({job.name for job in jobs})
        == len(jobs)
        == len(SEEDS) * (4 + len(VARIANTS) + len(BEYOND) + len(JUDGES) + len(WRITERS))
    )
    settings = {job.name: load(job.config, (f"name={job.name}", *job.overrides)) for job in jobs}
    assert {name.rpartition("-")[0] for name in settings} | set(COMPARED) == set(LOOKS)
    assert Counter(config.seed for config in settings.values()) == dict.fromkeys(SEEDS, len(jobs) // len(SEEDS))
    for job in jobs:  # a run with a trained judge waits for the GenRM of its seed
        model = getattr(settings[job.name].judge, "model", None)
        trained = f"{tmp_path}/genrm-{settings[job.name].seed}/model"
        assert (model == trained) == (job.after == f"genrm-{settings[job.name].seed}")


@pytest.mark.slow
def test_a_base_policy_that_imitates_another_writer(tmp_path: Path) -> None:
    progress: list[tuple[str, int, float]] = []
    made = tmp_path / "policies" / "careless-3"
    imitate("careless", made, 3, lambda *row: progress.append(row), Schedule(steps=2, batch_size=4, learning_rate=1e-3))
    assert [(name, step) for name, step, _ in progress] == [("careless", 0), ("careless", 1)]
    imitate("careless", made, 3, lambda *row: progress.append(row))  # the folder exists
    assert len(progress) == 2
    (policy,) = [job for job in paper_jobs(tmp_path, (3,)) if job.name == "policy-careless-3"]
    assert load(policy.config, policy.overrides).model.path == str(made)
    weights, shipped = (load_file(folder / "model.safetensors") for folder in (made, BASE_FOLDER / "policy"))
    assert weights.keys() == shipped.keys() and any((weights[key] != shipped[key]).any() for key in weights)


def test_claims_on_runs_with_known_numbers(folder: Path) -> None:
    found = {finding.key: finding for finding in all_findings(read_runs(folder)) if finding.is_measured}
    assert list(found) == [
        *("F1", "F2a", "F2b", "F2c", "F2d", "F3/T2", "F4", "F5", "F6", "F7", "T5", "T6", "T7/T8"),
        *("beyond: judge", "beyond: labels", "beyond: correction"),
    ]
    last = 0.8  # the mean of the validations at 60, 80 and 100 % of the way
    fp, easy, hard = (claim.margins for claim in found["F1"].claims)
    assert fp == pytest.approx([last * (0.40 - 0.02)] * 3)
    assert easy == pytest.approx([last * 0.02] * 3)
    assert hard == pytest.approx([last * 0.20] * 3)
    assert [claim.status for claim in found["F1"].claims] == ["holds"] * 3
    base, later = (claim.margins for claim in found["F2a"].claims)
    assert base == pytest.approx([0.10, 0.101, 0.102])
    assert later == pytest.approx([0.15, 0.151, 0.152])
    assert found["F2b"].claims[0].margins == pytest.approx([1 - 1 / 7] * 3)
    assert found["F7"].claims[0].margins == pytest.approx([0.5] * 3)
    assert found["T6"].claims[0].margins == pytest.approx([0.04] * 3)
    assert found["T5"].claims[0].margins == pytest.approx([last * 0.1] * 3)
    assert found["T5"].claims[1].status == "does not hold"


@pytest.mark.slow
def test_a_page_with_pictures_and_the_numbers_again_as_json(folder: Path, tmp_path: Path) -> None:
    page = write_findings(folder, tmp_path / "docs")
    text, numbers = page.read_text(encoding="utf-8"), json.loads((page.parent / "results.json").read_text())
    pictures = {path.name for path in page.parent.glob("*.png")}
    assert pictures == {f"{key}.png" for key in ("F1", "F2c", "F2d", "F4", "F5", "F6", "F7", "T5")}
    assert all(f"({name})" in text for name in pictures)
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    rows = [claim for figure in numbers for claim in figure["claims"]]
    assert len(rows) == sum(line.startswith("| ") and line.count("**") == 2 for line in text.split("\n"))
    assert {tuple(figure["claims"][0]) for figure in numbers} == {("claim", "measured", "margins", "verdict")}


def test_rows_without_runs_stay_as_they_were(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for seed in SEEDS:
        for variant in ("baseline", "fapo", "oracle"):
            write_variant(first / f"{variant}-{seed}", variant, seed)
    before = write_findings(first, tmp_path / "docs").read_text(encoding="utf-8")
    write_variant(second / "baseline-3", "baseline", 3)
    write_variant(second / "oracle-3", "oracle", 3)
    after = write_findings(second, tmp_path / "docs").read_text(encoding="utf-8")
    row = "| F1 | FAPO ends with a lower true FP ratio"
    assert [line for line in before.split("\n") if line.startswith(row)] == [
        line for line in after.split("\n") if line.startswith(row)
    ]
    assert "| F2c | the baseline's accuracy rises | end - start | +0.400 | +0.400 | **one seed: met** |" in after
    assert "| FAPO | 0." in after.split("## T7/T8")[1], "a row of a table"
    assert write_findings(second, tmp_path / "docs").read_text(encoding="utf-8") == after


def test_figures_without_finished_runs_are_left_out(tmp_path: Path) -> None:
    write_variant(tmp_path / "baseline-0", "baseline", 0)
    (tmp_path / "fapo-0").mkdir()  # an unfinished run
    found = [finding for finding in all_findings(read_runs(tmp_path)) if finding.is_measured]
    assert [finding.key for finding in found] == ["F2a", "F2b", "F2c"]
    assert {claim.status for finding in found for claim in finding.claims} <= {"one seed: met", "one seed: not met"}
    with pytest.raises(DataError, match="no finished runs"):
        read_runs(tmp_path / "fapo-0")
