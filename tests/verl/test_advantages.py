"""Equal rewards make equal advantages in `group_advantages`, in verl and in TRL (tests/rewards/test_advantages.py)."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from fapo.config.reader import from_dict, to_dict
from fapo.rewards.advantages import group_advantages
from fapo.rewards.decoupled import decoupled_advantages
from fapo.verl.advantages import advantages_by_group
from fapo.verl.reward import compute_score
from tests.rewards.test_advantages import TRL_REWARDS
from tests.support import parity
from tests.support.chat_server import chat_server

NUM_TOKENS = 5


def of_verl(rewards: list[float], groups: list[str], *, scale: bool = True, estimator: str = "fapo") -> np.ndarray:
    """Return the advantages [num_rollouts] that verl's trainer computes from rewards."""
    lengths = torch.tensor([1 + i % NUM_TOKENS for i in range(len(rewards))])
    mask = (torch.arange(NUM_TOKENS) < lengths[:, None]).long()
    scores = torch.zeros(len(rewards), NUM_TOKENS)
    scores[torch.arange(len(rewards)), lengths - 1] = torch.tensor(rewards)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": scores, "response_mask": mask},
        non_tensors={"uid": np.array(groups, dtype=object)},
    )
    algorithm = OmegaConf.create({"norm_adv_by_std_in_grpo": scale, "use_pf_ppo": False})
    keys = [f"{group}_{i}_0" for i, group in enumerate(groups)]
    out = compute_advantage_for_multi_trajectories(
        data, keys, estimator, norm_adv_by_std_in_grpo=scale, config=algorithm
    ).batch["advantages"]
    if estimator == "fapo":
        assert torch.equal(out, out[:, :1] * mask), "equal for all tokens of a rollout, 0 on padding"
    return out[:, 0].double().numpy()


def shuffled(table: list[list[float | None]], seed: int = 0) -> tuple[list[float], list[str], list[int]]:
    """Return rewards of a table in another order, the names of their groups, and their indices in the table."""
    flat = [(np.nan if v is None else v, f"uid{i}") for i, row in enumerate(table) for v in row]
    order = random.Random(seed).sample(range(len(flat)), len(flat))
    return [flat[i][0] for i in order], [flat[i][1] for i in order], order


@pytest.mark.parametrize("scale", [True, False])
def test_verl_gives_the_advantages_that_trl_gives(scale: bool) -> None:
    rewards, groups, order = shuffled(TRL_REWARDS)
    expected = group_advantages(np.array(TRL_REWARDS, dtype=float), scale=scale).reshape(-1)[order]
    found = of_verl(rewards, groups, scale=scale)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found).max() > 0.5


def test_the_same_verdicts_make_the_same_advantages_as_under_trl(tmp_path: Path) -> None:
    """Score the table of tests/support/parity.py with verl; tests/trl/test_reward.py sends it through TRL."""
    with chat_server(parity.judge) as server:
        table = {
            "name": "run",
            "task": "policy",
            "model": {"path": "miniature:policy"},
            "data": {"train": "miniature:train"},
            "rollout": {"max_tokens": 64},
            "reward": {"kind": "fapo", "penalty": parity.PENALTY},
            "judge": {"kind": "served", "model": "judge", "urls": [server.url]},
            "optim": {"steps": 1, "learning_rate": 1e-3},
        }
        file = tmp_path / "config.json"
        file.write_text(json.dumps(to_dict(from_dict(table))), encoding="utf-8")

        def extra(i: int) -> dict[str, str]:
            return {"id": str(i), "problem": "1+1?"}

        async def score() -> list[float]:
            asked = (
                compute_score("train", parity.solution(kind), parity.REFERENCE, extra(i), config=str(file))
                for i, group in enumerate(parity.GROUPS)
                for kind in group
            )
            return [row["score"] for row in await asyncio.gather(*asked)]

        scores = asyncio.run(score())
    np.testing.assert_array_equal(scores, np.array(parity.REWARDS, dtype=float).reshape(-1))
    rewards, groups, order = shuffled(np.array(scores).reshape(-1, 4).tolist())
    expected = group_advantages(np.array(parity.REWARDS, dtype=float)).reshape(-1)[order]
    np.testing.assert_allclose(of_verl(rewards, groups), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.5


@given(st.lists(st.lists(st.sampled_from("afwu"), min_size=4, max_size=4), min_size=1, max_size=4))
def test_verl_passes_decoupled_advantages_on(kinds: list[list[str]]) -> None:
    """The recorder puts them in the place of the rewards, and the estimator does not scale."""
    outcome, process = {"a": 1.0, "f": 1.0, "w": -1.0}, {"a": 0.0, "f": -1.0}
    table = [[list(map(part.get, group)) for group in kinds] for part in (outcome, process)]
    advantages, groups, _ = shuffled(decoupled_advantages(*table, 1.5).tolist())
    np.testing.assert_allclose(of_verl(advantages, groups, scale=False), advantages, atol=1e-6)


def test_the_estimator_of_verl_would_lose_the_whole_group() -> None:
    rewards, groups, _ = shuffled([[1.0, None, -1.0, 0.0]])
    assert np.isnan(of_verl(rewards, groups, estimator="grpo")).all()
    assert np.isfinite(of_verl(rewards, groups)).all()


def test_without_unscored_rollouts_the_advantages_are_those_of_grpo() -> None:
    rewards, groups, _ = shuffled([[1.0, 0.0, -1.0, -1.0], [0.0, 0.0, -1.0, 1.0]])
    np.testing.assert_allclose(of_verl(rewards, groups), of_verl(rewards, groups, estimator="grpo"), atol=2e-4)


REWARD = st.sampled_from([1.0, 0.0, -1.0, -0.5, np.nan])


@given(st.lists(st.tuples(st.integers(0, 4), REWARD), max_size=24))
def test_groups_of_any_size_in_any_order(rows: list[tuple[int, float]]) -> None:
    rewards, groups = np.array([reward for _, reward in rows]), [group for group, _ in rows]
    found = advantages_by_group(rewards, groups)
    for group in set(groups):
        own = [i for i, other in enumerate(groups) if other == group]
        np.testing.assert_allclose(found[own], group_advantages([rewards[own]])[0], rtol=1e-12, atol=1e-12)
    assert np.isfinite(found).all()
    assert (found[np.isnan(rewards)] == 0).all()
