"""Final answers: extraction from solutions, and rules that take linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.final_answers import MAX_CHARS, choice_letter, clean, decide, extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("no box, 42", None),
        ("", None),
        (r"\boxed{4}", "4"),
        (r"\fbox{4}", "4"),
        (r"\boxed{ 4 }", "4"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{x = \boxed{3}}", r"x = \boxed{3}"),
        (r"\boxed{1} and \boxed{2", None),
        (r"\boxed{1} and \boxed{\frac{2}{3}", None),
        (r"write \boxed{ at the end: \boxed{7}", "7"),
        (r"\boxed{}", None),
        (r"} stray \boxed{5} { braces", "5"),
        (r"\\boxed{5}", "5"),
        (r"x \\\boxed{5}", "5"),
        (r"\boxed {5}", None),
        ("\\boxed{a\nb}", "a\nb"),
    ],
)
def test_extract(text, answer):
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"Answer: 3, no \boxed{4}", "4"),
        (r"Answer: 3, \boxed{4", None),
        ("So the answer is 12.", "12"),
        ("The final answer is: $\\frac{1}{2}$. I hope so.", r"\frac{1}{2}"),
        ("Final Answer: The final answer is 143. I hope it is correct.", "143"),
        ("**Answer:** (B)", "(B)"),
        ("so 3 + 4 = 7\n#### 1,234", "1,234"),
        ("Janet makes 18 dollars, or 3/4 of it", "3/4"),
        ("which leaves only (C)", "C"),
        ("Answer: 1\nAnswer: \n\n2\nso it is", "2"),
        ("no idea", None),
    ],
)
def test_extract_without_box(text, answer):
    assert extract(text, require_box=False) == answer


@given(st.text(alphabet="ab {}\\1", max_size=40).filter(lambda x: x.strip() == x and _balanced(x) and x))
def test_extract_gives_balanced_content_back(content):
    assert extract(f"junk \\boxed{{{content}}} junk") == content


def _balanced(text: str) -> bool:
    depth, escaped = 0, False
    for char in text:
        if not escaped and char in "{}":
            depth += 1 if char == "{" else -1
        escaped = char == "\\" and not escaped
        if depth < 0:
            return False
    return depth == 0 and not escaped


@given(st.text(max_size=60) | st.text(alphabet="\\boxed{}fn 1,$", max_size=60), st.booleans())
def test_extract_never_raises(text, require_box):
    assert extract(text, require_box=require_box) != ""


def test_extract_takes_linear_time():
    start = time.process_time()
    assert extract("\\boxed{" * 50_000) is None
    assert extract("\\boxed{" * 20_000 + "}" * 20_000)
    assert extract("#### " * 40_000, require_box=False) is None
    assert extract("the answer is 1, " * 12_000, require_box=False) == "1,"
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "part", ["a ", "= ", "a=", "1 ", "1,", "{", "\\frac", "1 days ", "\\pm ", "\\text{", "x_", "f(", " or "]
)
@pytest.mark.parametrize("reference", ["5", "y=3", "1,2", "B"])
def test_exact_rules_take_no_time(part, reference):
    start = time.process_time()
    for text in (part * (MAX_CHARS // len(part)), "1" * (MAX_CHARS // 2) + part * (MAX_CHARS // 2 // len(part))):
        decide(clean(text), clean(reference))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B" + ". " * 100_000 + "y", "B"), ("0." + "1" * 100_000 + r"\overline{3}", None), ("$" * (MAX_CHARS + 1), None)],
)
def test_the_normal_form_of_a_long_answer_is_the_answer(text, letter):
    start = time.process_time()
    assert clean(f" {text}\n") == text
    assert choice_letter(text) == letter
    assert time.process_time() - start < 2
