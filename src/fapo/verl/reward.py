"""verl's reward function: it scores one rollout, and returns all that was found out about it as text.

reward.custom_reward_function.path=pkg://fapo.verl.reward
reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.config=/path/of/config.toml

Without a config, the reward is +1 for a right final answer and -1 for a wrong one, and nothing is judged.
"""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from fapo.config.reader import read_config
from fapo.config.schema import (
    CascadeJudge,
    Config,
    CritiqueJudge,
    GroupReward,
    JudgeConfig,
    JudgedReward,
    LocalJudge,
    OutcomeReward,
    ServedJudge,
)
from fapo.data.columns import plain_text
from fapo.data.problems import answer_of_worked_solution
from fapo.data.trajectory import make_rollout
from fapo.errors import ConfigError, DataError, EngineError
from fapo.inference.models import model_folder
from fapo.inference.usage import Usage, find_usage
from fapo.judge.canaries import find_canaries
from fapo.judge.from_config import judge_of_process
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.from_config import make_scorer, scored_truth, wrap_judge
from fapo.rewards.scorer import PolicyScorer
from fapo.training.datasets import TRAIN
from fapo.training.run_folder import SWITCHED, with_cache
from fapo.training.stop_rules import without_stops
from fapo.types import LabelledSolution, Problem
from fapo.verl.payload import Payload, encode, encode_error

ROUTER_CONCURRENCY = 512
"""Number of requests at a time to a judge that verl serves, over all reward workers."""
ROUTER_TIMEOUT = 600.0
"""Seconds for one try of a request to such a judge."""
UNSCORED = math.nan
"""Score of a rollout without a reward. verl carries only numbers; `fapo.verl.advantages` leaves out NaN."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    *,
    config: str = "",
    num_workers: int = 1,
    recorded: bool = False,
    reward_router_address: str | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Return the score of one rollout, without overlong shaping, which verl's reward manager adds.

    A judgement that fails raises no exception, because verl would then drop the rollout and continue.
    `fapo.verl.recorder` applies `on_unscored = "raise"`, `max_failure_rate` and `canary_min_f1` in the trainer. With
    `recorded` it also raises every exception of this function there.

    Args:
        data_source: Name of the data set.
        solution_str: Response of the policy.
        ground_truth: Reference answer, or a worked solution that ends with it; for a critique the label of training,
            which differs from the label in `extra_info` under `data.label_noise`.
        extra_info: Columns of the row that `fapo data` has written, and what
            `fapo.verl.conversations.ConversationRewardManager` adds. Of other rows, `problem` or `question` is needed
            by a judge.
        config: Path of a TOML file, or of config.json in a run folder; empty: only final answers are checked.
        num_workers: Number of reward workers, among which `judge.concurrency` is divided.
        recorded: Whether `fapo.verl.recorder` reads what this function returns; `fapo train` sets this. It replaces the
            scores by the advantages of their groups, or by corrected rewards, where the config asks for it.
        reward_router_address: Address of the judge, HOST:PORT, if verl serves it; it replaces the servers of the
            config.

    Returns:
        score: Reward, NaN if the rollout is unscored. acc, flawed, unscored: 1 or 0. fapo: `Payload` as text, or with
            `recorded` an exception.

    Raises:
        ConfigError: If the config cannot be used, unless `recorded` is set.
        DataError: If a judge is to read a row without a question, or its cache cannot be used, unless `recorded` is
            set.
        EngineError: If the answer could not be checked, and there is no config.
    """
    key = (config, num_workers, reward_router_address or "")
    try:
        return await _score(data_source, solution_str, ground_truth, extra_info, key, recorded)
    except Exception as error:
        if not recorded:
            raise
        return {"score": UNSCORED, "acc": 0.0, "flawed": 0.0, "unscored": 1.0, "fapo": encode_error(error)}


async def _score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    key: tuple[str, int, str],
    recorded: bool,
) -> dict[str, Any]:
    """Return what `compute_score` returns; `key` has the config, the number of workers and the address of the judge."""
    settings = _settings(*key) if key[0] else None
    if settings and not recorded:
        _refuse_parts_of_a_whole_run(key[0])
    name = str(extra_info.get("id", extra_info.get("index", "")))
    question = extra_info.get("problem") or extra_info.get("question") or ""
    if settings and settings.judge and not question:
        raise DataError(
            f"row {name} of {data_source}: no extra_info.problem (or extra_info.question), the question that the judge "
            "reads; add it, or write the rows with `fapo data`"
        )
    problem = Problem(
        id=name,
        text=str(question),
        reference=answer_of_worked_solution(plain_text(ground_truth)),
        source=str(extra_info.get("source", data_source)),
    )
    solution = None
    if settings and settings.task == "genrm":
        problem = replace(problem, reference=str(extra_info.get("reference", "")))
        label, training_label = (None if int(n) < 0 else int(n) for n in (extra_info["label"], ground_truth))
        noise = (True, training_label) if training_label != label else (False, None)
        correct = bool(extra_info["answer_correct"])
        solution = LabelledSolution(problem, tuple(extra_info["steps"]), label, correct, "", *noise)
    scorer = make_scorer(settings, [solution]) if settings and solution else _policy_scorer(*key)
    if settings and settings.audit and settings.audit.switches and isinstance(scorer, PolicyScorer):
        is_training = str(extra_info.get("split", TRAIN)) == TRAIN
        if is_training and (Path(settings.output) / settings.name / SWITCHED).exists():
            scorer = replace(scorer, judge=None)  # the trainer asks the second judge
    truncated, thinking = (bool(extra_info.get(key)) for key in ("truncated", "thinking"))
    completion = extra_info.get("trajectory") or solution_str
    (scored,) = await scorer([make_rollout(problem, completion, truncated=truncated, thinking=thinking)])
    if not settings and scored.check_error:  # NaN is for trainers with our estimator, and verl drops what raises
        raise EngineError(f"row {name} of {data_source}: the answer could not be checked: {scored.check_error}")
    canaries = find_canaries(scorer.judge) if isinstance(scorer, PolicyScorer) else None
    canary_results = tuple(canaries.results or ()) if canaries else ()
    if canaries:
        canaries.results = []
    meter = find_usage(scorer.judge) if isinstance(scorer, PolicyScorer) else None
    usage = meter.take() if meter else Usage()
    split = str(extra_info.get("split", TRAIN))
    truth = scored_truth(scored, scorer) if solution else None
    return {
        "score": UNSCORED if scored.reward.value is None else scored.reward.value,
        "acc": float(scored.correct),
        "flawed": float(bool(scored.flawed) and scored.correct),
        "unscored": float(scored.reward.value is None),
        "fapo": encode(Payload(split, scored, truth, canary_results, usage)),
    }


@lru_cache
def _refuse_parts_of_a_whole_run(path: str) -> None:
    """Raise ConfigError if a config has a setting that other parts of `fapo train --engine verl` apply."""
    config = read_config(path)
    reason = ""
    if isinstance(config.reward, GroupReward):
        reason = (
            f'reward.kind "{config.reward.kind}" compares the rollouts of a group, which this function does not see'
        )
    elif isinstance(config.reward, JudgedReward) and config.reward.on_unscored == "raise":
        reason = 'reward.on_unscored "raise" cannot stop this run: verl drops a rollout without a reward and continues'
    elif config.audit:
        reason = "judge.audit needs the rollouts of whole steps, which this function does not see"
    elif config.judge and config.judge.canaries:
        reason = "judge.canaries have results that nothing reads here"
    elif config.reward and config.reward.overlong_buffer:
        reason = "reward.overlong_buffer is not applied here, but by a reward manager of verl (`dapo`)"
    if reason:
        raise ConfigError(f"{path}: {reason}; start verl with `fapo train --engine verl`, or remove the setting")


@lru_cache
def _settings(path: str, num_workers: int, router: str) -> Config:
    """Return the config of one reward worker: its part of `judge.concurrency`, and no failure that raises."""
    config = without_stops(read_config(path))
    if Path(config.output).is_absolute():  # as in a run folder; workers have working directories of their own
        config = with_cache(config, num_nodes=_num_nodes(), node=socket.gethostname())
    reward = replace(config.reward, overlong_buffer=0) if config.reward else None
    judge = _worker_judge(config.judge, num_workers, router) if config.judge else None
    return replace(config, reward=reward, judge=judge)


def _num_nodes() -> int:
    """Return the number of nodes of the Ray cluster, 1 outside of one; verl has reward workers on each."""
    ray = sys.modules.get("ray")
    return sum(node["Alive"] for node in ray.nodes()) if ray and ray.is_initialized() else 1


def _worker_judge(judge: JudgeConfig, num_workers: int, router: str) -> JudgeConfig:
    """Return the judge of one of `num_workers` workers; a judge that verl serves is behind the address `router`."""
    if router and isinstance(judge, CascadeJudge):
        raise ConfigError(
            "verl serves a single judge (reward.reward_model.enable), and a cascade has two; remove the setting"
        )
    if router and isinstance(judge, ServedJudge):
        judge = replace(judge, urls=(f"http://{router}/v1",))
    elif router and isinstance(judge, LocalJudge):
        same = {f.name: getattr(judge, f.name) for f in fields(CritiqueJudge)}
        same |= {"model": model_folder(judge.model)}  # verl serves a model under the path it was loaded from
        urls = (f"http://{router}/v1",)
        judge = ServedJudge(**same, urls=urls, concurrency=ROUTER_CONCURRENCY, timeout=ROUTER_TIMEOUT)
    return judge_of_process(judge, num_workers)


@lru_cache
def _policy_scorer(path: str, num_workers: int, router: str) -> Scorer:
    """Return the scorer of this process, which all of its rollouts share, with one judge and its connections."""
    if not path:
        return PolicyScorer(OutcomeReward(), None)
    config = _settings(path, num_workers, router)
    scorer = make_scorer(config)
    if not isinstance(scorer, PolicyScorer) or not scorer.judge:
        return scorer
    if canaries := find_canaries(scorer.judge):
        canaries.results = []
    assert config.judge
    return wrap_judge(scorer, batch=config.judge.loads_model)
