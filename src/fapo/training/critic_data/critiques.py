"""Critiques for a GenRM to imitate: sampled from a judge, and kept if they name the label (rejection sampling)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from fapo.data.files import check_not_overwriting
from fapo.data.jsonl import write_jsonl
from fapo.data.load import load_labelled
from fapo.errors import JudgeError
from fapo.inference.numbered_answers import SampledModel
from fapo.inference.response_cache import ResponseCache
from fapo.training.critic_data.files import solution_row
from fapo.training.critic_data.label_noise import with_label_noise
from fapo.training.critic_data.settings import CritiquesSettings
from fapo.training.critic_data.votes import collect_votes, load_position_template
from fapo.types import LabelledSolution, Progress, Verdict


@dataclass(frozen=True)
class CritiqueCounts:
    """Number of critiques at each stage."""

    solutions: int
    """Number of labelled solutions."""
    critiques: int
    """Number of critiques, without failed requests."""
    failed: int
    """Number of failed requests; the command repeats them when it is started again."""
    unparsable: int
    """Number of critiques without a valid index."""
    matching: int
    """Number of critiques that name the label."""
    kept: int
    """Number of distinct critiques that name the label, which are the rows of the file."""
    kept_flawed: int
    """Number of rows with a label that names a step."""
    covered: int
    """Number of solutions with at least one row."""

    def __str__(self) -> str:
        return (
            f"{self.critiques} critiques of {self.solutions} solutions ({self.failed} failed): "
            f"{self.unparsable} unparsable, {self.matching} name the label; "
            f"{self.kept} of these are distinct and kept, {self.kept_flawed} on flawed solutions; "
            f"{self.covered} solutions have at least one"
        )


def write_critiques(config: CritiquesSettings, progress: Progress = lambda *_: None) -> CritiqueCounts:
    """Make the data file.

    All critiques are kept in the response cache, so a second call after an interruption continues there. The function
    starts an event loop, so it must not be called in one.

    Args:
        config: Settings.
        progress: Callback for the task "critiques".

    Returns:
        Number of critiques at each stage.

    Raises:
        ConfigError: A setting cannot be used.
        DataError: A labelled solution or the cache cannot be read.
        JudgeDownError: The judge fails for too many requests.
        JudgeError: No critique names its label.
    """
    check_not_overwriting(config.out, [config.data])
    judge = config.judge_spec()
    template = load_position_template(config.template)
    loaded = load_labelled(config.data, limit=config.limit, steps=template.steps)
    solutions = with_label_noise(loaded, config.label_noise, config.seed)
    file = config.out.with_suffix(".work") / "critiques.jsonl"
    with closing(ResponseCache(config.cache)) as cache:
        verdicts = asyncio.run(
            collect_votes(
                SampledModel(judge, "--judge", config.sampling, config.requests, config.seed),
                {solution.problem.id: (solution.problem, solution.steps) for solution in solutions},
                config.samples,
                template,
                cache,
                name="the judge",
                record=file,
                column="sample",
                task="critiques",
                progress=progress,
            )
        )
    kept, rows = _select(solutions, verdicts, config.samples)
    if not rows:
        raise JudgeError(f"none of {kept.critiques} critiques names the label; they are in {file}: use another judge")
    write_jsonl(config.out, rows)
    return kept


def _select(
    solutions: Sequence[LabelledSolution], verdicts: Mapping[str, Sequence[Verdict]], samples: int
) -> tuple[CritiqueCounts, list[dict[str, Any]]]:
    """Return the counts and the rows of the data file: the distinct critiques that name the label."""
    rows: list[dict[str, Any]] = []
    num_critiques = num_unparsable = num_matching = num_covered = 0
    for solution in solutions:
        own = verdicts[solution.problem.id]
        matching = [v.critique for v in own if _matches(v, solution.training_label)]
        num_critiques += len(own)
        num_unparsable += sum(v.status == "unparsable" for v in own)
        num_matching += len(matching)
        num_covered += bool(matching)
        rows += [_training_row(solution, i, critique) for i, critique in enumerate(dict.fromkeys(matching))]
    flawed = sum(row["label"] >= 0 for row in rows)
    kept = CritiqueCounts(
        solutions=len(solutions),
        critiques=num_critiques,
        failed=len(solutions) * samples - num_critiques,
        unparsable=num_unparsable,
        matching=num_matching,
        kept=len(rows),
        kept_flawed=flawed,
        covered=num_covered,
    )
    return kept, rows


def _matches(verdict: Verdict, label: int | None) -> bool:
    """Return whether a verdict names the label."""
    return verdict.flawed == (label is not None) and verdict.error_step == label


def _training_row(solution: LabelledSolution, number: int, critique: str) -> dict[str, Any]:
    """Return a critique as a row of the data file, which `read_labelled` reads."""
    row = solution_row(solution, solution.training_label)
    return row | {"id": f"{row['id']}-{number}", "critique": critique}
