"""Make critic data: rollouts, votes of a teacher on the correct ones, consensus, balance, data file and card."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fapo.data.load import load_problems
from fapo.data.miniature.oracle import known_ground_truth
from fapo.data.problems import load_prompt
from fapo.errors import ConfigError, DataError
from fapo.judge.template import Template, load_template
from fapo.judge.verdict_counts import VerdictCounts
from fapo.training.critic_data.card import Card, Counts, write_card
from fapo.training.critic_data.consensus import LabelPrecision, balance, consensus, label_precision, pairwise_agreement
from fapo.training.critic_data.files import write_rows
from fapo.training.critic_data.sample import collect_votes, sample_rollouts
from fapo.training.critic_data.settings import CriticSettings
from fapo.training.critic_data.work_folder import CorrectRollout, WantedRollout, WorkFolder
from fapo.types import LabelledSolution, Progress, Verdict

CHANGEABLE = ("problems", "limit", "samples", "votes", "balance")
"""Settings that may differ between two runs on one work folder."""
Votes = Mapping[str, Sequence[Verdict]]
"""Verdicts of the teacher by the id of the solution, without failed votes."""


def build(config: CriticSettings, progress: Progress = lambda *_: None) -> Card:
    """Make the data and its card.

    The answers of the models are kept in the work folder, so a second call after an interruption continues there. The
    function starts an event loop, so it must not be called in one.

    Args:
        config: Settings.
        progress: Callback; each policy is a task, and so is the teacher.

    Returns:
        Card of the data.

    Raises:
        ConfigError: A setting cannot be used, or the work folder was made with other settings.
        DataError: A problem cannot be read, or no solution is left to keep.
        EngineError: A policy fails for too many requests.
        JudgeDownError: The teacher fails for too many requests.
    """
    template = load_template(config.template, config.steps)
    if template.kind != "locate":
        raise ConfigError(
            f"template {config.template!r} asks yes or no; a label needs a position: use another, such as locate"
        )
    prompt = load_prompt(config.prompt)
    if config.out.exists() and not config.folder.exists():
        raise ConfigError(f"{config.out}: exists, but {config.folder} does not; remove it or choose another --out")
    work = WorkFolder(
        config.folder, _fixed_settings(config, prompt, template), _wanted_rollouts(config), template.steps
    )
    return asyncio.run(_build(config, prompt, template, work, progress))


async def _build(config: CriticSettings, prompt: str, template: Template, work: WorkFolder, progress: Progress) -> Card:
    """Run all stages in an event loop."""
    for policy in config.policy_specs():
        await sample_rollouts(config, policy, prompt, work, progress)
    solutions = work.distinct()
    if not solutions:
        raise DataError(
            f"none of {len(work.outcomes)} rollouts has a correct final answer ({_listed(work.outcomes.values())}), so "
            f"there is nothing to label; does --prompt ask for \\boxed{{}}? The rollouts are in {work.folder}"
        )
    await collect_votes(config, solutions, template, work, progress)
    votes = {s.id: [work.votes[s.id, v] for v in range(config.votes) if (s.id, v) in work.votes] for s in solutions}
    judged = [sample for sample in solutions if len(votes[sample.id]) == config.votes]
    agreed = [(sample, verdict) for sample in judged if (verdict := consensus(votes[sample.id]))]
    labelled = [_labelled(sample, verdict) for sample, verdict in agreed]
    kept = balance(labelled, config.seed) if config.balance else labelled
    counts = VerdictCounts()
    counts.add_all(verdict for given in votes.values() for verdict in given)
    notes = counts.notes()
    if not kept:
        statuses = _listed(verdict.status for given in votes.values() for verdict in given)
        found = _listed("correct" if solution.error_step is None else "flawed" for solution in labelled)
        more = f"use more problems{' or --no-balance' if labelled else ''}"
        raise DataError(
            f"nothing to keep: {len(judged)} of {len(solutions)} solutions have all {config.votes} votes ({statuses}), "
            f"agreed are {found}; {more if labelled or not notes else '; '.join(notes)}. "
            f"All votes are in {work.folder}"
        )
    for note in notes:
        logging.getLogger("fapo").warning("teacher: %s", note)
    write_rows(config.out, kept, template)
    card = Card(
        file=config.out.name,
        counts=_counts(config, work, votes, labelled, kept),
        unanimous=len(labelled) / len(judged),
        pairwise_agreement=pairwise_agreement([votes[sample.id] for sample in judged]),
        by_policy={policy.name: _of_policy(policy.name, work, kept) for policy in config.policy_specs()},
        label_precision=_precision(solutions, votes, labelled, kept),
        settings=_settings(config),
        prompts={"policies": prompt, "teacher": template.text},
    )
    return write_card(config.out, card)


def _wanted_rollouts(config: CriticSettings) -> dict[str, WantedRollout]:
    """Return the rollouts that are wanted, by an id of problem, number of the policy and number of the sample."""
    return {
        f"{problem.id}-{number}-{index}": WantedRollout(problem, policy.name)
        for problem in load_problems(config.problems, limit=config.limit)
        for number, policy in enumerate(config.policy_specs())
        for index in range(config.samples)
    }


def _fixed_settings(config: CriticSettings, prompt: str, template: Template) -> dict[str, Any]:
    """Return the settings that must not change while a work folder is filled."""
    return {
        **{name: value for name, value in _settings(config).items() if name not in CHANGEABLE},
        "prompt": prompt,
        "template": template.text,
        "steps": template.steps,
    }


def _settings(config: CriticSettings) -> dict[str, Any]:
    """Return the settings that the data depends on, with the names of the models but without their addresses."""
    settings = asdict(config)
    for name in ("out", "policy", "policy_model", "teacher_model", "concurrency", "timeout"):
        del settings[name]
    names = {"policies": [policy.name for policy in config.policy_specs()], "teacher": config.teacher_spec().name}
    return {**settings, **names, "prompt": config.prompt and str(config.prompt)}


def _listed(words: Iterable[str]) -> str:
    """Return how often each word occurs, as text."""
    return ", ".join(f"{num} {word}" for word, num in sorted(Counter(words).items())) or "none"


def _labelled(sample: CorrectRollout, verdict: Verdict) -> LabelledSolution:
    """Return a solution with the label on which all votes agree."""
    problem = replace(sample.rollout.problem, id=sample.id, meta={"policy": sample.policy})
    return LabelledSolution(problem, sample.steps, verdict.error_step, True)


def _counts(
    config: CriticSettings,
    work: WorkFolder,
    votes: Votes,
    labelled: Sequence[LabelledSolution],
    kept: Sequence[LabelledSolution],
) -> Counts:
    """Return the number of rollouts at each stage."""
    given = [verdict for verdicts in votes.values() for verdict in verdicts]
    outcomes = Counter(work.outcomes.values())
    return Counts(
        problems=len({place.problem.id for place in work.wanted.values()}),
        sampled=len(work.outcomes),
        not_sampled=len(work.wanted) - len(work.outcomes),
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


def _of_policy(name: str, work: WorkFolder, kept: Sequence[LabelledSolution]) -> dict[str, int]:
    """Return the number of sampled, correct and kept rollouts of a policy."""
    outcomes = [
        work.outcomes[key] for key, place in work.wanted.items() if place.policy == name and key in work.outcomes
    ]
    num_kept = sum(solution.problem.meta["policy"] == name for solution in kept)
    return {"sampled": len(outcomes), "correct": outcomes.count("right"), "kept": num_kept}


def _precision(
    solutions: Sequence[CorrectRollout],
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
