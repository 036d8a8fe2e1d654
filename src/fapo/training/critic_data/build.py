"""Problems -> rollouts -> correct ones -> the teacher's votes -> consensus -> balance -> file and card."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fapo.data.load import load_problems
from fapo.data.miniature.oracle import known_ground_truth
from fapo.data.problems import load_prompt
from fapo.errors import ConfigError, DataError
from fapo.judge.template import Template, load_template
from fapo.training.critic_data.card import Card, Counts, write_card
from fapo.training.critic_data.consensus import LabelPrecision, balance, consensus, label_precision, pairwise_agreement
from fapo.training.critic_data.files import write_rows
from fapo.training.critic_data.sample import collect_votes, sample_rollouts
from fapo.training.critic_data.settings import CriticSettings
from fapo.training.critic_data.work_folder import Place, Sample, Work
from fapo.types import LabelledSolution, Progress, Verdict

FREE = ("problems", "limit", "samples", "votes", "balance")
"""Settings that may be changed between two runs on one work folder."""
Votes = Mapping[str, Sequence[Verdict]]
"""Id of a solution -> what the teacher said about it, without what failed."""


def build(config: CriticSettings, progress: Progress = lambda *_: None) -> Card:
    """Make the data and its card; interrupted and called again, go on where it was. Must not run in an event loop.

    Raises FapoError for what the user can put right; what models had answered by then stays in the work folder.
    """
    template = load_template(config.template)
    if template.kind != "locate":
        raise ConfigError(
            f"template {config.template!r} asks yes or no; a label needs a position: use locate or compact"
        )
    prompt = load_prompt(config.prompt)
    if config.out.exists() and not config.folder.exists():
        raise ConfigError(f"{config.out}: exists, but {config.folder} does not; remove it or choose another --out")
    work = Work(config.folder, _lasting(config, prompt, template), _plan(config))
    return asyncio.run(_build(config, prompt, template, work, progress))


async def _build(config: CriticSettings, prompt: str, template: Template, work: Work, progress: Progress) -> Card:
    for policy in config.policy_specs():
        await sample_rollouts(config, policy, prompt, work, progress)
    solutions = work.distinct()
    if not solutions:
        raise DataError(
            f"none of {len(work.outcomes)} rollouts has a right final answer ({_listed(work.outcomes.values())}), so "
            f"there is nothing to label; does --prompt ask for \\boxed{{}}? The rollouts are in {work.folder}"
        )
    await collect_votes(config, solutions, template, work, progress)
    votes = {s.id: [work.votes[s.id, v] for v in range(config.votes) if (s.id, v) in work.votes] for s in solutions}
    judged = [sample for sample in solutions if len(votes[sample.id]) == config.votes]
    agreed = [(sample, verdict) for sample in judged if (verdict := consensus(votes[sample.id]))]
    labelled = [_labelled(sample, verdict) for sample, verdict in agreed]
    kept = balance(labelled, config.seed) if config.balance else labelled
    if not kept:
        said = _listed(verdict.status for of_one in votes.values() for verdict in of_one)
        found = _listed("sound" if solution.error_step is None else "flawed" for solution in labelled)
        raise DataError(
            f"nothing to keep: {len(judged)} of {len(solutions)} solutions have all {config.votes} votes ({said}), "
            f"agreed are {found}; use more problems{' or --no-balance' if labelled else ''}. "
            f"All votes are in {work.folder}"
        )
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


def _plan(config: CriticSettings) -> dict[str, Place]:
    """An id for each wanted rollout: problem, number of the policy, number of the sample."""
    return {
        f"{problem.id}-{number}-{index}": Place(problem, policy.name)
        for problem in load_problems(config.problems, limit=config.limit)
        for number, policy in enumerate(config.policy_specs())
        for index in range(config.samples)
    }


def _lasting(config: CriticSettings, prompt: str, template: Template) -> dict[str, Any]:
    """What must be the same all the time that a work folder is filled."""
    return {
        **{name: value for name, value in _settings(config).items() if name not in FREE},
        "prompt": prompt,
        "template": template.text,
    }


def _settings(config: CriticSettings) -> dict[str, Any]:
    """What the data depends on, by the names of the models: where their servers are does not matter."""
    settings = asdict(config)
    for name in ("out", "policy", "policy_model", "teacher_model", "concurrency", "timeout"):
        del settings[name]
    names = {"policies": [policy.name for policy in config.policy_specs()], "teacher": config.teacher_spec().name}
    return {**settings, **names, "prompt": config.prompt and str(config.prompt)}


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"{num} {word}" for word, num in sorted(Counter(words).items())) or "none"


def _labelled(sample: Sample, verdict: Verdict) -> LabelledSolution:
    problem = replace(sample.rollout.problem, id=sample.id, meta={"policy": sample.policy})
    return LabelledSolution(problem, sample.steps, verdict.error_step, True)


def _counts(
    config: CriticSettings,
    work: Work,
    votes: Votes,
    labelled: Sequence[LabelledSolution],
    kept: Sequence[LabelledSolution],
) -> Counts:
    given = [verdict for of_one in votes.values() for verdict in of_one]
    outcomes = Counter(work.outcomes.values())
    return Counts(
        problems=len({place.problem.id for place in work.plan.values()}),
        sampled=len(work.outcomes),
        not_sampled=len(work.plan) - len(work.outcomes),
        undecided=outcomes["timeout"] + outcomes["error"],
        correct=outcomes["right"],
        distinct=len(votes),
        judged=sum(len(of_one) == config.votes for of_one in votes.values()),
        failed_votes=config.votes * len(votes) - len(given),
        unparsable_votes=sum(verdict.status == "unparsable" for verdict in given),
        consensus=len(labelled),
        consensus_flawed=sum(solution.error_step is not None for solution in labelled),
        kept=len(kept),
        kept_flawed=sum(solution.error_step is not None for solution in kept),
    )


def _of_policy(name: str, work: Work, kept: Sequence[LabelledSolution]) -> dict[str, int]:
    of_it = [work.outcomes[key] for key, place in work.plan.items() if place.policy == name and key in work.outcomes]
    num_kept = sum(solution.problem.meta["policy"] == name for solution in kept)
    return {"sampled": len(of_it), "correct": of_it.count("right"), "kept": num_kept}


def _precision(
    solutions: Sequence[Sample],
    votes: Votes,
    labelled: Sequence[LabelledSolution],
    kept: Sequence[LabelledSolution],
) -> dict[str, LabelPrecision]:
    """Return the precision of single votes, of the consensus and of the labels kept; {} without an oracle."""
    known = {sample.id: known_ground_truth(sample.rollout) for sample in solutions}
    truth = {key: found.error_step for key, found in known.items() if found}
    if len(truth) < len(known):
        return {}
    one_vote = [(v.error_step, truth[key]) for key, of_one in votes.items() for v in of_one if v.status == "ok"]
    sets = {"one vote": one_vote}
    for name, chosen in (("consensus", labelled), ("kept", kept)):
        sets[name] = [(solution.error_step, truth[solution.problem.id]) for solution in chosen]
    return {
        name: label_precision([said for said, _ in rows], [true for _, true in rows]) for name, rows in sets.items()
    }
