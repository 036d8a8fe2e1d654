"""verl's reward function: one rollout -> its score, and all else that was found out about it as text.

reward.custom_reward_function.path=pkg://fapo.verl.reward
reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.config=/path/of/config.toml
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from fapo.config.reader import read_config
from fapo.config.schema import Config, JudgeConfig, JudgedReward, LocalJudge, ModelJudge, ServedJudge
from fapo.inference.models import model_folder
from fapo.judge.canaries import find_canaries
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.from_config import make_scorer, wrap_judge
from fapo.rewards.scorer import PolicyScorer
from fapo.training.datasets import TRAIN
from fapo.types import LabelledSolution, Problem, Rollout
from fapo.verl.payload import Parcel, wrap

CONCURRENCY = 512
"""Number of requests under way at once to a judge that verl serves, over all reward workers."""
TIMEOUT = 600.0
"""Seconds a request to such a judge may take."""
UNSCORED = math.nan
"""verl knows numbers only: NaN is "no reward", and the advantages of `fapo.verl.advantages` leave it out."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    *,
    config: str,
    num_workers: int = 1,
    reward_router_address: str | None = None,
    **_: Any,
) -> dict[str, Any]:
    """What verl's reward manager asks for each rollout; `extra_info` as `fapo data` writes it.

    `config` is a TOML file or the config.json of a run folder. Of the judge's `concurrency` each of `num_workers`
    reward workers has its share. Where verl serves a reward model, `reward_router_address` is asked instead of the
    config's own servers. The reward is without overlong shaping, which is the reward manager's.

    Never raises for a judgement that fails: verl would quietly drop the whole group. `on_unscored = "raise"`,
    `max_failure_rate` and `canary_min_f1` are held by `fapo.verl.recorder`.
    """
    place = (config, num_workers, reward_router_address or "")
    settings = _settings(*place)
    problem = Problem(
        id=str(extra_info.get("id", extra_info.get("index", ""))),
        text=str(extra_info.get("problem", "")),
        reference=ground_truth,
        source=str(extra_info.get("source", data_source)),
    )
    solution = None
    if settings.task == "genrm":
        problem = replace(problem, reference=str(extra_info.get("reference", "")))
        label = int(extra_info["label"])
        solution = LabelledSolution(problem, tuple(extra_info["steps"]), None if label < 0 else label, True)
    scorer = make_scorer(settings, [solution]) if solution else _policy_scorer(*place)
    (scored,) = await scorer([Rollout(problem, solution_str)])
    canaries = find_canaries(scorer.judge) if isinstance(scorer, PolicyScorer) else None
    canary_results = tuple(canaries.results or ()) if canaries else ()
    if canaries:
        canaries.results = []
    subset = str(extra_info.get("split", TRAIN))
    return {
        "score": UNSCORED if scored.reward.value is None else scored.reward.value,
        "acc": float(scored.correct),
        "flawed": float(bool(scored.flawed) and scored.correct),
        "unscored": float(scored.reward.value is None),
        "fapo": wrap(Parcel(subset, scored, None if solution is None else solution.error_step, canary_results)),
    }


@lru_cache
def _settings(path: str, num_workers: int, router: str) -> Config:
    """The config as this worker is to use it: its share of the judge, and no failure that stops it."""
    config = read_config(path)
    reward = replace(config.reward, overlong_buffer=0) if config.reward else None
    if isinstance(reward, JudgedReward) and reward.on_unscored == "raise":
        reward = replace(reward, on_unscored="mask")
    judge = _judge(config.judge, num_workers, router) if config.judge else None
    return replace(config, reward=reward, judge=judge)


def _judge(judge: JudgeConfig, num_workers: int, router: str) -> JudgeConfig:
    """Return the judge as one of `num_workers` asks it: by the address `router` if verl serves it."""
    judge = replace(judge, canary_min_f1=0.0)
    if isinstance(judge, ModelJudge):
        judge = replace(judge, max_failure_rate=1.0)
    if router and isinstance(judge, ServedJudge):
        judge = replace(judge, urls=(f"http://{router}/v1",))
    elif router and isinstance(judge, LocalJudge):
        same = {f.name: getattr(judge, f.name) for f in fields(ModelJudge)}
        same |= {"model": model_folder(judge.model)}  # verl serves a model by the path it was loaded from
        judge = ServedJudge(**same, urls=(f"http://{router}/v1",), concurrency=CONCURRENCY, timeout=TIMEOUT)
    if isinstance(judge, ServedJudge):
        judge = replace(judge, concurrency=max(1, judge.concurrency // num_workers))
    return judge


@lru_cache
def _policy_scorer(path: str, num_workers: int, router: str) -> Scorer:
    """One scorer, with its judge and its connections, for all rollouts of this process."""
    config = _settings(path, num_workers, router)
    scorer = make_scorer(config)
    if not isinstance(scorer, PolicyScorer) or not scorer.judge:
        return scorer
    if canaries := find_canaries(scorer.judge):
        canaries.results = []
    local = isinstance(config.judge, LocalJudge)
    return wrap_judge(scorer, deduplicate=True, batch=local)[0]
