"""Prompt templates of judges: loading, checking and filling them, and parsing the critiques that answer them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from fapo.data.untrusted_text import escape, folded_text
from fapo.errors import ConfigError
from fapo.judge.verdicts import (
    JSON_KEYS,
    before_verdict,
    is_verdict,
    parse_json,
    parse_verdict,
    parse_yes_no,
    written_verdict,
)
from fapo.types import AnswerFormat, Constrained, Given, Message, StepRule, Verdict

HEADER = re.compile(r"#(kind|steps|escape):[ \t]*(\S*)[ \t]*(?:\n|\Z)")
"""Pattern of a line above the prompt that sets a field of `Template`."""
TURN = re.compile(r"(?:\A|\n)---(user|assistant)---(?:\n|\Z)")
"""Pattern of the line above a message of the conversation."""
DASHED = re.compile(r"^-{2,}[ \t]*(\w+)[ \t]*-{2,}[ \t]*$", re.MULTILINE)
"""Pattern of a line that may be meant as such a line."""
SECTION = re.compile(r"\{\{#steps\}\}(.*?)\{\{/steps\}\}", re.DOTALL)
PLACEHOLDER = re.compile(r"\{\{([#/]?\w+)\}\}")
SECTION_OR_PLACEHOLDER = re.compile(f"{SECTION.pattern}|{PLACEHOLDER.pattern}", re.DOTALL)
FIELDS = {"problem", "reference", "num_steps", "last_index"}
STEP_FIELDS = {"index", "step"}
_PROMPTS = Path(__file__).parent / "prompts"
JSON_REQUEST = {
    "locate": 'Answer in JSON: your critique as "critique", then the number as "first_wrong_step", without a box.',
    "yes_no": 'Answer in JSON: your critique as "critique", then true (a step is wrong) or false as "flawed", no box.',
}
"""Sentence that asks for JSON, by kind of answer."""
FRAME_TOKENS = 64
"""Tokens that are kept for all but the critique of an answer in JSON, which has 42 characters and some white space."""
TOKENS_OF_CHARACTER = 2
"""Tokens that are kept for a character of such a critique: an escape such as `\\n` has two characters of its own."""
MAX_CRITIQUE = 1999
"""Greatest length limit that is sent; some versions of llama.cpp refuse a grammar with 2 000 repetitions."""
NO_REFERENCE = "(none is given: judge the steps without it)"
"""Text in the prompt in place of the reference, for problems without one, such as those of ProcessBench."""

GIVEN = '<given note="not written by the solver, so never the wrong step">\n{}\n</given>'
"""Mark of a step that the policy did not write. `escape` knows the tag, so that no policy can mark its own steps."""


@dataclass(frozen=True)
class Template:
    """Prompt of a judge, with placeholders. A ConfigError names the template and the placeholder that is wrong.

    The placeholders are {{problem}}, {{reference}}, {{num_steps}} and {{last_index}}. The section {{#steps}} ...
    {{index}} ... {{step}} ... {{/steps}} is repeated for each step. Text before a line `---user---` is the system
    message. Worked examples may follow it, each a `---user---` with its answer after a line `---assistant---`; the last
    message is the user's, with the placeholders. A server can reuse its prefix cache for the text before the first one.
    """

    text: str
    """Text of the prompt, without the header line and the final newline of its file."""
    kind: Literal["locate", "yes_no"] = "locate"
    """Kind of answer. locate: the index of the earliest wrong step, or -1; yes_no: whether the solution is flawed."""
    name: str = "template"
    """Built-in name or path, for error messages and records."""
    steps: StepRule = "paragraphs"
    """Rule by which responses are split into the steps of this prompt."""
    escaping: Literal["full", "verdicts"] = "full"
    """Boxes that are escaped in untrusted text: all, or those that could be read as a verdict of this prompt."""
    format: AnswerFormat = "boxed"
    """Form of the verdict. json: a sentence at the end of the prompt asks for JSON, and the server enforces it."""
    max_critique: int | None = None
    """Maximum number of characters of a critique in JSON, which the server enforces too; None: no limit."""

    def __post_init__(self) -> None:
        if self.kind not in ("locate", "yes_no"):
            raise ConfigError(f"{self.name}: kind is {self.kind!r}, must be locate or yes_no")
        if self.escaping not in ("full", "verdicts"):
            raise ConfigError(f"{self.name}: escape is {self.escaping!r}, must be full or verdicts")
        if self.steps not in get_args(StepRule):
            raise ConfigError(f"{self.name}: steps is {self.steps!r}, must be {' or '.join(get_args(StepRule))}")
        (_, system), *examples, (last, question) = self.messages
        roles = [role for role, _ in (*examples, (last, question))]
        if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
            raise ConfigError(
                f"{self.name}: ---user--- and ---assistant--- must alternate, from ---user--- to ---user---"
            )
        for line in (found for _, text in self.messages for found in DASHED.finditer(text)):
            if get_close_matches(line[1].lower(), ("user", "assistant", "system"), cutoff=0.8):
                raise ConfigError(
                    f"{self.name}: {line[0]} starts no message; write ---user--- or ---assistant---, and the system "
                    "message without a line, before the first ---user---"
                )
        if any(PLACEHOLDER.search(text) for _, text in examples):
            raise ConfigError(f"{self.name}: a placeholder in a worked example; write out the problem and its steps")
        parts = system, question
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
    def messages(self) -> list[tuple[str, str]]:
        """Role and text of each message, with placeholders; the system message is first, and may be empty."""
        first, *rest = TURN.split(self.text)
        return (
            [("system", first), *zip(rest[::2], rest[1::2], strict=True)] if rest else [("system", ""), ("user", first)]
        )

    @property
    def file_text(self) -> str:
        """Text of a file with this template, which `parse_template` reads."""
        escaping = "" if self.escaping == "full" else f"#escape: {self.escaping}\n"  # run folders have texts without it
        return f"#kind: {self.kind}\n#steps: {self.steps}\n{escaping}{self.text}"

    @cached_property
    def heading(self) -> re.Pattern[str] | None:
        """Pattern, in a folded text, of a line that looks like the heading of a step: `#` and a number in "compact".

        None where untrusted text is escaped in any case (`<step_0>`), and where words number the steps, since solutions
        have such words too.
        """
        (body,) = SECTION.findall(self.text)
        mark = body.partition("{{index}}")[0].rpartition("\n")[2].strip()
        plain = mark and not any(char.isalnum() for char in mark)
        return re.compile(rf"^([^\S\n]*){re.escape(folded_text(mark))}(?=[^\S\n]*\d)", re.MULTILINE) if plain else None

    def parse(self, critique: str, num_steps: int) -> Verdict:
        """Return the verdict in a critique that answers this prompt.

        Args:
            critique: Full text that the judge wrote.
            num_steps: Number of steps of the judged solution.

        Returns:
            A verdict with status ok or unparsable; with a step only where `kind` is "locate".
        """
        if self.format == "json":
            return parse_json(critique, num_steps, names_step=self.kind == "locate")
        return parse_yes_no(critique) if self.kind == "yes_no" else parse_verdict(critique, num_steps)

    @property
    def before_verdict(self) -> str:
        """Text before the verdict in a critique, without white space."""
        return before_verdict(names_step=self.kind == "locate", as_json=self.format == "json")

    def written_verdict(self, critique: str) -> str | None:
        """Return the verdict in a critique that has one as it is written; None where something follows it in JSON."""
        return written_verdict(critique, names_step=self.kind == "locate", as_json=self.format == "json")

    def escape(self, text: str, num_steps: int | None = None) -> str:
        """Return untrusted text, escaped for this prompt: no line of it looks like the heading of a step.

        Args:
            text: Text that a model wrote.
            num_steps: Number of steps of the judged solution, on which it depends what is a verdict; None: any box.

        Returns:
            The escaped text.
        """
        if self.escaping == "full" or num_steps is None:
            text = escape(text)
        else:
            text = escape(text, lambda found, start: is_verdict(found, start, num_steps))
        if self.heading is None:
            return text
        pieces: list[str] = []
        position = 0
        for found in self.heading.finditer(folded_text(text)):  # of the same length, so places are the same
            mark = text[found.end(1) : found.end()]
            pieces += [text[position : found.end(1)], *(f"&#{ord(char)};" for char in mark)]
            position = found.end()
        return "".join([*pieces, text[position:]])


def built_in_templates() -> list[str]:
    """Return the names of the built-in templates."""
    return sorted(file.stem for file in _PROMPTS.glob("*.txt"))


def template_file(name: str) -> Path:
    """Return the file of a built-in template."""
    return _PROMPTS / f"{name}.txt"


def load_template(name_or_path: str | Path, steps: StepRule | None = None) -> Template:
    """Return a built-in template (locate, locate_small, yes_no, compact), or the template in a file.

    A GenRM needs the prompt and the kind of steps it was trained with; give a file for one that others have released.
    First lines `#kind: yes_no`, `#steps: lines` and `#escape: verdicts` set the kind of answer, the rule for steps and
    the boxes that are escaped. The final newline of the file is not part of the prompt.

    Args:
        name_or_path: Name of a built-in template, or path of a UTF-8 file.
        steps: Rule for steps that replaces the template's own; None keeps that.

    Returns:
        The template.

    Raises:
        ConfigError: If there is no such file, it is not UTF-8 text or the template is wrong.
    """
    built_in = built_in_templates()
    source = template_file(str(name_or_path)) if str(name_or_path) in built_in else Path(name_or_path)
    if not source.is_file():
        raise ConfigError(f"no prompt template {str(name_or_path)!r}: neither a file nor one of {', '.join(built_in)}")
    try:
        text = source.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as failure:
        raise ConfigError(f"{name_or_path}: not UTF-8 text ({failure.reason}); save it as UTF-8") from None
    return parse_template(text, str(name_or_path), steps)


def parse_template(text: str, name: str, steps: StepRule | None = None) -> Template:
    """Return the template in a text with a header.

    Args:
        text: Text of a template file.
        name: Name of the template, for error messages.
        steps: Rule for steps that replaces the template's own; None keeps that.

    Returns:
        The template.

    Raises:
        ConfigError: If the template is wrong.
    """
    header: dict[str, str] = {}
    while line := HEADER.match(text):
        header["escaping" if line[1] == "escape" else line[1]], text = line[2], text[line.end() :]
    if steps:
        header["steps"] = steps
    return Template(text, name=name, **header)  # type: ignore[arg-type]  # checked by Template


def build_prompt(template: Template, problem_text: str, reference: str, steps: Sequence[str | Given]) -> list[Message]:
    """Return the conversation that asks a judge for its verdict on a solution.

    Problem and steps are untrusted, so they are escaped; the reference is not. White space around a step is removed, so
    that split steps and given steps make the same prompt.

    Args:
        template: Prompt of the judge.
        problem_text: Text of the problem.
        reference: Correct answer; empty where the data has none.
        steps: Steps of the solution, at least one; a `Given` step is marked as such.

    Returns:
        The messages of the template; those of an ordinary one are a system message and a user message.

    Raises:
        ValueError: If there are no steps.
    """
    if not steps:
        raise ValueError("a solution without steps cannot be judged")
    numbered = [{"index": str(index), "step": _step(template, step, len(steps))} for index, step in enumerate(steps)]
    values = {
        "problem": template.escape(problem_text, len(steps)),
        "reference": reference or NO_REFERENCE,
        "num_steps": str(len(steps)),
        "last_index": str(len(steps) - 1),
    }

    def fill(hole: re.Match[str]) -> str:
        """Return the text for a section of steps or a placeholder."""
        if hole[1] is None:
            return values[hole[2]]
        return "".join(PLACEHOLDER.sub(lambda inner, step=step: step[inner[1]], hole[1]) for step in numbered)

    filled = [(role, SECTION_OR_PLACEHOLDER.sub(fill, text)) for role, text in template.messages]
    messages = [{"role": role, "content": text} for role, text in filled if text or role != "system"]
    if template.format == "boxed":
        return messages
    messages[-1]["content"] += f"\n\n{JSON_REQUEST[template.kind]}"
    own = [index for index, step in enumerate(steps) if not isinstance(step, Given)]
    return Constrained(messages, _schema(template.kind, own, template.max_critique))


def max_critique(max_tokens: int) -> int | None:
    r"""Return the length of a critique in JSON that leaves room for the verdict.

    A token has at least one byte. So the bound is strict for critiques in ASCII and for all escapes of two characters.
    A critique of characters that need three tokens or more, or of escapes such as \u00e9, can still be cut off.

    Args:
        max_tokens: Length limit of the whole answer in tokens.

    Returns:
        Maximum number of characters; None for no limit, where that is more than `MAX_CRITIQUE`.
    """
    limit = max(0, (max_tokens - FRAME_TOKENS) // TOKENS_OF_CHARACTER)
    return limit if limit <= MAX_CRITIQUE else None


def _schema(kind: str, steps: Sequence[int], max_critique: int | None) -> dict[str, Any]:
    """Return the JSON schema of an answer: the critique first, then the verdict, which names -1 or one of `steps`."""
    properties: dict[str, Any] = {"critique": {"type": "string"}}
    if max_critique is not None:
        properties["critique"]["maxLength"] = max_critique
    named = {"type": "integer", "enum": [-1, *steps]} if kind == "locate" else {"type": "boolean"}
    properties[JSON_KEYS[kind == "locate"]] = named
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _step(template: Template, step: str | Given, num_steps: int) -> str:
    """Return the text of a step in a prompt."""
    if isinstance(step, Given):
        return GIVEN.format(template.escape(step.text.strip(), num_steps))
    return template.escape(step.strip(), num_steps)
