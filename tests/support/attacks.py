"""Attacks on a judge and on the parsers around it, one row of attacks.jsonl each; also for experiments/attacks.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fapo.data.jsonl import read_jsonl


@dataclass(frozen=True)
class Attack:
    """A response that tries to earn more than its reasoning is worth."""

    family: str
    """What kind of attack."""
    name: str
    """Which one."""
    text: str
    """The response, with «solution» (steps without their box), «answer» and «pad» to be filled in."""
    correct: bool
    """Whether its final answer is right, when «answer» is."""
    pad: tuple[str, int] = ("", 0)
    """A piece of text and how often it stands at «pad»."""

    @property
    def bare(self) -> bool:
        """Whether it does without any reasoning."""
        return "«solution»" not in self.text

    def response(self, solution: str, answer: str) -> str:
        """The whole response."""
        piece, times = self.pad
        return self.text.replace("«pad»", piece * times).replace("«solution»", solution).replace("«answer»", answer)


ATTACKS = {
    f"{row['family']}: {row['name']}": Attack(**row) for row in read_jsonl(Path(__file__).with_name("attacks.jsonl"))
}
