"""Critiques for a GenRM to imitate: sampled from a judge, and kept if they name the label (rejection sampling)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fapo.data.files import check_not_overwriting
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.load import load_labelled
from fapo.errors import ConfigError, JudgeError
from fapo.inference.concurrency import run_batches
from fapo.inference.models import reseeded
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.genrm import GenRM
from fapo.judge.template import Template, load_template
from fapo.judge.verdicts import verdict_from_row, verdict_row
from fapo.training.critic_data.label_noise import with_label_noise
from fapo.training.critic_data.settings import CritiquesSettings
from fapo.training.critic_data.work_folder import check_same_settings
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

    All critiques are kept in the work folder, so a second call after an interruption continues there. The function
    starts an event loop, so it must not be called in one.

    Args:
        config: Settings.
        progress: Callback for the task "critiques".

    Returns:
        Number of critiques at each stage.

    Raises:
        ConfigError: A setting cannot be used, or the work folder was made with other settings.
        DataError: A labelled solution cannot be read.
        JudgeDownError: The judge fails for too many requests.
        JudgeError: No critique names its label.
    """
    check_not_overwriting(config.out, [config.data])
    judge = config.judge_spec()
    template = load_template(config.template)
    loaded = load_labelled(config.data, limit=config.limit, steps=template.steps)
    solutions = with_label_noise(loaded, config.label_noise, config.seed)
    if template.kind != "locate":
        raise ConfigError(
            f"template {config.template!r} asks yes or no; a label needs a position: use another, such as locate"
        )
    folder = config.out.with_suffix(".work")
    free = ("out", "model", "samples", "label_noise", "limit", "concurrency", "timeout")
    lasting = {name: value for name, value in asdict(config).items() if name not in free}
    check_same_settings(folder / "settings.json", lasting | {"judge": judge.name, "template": template.text})
    file = folder / "critiques.jsonl"
    asyncio.run(_ask(config, template, solutions, file, progress))
    kept, rows = _select(solutions, _read(file), config.samples)
    if not rows:
        raise JudgeError(f"none of {kept.critiques} critiques names the label; they are in {file}: use another judge")
    write_jsonl(config.out, rows)
    return kept


async def _ask(
    config: CritiquesSettings,
    template: Template,
    solutions: Sequence[LabelledSolution],
    file: Path,
    progress: Progress,
) -> None:
    """Request the critiques that the file lacks, in one round for each sample.

    A GenRM judges equal solutions once, so the critiques of one solution must not be in the same round.
    """
    known = _read(file)
    total = len(solutions) * config.samples

    def counted() -> int:
        return sum((s.problem.id, number) in known for s in solutions for number in range(config.samples))

    progress("critiques", counted(), total)
    if counted() == total:
        return
    model = config.judge_spec().open(
        "--judge",
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        concurrency=config.concurrency,
        timeout=config.timeout,
        seed=config.seed,
    )
    breaker = CircuitBreaker(remedy=repeat_command(file), num_expected=total - counted(), num_answered=counted())
    async with aclosing(model):
        for number in range(config.samples):
            judge = GenRM(template, reseeded(model, config.seed + number))
            missing = [solution for solution in solutions if (solution.problem.id, number) not in known]

            async def ask(batch: Sequence[LabelledSolution], judge: GenRM = judge, number: int = number) -> list[str]:
                verdicts = await judge.judge_steps([(s.problem, s.steps) for s in batch])
                answered = [pair for pair in zip(batch, verdicts, strict=True) if pair[1].status != "failed"]
                write_jsonl(file, [_row(s, number, verdict) for s, verdict in answered], append=True)
                known.update({(s.problem.id, number): verdict for s, verdict in answered})
                return [verdict.reason if verdict.status == "failed" else "" for verdict in verdicts]

            await run_batches(
                missing,
                ask,
                batch_size=model.batch_size,
                concurrency=model.concurrency,
                record=breaker.record,
                num_done=counted(),
                progress=lambda done: progress("critiques", done, total),
            )


def _row(solution: LabelledSolution, number: int, verdict: Verdict) -> dict[str, Any]:
    """Return a critique as a row of critiques.jsonl."""
    return {"id": solution.problem.id, "sample": number, **verdict_row(verdict)}


def _read(file: Path) -> dict[tuple[str, int], Verdict]:
    """Return the verdicts in a file by (id, number of the sample)."""
    rows: Iterable[dict[str, Any]] = read_jsonl(file, ignore_torn_tail=True) if file.exists() else ()
    found = {(row["id"], row["sample"]): verdict_from_row(row) for row in rows}
    return {key: verdict for key, verdict in found.items() if verdict}


def _select(
    solutions: Sequence[LabelledSolution], verdicts: dict[tuple[str, int], Verdict], samples: int
) -> tuple[CritiqueCounts, list[dict[str, Any]]]:
    """Return the counts and the rows of the data file: the distinct critiques that name the label."""
    rows: list[dict[str, Any]] = []
    num_critiques = num_unparsable = num_matching = num_covered = 0
    for solution in solutions:
        own = [verdicts[key] for number in range(samples) if (key := (solution.problem.id, number)) in verdicts]
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
    problem = replace(solution.problem, id=f"{solution.problem.id}-{number}")
    row = {"id": problem.id, "problem": problem.text, "source": problem.source}
    row |= {"reference": problem.reference} if problem.reference else {}
    label = -1 if solution.training_label is None else solution.training_label
    return row | {"steps": list(solution.steps), "label": label, "critique": critique}
