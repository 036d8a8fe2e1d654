"""Rules for final answers: extract one from a solution, normalize it, and compare it with the reference.

Exact rules decide most comparisons (text, choice letters, rational numbers, length of lists). Computer algebra decides
the others. It has no bound on time or memory, so `fapo.rewards.verify` calls it in a process that can be killed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

# ---------------------------------------------------------------- extraction

_BRACES = re.compile(r"(?P<box>\\+(?:boxed|fbox)\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_PHRASE = re.compile(r"(?:\banswer(?:\s+is\b|\s*[:=])|####)[\s:*=]*(?=[^\n])", re.IGNORECASE)
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
    if phrases := list(_PHRASE.finditer(text)):
        line = text[phrases[-1].end() :].partition("\n")[0]
        sentence = re.split(r"\.(?:\s|$)", line.strip(), maxsplit=1)[0]
        return sentence.strip(" *_$") or None
    candidates = list(_LAST_RESORT.finditer(text))
    return candidates[-1][1] or candidates[-1][0] if candidates else None


# ---------------------------------------------------------------- normal form

MAX_CHARS = 2000
"""Maximum length, in characters, of answers and references that are compared by more than string equality."""
_CHARACTERS = str.maketrans(
    dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("\u00a0\u2002\u2003\u2009\u200a\u202f\u3000~", " ")
    | {"°": r"^\circ ", "π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "÷": "/", "²": "^2", "³": "^3"}
    | {"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "≤": r"\le ", "≥": r"\ge ", "±": r"\pm ", "，": ",", "％": "%"}
    | {"∅": r"\emptyset ", "≈": r"\approx ", "€": r"\euro ", "£": r"\pound "}
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Powers of ten that words after a number stand for."""
_TEXT = r"\\text\{([^{}]*)\}"


def _scaled(found: re.Match[str]) -> str:
    """Return a scale word as a factor; what follows it in the same text command stays a text."""
    rest = r"\text{" if found["open"] and not found["close"] else ""
    return rf" \times 10^{{{_SCALES[found['word']]}}}{rest}"


def _repeating(found: re.Match[str]) -> str:
    """Return a repeating decimal as a fraction."""
    once, period = found["whole"] + found["once"], found["period"]
    return rf"\frac{{{int(once + period) - int(once)}}}{{{'9' * len(period)}{'0' * len(found['once'])}}}"


def _power_of_ten(found: re.Match[str]) -> str:
    """Return a number with an exponent as a product."""
    return rf"{found['factor']}\times 10^{{{int(found['exponent'])}}}"


_REWRITES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm) ?\{", r"\\text{"),
        (r"√ ?(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"^\\(?:boxed|fbox)\{(.*)\}$", r"\1"),
        (r"(\d)(?:\{,\}|\\,| ?, ?\\! ?)(?=\d{3})", r"\1,"),
        (
            r"\\(?:left|right)(?![A-Za-z])\.?|\\[bB]igg?[lrm]?(?![A-Za-z])|\\color ?\{\w+\}|(?<!\\)\\[!,;:>()\[\]]|\*\*"
            r"|\\(?:displaystyle|bf|rm|it|mathbf|boldsymbol|underline|checkmark|therefore)(?![A-Za-z])|(?<!\\)\$"
            r"|^\w ?\\in ?(?=\\\{)",
            "",
        ),
        (r"(?<!\\)\\ |\\q?quad(?![A-Za-z])|\s+", " "),
        (r"(?<=.)(?:[.,;: ]|\\\\)+$", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac ?(\d) ?(?=[\d{])", r"\\frac{\1}"),
        (r"\\frac ?(\{[^{}]*\}) ?(\d)", r"\\frac\1{\2}"),
        (r"(\\(?:sin|cos|tan|cot|sec|csc)[ ({]*)(\d+) ?\^ ?\{? ?\\circ(?![A-Za-z]) ?\}?", r"\1(\\frac{\2\\pi}{180})"),
        (r" ?\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})|\\degrees?(?![A-Za-z])", r"\\text{ degree }"),
        (r"^\\text\{(?![a-z]+\}$)([^{}]*)\}$", r"\1"),
        (r"(?<=\S) ?(?:\\text\{ ?per ?cent ?\}|per ?cent(?![A-Za-z])|\\%)", "%"),
        (r"(?<=[\d}]) ?(?:\\text\{ ?to ?\}|(?<= )to(?= )|\\colon(?![A-Za-z])) ?(?=[\d\\])", ":"),
        (r"\\varnothing(?![A-Za-z])|^\\\{ ?\\\}$|^[Nn]o (?:real )?solutions?\.?$", r"\\emptyset"),
        (
            rf"(?<=[\d}}]) ?(?P<open>\\text\{{ ?)?(?P<word>{'|'.join(_SCALES)})(?![A-Za-z])(?P<close> ?\}})?",
            _scaled,
        ),
        (r"(?P<whole>\d+)\.(?P<once>\d*)\\(?:overline|bar|dot) ?\{(?P<period>\d+)\}", _repeating),
        (r"(?<![\d,.(\[{])\d{1,3}(?:,\d{3})+(?![\d,])", lambda found: found[0].replace(",", "")),
        (r"^\w* ?\\approx|(?<=\S) ?\\approx.*", ""),
        (r" {2,}", " "),
        (r"^ ?\{(.*)\} ?$", r"\1"),
        # 3e-5 may be 3e - 5 with Euler's number, so whole factors other than 1 stay
        (r"^(?P<factor>[-+]?(?:\d+\.\d*|\.\d+|1))[eE](?P<exponent>[-+]?\d{1,3})$", _power_of_ten),
    )
)


def clean(answer: str) -> str:
    """Bring an answer into a normal form: without delimiters and spacing, with scale words as factors.

    An answer of more than `MAX_CHARS` characters stays as it is: the rules take quadratic time.
    """
    if len(answer) > MAX_CHARS:
        return answer.strip()
    text = answer.translate(_CHARACTERS).strip()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip()


def _plain(text: str) -> str:
    """Replace text commands by their content, and blanks by single spaces."""
    return " ".join(re.sub(_TEXT, r" \1 ", text).split())


def _compact(text: str) -> str:
    """Remove text commands, and spaces, except those between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", _plain(text))


# ---------------------------------------------------------------- units

_SPELLINGS = (
    "mm millimeter millimetre|cm centimeter centimetre|m meter metre|km kilometer kilometre|inch inche in|foot feet ft|"
    "yard yd|mile mi|mg milligram|g gram|kg kilogram|pound lb|ounce oz|ton|second sec s|minute min|hour hr h|day|week|"
    "month|year yr|dollar|cent|euro|liter litre l|ml milliliter millilitre|gallon gal|degree deg|radian rad|c celsius|"
    "f fahrenheit|am|pm|mile/hour mph"
)
_UNITS = {spelling: group.split()[0] for group in _SPELLINGS.split("|") for spelling in group.split()}
_CURRENCY = re.compile(r"([-+]?) ?\\(\$|euro(?![a-z])|pound(?![a-z])) ?")
_CURRENCIES = {"$": "dollar", "euro": "euro", "pound": "sterling"}
_TRAILING = re.compile(
    rf"(?:(?<=\S) ?{_TEXT}|(?<=[\d}}])(?: ?(?:[ckm]m|kg|[ap]\.?m)| (?:[a-z]{{4,}}|{'|'.join(_UNITS)}|sq|per))"
    r"(?: [a-z/]+)*(?![a-z(]))+(?P<power> ?\^ ?\{?\d\}?)?$",
    re.IGNORECASE,
)
_NO_UNIT = re.compile(
    r"\b(?:or|and|more|less|fewer|greater|most|least|than|not|no|plus|minus|to|at|is|are|was|if|when|up|over|under|above|"
    r"below|but|remainder|about|maybe|possibly|wrong|squared|cubed|factorial|dozens?|half|halves|quarters?|thirds?|"
    r"fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|(?:hundred|thousand|(?:m|b|tr)illion)(?:th)?s?)\b"
    r"|[^a-z/ ^\d-]|(?<!\^)\d"
)


def _split_unit(text: str) -> tuple[str, str]:
    """Return a value and its unit in one spelling; the unit is empty without one, and for counted things ("apples")."""
    if sign := _CURRENCY.match(text):
        value, unit = _split_unit(sign[1] + text[sign.end() :])
        return value, unit or _CURRENCIES[sign[2]]
    found = _TRAILING.search(text)
    if not found:
        return text, ""
    words = _plain(found[0].removesuffix(found["power"] or "")).replace(".", "").lower()
    if _NO_UNIT.search(words):
        return text, ""
    words = re.sub(r"\b(?:sq|square) (\w+)", r"\1^2", re.sub(r"\b(?:cu|cubic) (\w+)", r"\1^3", words))
    words = re.sub(r" ?(?:/| per ) ?", "/", words + re.sub(r"[ {}]", "", found["power"] or ""))
    parts = re.split(r"([/ ]|\^\d)", words)
    parts[::2] = [_UNITS.get(part) or _UNITS.get(part.removesuffix("s"), part and "?") for part in parts[::2]]
    return text[: found.start()].strip(), "" if "?" in parts else "".join(parts)


# ---------------------------------------------------------------- comparison

Leaf = Callable[[str, str], bool | None]
"""Comparison of two mathematical expressions; None leaves it open."""

_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<whole>\d+)(?: |(?=\\)))??"
    rf"(?:\\frac\{{(?P<up>[-+]?{_DECIMAL})\}}\{{(?P<down>[-+]?{_DECIMAL})\}}|(?P<top>{_DECIMAL})/(?P<bottom>{_DECIMAL})"
    rf"|(?P<digits>\d+)_\{{?(?P<base>[2-9]|[1-3]\d)\}}?|(?P<plain>{_DECIMAL}))"
)
_POWER = re.compile(r"(?:^|\\(?:times|cdot))10\^\{?(-?\d{1,3})\}?$")
_LETTER = re.compile(r"[(\[]? ?([A-Z]) ?[)\].:]*")
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer) ?:? ?)?[(\[]? ?([A-Z]) ?"
    r"(?:[)\].:](?! ?(?:or|and|[,/&]))(?!.*(?<![A-Z])[A-J] ?[)\].:]).*)?",
    re.IGNORECASE | re.DOTALL,
)
_WORDS = re.compile(r"[A-Za-z]{4,}(?:[ -][A-Za-z]+)*|[A-Za-z]+(?: [A-Za-z]{2,})+|[A-Z]{2,}|(?i:yes|no|odd)")
_NAME = re.compile(r"\\?[A-Za-z]+'?(?:_(?:\w|\{\w+\}))?(?: ?\([^()]*\))?")
_CONSTANT = re.compile(r"\\(?:frac|sqrt|cdot|times|pi)(?![A-Za-z])")
_RELATION = re.compile(r"[<>]|\\[lgn](?:eq?(?:slant)?|t)(?![A-Za-z])")
_NO_MATHEMATICS = re.compile(
    r"\\text|(?<![\\A-Za-z{])[A-Za-z]{4,}|\\[lc]?dots|\?|\d ?[\x27\x22]|^ ?(?:[<>=/*]|\\[lg]e)|[-+*/^_=<>(]$"
    r"|(?<![\d_^.])[\d.]+ \d"
)
_TOKEN = re.compile(
    r"(?P<separator>\\text\{ ?,? ?(?:and|or) ?\}|\\(?:lor|vee)(?![A-Za-z])| (?:and|or) |;|,|\\\\)"
    r"|(?P<open>\\begin|[(\[{])|\\end|[)\]}]"
)
_CAPITAL = re.compile(r"\\[A-Za-z]+|([A-Z])(?!_)")
_PLUS_MINUS = re.compile(r"\\[pm]{2}(?![A-Za-z])")


def _number(text: str) -> tuple[Fraction, int] | None:
    """Return a number (decimal, fraction, percentage, power of ten, in a base) and its decimal places, or None."""
    compact = _compact(text).replace("- ", "-")
    digits = compact.removesuffix("%")
    power = _POWER.search(digits)
    match = _NUMBER.fullmatch(digits[: power.start()] or "1" if power else digits)
    if match is None or (match["whole"] and (match["plain"] or match["base"])):
        return None
    try:
        if match["base"]:
            value = Fraction(int(match["digits"], int(match["base"])))
        else:
            value = Fraction(match["up"] or match["top"] or match["plain"])
            value = value / Fraction(match["down"] or match["bottom"] or 1) + Fraction(match["whole"] or 0)
    except (ValueError, ZeroDivisionError):
        return None
    value *= Fraction(10) ** int(power[1] if power else 0) / (100 if compact.endswith("%") else 1)
    return -value if match["sign"] == "-" else value, len((match["plain"] or "").partition(".")[2])


def _equal_numbers(answer: tuple[Fraction, int], reference: tuple[Fraction, int]) -> bool:
    """Return whether numbers are equal; a decimal of 6 places or more may be the rounded value of a fraction."""
    places = max(answer[1], reference[1])
    rounded = places >= 6 and not (answer[1] and reference[1])
    return abs(answer[0] - reference[0]) < Fraction(1, 10**places) if rounded else answer[0] == reference[0]


def _elements(text: str) -> list[str]:
    r"""Return the elements of a list such as `1, 2`, `1 or 2`, `\{1, 2\}`, `1 \pm 2`; other answers are one element."""
    if text.startswith(r"\{") and text.endswith(r"\}") and r"\}" not in text[2:-2]:
        text = text[2:-2]
    parts, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        if token["separator"]:
            if depth == 0:
                parts.append(text[start : token.start()])
                start = token.end()
        else:
            depth = max(0, depth + (1 if token["open"] else -1))
    parts = [part.strip() for part in [*parts, text[start:]] if part.strip()]
    signs = [("+", "-") if len(_PLUS_MINUS.findall(part)) == 1 else ("",) for part in parts]
    return [
        _PLUS_MINUS.sub(sign, part) if sign else part for part, both in zip(parts, signs, strict=True) for sign in both
    ]


def _values(text: str, other: str) -> list[str]:
    r"""Return the values in `x = 2 + 3 = 5`, here `2 + 3` and `5`, unless the other answer names another thing."""
    sides = [side.strip() for side in re.split(r"=(?![^()]*\))" if "=" in text else r"\\in(?![A-Za-z])", text)]
    name = sides[0]
    is_constant = not re.search("[A-Za-z]", _CONSTANT.sub("", name))
    if len(sides) == 1 or not all(sides) or not (is_constant or _NAME.fullmatch(name) or not re.search(r"\d", name)):
        return [text]
    if "=" in other and other.split("=")[0].strip() != name:
        return [text]
    return sides if is_constant else sides[1:]


def _all(outcomes: Iterable[bool | None]) -> bool | None:
    """Return False if an outcome is False, else None if one is None, else True."""
    found = set(outcomes)
    return False if False in found else None if None in found else True


def _equal_values(answer: str, reference: str, leaf: Leaf) -> bool | None:
    """Compare two single values without names."""
    if answer and _compact(answer) == _compact(reference):
        return True
    if _WORDS.fullmatch(wanted := _plain(reference)) or re.fullmatch(_TEXT, reference):
        return _plain(answer).strip(". ").casefold() == wanted.casefold()
    if r"\emptyset" in (answer, reference) or ("=" in answer) != ("=" in reference):
        return False
    if answer.isdigit() and reference.partition("_")[0].strip() == answer:
        return True  # the answer leaves out the base
    bounds = [bool(_RELATION.search(text)) for text in (answer, reference)]
    if bounds[0] != bounds[1] and not re.search(r"[)\]]$", (reference, answer)[bounds[1]]):
        return False  # a bound for a value, or a value for a bound
    (answer, given), (reference, unit) = _split_unit(answer), _split_unit(reference)
    if given and unit and not (f"{given} ".startswith(f"{unit} ") or f"{unit} ".startswith(f"{given} ")):
        return False  # degrees of no scale agree with those of any scale
    if ":" in answer + reference:
        return _equal_ratios(answer.split(":"), reference.split(":"), leaf)
    number, target = _number(answer), _number(reference)
    if number and target:
        return _equal_numbers(number, target)
    if _NO_MATHEMATICS.search(answer) or _NO_MATHEMATICS.search(reference):
        return False
    return leaf(answer, reference)


def _quotients(parts: list[str]) -> list[str]:
    """Return a ratio as the quotients of its further parts and the first one."""
    return [rf"\frac{{{part.strip()}}}{{{parts[0].strip()}}}" for part in parts[1:]]


def _equal_ratios(answer: list[str], reference: list[str], leaf: Leaf) -> bool | None:
    """Compare two ratios or times of day; one side may be the quotient of a ratio of two."""
    if sorted((len(answer), len(reference))) == [1, 2]:
        answer, reference = ([_quotients(side[::-1])[0]] if side[1:] else side for side in (answer, reference))
    elif len(answer) != len(reference):
        return False
    elif not all(re.fullmatch(r"\d\d", side.strip()) for side in answer[1:] + reference[1:]):  # no times of day
        answer, reference = _quotients(answer), _quotients(reference)
    return _all(_equal_values(*pair, leaf) for pair in zip(answer, reference, strict=True))


def _pair_up(answers: list[str], references: list[str], leaf: Leaf) -> bool | None:
    """Return whether two lists match one to one in any order; None if it depends on an undecided comparison."""
    left, undecided = list(answers), False
    for reference in references:
        outcomes = []
        for answer in left:
            wanted = _values(reference, answer)[-1]
            outcomes.append(_all(_equal_values(value, wanted, leaf) for value in _values(answer, reference)))
            if outcomes[-1]:
                break
        if outcomes and outcomes[-1]:
            left.pop(len(outcomes) - 1)
        elif None in outcomes:
            undecided = True
        else:
            return False
    return None if undecided else not left


@functools.lru_cache(maxsize=1024)
def _parse(expression: str) -> list[Any]:
    """Return an answer as expressions of sympy."""
    from math_verify import LatexExtractionConfig, parse
    from math_verify.parser import NormalizationConfig

    if expression.endswith("%"):
        expression = rf"\frac{{{expression[:-1]}}}{{100}}"
    config = LatexExtractionConfig(normalization_config=NormalizationConfig(malformed_operators=True, nits=True))
    parsed: list[Any] = parse(f"${expression}$", [config], fallback_mode="no_fallback", parsing_timeout=None)
    return parsed


def _by_algebra(answer: str, reference: str) -> bool:
    """Compare two expressions by computer algebra; a set of several values equals no single value."""
    from math_verify import verify

    small = set(re.findall(r"\\[A-Za-z]+|([a-z])", answer + reference))

    def renamed(found: re.Match[str]) -> str:
        return f"{found[1].lower()}_{{9}}" if (found[1] or "?").lower() in small else found[0]

    gold, given = (_parse(_CAPITAL.sub(renamed, text)) for text in (reference, answer))  # else R and r are one variable
    sizes = [max((len(e.args) for e in side if type(e).__name__ == "FiniteSet"), default=1) for side in (gold, given)]
    places = max(len(digits) for digits in re.findall(r"\.(\d*)|$", answer + " " + reference))
    return (
        bool(gold and given)
        and sizes[0] == sizes[1]
        and verify(gold, given, float_rounding=max(6, places), allow_set_relation_comp=True, timeout_seconds=None)
    )


def choice_letter(answer: str) -> str | None:
    """Return the letter of a choice, such as B for "(b) 12"; None if the answer is no choice."""
    found = _CHOICE.fullmatch(_plain(clean(answer)))
    return found[1].upper() if found else None


def decide(answer: str, reference: str, *, algebra: bool = False) -> bool | None:
    """Compare two answers by exact rules, and where these leave it open by computer algebra if that is allowed.

    Args:
        answer: Answer of a solution, from `clean`.
        reference: Reference answer, from `clean`.
        algebra: Whether to use computer algebra, which has no bound on time or memory.

    Returns:
        Whether they are equal; None if computer algebra must decide.
    """
    if answer == reference:
        return True
    leaf: Leaf = _by_algebra if algebra else lambda *_: None
    if letter := _LETTER.fullmatch(_plain(reference)):
        choice = _CHOICE.fullmatch(_plain(answer))
        return choice is not None and choice[1].upper() == letter[1]
    answers, references = _elements(answer), _elements(reference)
    if len(references) > 1 and len(answers) == 1 and re.fullmatch(r"\(.*\)", answers[0]):
        answers = _elements(answers[0][1:-1])
    return len(answers) == len(references) and _pair_up(answers, references, leaf)
