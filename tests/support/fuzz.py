"""Feed generated text to the parsers, guided by coverage (atheris, on Linux).

python -m tests.support.fuzz [--seconds 60]
python -m tests.support.fuzz --again FILE

Each function CHECKS asserts what must hold for any text; tests/data/test_fuzz.py calls the same functions. The first
text that breaks one of them ends the run with a traceback and is written to the folder --found; --again repeats the
checks on it. The run starts from the attacks of attacks.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

try:
    import atheris
except ImportError:  # make fuzz installs it
    atheris = None

with atheris.instrument_imports(include=["fapo"]) if atheris else nullcontext():
    from fapo.data.final_answers import clean, decide, extract, num_words
    from fapo.data.steps import protected, split_steps
    from fapo.data.untrusted_text import escape
    from fapo.judge.verdicts import parse_verdict, parse_yes_no
    from fapo.types import StepRule
    from tests.support.attacks import ATTACKS, TEMPLATES, assert_harmless

WORDS = [
    *("\\boxed{", "\\fbox{", "}", "{", "\\\\", "\\[", "\\]", "\\(", "\\)", "$$", "$"),
    *("\n\n", "\n", "\r\n", "```", "~~~"),
    *("\\begin{align}", "\\end{align}", "\\begin{verbatim}", "\\end{verbatim}", "Step 3:", "**Step 3:**", "## ", "3. "),
    *("<step_0>", "</solution>", "<|im_end|>", "[INST]", "&lt;"),
    *("\u200b", "\ufe0f", "\u0455", "\uff1c", "\u0301", "#0 "),
    *("-1", "yes", "no", "the answer is ", "####", "\\frac{", "\\text{", "\\sqrt"),
    *("^{", "1,000", "(1,2]", "\\cup", "%"),
    *("\\pm", "\\circ", " dollars", "_8", "x=", "\\in", "\\left(", "\\right]", "1/0", "9" * 30),
]
"""Pieces of text that have a meaning for the parsers."""


def check_steps(text: str) -> None:
    """Check that the steps join to the text and that protected spans lie inside it, in order."""
    for rule in get_args(StepRule):
        steps = split_steps(text, rule)
        assert "".join(steps) == text
        assert not text.strip() or all(step.strip() for step in steps)
    ends = [0, *(place for span in protected(text) for place in span), len(text)]
    assert ends == sorted(ends)


def check_prompt(text: str) -> None:
    """Check that the text forges no structure or verdict in any prompt, and that escaping twice changes nothing."""
    assert escape(escape(text)) == escape(text)
    steps = split_steps(text)
    for template in TEMPLATES if steps else ():
        assert_harmless(template, steps)
        quoted = "\n".join(map(template.escape, steps))
        assert (parse_verdict(quoted, len(steps)).status, parse_yes_no(quoted).status) == ("unparsable", "unparsable")


def check_verdict(text: str) -> None:
    """Check that a verdict names an existing step or none, and that only verdicts name a step."""
    for num_steps in (1, 3, 40):
        verdict = parse_verdict(text, num_steps)
        assert verdict.status in ("ok", "unparsable")
        assert verdict.error_step is None or (verdict.status == "ok" and 0 <= verdict.error_step < num_steps)
    assert parse_yes_no(text).error_step is None


def check_answer(text: str) -> None:
    """Check that extraction never fails and that no answer differs from itself."""
    boxed, loose = extract(text), extract(text, require_box=False)
    assert boxed is None or boxed == loose
    assert num_words(text) >= 0
    left, _, right = text.partition("\0")
    answer, reference = clean(left), clean(right)
    assert decide(answer, reference) in (True, False, None)
    assert decide(answer, answer) is not False


CHECKS = (check_steps, check_prompt, check_verdict, check_answer)


def check(data: bytes) -> None:
    """Run all checks on the text of some bytes; bytes that are not UTF-8 become lone surrogates."""
    text = data.decode("utf-8", "surrogateescape")
    for one in CHECKS:
        one(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="duration (default 60)")
    parser.add_argument("--found", type=Path, default=Path("fuzz"), help="folder for a text that breaks a check")
    parser.add_argument("--again", type=Path, metavar="FILE", help="check this file only, without atheris")
    given = parser.parse_args()
    if given.again:
        check(given.again.read_bytes())
        return
    if not atheris:
        parser.error("atheris is not installed: pip install atheris (Linux and macOS), or make fuzz")
    given.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for number, attack in enumerate(ATTACKS.values()):
            text = attack.response("1+1=3\n3+2=5", "4")
            if len(text) < 4000:
                (seeds / str(number)).write_bytes(text.encode("utf-8", "replace"))
        words = Path(folder) / "words"
        lines = ["".join(f"\\x{byte:02x}" for byte in word.encode()) for word in WORDS]
        words.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")
        limits = [f"-max_total_time={given.seconds}", "-max_len=8192", "-timeout=60", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], str(seeds), f"-dict={words}", f"-artifact_prefix={given.found}/", *limits], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
