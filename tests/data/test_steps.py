"""Splitting a solution into steps loses nothing, gives the steps of public data back, and cuts no block into lines."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fapo.data.problems import read_labelled
from fapo.data.steps import protected, split_steps
from fapo.types import StepRule
from tests.support.long_texts import LONG_TEXTS
from tests.support.paths import shared_data

BLOCKS = [
    "$$x = 1$$",
    "$$\nx = 1\ny = 2\n$$",
    "\\[\nx\n \n+ y\n\\]",
    "\\[ a \\\\[2pt] b \\]",
    "\\begin{align*}\na &= b \\\\\n1. &= c\n\\end{align*}",
    "\\begin{pmatrix} 1 \\\\\n2 \\end{pmatrix}",
    "```python\nx = 1\nStep 2: y\n```",
    "~~~\na\nb\n~~~",
]
PROSE = [
    "We add.",
    "Step 3: go on",
    "**Step 2:** then",
    "1. first",
    "2) second",
    "so x < 3",
    "\\(a\\)",
    "it costs \\$5",
    " ",
    "",
]
BREAKS = ["\n", "\n\n", "\n \n", "\r\n\r\n", "\n\n\n", "\t\n"]
RULES = get_args(StepRule)
PARAGRAPH = st.text().filter(lambda text: text.strip() and "\n\n" not in text.strip().replace("\r\n", "\n"))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n\n ", [" \n\n "]),
        ("one", ["one"]),
        ("one\n\ntwo", ["one\n\n", "two"]),
        ("one\nstill one\n\ntwo", ["one\nstill one\n\n", "two"]),
        ("\n\n one\n\n\n two\n\n", ["\n\n one\n\n\n", " two\n\n"]),
        ("1. one\n   \n2. two\n\nthree", ["1. one\n   \n2. two\n\n", "three"]),
        ("one\r\n\r\ntwo", ["one\r\n\r\n", "two"]),
        ("one\ntwo\n", ["one\ntwo\n"]),
        ("**Step 1:** a\n**Step 2:** b\n\nc", ["**Step 1:** a\n**Step 2:** b\n\n", "c"]),
        ("a\n1. b\n2) c\n\nd", ["a\n1. b\n2) c\n\n", "d"]),
        ("a\n\\[\nx\n\n+y\n\\]", ["a\n\\[\nx\n\n", "+y\n\\]"]),
        ("```\na\n\nb\n```\n\nc", ["```\na\n\n", "b\n```\n\n", "c"]),
    ],
)
def test_steps_are_paragraphs(text, steps):
    assert split_steps(text) == steps
    if len(steps) > 1:
        assert split_steps(text, "lines") == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n ", [" \n "]),
        ("one", ["one"]),
        ("one\ntwo\n", ["one\n", "two\n"]),
        ("one\n \t\ntwo", ["one\n \t\n", "two"]),
        ("\n\none\ntwo\n\n", ["\n\none\n", "two\n\n"]),
        ("a\n$$\nx\n$$\nb", ["a\n", "$$\nx\n$$\n", "b"]),
        ("a\n\\[\nx\n\\]\nb", ["a\n", "\\[\nx\n\\]\n", "b"]),
        ("a \\[ cut\nb \\[ x\n\\]\nc", ["a \\[ cut\n", "b \\[ x\n\\]\n", "c"]),
        ("never closed $$ x\nb", ["never closed $$ x\n", "b"]),
        ("```\na\nb\n```\nc", ["```\na\nb\n```\n", "c"]),
        ("so \\( x\ny \\) z\nend", ["so \\( x\ny \\) z\n", "end"]),
        ("costs \\$$ 5\nand $$x\ny$$", ["costs \\$$ 5\n", "and $$x\ny$$"]),
    ],
)
def test_lines_are_steps_where_there_is_one_paragraph(text, steps):
    assert split_steps(text, "lines") == steps


@given(
    st.lists(st.sampled_from(BLOCKS + PROSE + BREAKS + ["$$", "\\[", "\\]", "```", "\\begin{align}", "$"])).map("".join)
)
def test_joined_steps_are_the_text(text):
    for rule in RULES:
        steps = split_steps(text, rule)
        assert "".join(steps) == text
        assert all(step.strip() for step in steps) or not text.strip()


@given(st.text())
def test_joined_steps_are_any_text(text):
    for rule in RULES:
        assert "".join(split_steps(text, rule)) == text


@given(st.lists(PARAGRAPH, min_size=1), st.sampled_from(["\n\n", "\n\n\n", "\r\n\r\n"]))
def test_joined_paragraphs_come_back(paragraphs, gap):
    for rule in RULES if len(paragraphs) > 1 else RULES[:1]:
        assert [step.strip() for step in split_steps(gap.join(paragraphs), rule)] == [p.strip() for p in paragraphs]


@given(st.lists(st.tuples(st.sampled_from(BLOCKS + PROSE), st.sampled_from(["\n", "\t\n"]))))
def test_blocks_are_never_split_into_lines(parts):
    text = "".join(part + gap for part, gap in parts)
    assume("\n\n" not in text)
    steps = split_steps(text, "lines")
    for block in BLOCKS:
        assert sum(step.count(block) for step in steps) == text.count(block)
    cuts = {len("".join(steps[:i])) for i in range(1, len(steps))}
    assert not [(a, b) for a, b in protected(text) if any(a < cut < b for cut in cuts)]


@pytest.mark.parametrize(
    ("name", "num"), [("processbench_gsm8k", 400), ("processbench_math", 1000), ("fapo-critic", 100)]
)
def test_steps_of_public_data_come_back(name, num):
    solutions = read_labelled(shared_data(f"{name}.jsonl"))
    rows = [[step.strip() for step in solution.steps] for solution in solutions]
    rows = [steps for steps in rows if not any("\n\n" in step for step in steps)]
    same = [[step.strip() for step in split_steps("\n\n".join(steps))] == steps for steps in rows]
    assert len(rows) == num, "none has an empty line in a step"
    assert sum(same) / num >= 0.999


@pytest.mark.parametrize("text", LONG_TEXTS, ids=lambda text: repr(text[:12]))
def test_long_texts_take_little_time(text):
    start = time.process_time()
    for rule in RULES:
        assert "".join(split_steps(text, rule)) == text
    assert time.process_time() - start < 5
