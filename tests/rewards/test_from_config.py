"""Scorers made from a config, and the order of the wrappers of their judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fapo.config.reader import from_dict
from fapo.config.schema import FapoReward
from fapo.errors import ConfigError
from fapo.judge.canaries import Canaries
from fapo.judge.coalesce import BatchingJudge
from fapo.judge.deduplicate import DeduplicatingJudge
from fapo.rewards.critique_scorer import CritiqueScorer
from fapo.rewards.from_config import make_scorer, wrap_judge
from fapo.rewards.scorer import PolicyScorer
from fapo.types import LabelledSolution, Problem, Rollout, Verdict

SERVED = {"kind": "served", "model": "m", "urls": ["http://127.0.0.1:1/v1"]}
TABLE = {
    "name": "x",
    "task": "policy",
    "model": {"path": "m"},
    "data": {"train": "x.jsonl"},
    "rollout": {"max_tokens": 96},
    "optim": {"steps": 20, "learning_rate": 1e-4},
    "reward": {"kind": "step_ratio"},
}


def test_the_step_ratio_needs_a_judge_that_names_the_step() -> None:
    with pytest.raises(ConfigError, match=r"judge\.template: 'yes_no' asks yes or no, .* step_ratio"):
        make_scorer(from_dict(TABLE | {"judge": SERVED | {"template": "yes_no"}}))


@pytest.mark.parametrize(
    ("judge", "steps"),
    [
        (SERVED, "paragraphs"),
        (SERVED | {"template": "compact"}, "lines"),
        (SERVED | {"steps": "lines"}, "lines"),
        (SERVED | {"template": "compact", "steps": "paragraphs"}, "paragraphs"),
        ({"kind": "oracle"}, "lines"),
    ],
)
def test_the_step_ratio_counts_the_steps_of_the_judge(judge: dict[str, object], steps: str) -> None:
    scorer = make_scorer(from_dict(TABLE | {"judge": judge}))
    assert isinstance(scorer, PolicyScorer)
    assert scorer.steps == steps


def test_the_wrappers_of_a_judge_have_one_order() -> None:
    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        return [Verdict.from_step(None)] * len(rollouts)

    problem = Problem("p", "What is 1+1?", "2")
    known = [LabelledSolution(problem, ("a", "b"), label, True) for label in (None, 1)]
    scorer = PolicyScorer(FapoReward(), Canaries(judge, known, 1.0))
    found, outer = [], wrap_judge(scorer, batch=True).judge
    while outer is not judge:
        found.append(type(outer))
        outer = outer.judge
    assert found == [DeduplicatingJudge, BatchingJudge, Canaries]


def test_solutions_with_one_id_must_be_equal() -> None:
    table = {
        "name": "x",
        "task": "genrm",
        "model": {"path": "m"},
        "data": {"train": "x.jsonl"},
        "rollout": {"max_tokens": 96},
        "optim": {"steps": 20, "learning_rate": 1e-4},
        "reward": {"kind": "genrm_step"},
    }
    first = LabelledSolution(Problem("p", "?", "4"), ("a", "b"), 1, True)
    scorer = make_scorer(from_dict(table), [first, first])
    assert isinstance(scorer, CritiqueScorer) and scorer.labelled == {"p": first}
    with pytest.raises(ConfigError, match="two sets have a row 'p'"):
        make_scorer(from_dict(table), [first, replace(first, error_step=0)])
