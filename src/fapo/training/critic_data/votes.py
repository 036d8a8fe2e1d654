"""Several verdicts of a model on each solution, and a file that records them with their critiques."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fapo.data.jsonl import write_jsonl
from fapo.errors import ConfigError
from fapo.inference.numbered_answers import SampledModel, ask_numbered
from fapo.inference.response_cache import CacheKey, ResponseCache
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.genrm import verdict_in
from fapo.judge.template import Template, build_prompt, load_template
from fapo.judge.verdicts import BLANK, verdict_row
from fapo.types import Completion, Message, Problem, Progress, StepRule, Verdict


def load_position_template(name: str, steps: StepRule | None = None) -> Template:
    """Load a template that asks for a position, which a label needs.

    Args:
        name: Name or path of the template.
        steps: Rule by which responses are split; None for the template's own.

    Returns:
        The template.

    Raises:
        ConfigError: There is no such template, or it asks yes or no.
    """
    template = load_template(name, steps)
    if template.kind != "locate":
        raise ConfigError(f"template {name!r} asks yes or no; a label needs a position: use another, such as locate")
    return template


async def collect_votes(
    model: SampledModel,
    solutions: Mapping[str, tuple[Problem, Sequence[str]]],
    num_votes: int,
    template: Template,
    cache: ResponseCache,
    *,
    name: str,
    record: Path,
    column: str,
    task: str,
    progress: Progress,
    kept: Callable[[Verdict], Verdict] = lambda verdict: verdict,
) -> dict[str, list[Verdict]]:
    """Get several verdicts on each solution; equal solutions of equal problems have the same ones.

    Args:
        model: Model of the judge.
        solutions: Problem and steps of each solution, by id.
        num_votes: Number of verdicts on each solution.
        template: Prompt of the judge.
        cache: Cache of its answers.
        name: Name of the judge, for the message that it is down.
        record: File that is written anew, with a row for each verdict.
        column: Name of the column with the number of a verdict.
        task: Name of the task, for `progress`.
        progress: Callback for the number of verdicts.
        kept: Returns the part of a verdict that is returned; the file has all of it.

    Returns:
        Verdicts on each solution by id, in the order of their numbers, without failed ones.

    Raises:
        ConfigError: The model cannot be loaded.
        DataError: The cache cannot be used.
        JudgeDownError: The judge fails for too many requests.
    """
    write_jsonl(record, [])
    places: defaultdict[CacheKey, list[tuple[str, int]]] = defaultdict(list)
    questions: dict[CacheKey, list[Message]] = {}
    found: dict[str, dict[int, Verdict]] = {id: {} for id in solutions}

    def add(id: str, number: int, verdict: Verdict) -> None:
        write_jsonl(record, [{"id": id, column: number, **verdict_row(verdict)}], append=True)
        found[id][number] = kept(verdict)

    def read(key: CacheKey, answer: Completion) -> None:
        for id, number in places[key] if not answer.error else ():
            add(id, number, verdict_in(answer, template, (False,) * len(solutions[id][1])))

    chats = {id: build_prompt(template, p.text, p.reference, steps) for id, (p, steps) in solutions.items()}
    for number in range(num_votes):
        for id, (_, steps) in solutions.items():
            if not "".join(steps).strip():
                add(id, number, Verdict("unparsable", reason=BLANK))
                continue
            key = model.key(chats[id], number)
            questions[key] = chats[id]
            places[key].append((id, number))
    breaker = CircuitBreaker(name=name, remedy=repeat_command(cache.path), num_expected=len(questions))
    await ask_numbered(
        model,
        questions,
        cache,
        read,
        record=breaker.record,
        progress=lambda done, _: progress(task, done, len(questions)),
        template=template.name,
    )
    return {id: [given[number] for number in sorted(given)] for id, given in found.items()}
