"""The GenRM: solution steps -> prompt -> critique -> Verdict; voting; parsing that trusts nothing the judge wrote."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from fapo.errors import ConfigError, FapoError, JudgeDownError
from fapo.final_answer import num_words
from fapo.steps import escape, split
from fapo.types import Complete, Completion, Message, Problem, Rollout, Verdict

INTEGER = re.compile(r"[ \t\r\n$]*([+-]?[0-9]+)[ \t\r\n$]*\}")
YES_NO = re.compile(r"[ \t\r\n$]*(yes|no)[ \t\r\n$]*\}", re.IGNORECASE)
MAX_DIGITS = 9
"""No solution has a billion steps; int() is quadratic in the digits and raises beyond 4300."""
WINDOW = 100
"""Number of latest results whose failure rate is checked."""
MIN_RESULTS = 8
"""Minimum number of results before the failure rate is checked."""
ALL_FAILED = 0.99
"""Largest failure rate of a command that continues as long as anything is answered: 99 of the last 100."""

SYSTEM_END = re.compile(r"(?:\A|\n)---user---(?:\n|\Z)")
SECTION = re.compile(r"\{\{#steps\}\}(.*?)\{\{/steps\}\}", re.DOTALL)
PLACEHOLDER = re.compile(r"\{\{([#/]?\w+)\}\}")
FIELD = re.compile(f"{SECTION.pattern}|{PLACEHOLDER.pattern}", re.DOTALL)
FIELDS = {"problem", "reference", "num_steps", "last_index"}
STEP_FIELDS = {"index", "step"}
NO_REFERENCE = "(none is given: judge the steps without it)"
"""Stands in the prompt for the reference answer of a problem that has none, as in ProcessBench."""


@dataclass(frozen=True)
class Template:
    """A judge's prompt with holes. Raises ConfigError, naming the file and the placeholder, when a hole is wrong.

    {{problem}}, {{reference}}, {{num_steps}} and {{last_index}} are filled in; {{#steps}}...{{index}}...{{step}}...
    {{/steps}} is repeated for each step. What precedes a line `---user---` is the system message. To let a server
    reuse its prefix cache, put the steps, and whatever depends on them, last.
    """

    text: str
    """The prompt, without the file's header line and final newline."""
    kind: Literal["locate", "yes_no"] = "locate"
    """What the judge answers: index of the earliest wrong step (or -1), or whether the solution is flawed."""
    name: str = "template"
    """Built-in name or path, for error messages and records."""

    def __post_init__(self) -> None:
        if self.kind not in ("locate", "yes_no"):
            raise ConfigError(f"{self.name}: kind is {self.kind!r}, must be locate or yes_no")
        parts = SYSTEM_END.split(self.text)
        if len(parts) > 2:
            raise ConfigError(f"{self.name}: more than one line ---user---")
        sections = [body for part in parts for body in SECTION.findall(part)]
        if len(sections) != 1:
            raise ConfigError(f"{self.name}: needs one section {{{{#steps}}}}...{{{{/steps}}}}, has {len(sections)}")
        outside = {field for part in parts for field in PLACEHOLDER.findall(SECTION.sub("", part))}
        inside = set(PLACEHOLDER.findall(sections[0]))
        for field in sorted(outside - FIELDS):
            raise ConfigError(f"{self.name}: unknown placeholder {{{{{field}}}}}, known are {sorted(FIELDS)}")
        for field in sorted(inside - STEP_FIELDS):
            raise ConfigError(
                f"{self.name}: unknown placeholder {{{{{field}}}}} in the steps, known: {sorted(STEP_FIELDS)}"
            )
        for field in sorted(({"problem"} - outside) | (STEP_FIELDS - inside)):
            raise ConfigError(f"{self.name}: placeholder {{{{{field}}}}} is missing")

    @cached_property
    def heading(self) -> re.Pattern[str] | None:
        """What a line must not begin with, or it would pass for the next step: `#` and a number under `compact`.

        None where `escape` sees to it (`<step_0>`), and where steps are numbered by words, as solutions do, too.
        """
        (body,) = SECTION.findall(self.text)
        mark = body.partition("{{index}}")[0].rpartition("\n")[2].strip()
        plain = mark and not any(char.isalnum() for char in mark)
        return re.compile(rf"^([ \t]*){re.escape(mark)}(?=[ \t]*\d)", re.MULTILINE) if plain else None

    def parse(self, critique: str, num_steps: int) -> Verdict:
        """Return the verdict in a critique that answers this prompt.

        Args:
            critique: Full text that the judge wrote.
            num_steps: Number of steps of the judged solution.

        Returns:
            A verdict with status ok or unparsable; with a step only where `kind` is "locate".
        """
        return parse_yes_no(critique) if self.kind == "yes_no" else parse_verdict(critique, num_steps)

    def harmless(self, text: str) -> str:
        """Untrusted text as it may stand in this prompt: escaped, and no line of it begins like a step."""
        text = escape(text)
        if self.heading is None:
            return text
        return self.heading.sub(
            lambda found: found[1] + "".join(f"&#{ord(c)};" for c in found[0][len(found[1]) :]), text
        )


def load_template(name_or_path: str | Path) -> Template:
    """A built-in template (locate, yes_no, compact) or a user's UTF-8 file, so that a released GenRM is given the very
    prompt it was trained on. A first line `#kind: yes_no` sets the kind; the file's final newline is not part of it."""
    folder = resources.files("fapo") / "prompts"
    built_in = sorted(file.name.removesuffix(".txt") for file in folder.iterdir() if file.name.endswith(".txt"))
    source = folder / f"{name_or_path}.txt" if str(name_or_path) in built_in else Path(name_or_path)
    if not source.is_file():
        raise ConfigError(f"no prompt template {str(name_or_path)!r}: neither a file nor one of {', '.join(built_in)}")
    try:
        text = source.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as failure:
        raise ConfigError(f"{name_or_path}: not UTF-8 text ({failure.reason}); save it as UTF-8") from None
    kind = "locate"
    if header := re.match(r"#kind:[ \t]*(\S*)[ \t]*(?:\n|\Z)", text):
        kind, text = header[1], text[header.end() :]
    return Template(text, kind, str(name_or_path))  # type: ignore[arg-type]  # checked by Template


def build_prompt(template: Template, problem_text: str, reference: str, steps: Sequence[str]) -> list[Message]:
    """The conversation that asks for a verdict. Problem and steps are untrusted and escaped, the reference is ours.

    Blanks around a step are dropped: steps cut out of a text and steps given one by one make the same prompt.
    """
    if not steps:
        raise ValueError("a solution without steps cannot be judged")
    numbered = [{"index": str(index), "step": template.harmless(step).strip()} for index, step in enumerate(steps)]
    values = {
        "problem": template.harmless(problem_text),
        "reference": reference or NO_REFERENCE,
        "num_steps": str(len(steps)),
        "last_index": str(len(steps) - 1),
    }

    def fill(hole: re.Match[str]) -> str:
        if hole[1] is None:
            return values[hole[2]]
        return "".join(PLACEHOLDER.sub(lambda inner, step=step: step[inner[1]], hole[1]) for step in numbered)

    *system, user = (FIELD.sub(fill, part) for part in SYSTEM_END.split(template.text))
    messages = [{"role": "system", "content": text} for text in system if text]
    return [*messages, {"role": "user", "content": user}]


def parse_verdict(text: str, num_steps: int) -> Verdict:
    r"""Return the verdict in the last \boxed{...} of a critique that names a step.

    -1 is "no error found"; 0 ... num_steps - 1 is the earliest wrong step. Everything else is unparsable, never a
    guess. The time is linear in the length of the text.

    Args:
        text: Critique that the judge wrote.
        num_steps: Number of steps of the judged solution.
    """
    found, start = _last_box(text, INTEGER)
    if found is None:
        return _unparsable(text, start)
    if len(found[1]) > MAX_DIGITS or not -1 <= (index := int(found[1])) < num_steps:
        reason = f"index {found[1][:20]} is not among -1 ... {num_steps - 1}"
        return Verdict("unparsable", critique=text, reason=reason)
    return Verdict.from_step(None if index == -1 else index, text)


def parse_yes_no(text: str) -> Verdict:
    r"""Return the verdict in the last \boxed{yes|no}, the answer to "is the solution flawed?". It names no step."""
    found, start = _last_box(text, YES_NO)
    if found is None:
        return _unparsable(text, start)
    return Verdict("ok", flawed=found[1].lower() == "yes", critique=text)


def _last_box(text: str, content: re.Pattern[str]) -> tuple[re.Match[str] | None, int]:
    r"""What matches inside the last \boxed{, and where its content starts (-1: there is none)."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None, -1
    start += len("\\boxed{")
    return content.match(text, start), start


def _unparsable(text: str, start: int) -> Verdict:
    reason = "no \\boxed{}" if start < 0 else f"the last \\boxed{{ holds no answer: {text[start : start + 40]!r}"
    return Verdict("unparsable", critique=text, reason=reason)


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first of several verdicts on one rollout that agrees with the outcome of their vote.

    Verdicts that are not ok do not vote. "Flawed" needs more than half of the votes; a tie is "no error found". Then
    the step that was named most often wins, and the smallest one of a tie. Without any vote the first verdict is
    returned.
    """
    assert verdicts, "nothing to vote on"
    votes = [verdict for verdict in verdicts if verdict.status == "ok"]
    if not votes:
        return verdicts[0]
    flagged = [vote for vote in votes if vote.flawed]
    if 2 * len(flagged) <= len(votes):
        return next(vote for vote in votes if not vote.flawed)
    named = Counter(vote.error_step for vote in flagged if vote.error_step is not None)
    if not named:
        return flagged[0]
    outcome = min(named, key=lambda index: (-named[index], index))
    return next(vote for vote in flagged if vote.error_step == outcome)


UNREAD = "flagged unread"
"""First words of the reason of a solution that was flagged for its length, without asking the judge."""


def verdict_row(verdict: Verdict | None) -> dict[str, Any]:
    """Return the columns that a verdict has in every file that fapo writes; None means that no judge was asked."""
    if verdict is None:
        return {
            "status": "skipped",
            "flawed": None,
            "error_step": None,
            "critique": "",
            "critique_tokens": 0,
            "reason": "",
        }
    return {
        "status": verdict.status,
        "flawed": verdict.flawed,
        "error_step": verdict.error_step,
        "critique": verdict.critique,
        "critique_tokens": verdict.num_tokens,
        "reason": verdict.reason,
    }


def verdict_from_row(row: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict in a row that fapo wrote, None where no judge was asked.

    Rows of older versions are understood: without `flawed` a step means flawed, and see `named_step`.
    """
    status, flawed = row["status"], row.get("flawed")
    if status == "skipped":
        return None
    texts = row.get("critique") or "", row.get("reason") or "", row.get("critique_tokens") or 0
    if status != "ok":
        return Verdict(status, None, None, *texts)
    return Verdict("ok", row["error_step"] is not None if flawed is None else flawed, named_step(row), *texts)


def named_step(row: Mapping[str, Any]) -> Any:
    """Return the step that the judge of a row named, None where it named none.

    Older versions of fapo wrote step 0 for the "yes" of a yes/no judge and for solutions that were flagged unread.
    The first shows in the critique, the second in the reason, or in rollouts.jsonl, which had none, in the empty
    critique.
    """
    step = row.get("error_step")
    if step != 0 or isinstance(step, bool):
        return step
    critique, reason = str(row.get("critique") or ""), str(row.get("reason") or "")
    old_rollout = "reason" not in row and "critique_tokens" in row
    unread = reason.startswith(UNREAD) or (old_rollout and not critique)
    return None if unread or parse_yes_no(critique).flawed else step


class CircuitBreaker:
    """Stops a run whose judge, or another model, fails for too many requests.

    The rule is the same everywhere: the run stops when more than `max_failure_rate` of the latest results are failures.
    The latest results are the last WINDOW ones, or all that were recorded at once where these are more. Fewer than
    MIN_RESULTS results are not enough to stop.
    """

    def __init__(
        self,
        max_failure_rate: float = ALL_FAILED,
        *,
        name: str = "the judge",
        remedy: str = "",
        num_expected: int = MIN_RESULTS,
        num_answered: int = 0,
        error: type[FapoError] = JudgeDownError,
    ) -> None:
        """Start without failures.

        Args:
            max_failure_rate: Largest fraction of failures that does not stop the run; 1 never stops it.
            name: Name of the model for the message.
            remedy: Sentence for the message that says what to do.
            num_expected: Number of results that will come, if it is known; fewer than MIN_RESULTS are then enough.
            num_answered: Number of answers from before; they count as results that are no failures.
            error: Exception that stops the run.
        """
        self.max_failure_rate, self.error = max_failure_rate, error
        self._name, self._remedy = name, remedy
        self._enough = min(MIN_RESULTS, num_expected)
        self._latest = [""] * min(num_answered, WINDOW)

    def record(self, errors: Sequence[str]) -> None:
        """Add results and check the latest ones.

        Args:
            errors: Why each request failed; an empty text for one that was answered.

        Raises:
            JudgeDownError: If the failure rate is too high; or the exception that was given as `error`.
        """
        self._latest = [*self._latest, *errors][-max(WINDOW, len(errors)) :]
        failures, num = Counter(filter(None, self._latest)), len(self._latest)
        if num < self._enough or failures.total() <= self.max_failure_rate * num:
            return
        why, times = failures.most_common(1)[0]
        share = f"Restore it and resume, or allow a larger max_failure_rate (now {self.max_failure_rate:g})"
        raise self.error(
            f"{self._name} is down: {failures.total()} of the last {num} requests failed, {times} of them with: {why}. "
            f"{self._remedy or share}"
        )

    def record_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Add verdicts as results and check the latest ones, like `record`; those with status failed are failures."""
        self.record([(v.reason or "no reason given") if v.status == "failed" else "" for v in verdicts])


def start_again(kept: str | Path | None) -> str:
    """Return the remedy for a command that goes on where it was: its answers are kept in a file or folder, if any."""
    return f"Restore it and give the same command again{f'; answers so far are in {kept}' if kept else ''}"


class _Split(Sequence[tuple[Problem, list[str]]]):
    """Rollouts as problems and steps, split when looked at."""

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self._rollouts = rollouts

    def __len__(self) -> int:
        return len(self._rollouts)

    def __getitem__(self, index: Any) -> Any:
        rollout = self._rollouts[index]
        return rollout.problem, split(rollout.response)


class _Prompts(Sequence[list[Message]]):
    """The conversations of a batch, each `votes` times, built when looked at: those that wait take no memory.

    Votes on one solution, which follow each other, share what is built.
    """

    def __init__(
        self, template: Template, solutions: Sequence[tuple[Problem, Sequence[str]]], asked: Sequence[int], votes: int
    ) -> None:
        """`asked` are the indices of the solutions that are asked about."""

        @lru_cache(maxsize=1)
        def built(index: int) -> list[Message]:
            problem, steps = solutions[index]
            return build_prompt(template, problem.text, problem.reference, steps)

        self._asked, self._votes, self._built = asked, votes, built

    def __len__(self) -> int:
        return len(self._asked) * self._votes

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._built(self._asked[range(len(self))[index] // self._votes])


@dataclass(frozen=True)
class GenRM:
    """The `Judge` that writes a critique: prompt, k answers, parse, majority."""

    template: Template
    """The prompt it is used to."""
    complete: Complete
    """The model: a server (`ChatClient`) or one in this process."""
    votes: int = 1
    """Answers asked for each solution; more than one makes sense only at a temperature above 0."""
    min_words: int = 0
    """Minimum number of words outside the boxes; a shorter solution is flagged without asking. 0: always ask."""

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise ConfigError(f"votes is {self.votes}, must be at least 1")

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Judge responses, each split into its steps."""
        return await self.judge_steps(_Split(rollouts))

    async def judge_steps(self, solutions: Sequence[tuple[Problem, Sequence[str]]]) -> list[Verdict]:
        """Judge solutions whose steps are given, as those of ProcessBench; indices refer to these steps.

        Equal solutions of equal problems are asked about once. A blank solution is unparsable without asking: there
        is nothing to find an error in, and asking again would not help.
        """
        keys: list[bytes] = []
        verdicts: dict[bytes, Verdict] = {}
        asked: dict[bytes, tuple[int, int]] = {}  # index and number of steps
        for index, (problem, steps) in enumerate(solutions):
            question = problem.text, problem.reference, tuple(steps)
            key = sha256(repr(question).encode()).digest()  # steps that wait take no memory
            keys.append(key)
            if key in asked or key in verdicts:
                continue
            if verdict := self._unread(steps):
                verdicts[key] = verdict
            else:
                asked[key] = index, len(steps)
        prompts = _Prompts(self.template, solutions, [index for index, _ in asked.values()], self.votes)
        answers = await self.complete(prompts) if asked else []
        assert len(answers) == len(prompts), "one completion for each conversation"
        for i, (key, (_, num_steps)) in enumerate(asked.items()):
            own = answers[i * self.votes : (i + 1) * self.votes]
            verdicts[key] = majority([self._read(answer, num_steps) for answer in own])
        return [verdicts[key] for key in keys]

    def _unread(self, steps: Sequence[str]) -> Verdict | None:
        """The verdict on a solution that the judge is not asked about; None where it is asked."""
        if not (text := "\n\n".join(steps)).strip():
            return Verdict("unparsable", reason="blank solution: the judge was not asked")
        if self.min_words and (num := num_words(text)) < self.min_words:
            reason = f"{UNREAD}: {num} words outside the box, min_words is {self.min_words}"
            return Verdict("ok", flawed=True, reason=reason)
        return None

    def _read(self, answer: Completion, num_steps: int) -> Verdict:
        if answer.error:
            return Verdict("failed", critique=answer.text, reason=answer.error, num_tokens=answer.num_tokens)
        return replace(self.template.parse(answer.text, num_steps), num_tokens=answer.num_tokens)
