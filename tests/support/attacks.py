"""Attacks on a judge and on the parsers around it: the rows of attacks.jsonl, which experiments/attacks.py uses too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fapo.data.jsonl import read_jsonl


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
