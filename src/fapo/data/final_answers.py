"""Rules for final answers: extract one from a solution, normalize it, and compare it with the reference.

Exact rules decide most comparisons (text, choice letters, rational numbers, length of lists). Computer algebra decides
the others. It has no bound on time or memory, so `fapo.rewards.verify` calls it in a process that can be killed.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

# ---------------------------------------------------------------- extraction

_BRACES = re.compile(r"(?P<box>\\+(?:boxed|fbox)\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_PHRASE = re.compile(r"(?:\banswer(?:\s+is\b|\s*[:=])|####)[\s:*=]*(?=([^\n]+))", re.IGNORECASE)
_LAST_RESORT = re.compile(r"\(([A-J])\)|[-−+]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?")


def _boxes(text: str) -> tuple[list[tuple[int, int, int]], int]:
    """Return closed boxes as (start, content start, content end), inner ones first, and the start of the last box."""
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
    return closed, last_box


def num_words(text: str) -> int:
    """Return the number of words and numbers of a solution outside its boxes; `17+5=22` has three."""
    kept, position = [], 0
    for start, _, end in sorted(_boxes(text)[0]):
        kept.append(text[position:start])
        position = max(position, end)
    return len(re.findall(r"\w+", " ".join([*kept, text[position:]])))


def extract(text: str, *, require_box: bool = True) -> str | None:
    r"""Extract the final answer of a solution.

    The last `\boxed{...}` or `\fbox{...}` counts; of nested boxes, the outermost. The time is linear in the length of
    the text, whatever it contains.

    Args:
        text: Text of the solution.
        require_box: Whether only a box counts. If not, a text without any box may answer by "the answer is X",
            "Answer: X" or "#### X", and the last of them counts. Without these, its last number or choice letter in
            parentheses is the answer.

    Returns:
        The answer without blanks around it. None if there is none, or if the last box is empty or never closed, as in a
        solution that the length limit cut off.
    """
    closed, last_box = _boxes(text)
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


def clean(answer: str) -> str:
    """Remove what has no meaning from an answer: delimiters, spacing, sizes, currency and degree signs."""
    text = answer.translate(_CHARACTERS).strip()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip()


def _without_unit(text: str) -> str:
    """Remove a unit after a value; words that change the value ("thousand") stay."""
    for pattern in (_TEXT_UNIT, _WORD_UNIT):
        found = pattern.search(text)
        if found and not _SCALES.search(found[0]):
            text = text[: found.start()].strip()
    return text


def _plain(text: str) -> str:
    """Replace text commands by their content, and blanks by single spaces."""
    return " ".join(_TEXT_COMMAND.sub(r" \1 ", text).split())


def _compact(text: str) -> str:
    """Remove spaces, except those between two digits."""
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
    """A rational number, as it is written."""

    value: Fraction
    """Value without the percent sign."""
    places: int
    """Number of digits after the decimal point; 0 for integers and fractions."""
    percent: bool
    """Whether a percent sign follows."""


def _fraction(digits: str) -> Fraction:
    """Return the value of an integer or decimal, with or without commas."""
    return Fraction(digits.replace(",", "").rstrip(".") or "0")


def _number(text: str) -> _Number | None:
    """Return a cleaned answer as a rational number (integer, decimal, fraction, mixed number, percentage), or None."""
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
    """Return whether numbers are equal; a decimal of 6 places or more may be the rounded value of a fraction."""
    if answer.value == reference.value:
        return True
    if answer.percent != reference.percent:
        return answer.value / (100 if answer.percent else 1) == reference.value / (100 if reference.percent else 1)
    if bool(answer.places) == bool(reference.places):
        return False
    places = max(answer.places, reference.places)
    return places >= 6 and abs(answer.value - reference.value) < Fraction(1, 10**places)


def _elements(text: str) -> list[str]:
    r"""Return the elements of a list such as `1, 2`, `1 or 2`, `\{1, 2\}`, `1 \pm 2`; other answers are one element."""
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
    r"""Split `x = 5`, `f(3) = 5`, `a + b = 3 + 2 = 5` or `x \in [1, 2]` into (name, value); None for other forms."""
    sides = re.split(r"=(?![^()]*\))", text) if "=" in text else _MEMBER.split(text, maxsplit=1)
    name, value = sides[0].strip(), sides[-1].strip()
    if len(sides) == 1 or not name or not value:
        return None
    is_name = _NAME.fullmatch(name) or not re.search(r"\d", name)
    is_constant = not re.search("[A-Za-z]", _CONSTANT.sub("", name))
    return (name, value) if is_name or is_constant else None


def _drop_name(text: str, other: str) -> str:
    """Reduce `x = 5` to `5` if the other answer names nothing, or the same thing."""
    mine, theirs = _definition(text), _definition(other)
    return mine[1] if mine and ("=" not in other or (theirs and theirs[0] == mine[0])) else text


def _equal_in_base(answer: str, reference: str) -> bool | None:
    """Compare numerals with a base, which the answer may leave out; None if neither has a base."""
    given, wanted = _BASE.fullmatch(answer), _BASE.fullmatch(reference)
    if wanted:
        return (given[1], given[2]) == (wanted[1], wanted[2]) if given else answer == wanted[1]
    number = _number(reference)
    if given and number and 2 <= int(given[2]) <= 36:
        with contextlib.suppress(ValueError):
            return int(given[1], int(given[2])) == number.value
    return None if not given else False


def _decide_one(answer: str, reference: str) -> bool | None:
    """Compare two single cleaned answers by exact rules; None if computer algebra must decide."""
    answer, reference = _drop_name(answer, reference), _drop_name(reference, answer)
    if answer and _compact(answer) == _compact(reference):
        return True
    given, wanted = _plain(answer), _plain(reference)
    if letter := _LETTER.fullmatch(wanted):
        choice = _CHOICE.fullmatch(given)
        return choice is not None and choice[1].upper() == letter[1]
    if _WORDS.fullmatch(wanted):
        return given.strip(". ").casefold() == wanted.casefold()
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
    """Return whether two lists match one to one in any order; None if it depends on an undecided comparison."""
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
    """Return the elements of both; a tuple counts as a list if the reference is a list without brackets."""
    references = _elements(reference)
    answers = _elements(answer)
    if len(references) > 1 and len(answers) == 1 and re.fullmatch(r"[(\[].*[)\]]", answers[0]):
        answers = _elements(answers[0][1:-1])
    return answers, references


def decide(answer: str, reference: str) -> bool | None:
    """Compare two answers by exact rules.

    Args:
        answer: Answer of a solution, from `clean`.
        reference: Reference answer, from `clean`.

    Returns:
        Whether they are equal; None if computer algebra must decide.
    """
    whole = _decide_one(answer, reference)
    if whole is not None and (whole or not (_elements(reference)[1:] and _elements(answer)[1:])):
        return whole
    answers, references = _aligned(answer, reference)
    if len(answers) != len(references):
        return False
    if len(answers) == 1:
        return _decide_one(answers[0], references[0])
    return _pair_up(answers, references, _decide_one)


# ---------------------------------------------------------------- computer algebra


@functools.lru_cache(maxsize=1024)
def _parse(expression: str) -> list[Any]:
    """Return an answer as expressions of sympy."""
    from math_verify import LatexExtractionConfig, parse

    parsed: list[Any] = parse(
        f"${expression}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
    )
    return parsed


def _algebra_one(answer: str, reference: str) -> bool:
    """Compare two single cleaned answers by computer algebra; a set of several values equals no single value."""
    from math_verify import verify as same

    decided = _decide_one(answer, reference)
    if decided is not None:
        return decided
    gold = _parse(_without_unit(_drop_name(reference, answer)))
    given = _parse(_without_unit(_drop_name(answer, reference)))
    sizes = [max((len(e.args) for e in side if type(e).__name__ == "FiniteSet"), default=1) for side in (gold, given)]
    return bool(gold and given) and sizes[0] == sizes[1] and same(gold, given, timeout_seconds=None)


def algebra(answer: str, reference: str) -> bool:
    """Compare two answers by computer algebra, without a bound on time or memory.

    Args:
        answer: Answer of a solution, from `clean`.
        reference: Reference answer, from `clean`.

    Returns:
        Whether they are equal.
    """
    answers, references = _aligned(answer, reference)
    return len(answers) == len(references) and bool(_pair_up(answers, references, _algebra_one))
