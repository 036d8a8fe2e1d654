"""Splitting a solution into steps loses nothing and splits no block."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.steps import protected, split_steps
from tests.support.long_texts import LONG_TEXTS
from tests.support.paths import shared_data

BLOCKS = [
    "$$x = 1$$",
    "$$\nx = 1\n\ny = 2\n$$",
    "\\[\nx\n\n+ y\n\\]",
    "\\[ a \\\\[2pt] b \\]",
    "\\begin{align*}\na &= b \\\\\n\n1. &= c\n\\end{align*}",
    "\\begin{pmatrix} 1 \\\\\n2 \\end{pmatrix}",
    "```python\nx = 1\n\nStep 2: y\n```",
    "~~~\na\n\nb\n~~~",
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


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n\n ", [" \n\n "]),
        ("one", ["one"]),
        ("one\n\ntwo", ["one\n\n", "two"]),
        ("one\nstill one\n\ntwo", ["one\nstill one\n\n", "two"]),
        ("\n\n one\n \t\n two\n\n", ["\n\n one\n \t\n", " two\n\n"]),
        ("one\r\n\r\ntwo", ["one\r\n\r\n", "two"]),
        ("one\ntwo\n", ["one\n", "two\n"]),
        ("\n\none\ntwo\n\n", ["\n\none\n", "two\n\n"]),
        ("Plan\nStep 1: a\nb\nStep 2: c\n\nend", ["Plan\n", "Step 1: a\nb\n", "Step 2: c\n\n", "end"]),
        ("**Step 1:** a\n**Step 2:** b\n\nc", ["**Step 1:** a\n", "**Step 2:** b\n\n", "c"]),
        ("## Step 1\na\n## Step 2\nb\n\nc", ["## Step 1\na\n", "## Step 2\nb\n\n", "c"]),
        ("a\n1. b\n2) c\n\nd", ["a\n", "1. b\n", "2) c\n\n", "d"]),
        ("the product is\n1.5 or\n2024. was\n\nd", ["the product is\n1.5 or\n2024. was\n\n", "d"]),
        ("a\n\n\\[x\\]\n\nb", ["a\n\n", "\\[x\\]\n\n", "b"]),
        ("a\n\\[\nx\n\n+y\n\\]\nb\n\nc", ["a\n\\[\nx\n\n+y\n\\]\nb\n\n", "c"]),
        ("a\n$$\nx\n$$\nb", ["a\n", "$$\nx\n$$\n", "b"]),
        ("```\na\n\nb\n```\n\nc", ["```\na\n\nb\n```\n\n", "c"]),
        ("a \\[ cut\n\nb \\[ x \\]\n\nc", ["a \\[ cut\n\n", "b \\[ x \\]\n\n", "c"]),
        ("never closed $$ x\n\nb\n\nc", ["never closed $$ x\n\n", "b\n\n", "c"]),
        ("```\nnever closed\n\nb", ["```\nnever closed\n\n", "b"]),
        ("so \\( x\n\ny \\) z", ["so \\( x\n\n", "y \\) z"]),
        ("costs \\$$ 5\n\nand $$x\n\ny$$", ["costs \\$$ 5\n\n", "and $$x\n\ny$$"]),
    ],
)
def test_split_steps(text, steps):
    assert split_steps(text) == steps


@given(
    st.lists(st.sampled_from(BLOCKS + PROSE + BREAKS + ["$$", "\\[", "\\]", "```", "\\begin{align}", "$"])).map("".join)
)
def test_joined_steps_are_the_text(text):
    steps = split_steps(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or not text.strip()


@given(st.text())
def test_joined_steps_are_any_text(text):
    assert "".join(split_steps(text)) == text


@given(st.lists(st.tuples(st.sampled_from(BLOCKS + PROSE), st.sampled_from(BREAKS))))
def test_blocks_are_never_split(parts):
    text = "".join(part + gap for part, gap in parts)
    steps = split_steps(text)
    for block in BLOCKS:
        assert sum(step.count(block) for step in steps) == text.count(block)
    cuts = {len("".join(steps[:i])) for i in range(1, len(steps))}
    assert not [(a, b) for a, b in protected(text) if any(a < cut < b for cut in cuts)]


@pytest.mark.parametrize(("name", "rate"), [("gsm8k", 0.99), ("math", 0.97)])
def test_processbench_steps_come_back(name, rate):
    path = shared_data(f"processbench_{name}.jsonl")
    rows = [json.loads(line)["steps"] for line in path.read_text(encoding="utf-8").splitlines()]
    same = [len(split_steps("\n\n".join(steps))) == len(steps) for steps in rows]
    assert sum(same) / len(same) >= rate


@pytest.mark.parametrize("text", LONG_TEXTS, ids=lambda text: repr(text[:12]))
def test_long_texts_take_little_time(text):
    start = time.process_time()
    assert "".join(split_steps(text)) == text
    assert time.process_time() - start < 1
