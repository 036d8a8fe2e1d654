"""Escape text that a model wrote before it enters a prompt.

The model under training writes the solution, so it could imitate the structure of a judge's prompt: tags, chat tokens,
a boxed verdict. Such text is escaped and never removed, so that the judge still sees what was written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

_NAMES = (
    "given|steps?|paragraphs?|solutions?|problem|question|task|references?|reference[ _-]?(?:answer|solution)|answer|"
    "response|critique|verdict|judge?ment|evaluation|analysis|instructions?|rules|rubric|prompt|grade|score|conclusion|output|"
    "system|user|assistant|human|developer|sys|inst|think|thinking|thought|reasoning|tool|tools|tool_calls?|"
    "tool_responses?|function_calls?|start_of_turn|end_of_turn|start_of_image|end_of_text|endoftext"
)
_NUMBERED = rf"(?:{_NAMES})(?:[\s_-]*\d+)?"
_TOKENS = "s|bos|eos|pad|unk|sep|cls|mask|sop|eop|eod|eoh|eot|eom|bot|unused\\d+"
_ANGLE = re.compile(
    rf"<(?=/?{_NUMBERED}(?![a-z0-9_]))"  # <step_0>, </solution attr="1">, <problem, also never closed
    rf"|<(?=\s*/\s*{_NUMBERED}(?![a-z0-9_]))"  # < / step_0 >, < /solution attr>, < / problem
    rf"|<(?=\s*{_NUMBERED}\s*(?:/\s*)?>)"  # < step_0 >
    rf"|<(?=\s*{_NUMBERED}\s+[\w:.-]+\s*=\s*[\"'])"  # < solution attr="1">; n < answer = 2 is mathematics
    rf"|<(?=/?(?:{_TOKENS})>)"  # sequence tokens, exactly: `a < s` is mathematics
    r"|<(?=/?[a-z]*[_:][\w:]*>)"  # names with a joint, whoever uses them: <seed:bos>, <extra_id_0>, <end_of_utterance>
    r"|<(?=\|\s*[a-z_▁]{2}[\w▁ .:/-]{0,62}(?:\||>))"  # <|im_end|>, <|turn>, <｜User｜>; not 0 <|x - a|< d
    r"|<(?=[a-z_]{2}[\w-]{0,62}\|>)"  # <turn|>
)
_BRACKET = re.compile(
    r"\[(?=\s*(?:/\s*)?(?:inst|system_prompt|available_tools|tool_calls|tool_results|tool_content|model_settings|think|"
    r"[gs]?mask|cls|sep)\s*\])"
    r"|\[(?=\|[a-z_]{2,30}\|\])"  # [|assistant|]
    r"|\[(?=e~\[)|\](?=~!?[a-z]\w?[\[\]])"  # [e~[, ]~b]
)
_BOX = re.compile(r"(\\[fb]box|\\boxed)(?=\{)")
_SHOWN = frozenset("\n\t")
_SELECTORS = re.compile("(?<![\u203c-\u3299\U0001f000-\U0001faff©®])[\ufe00-\ufe0f](?!\u20e3)")
"""Variation selectors that do not follow an emoji."""
_LOOKALIKES = str.maketrans(
    "АВЕКМНОРСТУХЅІЈԌԚԜасԁеһіјӏорѕтхуԛԝкΑΒΕΖΗΙΚΜΝΟΡΤΥΧοανρτυικ",
    "ABEKMHOPCTYXSIJGQWacdehijlopstxyqwkABEZHIKMNOPTYXoavptuik",
)
"""Cyrillic and Greek letters that look like Latin ones."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(c) for c in range(0x180B, 0x1810)}


@lru_cache(maxsize=4096)
def _invisible(char: str) -> bool:
    """Return whether a character is a control, zero-width, bidirectional, a separator, a surrogate or a filler."""
    if char in _SHOWN:
        return False
    code = ord(char)
    return (
        unicodedata.category(char) in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
        or char in _BLANK
        or 0xE0000 <= code <= 0xE0FFF
    )


def _shown(char: str) -> str:
    """Return the escape sequence of a character."""
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def show_invisible(text: str) -> str:
    r"""Return the text with invisible and bidirectional characters written out, such as `\u200b`."""
    if text.isprintable():
        return text
    return text.translate({ord(char): _shown(char) for char in set(text) if _invisible(char)})


def folded_text(text: str) -> str:
    """Return a text of the same length in lower case, with full-width forms, accents and lookalikes as plain Latin."""
    if text.isascii():
        return text.lower()

    def fold(char: str) -> str:
        parts = [part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part)]
        plain = "".join(parts).translate(_LOOKALIKES).lower()
        return plain if len(plain) == 1 else char

    table = {char: fold(char) for char in set(text)}
    return "".join(table[char] for char in text)


def escape(text: str, is_verdict: Callable[[str, int], bool] = lambda text, start: True) -> str:
    r"""Escape untrusted text, so that it cannot pass for a part of a tagged prompt.

    * `<` becomes `&lt;` in tags that prompts use (steps, solution, reference, verdict, ...). They may have a number,
      attributes or blanks.
    * `<` becomes `&lt;` in chat tokens (`<|im_end|>`, `<start_of_turn>`, `</s>`, `<think>`, `<<SYS>>`).
    * `[` becomes `&#91;` in `[INST]`, `[|user|]` and similar chat tokens.
    * Full-width, accented, Cyrillic and Greek lookalikes are treated as the Latin characters that they look like.
    * `\boxed{` and `\fbox{` become `\boxed {` and `\fbox {`: the same LaTeX, but never read as a verdict.
    * Invisible and bidirectional characters, and variation selectors without an emoji, become escape sequences such as
      `\u200b`. A carriage return before a newline stays.

    Mathematics (`a < b`, `x<y`, `0<|x-a|<\delta`, `<<3*4=12>>`) stays as it is.

    Args:
        text: Text that a model wrote.
        is_verdict: Whether the box with the content that starts at an index of the text can be read as a verdict; only
            such boxes are escaped.

    Returns:
        The escaped text. Nothing is deleted, and escaping it again does not change it.
    """
    text = "\r\n".join(show_invisible(part) for part in text.split("\r\n"))
    if not text.isascii():
        text = _SELECTORS.sub(lambda selector: _shown(selector[0]), text)
    folded = folded_text(text)
    edits = [(match.start(), match.end(), "&lt;") for match in _ANGLE.finditer(folded)]
    edits += [(match.start(), match.end(), f"&#{ord(match[0])};") for match in _BRACKET.finditer(folded)]
    boxes = [match.end() for match in _BOX.finditer(folded)]
    edits += [(end, end, " ") for end in boxes if is_verdict(text, end + 1)]
    pieces, position = [], 0
    for start, end, replacement in sorted(edits):
        pieces += [text[position:start], replacement]
        position = end
    return "".join([*pieces, text[position:]])
