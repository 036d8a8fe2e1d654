"""Rewards corrected for the rates of an audit: TRL trains on them, also in a resumed run and with several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fapo.config.reader import from_dict
from fapo.config.schema import Config
from fapo.errors import ConfigError
from fapo.rewards.advantages import group_advantages
from fapo.rewards.policy import corrected_reward
from fapo.training.judge_audit import AuditWindow, audited_verdicts, conservative_rates
from fapo.trl.train import train
from tests.support.interrupted_run import interrupted
from tests.support.trl_runs import (
    all_rollouts,
    assert_four_train_as_one,
    assert_same_curve,
    assert_same_weights,
    rows,
    settings,
    watch_advantages,
)

pytestmark = pytest.mark.slow
GROUP, STEPS = 8, 5
RECALL, FALSE_POSITIVE_RATE = 0.4, 0.3
AUDIT = {"judge": {"kind": "oracle"}, "rate": 1.0, "correct": True}


def config(output: Path, **audit: Any) -> Config:
    """Return the config of a run with the miniature's policy and a judge that errs."""
    judge = {"kind": "oracle", "false_negative_rate": 1 - RECALL, "false_positive_rate": FALSE_POSITIVE_RATE}
    changed = {
        "rollout": {"max_tokens": 64, "num_prompts": 12, "group_size": GROUP},
        "optim": {"steps": STEPS, "learning_rate": 2e-4},
        "judge": judge | {"audit": AUDIT | audit},
        "data.limit": None,
        "data.validation": None,
    }
    return from_dict(settings(output, Path("miniature:policy"), **changed))


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """Train, and return the run folder and the advantages on which TRL has trained."""
    with pytest.MonkeyPatch.context() as patch:
        trained = watch_advantages(patch)
        return train(config(tmp_path_factory.mktemp("corrected"))), trained


def rates(folder: Path) -> list[tuple[float, float]]:
    """Return the recall and false positive rate for which the rewards of each step were corrected."""
    found = [row for row in rows(folder, "metrics") if row["kind"] == "train"]
    return [(row["reward/judge_recall"], row["reward/judge_false_positive_rate"]) for row in found]


def test_each_step_is_corrected_for_the_audits_of_the_steps_before(corrected: tuple[Path, list[float]]) -> None:
    folder, _ = corrected
    window, audits = AuditWindow(), rows(folder, "audit")
    for step, used in enumerate(rates(folder), 1):
        assert used == pytest.approx(conservative_rates(window.counts()) if step > 1 else (1.0, 0.0))
        for row in (row for row in rows(folder, "rollouts") if row["step"] == step):
            assert row["reward"] == pytest.approx(corrected_reward(row["correct"], row["flawed"], 1.0, *used))
        window.add(audited_verdicts([row for row in audits if row["step"] == step]))


def test_the_rates_of_the_reward_approach_those_of_the_judge(corrected: tuple[Path, list[float]]) -> None:
    recall, false_positive_rate = zip(*rates(corrected[0]), strict=True)
    assert recall[0] > recall[1] > recall[-1] > RECALL
    assert false_positive_rate[0] < false_positive_rate[-1] < FALSE_POSITIVE_RATE
    assert recall[-1] == pytest.approx(RECALL, abs=0.15)
    assert false_positive_rate[-1] == pytest.approx(FALSE_POSITIVE_RATE, abs=0.15)


def test_trl_trains_on_the_corrected_rewards(corrected: tuple[Path, list[float]]) -> None:
    folder, trained = corrected
    found, metrics = rows(folder, "rollouts"), rows(folder, "metrics")
    groups = [found[i : i + GROUP] for i in range(0, len(found), GROUP)]
    expected = [a for group in groups for a in group_advantages([[row["reward"] for row in group]])[0]]
    assert [row["advantage"] for row in found] == pytest.approx(expected, abs=1e-5)
    assert sorted(trained) == pytest.approx(sorted(expected), abs=1e-3)
    for row in metrics:
        own = [r["reward"] for r in found if r["step"] == row["step"]]
        assert row["reward"] == pytest.approx(sum(own) / len(own), abs=1e-5)


def test_an_interrupted_run_has_the_result_of_an_uninterrupted_one(
    corrected: tuple[Path, list[float]], tmp_path: Path
) -> None:
    folder, _ = corrected
    interrupted(train, config(tmp_path), STEPS - 1)
    with pytest.raises(ConfigError, match="cannot resume, the config differs in judge"):
        train(config(tmp_path, rate=0.5), resume=True)
    resumed = train(config(tmp_path, min_j=1e-9), resume=True)
    assert_same_curve(resumed, folder)
    assert rows(resumed, "audit") == rows(folder, "audit")
    assert rows(resumed, "rollouts") == rows(folder, "rollouts")
    assert_same_weights(resumed, folder)


def test_four_processes_train_as_one(tiny_policy: Path, tmp_path: Path) -> None:
    changed = {"optim.steps": 4, "judge.audit": AUDIT | {"judge": {"kind": "oracle", "false_negative_rate": 0.5}}}
    one = assert_four_train_as_one(tmp_path, tiny_policy, 12, **changed)
    assert rates(one)[-1][1] > 0, "the second judge misses flaws, and so seems to refute the first one"
    assert any(row["reward"] not in (1, 0, -1, None) for row in all_rollouts(one))
