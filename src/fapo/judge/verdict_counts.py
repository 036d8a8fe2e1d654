"""Counts of a judge's verdicts, the reasons why some are missing, and the remedy for each reason."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from fapo.errors import JudgeDownError
from fapo.judge.verdicts import BLANK, CUT_OFF, GIVEN_STEP, NO_ANSWER, NO_JSON, NO_STEP, OUT_OF_RANGE
from fapo.types import Verdict

MIN_VERDICTS = 8
"""Minimum number of verdicts before anything is concluded from them."""
MIN_SAME = 50
"""Usual value of `min_same`: most solutions with a correct answer have no error."""
MIN_MISSING_RATE = 0.05
"""Rate of missing verdicts from which another prompt or length limit is worth a try; a failed request always is."""
MAX_EXAMPLE = 200
"""Number of characters of a critique that are shown."""
SHORT = 60
"""Length of a critique, in characters, below which a higher length limit cannot be the remedy."""

OTHER_PROMPT = (
    "the judge does not follow the form of its prompt: give a GenRM the prompt of its training, a small model the "
    "template locate_small; `fapo check-judge` compares the templates"
)
REMEDIES = {
    CUT_OFF: "raise the length limit of a critique (--max-tokens, judge.max_tokens), or use a template that asks for "
    "less, such as locate_small",
    OUT_OF_RANGE: "the judge boxes something else than a step of the solution, such as its own answer to the problem; "
    + OTHER_PROMPT,
    GIVEN_STEP: "the judge names a step that the policy did not write, such as the output of a tool; " + OTHER_PROMPT,
    NO_STEP: OTHER_PROMPT,
    NO_ANSWER: "the judge does not answer yes or no in a box; use locate or locate_small, `fapo check-judge` compares "
    "the templates",
    NO_JSON: "the server does not enforce a JSON schema (response_format); use one that does, or the format boxed",
    BLANK: "these solutions are empty, so there is nothing to judge",
}
"""Reason of an unparsable verdict -> its remedy."""
EMPTY = (
    "the critique is empty: a thinking model may have written it into another field; turn the server's reasoning "
    "parser off, or raise the length limit of a critique (--max-tokens, judge.max_tokens)"
)
FAILURES = (
    (r"HTTP 40[13]\b", "the server wants another key: set FAPO_API_KEY"),
    (r"HTTP 404\b", "the server does not know the model or the path: GET /v1/models lists its models (--model)"),
    (r"HTTP 429\b", "the quota is used up, or there are too many requests at once: lower the concurrency"),
    (r"context|too (long|large)|HTTP 413\b", "the prompt and the answer do not fit: raise the server's context"),
    (r"scores for|no score of", "the server is not one of a process reward model: vllm serve PATH --runner pooling"),
    (r"no connection", "no server listens there: start it, or correct the address"),
    (r"HTTP 5\d\d\b|not JSON|not a chat completion", "the server answers with an error or with nonsense: see its log"),
    (r"no answer within", "the server is too slow: lower the concurrency, or raise the time limit of a request"),
)
"""Pattern of the reason of a failed judgement, and its remedy; the first pattern that fits counts. A time limit is the
last one: the reason of a request that ran out of time also has the error of the try before."""


@dataclass
class VerdictCounts:
    """Counts of the verdicts of a judge. Their memory does not grow with the number of verdicts."""

    min_same: int = MIN_SAME
    """Minimum number of verdicts "no error found", and of no others, before this is remarked on."""
    num: int = 0
    """Number of judgements that were requested."""
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of judgements without a verdict, by status and reason."""
    examples: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    """First verdict of each status and reason."""
    found: Counter[tuple[bool | None, int | None]] = field(default_factory=Counter)
    """Number of verdicts, by `flawed` and `error_step`."""
    warned: bool = False
    """Whether `watch` has logged its warning."""

    @classmethod
    def of(cls, verdicts: Iterable[Verdict], min_same: int = MIN_SAME) -> VerdictCounts:
        """Return the counts of several verdicts."""
        counts = cls(min_same)
        for verdict in verdicts:
            counts.add(verdict)
        return counts

    def add(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self.num += 1
        if verdict.status == "ok":
            self.found[verdict.flawed, verdict.error_step] += 1
            return
        # errors of a server may be different each time, so that only the known reasons are counted apart
        key = verdict.status, verdict.reason if verdict.reason in REMEDIES else _kind_of_failure(verdict.reason)
        self.missing[key] += 1
        self.examples.setdefault(key, verdict)

    @property
    def mostly_missing(self) -> bool:
        """Whether more than half of at least MIN_VERDICTS judgements have no verdict, so that numbers mean little."""
        return self.num >= MIN_VERDICTS and 2 * self.missing.total() > self.num

    @property
    def all_same(self) -> bool:
        """Whether all verdicts flag, or none does, and they are too many for a judge that reads the solutions."""
        kinds = {flawed for flawed, _ in self.found}
        return len(kinds) == 1 and self.found.total() >= (MIN_VERDICTS if True in kinds else self.min_same)

    def watch(self, verdicts: Iterable[Verdict]) -> None:
        """Count verdicts, and log once that most of all so far are missing, or that all are the same."""
        for verdict in verdicts:
            self.add(verdict)
        if not self.warned and (self.mostly_missing or self.all_same):
            self.warned = True
            for note in self.notes():
                logging.getLogger("fapo").warning(note)

    def require_answers(self) -> None:
        """Raise JudgeDownError, with reason and remedy, if every judgement failed."""
        failed = sum(num for (status, _), num in self.missing.items() if status == "failed")
        if failed and failed == self.num:
            (_, example), remedy = self._commonest()
            raise JudgeDownError(f"the judge is down: all {failed} requests failed: {example.reason}. {remedy}")

    def notes(self) -> list[str]:
        """Return the rate of missing verdicts, the commonest reason, an example and what to do; [] without any.

        Nothing is advised where few verdicts are missing, unless requests failed.
        """
        notes = []
        if num := self.missing.total():
            (reason, example), remedy = self._commonest()
            times = self.missing.most_common(1)[0][1]
            notes.append(
                f"no verdict in {num} of {self.num} judgements ({num / self.num:.0%}); {times} times: {reason}"
            )
            if example.status == "unparsable" and example.reason != BLANK:
                notes.append(f"the judge wrote, for example: {_excerpt(example.critique)}")
            if example.status == "failed" or num >= MIN_MISSING_RATE * self.num:
                notes.append(f"what to try: {remedy}")
        if self.all_same:
            (flawed, step), *others = self.found
            located = flawed and step is not None and not others
            verdict = "no error found" if not flawed else f"step {step} is wrong" if located else "flawed"
            notes.append(
                f'all {self.found.total()} verdicts are the same, "{verdict}": the judge may not read the solutions; '
                "`fapo check-judge` shows whether it finds planted errors"
            )
        return notes

    def _commonest(self) -> tuple[tuple[str, Verdict], str]:
        """Return the commonest reason with the first verdict that has it, and what to do about it."""
        key = self.missing.most_common(1)[0][0]
        example = self.examples[key]
        status, reason = key
        if status == "failed":
            remedy = remedy_of(example.reason) or "see its log"
            return (f"the request failed: {_excerpt(example.reason)}", example), remedy
        if reason in (NO_STEP, NO_ANSWER) and not example.critique.strip():
            return (reason, example), EMPTY
        if reason == CUT_OFF and len(example.critique) < SHORT:
            return (reason, example), EMPTY
        return (reason, example), REMEDIES.get(reason, OTHER_PROMPT)


def remedy_of(reason: str, causes: Sequence[tuple[str, str]] = FAILURES) -> str:
    """Return what to do about a failed request, by the first pattern in its reason; empty if none fits."""
    return next((remedy for pattern, remedy in causes if re.search(pattern, reason)), "")


def shortened(verdict: Verdict) -> Verdict:
    """Return a verdict without its critique, which takes memory; an example of an unparsable one may be shown."""
    return replace(verdict, critique="" if verdict.status == "ok" else verdict.critique[: MAX_EXAMPLE + 1])


def _kind_of_failure(reason: str) -> str:
    """Return the pattern of FAILURES that fits a reason; if none fits, its first characters without numbers."""
    found = (pattern for pattern, _ in FAILURES if re.search(pattern, reason))
    return next(found, re.sub(r"\d+", "0", reason[:40]))


def _excerpt(text: str) -> str:
    """Return the first characters of an untrusted text, on one line, without characters that steer a terminal."""
    return repr(text[:MAX_EXAMPLE]) + ("..." if len(text) > MAX_EXAMPLE else "")
