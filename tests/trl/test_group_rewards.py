"""Rewards that compare a group in another way: TRL trains on the advantages on record, also with several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fapo.config.reader import from_dict
from fapo.rewards.consistency_filter import filtered_advantages
from fapo.rewards.decoupled import decoupled_advantages
from fapo.trl.train import train
from tests.support.trl_runs import GROUP, all_rollouts, assert_four_train_as_one, rows, settings, watch_advantages

pytestmark = pytest.mark.slow


def decoupled(group: list[dict[str, Any]]) -> list[float]:
    """Return the decoupled advantages of the rows of a group."""
    outcome = [None if row["reward"] is None else 1.0 if row["correct"] else -1.0 for row in group]
    process = [-float(row["flawed"]) if row["correct"] and row["flawed"] is not None else None for row in group]
    return decoupled_advantages([outcome], [process], 0.5)[0].tolist()


def filtered(group: list[dict[str, Any]]) -> list[float]:
    """Return the advantages of the rows of a group under the consistency filter."""
    sound = [row["reward"] is not None and row["correct"] and not row["flawed"] for row in group]
    wrong = [not row["correct"] for row in group]
    outcome = [1.0 if row["correct"] else -1.0 for row in group]
    return filtered_advantages([outcome], [sound], [wrong], 2)[0].tolist()


KINDS = {
    "decoupled": ({"kind": "decoupled", "weight": 0.5}, decoupled),
    "filter": ({"kind": "filter", "keep": 2}, filtered),
}
"""Kind -> [reward] table, and the advantages of the rows of a group."""


@pytest.mark.parametrize("kind", KINDS)
def test_trl_trains_on_the_advantages_on_record(
    kind: str, tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward, expected = KINDS[kind]
    trained = watch_advantages(monkeypatch)
    judge = {"kind": "oracle", "false_negative_rate": 0.5}  # this policy has no other fully correct rollouts
    changed = {"reward": reward, "judge": judge, "optim.steps": 2, "rollout.num_prompts": 24}
    folder = train(from_dict(settings(tmp_path, tiny_policy, **changed)))
    found = [row for row in rows(folder, "rollouts") if row["split"] == "train"]
    groups = [found[i : i + GROUP] for i in range(0, len(found), GROUP)]
    assert [row["advantage"] for row in found] == pytest.approx(
        [a for group in groups for a in expected(group)], abs=1e-5
    )
    assert sorted(trained) == pytest.approx(sorted(row["advantage"] for row in found), abs=1e-5)
    assert {row["flawed"] for row in found if row["correct"]} == {True, False}
    assert any(len({row["correct"] for row in group}) == 2 for group in groups)


@pytest.mark.parametrize("kind", KINDS)
def test_four_processes_train_as_one(kind: str, tiny_policy: Path, tmp_path: Path) -> None:
    """A process has 6 rollouts of a batch, so that groups of 4 are split."""
    one = assert_four_train_as_one(tmp_path, tiny_policy, 6, **{"reward": KINDS[kind][0], "optim.steps": 2})
    assert {row["flawed"] for row in all_rollouts(one) if row["status"] == "ok"} == {True, False}
    assert {row["status"] for row in all_rollouts(one)} == {"ok", "failed", "skipped"}
