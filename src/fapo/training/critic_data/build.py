"""Make critic data: rollouts, votes of a teacher on the correct ones, consensus, balance, data file and card."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from fapo.config.sampling import Sampling
from fapo.data.files import check_not_overwriting
from fapo.data.load import load_problems
from fapo.data.miniature.oracle import known_ground_truth
from fapo.data.problems import load_prompt
from fapo.errors import ConfigError, DataError
from fapo.inference.models import ModelSpec
from fapo.inference.numbered_answers import SampledModel
from fapo.inference.response_cache import ResponseCache
from fapo.judge.template import Template
from fapo.judge.verdict_counts import VerdictCounts, shortened
from fapo.rewards.checkers import AnswerChecker, make_checker
from fapo.training.critic_data.card import Card, Counts, write_card
from fapo.training.critic_data.consensus import LabelPrecision, balance, consensus, label_precision, pairwise_agreement
from fapo.training.critic_data.files import write_rows
from fapo.training.critic_data.sample import SampledRollout, distinct, sample_rollouts
from fapo.training.critic_data.settings import CriticSettings
from fapo.training.critic_data.votes import collect_votes, load_position_template
from fapo.types import LabelledSolution, Problem, Progress, Verdict

Votes = Mapping[str, Sequence[Verdict]]
"""Verdicts of the teacher by the id of the solution, without failed votes."""


@dataclass(frozen=True)
class _Inputs:
    """All that a run is made of, read and checked before a model is asked."""

    problems: Sequence[Problem]
    """Problems."""
    policies: Sequence[ModelSpec]
    """Policies."""
    teacher: ModelSpec
    """Teacher."""
    prompt: str
    """Text of the policies' prompt."""
    template: Template
    """Prompt of the teacher."""
    check: AnswerChecker
    """Checker of final answers."""


def build(config: CriticSettings, progress: Progress = lambda *_: None) -> Card:
    """Make the data and its card.

    The answers of the models are kept in the response cache, so a second call after an interruption continues there.
    The function starts an event loop, so it must not be called in one.

    Args:
        config: Settings.
        progress: Callback; each policy is a task, and so is the teacher.

    Returns:
        Card of the data.

    Raises:
        ConfigError: A setting cannot be used, or the data file is that of the problems, or was not made here.
        DataError: A problem or the cache cannot be read, or no solution is left to keep.
        EngineError: A policy fails for too many requests, or the checker for too many rollouts.
        JudgeDownError: The teacher fails for too many requests.
    """
    check_not_overwriting(config.out, [config.problems])
    template = load_position_template(config.template, config.steps)
    prompt, check = load_prompt(config.prompt), make_checker(config.checker)
    problems = load_problems(config.problems, limit=config.limit)
    inputs = _Inputs(problems, config.policy_specs(), config.teacher_spec(), prompt, template, check)
    if config.out.exists() and not config.cache.exists():
        raise ConfigError(f"{config.out}: exists, but {config.cache} does not; remove it or choose another --out")
    with closing(ResponseCache(config.cache)) as cache:
        return asyncio.run(_build(config, inputs, cache, progress))


async def _build(config: CriticSettings, inputs: _Inputs, cache: ResponseCache, progress: Progress) -> Card:
    """Run all stages in an event loop."""
    template = inputs.template
    rollouts = await sample_rollouts(
        config, inputs.policies, inputs.problems, inputs.prompt, inputs.check, template.steps, cache, progress
    )
    solutions = distinct(rollouts)
    if not solutions:
        raise DataError(
            f"none of {len(rollouts)} rollouts has a correct final answer ({_listed(r.outcome for r in rollouts)}), so "
            f"there is nothing to label; does --prompt ask for \\boxed{{}}? The rollouts are in {config.folder}"
        )
    votes = await _votes(config, inputs, solutions, cache, progress)
    judged = [sample for sample in solutions if len(votes[sample.id]) == config.votes]
    agreed = [(sample, verdict) for sample in judged if (verdict := consensus(votes[sample.id]))]
    labelled = [_labelled(sample, verdict) for sample, verdict in agreed]
    kept = balance(labelled, config.seed) if config.balance else labelled
    notes = VerdictCounts.of(verdict for given in votes.values() for verdict in given).notes()
    if not kept:
        statuses = _listed(verdict.status for given in votes.values() for verdict in given)
        found = _listed("correct" if solution.error_step is None else "flawed" for solution in labelled)
        more = f"use more problems{' or --no-balance' if labelled else ''}"
        raise DataError(
            f"nothing to keep: {len(judged)} of {len(solutions)} solutions have all {config.votes} votes ({statuses}), "
            f"agreed are {found}; {more if labelled or not notes else '; '.join(notes)}. "
            f"All votes are in {config.folder}"
        )
    for note in notes:
        logging.getLogger("fapo").warning("teacher: %s", note)
    write_rows(config.out, kept, template)
    card = Card(
        file=config.out.name,
        counts=_counts(config, inputs, rollouts, votes, labelled, kept),
        unanimous=len(labelled) / len(judged),
        pairwise_agreement=pairwise_agreement([votes[sample.id] for sample in judged]),
        by_policy={policy.name: _of_policy(policy.name, rollouts, kept) for policy in inputs.policies},
        label_precision=_precision(solutions, votes, labelled, kept),
        settings=_settings(config, inputs),
        prompts={"policies": inputs.prompt, "teacher": template.text},
    )
    return write_card(config.out, card)


async def _votes(
    config: CriticSettings,
    inputs: _Inputs,
    solutions: Sequence[SampledRollout],
    cache: ResponseCache,
    progress: Progress,
) -> Votes:
    """Return the votes of the teacher on each solution, without critiques; of unparsable ones the beginning is kept."""
    sampling = Sampling(temperature=config.teacher_temperature, max_tokens=config.teacher_max_tokens)
    name = inputs.teacher.name
    return await collect_votes(
        SampledModel(inputs.teacher, "--teacher", sampling, config.requests, config.seed),
        {solution.id: (solution.rollout.problem, solution.steps) for solution in solutions},
        config.votes,
        inputs.template,
        cache,
        name=f"the teacher {name}",
        record=config.folder / "labels.jsonl",
        column="vote",
        task=f"label {name}",
        progress=progress,
        kept=shortened,
    )


def _settings(config: CriticSettings, inputs: _Inputs) -> dict[str, Any]:
    """Return the settings that the data depends on, with the names of the models but without their addresses."""
    settings = asdict(config) | asdict(config.sampling)
    for name in ("out", "policy", "policy_model", "teacher_model", "sampling", "requests"):
        del settings[name]
    names = {"policies": [policy.name for policy in inputs.policies], "teacher": inputs.teacher.name}
    return {**settings, **names, "prompt": config.prompt and str(config.prompt)}


def _listed(words: Iterable[str]) -> str:
    """Return how often each word occurs, as text."""
    return ", ".join(f"{num} {word}" for word, num in sorted(Counter(words).items())) or "none"


def _labelled(sample: SampledRollout, verdict: Verdict) -> LabelledSolution:
    """Return a solution with the label on which all votes agree."""
    problem = replace(sample.rollout.problem, id=sample.id, meta={"policy": sample.policy})
    return LabelledSolution(problem, sample.steps, verdict.error_step, True)


def _counts(
    config: CriticSettings,
    inputs: _Inputs,
    rollouts: Sequence[SampledRollout],
    votes: Votes,
    labelled: Sequence[LabelledSolution],
    kept: Sequence[LabelledSolution],
) -> Counts:
    """Return the number of rollouts at each stage."""
    given = [verdict for verdicts in votes.values() for verdict in verdicts]
    outcomes = Counter(rollout.outcome for rollout in rollouts)
    return Counts(
        problems=len(inputs.problems),
        sampled=len(rollouts),
        not_sampled=len(inputs.problems) * len(inputs.policies) * config.samples - len(rollouts),
        undecided=outcomes["timeout"] + outcomes["error"],
        correct=outcomes["right"],
        distinct=len(votes),
        judged=sum(len(verdicts) == config.votes for verdicts in votes.values()),
        failed_votes=config.votes * len(votes) - len(given),
        unparsable_votes=sum(verdict.status == "unparsable" for verdict in given),
        consensus=len(labelled),
        consensus_flawed=sum(solution.error_step is not None for solution in labelled),
        kept=len(kept),
        kept_flawed=sum(solution.error_step is not None for solution in kept),
    )


def _of_policy(name: str, rollouts: Sequence[SampledRollout], kept: Sequence[LabelledSolution]) -> dict[str, int]:
    """Return the number of sampled, correct and kept rollouts of a policy."""
    outcomes = [rollout.outcome for rollout in rollouts if rollout.policy == name]
    num_kept = sum(solution.problem.meta["policy"] == name for solution in kept)
    return {"sampled": len(outcomes), "correct": outcomes.count("right"), "kept": num_kept}


def _precision(
    solutions: Sequence[SampledRollout],
    votes: Votes,
    labelled: Sequence[LabelledSolution],
    kept: Sequence[LabelledSolution],
) -> dict[str, LabelPrecision]:
    """Return the precision of single votes, of the consensus and of the labels kept; {} without an oracle."""
    known = {sample.id: known_ground_truth(sample.rollout) for sample in solutions}
    truth = {key: found.error_step for key, found in known.items() if found}
    if len(truth) < len(known):
        return {}
    one_vote = [(v.error_step, truth[key]) for key, verdicts in votes.items() for v in verdicts if v.status == "ok"]
    sets = {"one vote": one_vote}
    for name, chosen in (("consensus", labelled), ("kept", kept)):
        sets[name] = [(solution.error_step, truth[solution.problem.id]) for solution in chosen]
    return {
        name: label_precision([label for label, _ in rows], [true for _, true in rows]) for name, rows in sets.items()
    }
