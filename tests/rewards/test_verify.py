"""Checks of final answers: equivalence, statuses, event loops, real references."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapo.data.final_answers import MAX_CHARS
from fapo.rewards.verify import Check, acheck_answers, check_answers
from tests.support.checked_answers import ENDLESS, boxed, check, correct
from tests.support.paths import shared_data

EQUAL = [
    ("42", "42"),
    ("42.", "42"),
    ("+42", "42"),
    ("042", "42"),
    ("\u22125", "-5"),
    ("–5", "-5"),
    ("- 5", "-5"),
    ("5.0", "5"),
    (".5", "0.5"),
    ("1,234", "1234"),
    ("1{,}234", "1234"),
    (r"10,\!080", "10080"),
    ("11111111100", r"11,\! 111,\! 111,\! 100"),
    (r"\$32,348", r"\$32,\!348"),
    ("$18.90", r"\$18.90"),
    ("18.9", r"\$18.90"),
    (r"\frac{1}{2}", "0.5"),
    (r"\dfrac{14}{3}", r"\frac{14}{3}"),
    (r"\frac43", r"\frac{4}{3}"),
    (r"\frac 59", "5/9"),
    (r"\frac{-35}{9}", r"-\frac{35}{9}"),
    (r"\frac{2}{4}", r"\frac{1}{2}"),
    (r"1\frac{4}{5}", r"\frac{9}{5}"),
    ("1 4/5", r"1\frac{4}{5}"),
    ("0.333333", r"\frac{1}{3}"),
    ("0.5", r"50\%"),
    (r"50\%", r"\frac{1}{2}"),
    ("90", r"90^\circ"),
    ("90°", r"90^{\circ}"),
    (r"90 \text{ degrees}", r"90^\circ"),
    (r"\frac{270}{7}", r"\frac{270}7\text{ degrees}"),
    ("5.4", r"5.4 \text{ cents}"),
    ("15", r"15\mbox{ cm}^2"),
    (r"864 \text{ square inches}", r"864 \mbox{ inches}^2"),
    ("Evelyn", r"\text{Evelyn}"),
    (r"\text{EVEN.}", r"\text{even}"),
    ("no", "No"),
    ("B", r"\text{(B)}"),
    ("(B)", "B"),
    ("B.", "B"),
    (r"\textbf{(B)}\ 12", "B"),
    ("b", "B"),
    (r"\text{B}", "(B)"),
    ("Option B", "B"),
    (r"\boxed{7}", "7"),
    ("x = 5", "5"),
    ("5", "x=5"),
    ("f(3) = 5", "5"),
    ("a + b = 5", "5"),
    ("2 + 3 = 5", "5"),
    (r"P(X = 3) = \frac{1}{2}", "1/2"),
    ("2x + 3", "y = 2x + 3"),
    ("[-2, 7]", r"x \in [-2,7]"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    (r"\left(\tfrac{6}{4}, -13\right)", r"\left( \frac{3}{2}, -13 \right)"),
    ("-2, 1", "1,-2"),
    (r"1 \text{ and } -2", "1,-2"),
    ("x=1 or x=-2", "1,-2"),
    (r"\{1, -2\}", "1,-2"),
    ("(3, 5, 7)", "3, 5, 7"),
    (r"1+\sqrt{19}, 1-\sqrt{19}", r"1 \pm \sqrt{19}"),
    (r"\{-2, 1-\sqrt5, 1+\sqrt5\}", r"\{1\pm\sqrt{5},-2\}"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty, 2) \cup (3, \infty)"),
    ("(2,∞)", r"(2,\infty)"),
    (r"\sqrt{8}", r"2\sqrt2"),
    ("2√2", r"\sqrt8"),
    (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt{3}}{3}"),
    ("2π", r"2\pi"),
    ("x(x+2)", "x^2+2x"),
    (r"\frac{9a+11}{20}", r"\frac{11+9a}{20}"),
    (r"\begin{pmatrix} -\frac13 \\ \frac{2}{3} \end{pmatrix}", r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}"),
    ("52", "52_8"),
    ("52_{8}", "52_8"),
    ("36", "40_9"),
    (r"\operatorname{lcm}(2,3)", "6"),
    (r"\sin 30^\circ", r"\frac{1}{2}"),
    ("-y+x", "x-y"),
    ("5 apples", "5"),
    ("18 dollars per day", "18"),
    (r"\frac{3}{4}\text{ of the cake}", "0.75"),
    (r"x \in \{-2, 1\}", "1, -2"),
    (r"(C) \text{ vitamin A}", "C"),
    (r"5.2 \times 10^4", "52000"),
    ("1.6e-19", r"1.6 \times 10^{-19}"),
    (r"-1.6 \cdot 10^{-19}", "-1.6E-19"),
    ("1e-05", "0.00001"),
    ("2.5e+3", "2500"),
    ("2e^{x}", "2e^x"),
    ("3e-x", "-x + 3e"),
    ("3e-5", "-5 + 3e"),
    ("2.5e-x", "-x + 2.5e"),
]


UNEQUAL = [
    ("41", "42"),
    ("", "42"),
    ("1234", "1,2,3,4"),
    ("0.33", r"\frac{1}{3}"),
    (".0000671", ".0000672"),
    ("1, 2, 3", "1"),
    ("1, 2, 3", "3"),
    ("1, 2, 3", "6"),
    ("1 2 3", "6"),
    (r"1 \quad 2", "3"),
    (r"1 \text{ or } 2", "2"),
    ("1; 2", "2"),
    ("1, 2", "1, 2, 3"),
    ("1, 2, 2", "1, 2, 3"),
    (r"1 \\ 2", "2"),
    (r"\{1, 2, 3\}", "2"),
    (r"\pm 2", "2"),
    ("2x = 4", "4"),
    ("x^2 = 4", "4"),
    ("4 = x^2", "4"),
    ("x = 4 = 5", "4"),
    ("15,-29", "(15,-29)"),
    ("(3,4)", "(3,4]"),
    ("(4,3)", "(3,4)"),
    ("A", "B"),
    ("A, B, C, D", "B"),
    ("A and B", "B"),
    ("E", "2.718281828"),
    ("2.718281828", "E"),
    ("B + 0", "B"),
    ("(B - 1) + 1", r"\text{(B)}"),
    ("neve", r"\text{even}"),
    (r"\text{not even}", r"\text{even}"),
    ("3 million", "3"),
    ("52_9", "52_8"),
    ("52_8", "52"),
    ("x+1", "x+2"),
    (r"\infty", "1"),
    (r"\frac{1}{0}", "1"),
    ("__import__('os').getcwd()", "1"),
    (r"50\%", "50"),
    ("15 cm", r"15\mbox{ cm}^2"),
    ("5xyz", "5"),
    ("2hr", "2"),
    (r"5\text{ tenths}", "5"),
    (r"1\text{ million million}", "1000000"),
    ("5'", "5"),
    (r"\text{act}", r"\text{cat}"),
    (r"\pi r^2", r"\pi R^2"),
    (r"R^2 r", "R r^2"),
    (r"\frac{1}{10^7}", "0.0000002"),
    ("0:0:0", "1:2:3"),
    ("(A) is wrong, (B)", "A"),
    ("A: 3, B: 4", "A"),
    ("1.6e-19", r"1.6 \times 10^{-18}"),
    ("3e-5", "0.00003"),
    ("5e2", "500"),
]


def test_equivalent_answers():
    checks = check_answers([(boxed(answer), reference) for answer, reference in EQUAL])
    assert [pair for pair, found in zip(EQUAL, checks, strict=True) if not found.correct] == []


def test_different_answers():
    checks = check_answers([(boxed(answer), reference) for answer, reference in UNEQUAL])
    assert [pair for pair, found in zip(UNEQUAL, checks, strict=True) if found.correct] == []


PAIRS = Path(__file__).parents[1] / "data" / "answer_pairs.jsonl"
NOT_SEEN = [
    (r"500\text{ cm}", r"5\text{ m}"),
    (r"120\text{ minutes}", r"2\text{ hours}"),
    (r"3\text{ PM}", r"3:00\text{ PM}"),
    (r"x < -1 \text{ or } x > 2", r"(-\infty,-1)\cup(2,\infty)"),
    (r"\langle 3,4 \rangle", "(3,4)"),
    ("i + i", "2i"),
    ("i^2", "-1"),
]
"""Equal pairs of the table that are called different."""


def test_pairs_of_known_truth():
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    checks = check_answers([(boxed(row["answer"]), row["reference"]) for row in rows], deadline=30.0)
    wrong = [(row, found) for row, found in zip(rows, checks, strict=True) if found.correct is not row["equal"]]
    assert [row for row, found in wrong if found.correct] == []
    assert {(row["answer"], row["reference"]) for row, _ in wrong} == set(NOT_SEEN)


def test_statuses():
    assert check("I give up", "4") == Check(False, None, "no_answer", "no final answer")
    assert check(boxed("4"), "4") == Check(True, "4", "ok")
    assert check("Answer: 4", "4", require_box=False).correct
    for text in (r"The answer is \( 9 - 6 = 3 \) hours.", r"So the answer is \(3\) hours."):
        assert check(text, "3", require_box=False).correct
    long = "1+" * MAX_CHARS + "1"
    assert check(boxed(long), "4").status == "error"
    assert check(boxed(long), long).correct
    assert correct("x+x", "2x") and not check("x+x", "2x").correct
    with pytest.raises(ValueError, match="deadline"):
        check(boxed("4"), "4", deadline=0)


@settings(max_examples=60)
@given(
    st.text(max_size=30) | st.text(alphabet="\\{}()[],.12x_^= ABor%$", max_size=30),
    st.text(max_size=10) | st.sampled_from(["B", "1,2", "(1,2]", "x=1", r"\frac{1}{2}", "yes"]),
)
def test_check_never_raises(answer, reference):
    found = check("\\boxed{" + answer + "}", reference, deadline=3.0)
    assert found.status in ("ok", "no_answer", "timeout", "error")
    assert not (found.correct and found.status != "ok")


def test_event_loop_stays_free():
    async def run():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.02)
                ticks += 1

        ticker = asyncio.create_task(tick())
        (slow,), (right,), many, (one,) = await asyncio.gather(
            acheck_answers([(boxed(ENDLESS), "7")], deadline=1.0),
            acheck_answers([(boxed("x+y"), "y+x")], deadline=60.0),
            acheck_answers([(boxed("x+x"), "2x"), ("none", "1")], deadline=60.0),
            acheck_answers([(boxed("12"), "12")]),
        )
        ticker.cancel()
        return ticks, slow, right, many, one

    ticks, slow, right, many, one = asyncio.run(run())
    assert slow.status == "timeout" and right.correct and one.correct
    assert [found.status for found in many] == ["ok", "no_answer"] and many[0].correct
    assert ticks > 5, "it ticked during the comparisons, not only between them"


@pytest.mark.parametrize("name", ["math500", "gsm8k_test", "aime24", "aime25"])
def test_every_real_reference_equals_itself(name):
    path = shared_data(f"{name}.jsonl")
    references = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    checks = check_answers([(boxed(reference), reference) for reference in references])
    assert [reference for reference, found in zip(references, checks, strict=True) if not found.correct] == []


def test_algebra_confirms_real_references():
    """The references of MATH-500 in another form are compared by computer algebra."""
    path = shared_data("math500.jsonl")
    references = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    references = [text for text in references if "\\sqrt" in text and not any(mark in text for mark in ",()m")]
    checks = check_answers([(boxed(f"0 + {reference}"), reference) for reference in references])
    assert len(references) > 10
    assert [pair for pair, found in zip(references, checks, strict=True) if not found.correct] == []
