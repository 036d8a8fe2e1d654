"""Final answers: find one in a solution, decide whether it equals the reference, never longer than a deadline.

Most answers are settled here by exact rules (text, choice letters, rational numbers, length of lists). What is left is
computer algebra, which may run for ever or eat all memory, so it runs in a pool of worker processes that are killed at
the deadline. That needs no signals: it works from any thread, from a running event loop and after a fork.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import logging
import math
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Literal

from pebble import ProcessPool

MAX_CHARS = 2000
"""Longest answer or reference, in characters, that is compared by more than string equality."""
WORKER_MEMORY = 4 << 30
"""Address space of one worker, in bytes."""
TASKS_PER_WORKER = 2000
"""A worker is replaced after this many comparisons, so that its caches do not grow for ever."""
START_SECONDS = 60.0
"""How long workers may take to start before a comparison counts as timed out."""


@dataclass(frozen=True)
class Check:
    """The outcome of comparing one solution's final answer with the reference."""

    correct: bool
    """True only when the answer was shown to be equivalent."""
    answer: str | None
    """The extracted answer; None when the text has none."""
    status: Literal["ok", "no_answer", "timeout", "error"]
    """ok: decided; no_answer: nothing to compare; timeout: stopped at the deadline; error: could not be compared."""
    detail: str = ""
    """Why the answer could not be compared, or why it is wrong when that is not plain."""


# ---------------------------------------------------------------- extraction

_BRACES = re.compile(r"(?P<box>\\+(?:boxed|fbox)\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_PHRASE = re.compile(r"(?:\banswer(?:\s+is\b|\s*[:=])|####)[\s:*=]*(?=([^\n]+))", re.IGNORECASE)
_LAST_RESORT = re.compile(r"\(([A-J])\)|[-−+]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?")


def extract(text: str, *, require_box: bool = True) -> str | None:
    r"""The final answer in a solution, stripped, or None.

    The last `\boxed{...}` or `\fbox{...}` counts; of nested boxes, the outermost. A last box that is never closed (cut
    off by the length limit) or is empty means that there is no answer. With require_box=False a text without any box
    may also answer by "the answer is X", "Answer: X" or "#### X" (the last of them), or else by its last number or
    choice letter in parentheses. One pass over the text, whatever it contains.
    """
    pending: list[tuple[int, bool]] = []
    closed: list[tuple[int, int, int]] = []
    last_box = -1
    for match in _BRACES.finditer(text):
        if match["box"] or match["open"]:
            pending.append((match.start(), bool(match["box"])))
            last_box = match.start() if match["box"] else last_box
        elif match["close"] and pending:
            start, is_box = pending.pop()
            if is_box:
                closed.append((start, text.index("{", start) + 1, match.start()))
    if last_box >= 0:
        around = [box for box in closed if box[0] <= last_box < box[2]]
        return text[around[-1][1] : around[-1][2]].strip() or None if around else None
    if require_box:
        return None
    if phrases := _PHRASE.findall(text):
        sentence = re.split(r"\.(?:\s|$)", phrases[-1].strip(), maxsplit=1)[0]
        return sentence.strip(" *_$") or None
    candidates = list(_LAST_RESORT.finditer(text))
    return candidates[-1][1] or candidates[-1][0] if candidates else None


# ---------------------------------------------------------------- normal form

_CHARACTERS = str.maketrans(
    dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("\u00a0\u2002\u2003\u2009\u200a\u202f\u3000~", " ")
    | {"°": r"^\circ ", "π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "÷": "/", "²": "^2", "³": "^3"}
    | {"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "≤": r"\le ", "≥": r"\ge ", "±": r"\pm ", "，": ",", "％": "%"}
)
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"√ ?(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"^\\(?:boxed|fbox)\{(.*)\}$", r"\1"),
        (r"(\d)\{,\}(?=\d)", r"\1,"),
        (r"(\d) ?, ?\\! ?(?=\d{3})", r"\1,"),
        (
            r"\\(?:left|right)(?![A-Za-z])\.?|\\[bB]igg?[lrm]?(?![A-Za-z])|\\displaystyle(?![A-Za-z])|(?<!\\)\\[!,;:>]",
            "",
        ),
        (r"(?<!\\)\\ |\\q?quad(?![A-Za-z])|\s+", " "),
        (r"\\\$|\$|^ ?\\[(\[]|\\[)\]] ?$|€|£", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac ?(\d) ?(?=[\d{])", r"\\frac{\1}"),
        (r"\\frac ?(\{[^{}]*\}) ?(\d)", r"\\frac\1{\2}"),
        (r"\\sqrt ?([\dA-Za-z])", r"\\sqrt{\1}"),
        (r" ?\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})|\\degrees?(?![A-Za-z])", ""),
        (r"\\%", "%"),
        (r" {2,}", " "),
        (r"(?<=.)[.,;: ]+$", ""),
    )
)
_TEXT = r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname) ?\{([^{}]*)\}"
_TEXT_COMMAND = re.compile(_TEXT)
_TEXT_UNIT = re.compile(rf"(?<=\S) ?{_TEXT} ?(?:\^ ?\{{?\d\}}?)?$")
_WORD_UNIT = re.compile(
    r"(?<=[\d}]) ?(?:degrees?|dollars?|cents?|units?|inch(?:es)?|feet|foot|ft|yards?|miles?|mph|cm|mm|km|meters?|"
    r"metres?|kg|grams?|pounds?|lbs|liters?|litres?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|people|students|"
    r"ways|square|cubic| )+(?:\^ ?\{?\d\}?)?$",
    re.IGNORECASE,
)
_SCALES = re.compile(r"hundred|thousand|million|billion|trillion|dozen|percent|pairs?\b", re.IGNORECASE)


def _clean(answer: str) -> str:
    """The answer without what carries no meaning: delimiters, spacing, sizes, currency and degree signs."""
    text = answer.translate(_CHARACTERS).strip()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip()


def _without_unit(text: str) -> str:
    """Drop a unit after a value; words that change the value ("thousand") stay."""
    for pattern in (_TEXT_UNIT, _WORD_UNIT):
        found = pattern.search(text)
        if found and not _SCALES.search(found[0]):
            text = text[: found.start()].strip()
    return text


def _plain(text: str) -> str:
    """Contents of text commands in place of the commands, single spaces."""
    return " ".join(_TEXT_COMMAND.sub(r" \1 ", text).split())


def _compact(text: str) -> str:
    """Without spaces, save those between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


# ---------------------------------------------------------------- exact decisions

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<whole>{_INTEGER})(?: |(?=\\)))??"
    rf"(?:\\frac\{{(?P<up>[-+]?{_DECIMAL})\}}\{{(?P<down>{_DECIMAL})\}}|(?P<top>{_DECIMAL})/(?P<bottom>{_DECIMAL})"
    rf"|(?P<plain>{_DECIMAL}))(?P<percent> ?%| ?percent)?"
)
_LETTER = re.compile(r"[(\[]? ?([A-Z]) ?[)\].:]*")
_CHOICE = re.compile(r"(?:(?:option|choice|answer) ?:? ?)?[(\[]? ?([A-Z]) ?(?:[)\].:].*)?", re.IGNORECASE | re.DOTALL)
_WORDS = re.compile(r"[A-Za-z]{4,}(?:[ -][A-Za-z]+)*|[A-Za-z]+(?:[ -][A-Za-z]+)+|yes|no|odd", re.IGNORECASE)
_NAME = re.compile(r"\\?[A-Za-z]+'?(?:_(?:\w|\{\w+\}))?(?: ?\([^()]*\))?")
_CONSTANT = re.compile(r"\\(?:frac|sqrt|cdot|times|pi)(?![A-Za-z])")
_MEMBER = re.compile(r"\\in(?![A-Za-z])")
_BASE = re.compile(r"(\d+) ?_ ?\{? ?(\d+) ?\}?")
_SEPARATOR = re.compile(r"\\(?:text|mbox|textrm) ?\{ ?,? ?(?:and|or) ?\}|\\(?:lor|vee)(?![A-Za-z])| (?:and|or) |;|,")


@dataclass(frozen=True)
class _Number:
    value: Fraction
    places: int
    """Digits after the decimal point; 0 for integers and fractions."""
    percent: bool


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").rstrip(".") or "0")


def _number(text: str) -> _Number | None:
    """The rational number a cleaned answer is (integer, decimal, fraction, mixed number, percentage), or None."""
    if ", " in text:
        return None
    match = _NUMBER.fullmatch(_compact(_without_unit(text)).replace("- ", "-"))
    if match is None or (match["whole"] and match["plain"]):
        return None
    if match["plain"]:
        value = _fraction(match["plain"])
    else:
        down = _fraction(match["down"] or match["bottom"])
        if not down:
            return None
        value = _fraction(match["up"] or match["top"]) / down
    value += _fraction(match["whole"]) if match["whole"] else 0
    places = len((match["plain"] or "").partition(".")[2])
    return _Number(-value if match["sign"] == "-" else value, places, bool(match["percent"]))


def _equal_numbers(answer: _Number, reference: _Number) -> bool:
    """Exactly equal; or one is a decimal of 6 places or more and the other, no decimal, is within its last place."""
    if answer.value == reference.value:
        return True
    if answer.percent != reference.percent:
        return answer.value / (100 if answer.percent else 1) == reference.value / (100 if reference.percent else 1)
    if bool(answer.places) == bool(reference.places):
        return False
    places = max(answer.places, reference.places)
    return places >= 6 and abs(answer.value - reference.value) < Fraction(1, 10**places)


def _elements(text: str) -> list[str]:
    r"""What a cleaned answer lists at its top level: `1, 2`, `1 or 2`, `\{1, 2\}`, `1 \pm 2`; else itself alone."""
    if text.startswith(r"\{") and text.endswith(r"\}") and r"\}" not in text[2:-2]:
        text = text[2:-2]
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        char = text[position]
        separator = _SEPARATOR.match(text, position) if depth == 0 else None
        if separator:
            parts.append(text[start:position])
            start = position = separator.end()
            continue
        if text.startswith((r"\begin", r"\end"), position):
            depth += 1 if text.startswith(r"\begin", position) else -(depth > 0)
        elif text.startswith(r"\\", position):
            if depth == 0:
                parts.append(text[start:position])
                start = position + 2
            position += 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= depth > 0
        position += 1
    signed = []
    for part in filter(None, (part.strip() for part in [*parts, text[start:]])):
        if len(re.findall(r"\\[pm]{2}(?![A-Za-z])", part)) == 1:
            signed += [re.sub(r"\\[pm]{2}(?![A-Za-z])", sign, part) for sign in "+-"]
        else:
            signed.append(part)
    return signed


def _definition(text: str) -> tuple[str, str] | None:
    """(name, value) of `x = 5`, `f(3) = 5`, `a + b = 3 + 2 = 5`, `2 + 3 = 5`, `x \\in [1, 2]`; None for other forms."""
    sides = re.split(r"=(?![^()]*\))", text) if "=" in text else _MEMBER.split(text, maxsplit=1)
    name, value = sides[0].strip(), sides[-1].strip()
    if len(sides) == 1 or not name or not value:
        return None
    is_name = _NAME.fullmatch(name) or not re.search(r"\d", name)
    is_constant = not re.search("[A-Za-z]", _CONSTANT.sub("", name))
    return (name, value) if is_name or is_constant else None


def _drop_name(text: str, other: str) -> str:
    """`x = 5` -> `5` when the other side names nothing, or the same thing."""
    mine, theirs = _definition(text), _definition(other)
    return mine[1] if mine and ("=" not in other or (theirs and theirs[0] == mine[0])) else text


def _equal_in_base(answer: str, reference: str) -> bool | None:
    """Numerals with a base: where the reference names one, the answer may leave it out. None when there is none."""
    told, wanted = _BASE.fullmatch(answer), _BASE.fullmatch(reference)
    if wanted:
        return (told[1], told[2]) == (wanted[1], wanted[2]) if told else answer == wanted[1]
    number = _number(reference)
    if told and number and 2 <= int(told[2]) <= 36:
        with contextlib.suppress(ValueError):
            return int(told[1], int(told[2])) == number.value
    return None if not told else False


def _decide_one(answer: str, reference: str) -> bool | None:
    """Compare two single cleaned answers exactly; None leaves it to computer algebra."""
    answer, reference = _drop_name(answer, reference), _drop_name(reference, answer)
    if answer and _compact(answer) == _compact(reference):
        return True
    told, wanted = _plain(answer), _plain(reference)
    if letter := _LETTER.fullmatch(wanted):
        choice = _CHOICE.fullmatch(told)
        return choice is not None and choice[1].upper() == letter[1]
    if _WORDS.fullmatch(wanted):
        return told.strip(". ").casefold() == wanted.casefold()
    if "_" in answer + reference and (based := _equal_in_base(answer, reference)) is not None:
        return based
    if ("=" in answer) != ("=" in reference):
        return False  # an equation for a value, or a value for an equation
    number, target = _number(answer), _number(reference)
    if number and target:
        return _equal_numbers(number, target)
    if re.search(r"\d \d", _compact(answer)) and not number:
        return False  # numbers side by side: several candidates
    return None


def _pair_up(answers: list[str], references: list[str], equal: Callable[[str, str], bool | None]) -> bool | None:
    """Whether the two lists match one to one in any order; None when a comparison that matters was undecided."""
    left, undecided = list(answers), False
    for reference in references:
        outcomes = []
        for answer in left:
            outcomes.append(equal(answer, reference))
            if outcomes[-1]:
                break
        if outcomes and outcomes[-1]:
            left.pop(len(outcomes) - 1)
        elif None in outcomes:
            undecided = True
        else:
            return False
    return None if undecided else not left


def _aligned(answer: str, reference: str) -> tuple[list[str], list[str]]:
    """Elements of both; a tuple given where the reference is a bare list counts as that list."""
    references = _elements(reference)
    answers = _elements(answer)
    if len(references) > 1 and len(answers) == 1 and re.fullmatch(r"[(\[].*[)\]]", answers[0]):
        answers = _elements(answers[0][1:-1])
    return answers, references


def _decide(answer: str, reference: str) -> bool | None:
    """Compare two cleaned answers exactly; None leaves it to computer algebra."""
    whole = _decide_one(answer, reference)
    if whole is not None and (whole or not (_elements(reference)[1:] and _elements(answer)[1:])):
        return whole
    answers, references = _aligned(answer, reference)
    if len(answers) != len(references):
        return False
    if len(answers) == 1:
        return _decide_one(answers[0], references[0])
    return _pair_up(answers, references, _decide_one)


# ---------------------------------------------------------------- inside a worker


def _start_worker(memory: int) -> None:
    """Once in each worker: a bound on memory, death at once when told so, the imports that take a second."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401


@functools.lru_cache(maxsize=1024)
def _parse(expression: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    return parse(f"${expression}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)


def _algebra_one(answer: str, reference: str) -> bool:
    """Compare two single cleaned answers by computer algebra. A set of several values equals no single value."""
    from math_verify import verify as same

    decided = _decide_one(answer, reference)
    if decided is not None:
        return decided
    gold = _parse(_without_unit(_drop_name(reference, answer)))
    told = _parse(_without_unit(_drop_name(answer, reference)))
    sizes = [max((len(e.args) for e in side if type(e).__name__ == "FiniteSet"), default=1) for side in (gold, told)]
    return bool(gold and told) and sizes[0] == sizes[1] and same(gold, told, timeout_seconds=None)


def _algebra(answer: str, reference: str) -> bool:
    """Compare two cleaned answers by computer algebra. Runs in a worker; no bound on time but the worker's life."""
    answers, references = _aligned(answer, reference)
    return len(answers) == len(references) and bool(_pair_up(answers, references, _algebra_one))


# ---------------------------------------------------------------- the pool

_lock = threading.RLock()
_pool: ProcessPool | None = None
_open: set[concurrent.futures.Future[bool]] = set()
_inherited: list[Any] = []
_num_workers = max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


class _Process(SpawnProcess):
    """A spawned process that does not import the caller's __main__: a script needs no `if __name__` guard."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from multiprocessing import popen_spawn_posix, spawn

        def preparation(name: str) -> dict[str, Any]:
            data = spawn.get_preparation_data(name)
            return {key: value for key, value in data.items() if not key.startswith("init_main")}

        without_main = types.SimpleNamespace(**{**vars(spawn), "get_preparation_data": preparation})
        launch = popen_spawn_posix.Popen._launch  # type: ignore[attr-defined]

        class Popen(popen_spawn_posix.Popen):
            _launch = types.FunctionType(launch.__code__, {**launch.__globals__, "spawn": without_main})

        return Popen(process_obj)


class _Spawn(SpawnContext):
    if sys.platform != "win32":
        Process = _Process


def _submit(answer: str, reference: str, deadline: float) -> concurrent.futures.Future[bool]:
    global _pool
    with _lock:
        if _pool is not None and not _pool.active:
            shutdown()
        if _pool is None:
            _pool = ProcessPool(_num_workers, TASKS_PER_WORKER, _start_worker, (WORKER_MEMORY,), _Spawn())
        future = _pool.schedule(_algebra, args=(answer, reference), timeout=deadline)
        _open.add(future)
        future.add_done_callback(_open.discard)
        return future


def _patience(deadline: float) -> float:
    """Seconds after which workers that have not even started are given up."""
    return START_SECONDS + (deadline + 4.0) * math.ceil(1 + len(_open) / _num_workers)


def shutdown() -> None:
    """Stop the workers. The next comparison starts new ones. Called at exit by itself."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
        for future in list(_open):
            future.cancel()
        _open.clear()
    if pool is not None:
        pool.stop()
        pool.join()


def _forget_pool() -> None:
    """In a forked child: the workers belong to the parent."""
    global _lock, _pool, _open
    _inherited.append((_pool, _open))
    _lock, _pool, _open = threading.RLock(), None, set()


atexit.register(shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


# ---------------------------------------------------------------- public checks


def _triage(answer: str | None, reference: str) -> Check | tuple[str, str]:
    """A Check where exact rules decide; else the two cleaned answers that need computer algebra."""
    if answer is None:
        return Check(False, None, "no_answer", "no final answer")
    if answer.strip() == reference.strip():
        return Check(True, answer, "ok")
    if max(len(answer), len(reference)) > MAX_CHARS:
        return Check(False, answer, "error", f"longer than {MAX_CHARS} characters")
    told, wanted = _clean(answer), _clean(reference)
    decided = _decide(told, wanted)
    return (told, wanted) if decided is None else Check(decided, answer, "ok")


def _outcome(answer: str, future: Any, deadline: float) -> Check:
    """Read one comparison of the pool (a concurrent or an asyncio future, finished or given up)."""
    if not future.done() or future.cancelled():
        return Check(False, answer, "timeout", "no worker took it in time")
    error = future.exception()
    if error is None:
        return Check(future.result(), answer, "ok")
    if isinstance(error, TimeoutError):
        return Check(False, answer, "timeout", f"stopped after {deadline:g} s")
    return Check(False, answer, "error", f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Batch:
    """Solutions on their way through the comparison; the same answer to the same reference is compared once."""

    answers: list[str | None]
    triaged: list[Check | tuple[str, str]]
    futures: dict[tuple[str, str], concurrent.futures.Future[bool]]
    deadline: float

    def checks(self, finished: dict[tuple[str, str], Any]) -> list[Check]:
        return [
            item if isinstance(item, Check) else _outcome(answer or "", finished[item], self.deadline)
            for answer, item in zip(self.answers, self.triaged, strict=True)
        ]


def _extracted(pairs: Sequence[tuple[str, str]], require_box: bool) -> tuple[list[str | None], list[str]]:
    return [extract(text, require_box=require_box) for text, _ in pairs], [reference for _, reference in pairs]


def _start(answers: Iterable[str | None], references: Iterable[str], deadline: float) -> _Batch:
    if not deadline > 0:
        raise ValueError(f"deadline must be a positive number of seconds, not {deadline!r}")
    answers = list(answers)
    triaged = [_triage(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    jobs = dict.fromkeys(item for item in triaged if isinstance(item, tuple))
    return _Batch(answers, triaged, {job: _submit(*job, deadline) for job in jobs}, deadline)


def _finish(batch: _Batch) -> list[Check]:
    try:
        concurrent.futures.wait(batch.futures.values(), timeout=_patience(batch.deadline))
        return batch.checks(batch.futures)
    finally:
        for future in batch.futures.values():
            future.cancel()


def equivalent(answer: str, reference: str, *, deadline: float = 5.0) -> bool:
    """Whether an answer (already extracted) means the same as the reference. False also at the deadline (seconds)."""
    return _finish(_start([answer], [reference], deadline))[0].correct


def check_many(pairs: Sequence[tuple[str, str]], *, deadline: float = 5.0, require_box: bool = True) -> list[Check]:
    """Check (solution text, reference) pairs, in order and in parallel.

    Each comparison has `deadline` seconds of its own, counted from when a worker takes it; one that reaches it costs
    the others nothing but that worker. Units, degree and currency signs do not count: `5 cm` equals `5`. A choice
    letter is only ever compared as a letter. A list must have as many elements as the reference; order is free, but
    not within a tuple. Never raises for a text; ValueError for a deadline that is not positive.
    """
    return _finish(_start(*_extracted(pairs, require_box), deadline))


async def acheck_many(
    pairs: Sequence[tuple[str, str]], *, deadline: float = 5.0, require_box: bool = True
) -> list[Check]:
    """`check_many` without blocking the event loop. Cancelling it stops the comparisons."""
    batch = _start(*_extracted(pairs, require_box), deadline)
    waiting = {job: asyncio.wrap_future(future) for job, future in batch.futures.items()}
    try:
        if waiting:
            await asyncio.wait(waiting.values(), timeout=_patience(deadline))
        return batch.checks(waiting)
    finally:
        for future in waiting.values():
            future.cancel()


def check(prediction_text: str, reference: str, *, deadline: float = 5.0, require_box: bool = True) -> Check:
    """Check one solution; see `check_many`."""
    return check_many([(prediction_text, reference)], deadline=deadline, require_box=require_box)[0]


async def acheck(prediction_text: str, reference: str, *, deadline: float = 5.0, require_box: bool = True) -> Check:
    """`check` without blocking the event loop."""
    return (await acheck_many([(prediction_text, reference)], deadline=deadline, require_box=require_box))[0]


def verify(prediction_text: str, reference: str, *, deadline: float = 5.0, require_box: bool = True) -> bool:
    """Whether a solution's final answer is right. False without an answer and at the deadline; `check` tells which."""
    return check(prediction_text, reference, deadline=deadline, require_box=require_box).correct


async def averify(prediction_text: str, reference: str, *, deadline: float = 5.0, require_box: bool = True) -> bool:
    """`verify` without blocking the event loop."""
    return (await acheck(prediction_text, reference, deadline=deadline, require_box=require_box)).correct
