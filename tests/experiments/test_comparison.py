"""The comparison of methods: its runs, its statistics, and its page on runs with known numbers."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.miniature import WorldName
from experiments.paper.comparison import (
    SHOWN,
    TESTED,
    by_world,
    differences,
    holm,
    read_results,
    write_comparison,
)
from experiments.paper.findings import LOOKS
from experiments.paper.runs import COMPARED, EXACT, WORLDS, comparison_jobs
from fapo.config.reader import load
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.errors import DataError

SEEDS = tuple(range(4))
NUM_ARMS = sum(len(world.arms) for world in WORLDS.values())
OLD_SETS = ("today", "weak", "cold", "known", "unfinished", "doubtful", "useless", "longer", "cascade")
"""Worlds with the training set of the miniature."""
STARTS = {
    **dict.fromkeys(("weak", "doubtful", "useless", "longer"), "weak-0"),
    **dict.fromkeys(("cold", "known"), "cold-0"),
    "unfinished": "unfinished-0",
    "leaps": "leaping-0",
    "repeats": "repeating-0",
}
"""Start of the policy by world; the shipped policy for the others."""
JUDGING = {"judge/completion_tokens": 2000, "judge/from_cache": 0}
"""What the judge writes in a step."""
GAIN = {"decoupled": 0.02, "baseline": -0.3}
"""Difference to FAPO of an arm in every metric, before noise; 0 for the others."""


def test_the_command_line_has_every_world() -> None:
    assert get_args(WorldName) == tuple(WORLDS)


def write_run(folder: Path, world: str, arm: str, seed: int) -> None:
    """Write a run; all its metrics end at .6 plus the gain of its arm plus a noise that depends on arm and seed."""
    run, rows = folder / f"{world}-{arm}-{seed}", []
    (run / "model").mkdir(parents=True)
    last = 0.6 + 0.01 * seed + GAIN.get(arm, 0.0) + 0.001 * ((seed * 7 + len(arm)) % 3)
    for step in (0, 10, 20, 30, 40, 50):
        value = 0.2 if step == 0 else last
        rows.append({"step": step, "kind": "validation", **dict.fromkeys(SHOWN.values(), value)})
        rows.append({"step": step + 1, "kind": "train", "step_time": 2.0, "judge/tokens": 28.0, **JUDGING})
    (run / "config.json").write_text(json.dumps({"name": run.name, "seed": seed, "reward": {"kind": "fapo"}}))
    write_jsonl(run / "metrics.jsonl", rows)


def with_arm(arm: str) -> int:
    """Return the number of worlds that have an arm."""
    return sum(arm in world.arms for world in WORLDS.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with four seeds of every arm in every world."""
    for world in WORLDS:
        for arm in WORLDS[world].arms:
            for seed in SEEDS:
                write_run(tmp_path, world, arm, seed)
    return tmp_path


def test_every_run_has_a_valid_config_and_waits_for_its_judge(tmp_path: Path) -> None:
    jobs = comparison_jobs(tmp_path, SEEDS[:2])
    assert len({job.name for job in jobs}) == len(jobs) == 2 * (1 + NUM_ARMS)
    assert set(COMPARED) <= set(LOOKS)
    for job in jobs:
        config = load(job.config, (f"name={job.name}", *job.overrides))
        judged = "judge.model" in " ".join(job.overrides)
        assert job.after == (f"genrm-{config.seed}" if judged else None)
        world = job.name.partition("-")[0]
        if config.task == "policy":
            assert config.model.path.rpartition("/")[2] == STARTS.get(world, "miniature:policy")
            assert config.data.train == f"miniature:{world}-train" or world in OLD_SETS
            assert (getattr(config.judge, "kind", "oracle") == "oracle") == (
                world in ("known", "doubtful", "useless", "leaps", "repeats") or config.judge is None
            )


def test_runs_belong_to_the_arm_of_their_whole_name(tmp_path: Path) -> None:
    write_run(tmp_path, "cold", "shared", 0)
    write_run(tmp_path, "cold", "shared-2", 1)
    assert {*read_results(tmp_path)} == {("cold", "shared", 0), ("cold", "shared-2", 1)}


def test_differences_are_paired_by_seed(folder: Path) -> None:
    found = {(d.world, d.arm, d.metric): d for d in differences(by_world(read_results(folder).values()))}
    assert len(found) == (NUM_ARMS - len(WORLDS)) * len(TESTED)
    better = found["today", "decoupled", "accuracy"]
    assert len(better.values) == len(SEEDS)
    assert fmean(better.values) == pytest.approx(0.02, abs=0.002)
    assert better.interval[0] > 0 < better.bootstrap[0]
    assert better.p < better.corrected < 0.05, "many comparisons make each one weaker"
    even = found["weak", "filter", "accuracy"]
    assert even.interval[0] <= 0 <= even.interval[1] or abs(fmean(even.values)) < 0.002


def test_the_page_names_what_differs(folder: Path, tmp_path: Path) -> None:
    page = write_comparison(folder, tmp_path / "docs").read_text(encoding="utf-8")
    assert page.count("| decoupled advantages | accuracy | **+0.0") == with_arm("decoupled")
    assert page.count("| GRPO baseline | 4 |") == with_arm("baseline")
    assert page.count("| 28.0 | 12 | 2.0 |") == NUM_ARMS, "6 steps with 2 000 tokens each"
    assert "| at 5 % | 2.1 |" in page, "the effect that four seeds find"
    numbers = json.loads((tmp_path / "docs/results.json").read_text(encoding="utf-8"))
    assert {run["world"] for run in numbers["runs"]} == set(WORLDS)
    assert len(numbers["runs"]) == len(SEEDS) * NUM_ARMS
    assert len(numbers["differences"]) == (NUM_ARMS - len(WORLDS)) * len(TESTED)
    assert page.count("The judge is the oracle") == sum(world.judge == EXACT for world in WORLDS.values())


def test_the_first_table_has_all_worlds_and_the_arms_of_several(folder: Path, tmp_path: Path) -> None:
    for seed in SEEDS[1:]:
        (folder / f"weak-decoupled-{seed}/model").rmdir()
    page = write_comparison(folder, tmp_path / "docs").read_text(encoding="utf-8")
    head, *rows = page.partition("## All worlds")[2].partition("\n## ")[0].strip().splitlines()[4:]
    titles = [title.strip() for title in head.split("|")[3:-1]]
    assert titles == [LOOKS[arm][0] for arm in COMPARED if with_arm(arm) > 1]
    cells = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in rows[1:]}
    assert set(cells) == {world.title for world in WORLDS.values()}
    shipped, weak = (cells[WORLDS[name].title] for name in ("today", "weak"))
    assert shipped[0] == "0.200", "the start"
    column = 1 + titles.index(LOOKS["decoupled"][0])
    assert shipped[column].startswith("**0.6") and shipped[column].endswith("** (4)"), "it differs from FAPO"
    assert weak[column] == "0.620 (1)", "one seed is not tested"
    assert cells[WORLDS["cascade"].title][column] == "", "no such arm there"
    assert shipped[1 + titles.index(LOOKS["fapo"][0])] == "0.616 ± 0.013 (4)"


def test_a_run_that_has_read_its_cache_does_not_count_for_the_tokens(folder: Path, tmp_path: Path) -> None:
    path = folder / "weak-fapo-2/metrics.jsonl"
    rows = list(read_jsonl(path))
    rows[1] |= {"judge/completion_tokens": 0, "judge/from_cache": 70}
    write_jsonl(path, rows)
    page = write_comparison(folder, tmp_path / "docs").read_text(encoding="utf-8")
    assert page.count("| 28.0 | 12 | 2.0 |") == NUM_ARMS


def test_unfinished_runs_do_not_count(folder: Path) -> None:
    (folder / "today-filter-3/model").rmdir()
    assert [seed for world, arm, seed in read_results(folder) if (world, arm) == ("today", "filter")] == [0, 1, 2]
    with pytest.raises(DataError, match="no finished runs"):
        write_comparison(folder / "elsewhere", folder / "docs")


def test_a_page_made_in_two_parts_is_the_page_made_at_once(folder: Path, tmp_path: Path) -> None:
    whole = write_comparison(folder, tmp_path / "whole").read_text(encoding="utf-8")
    later = tmp_path / "later"
    later.mkdir()
    for seed in SEEDS[2:]:
        for path in folder.glob(f"*-{seed}"):
            path.rename(later / path.name)
    assert write_comparison(folder, tmp_path / "parts").read_text(encoding="utf-8") != whole
    assert write_comparison(later, tmp_path / "parts").read_text(encoding="utf-8") == whole
    stored, at_once = ((tmp_path / name / "results.json").read_text() for name in ("parts", "whole"))
    assert stored == at_once


def test_a_run_that_was_made_again_replaces_the_stored_one(tmp_path: Path) -> None:
    write_run(tmp_path / "old", "weak", "fapo", 0)
    write_run(tmp_path / "new", "weak", "fapo", 1)
    (tmp_path / "new/weak-fapo-1").rename(tmp_path / "new/weak-fapo-0")  # it ends .011 higher
    page = write_comparison(tmp_path / "old", tmp_path / "docs").read_text(encoding="utf-8")
    assert "| FAPO | 1 | 0.601 |" in page
    page = write_comparison(tmp_path / "new", tmp_path / "docs").read_text(encoding="utf-8")
    assert "| FAPO | 1 | 0.612 |" in page


def test_holm_on_a_known_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_no_correction_and_bonferronis(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) + 1e-12
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [corrected[i] for i in order] == sorted(corrected)
