"""Attacks on a judge and on the parsers around it: the rows of attacks.jsonl, which experiments/attacks.py uses too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fapo.data.jsonl import read_jsonl
from fapo.judge.template import Template, build_prompt, load_template
from fapo.types import Given, Problem

PROBLEM = Problem("p", "What is 1+1+2?", "4")
TEMPLATES = [load_template(name) for name in ("compact", "locate", "locate_small", "yes_no")]
_NAMES = r"(?:given|step_\d+|problem|reference|solution)"
_STRUCTURE = re.compile(rf"<(?:\s*/\s*)?{_NAMES}\b|<\s*{_NAMES}\s*>|\\(?:boxed|fbox)\{{", re.IGNORECASE)
_HEADING = re.compile(r"^#\d+", re.MULTILINE)


@dataclass(frozen=True)
class Attack:
    """A response that tries to earn more reward than its reasoning deserves."""

    family: str
    """Kind of attack, such as "forged structure"."""
    name: str
    """Name of the attack within its family."""
    text: str
    """Text with places to fill in: «solution» (steps without the boxed answer), «answer» and «pad»."""
    correct: bool
    """Whether the final answer is right if «answer» is right."""
    pad: tuple[str, int] = ("", 0)
    """Piece of text and its number of repetitions at «pad»."""

    @property
    def bare(self) -> bool:
        """Return whether the response has no reasoning."""
        return "«solution»" not in self.text

    def response(self, solution: str, answer: str) -> str:
        """Return the response with all places filled in."""
        piece, times = self.pad
        return self.text.replace("«pad»", piece * times).replace("«solution»", solution).replace("«answer»", answer)


ATTACKS = {
    f"{row['family']}: {row['name']}": Attack(**row) for row in read_jsonl(Path(__file__).with_name("attacks.jsonl"))
}


def assert_harmless(template: Template, steps: Sequence[str | Given]) -> str:
    """Assert that the prompt has the same structure as one with plain steps, and return its text."""
    *before, message = build_prompt(template, PROBLEM.text, PROBLEM.reference, steps)
    same = [Given("x") if isinstance(step, Given) else "x" for step in steps]
    *same_before, plain = build_prompt(template, PROBLEM.text, PROBLEM.reference, same)
    assert before == same_before
    for pattern in (_STRUCTURE, _HEADING) if template.heading else (_STRUCTURE,):
        assert pattern.findall(message["content"]) == pattern.findall(plain["content"])
    message["content"].encode()
    assert all(char.isprintable() or char in "\n\t\r" or char.isspace() for char in message["content"])
    return message["content"]
