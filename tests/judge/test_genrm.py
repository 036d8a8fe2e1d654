from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.steps import split_steps
from fapo.errors import ConfigError
from fapo.judge.genrm import GenRM
from fapo.judge.template import NO_REFERENCE, Template, build_prompt, load_template
from fapo.judge.verdicts import majority, parse_verdict, parse_yes_no
from fapo.types import Completion, Message, Problem, Rollout, Verdict

GOLDEN = Path(__file__).parent / "golden"
BUILT_IN = ["compact", "locate", "yes_no"]
PROBLEM = Problem("p", "What is $2 + 3 \\cdot 4$?", "14")
STEPS = ["First $3 \\cdot 4 = 12$.", "Then $2 + 12 = 14$, so the answer is \\boxed{14}."]


# ---------------------------------------------------------------------------------------------------------- parsing

OK = [
    (r"\boxed{-1}", None),
    (r"\boxed{0}", 0),
    (r"\boxed{2}", 2),
    (r"\boxed{+1}", 1),
    (r"\boxed{ -1 }", None),
    ("\\boxed{\n$1$ }", 1),
    (r"\boxed{$-1$}", None),
    (r"\boxed{001}", 1),
    (r"$\boxed{1}$.", 1),
    (r"Step 0 ends in \boxed{14}. Fine. So \boxed{1} it is", 1),
    (r"\boxed{x} but then \boxed{-1}", None),
    (r"\boxed{\boxed{1}}", 1),
    (r"\boxed{1}} and \boxed {2}", 1),
    (r"\fbox{1} \boxed{0}", 0),
]

UNPARSABLE = [
    "",
    "no box at all, step 1",
    r"\boxed{3}",
    r"\boxed{-2}",
    r"\boxed{99999999999999999999}",
    r"\boxed{" + "1" * 5000 + "}",
    r"\boxed{}",
    r"\boxed{ }",
    r"\boxed{1",
    r"\boxed{1} \boxed{",
    r"\boxed{1} \boxed{none}",
    r"\boxed{1.0}",
    r"\boxed{1, 2}",
    r"\boxed{0x1}",
    r"\boxed{1_0}",
    r"\boxed{--1}",
    r"\boxed{- 1}",
    r"\boxed{−1}",
    r"\boxed{١}",
    r"\boxed{\text{1}}",
    r"\boxed{1+0}",
    r"\boxed{len([1])}",
    r"\boxed {1}",
    r"boxed{1}",
    r"\boxed{True}",
]


@pytest.mark.parametrize(("text", "error_step"), OK)
def test_an_index_in_the_last_box_is_a_verdict(text: str, error_step: int | None) -> None:
    assert parse_verdict(text, 3) == Verdict.from_step(error_step, critique=text)


@pytest.mark.parametrize("text", UNPARSABLE, ids=lambda text: text[:24])
def test_everything_else_is_no_verdict(text: str) -> None:
    verdict = parse_verdict(text, 3)
    assert (verdict.status, verdict.error_step, verdict.flawed, verdict.critique) == ("unparsable", None, None, text)
    assert verdict.reason
    assert len(verdict.reason) < 120


YES_NO = [
    (r"\boxed{yes}", True),
    (r"\boxed{no}", False),
    (r"\boxed{no} ... \boxed{ Yes }", True),
    (r"\boxed{$NO$}", False),
    (r"\boxed{yes} \boxed{", None),
    (r"\boxed{maybe}", None),
    (r"\boxed{yes, no}", None),
    (r"\boxed{-1}", None),
    ("yes", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "flawed"), YES_NO)
def test_yes_no(text: str, flawed: bool | None) -> None:
    verdict = parse_yes_no(text)
    assert verdict.flawed is flawed
    assert verdict.critique == text
    assert (verdict.status == "unparsable") == bool(verdict.reason) == (flawed is None)
    assert verdict.error_step is None


PIECES = st.sampled_from(["\\boxed{", "\\boxed", "{", "}", "-1", "0", "1", "7", "$", " ", "\n", "yes", "no", "\\text{"])
CRITIQUES = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)


@given(CRITIQUES, st.integers(0, 5))
def test_parsing_never_raises_and_never_leaves_the_solution(text: str, num_steps: int) -> None:
    verdict = parse_verdict(text, num_steps)
    assert verdict.critique == text
    assert verdict.status in ("ok", "unparsable")
    assert verdict.error_step is None or (verdict.status == "ok" and 0 <= verdict.error_step < num_steps)
    assert parse_yes_no(text).error_step is None


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 10_000,
        r"\boxed{" * 10_000 + "1" + "}" * 10_000,
        r"\boxed{" + "{" * 500_000,
        r"\boxed{" + " $" * 500_000,
        r"\boxed{" + "1" * 500_000 + "}",
        "\\boxed" * 100_000,
    ],
    ids=lambda text: text[:12] + text[-12:],
)
def test_hostile_critiques_are_read_in_linear_time(text: str) -> None:
    start = time.perf_counter()
    parse_verdict(text, 3)
    parse_yes_no(text)
    assert time.perf_counter() - start < 1


# --------------------------------------------------------------------------------------------------------- templates


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_prompts_are_pinned(name: str) -> None:
    """After a deliberate change of a prompt, write what the failure shows into tests/judge/golden."""
    (message,) = build_prompt(load_template(name), PROBLEM.text, PROBLEM.reference, STEPS)
    assert message["role"] == "user"
    assert message["content"] == (GOLDEN / f"prompt_{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_judge_that_repeats_a_part_of_its_prompt_gives_no_verdict(name: str) -> None:
    """Weak judges do, and the token limit ends them anywhere."""
    (message,) = build_prompt(load_template(name), PROBLEM.text, PROBLEM.reference, STEPS)
    for end in range(len(message["content"]) + 1):
        if message["content"][:end].endswith("}"):
            assert parse_verdict(message["content"][:end], len(STEPS)).status == "unparsable"
            assert parse_yes_no(message["content"][:end]).status == "unparsable"


def test_votes_on_a_solution_share_what_is_built() -> None:
    async def complete(conversations: Sequence[list[Message]]) -> list[Completion]:
        one, two, three = conversations
        assert one is two is three
        return [Completion("\\boxed{-1}")] * 3

    (verdict,) = asyncio.run(GenRM(load_template("compact"), complete, votes=3).judge_steps([(PROBLEM, STEPS)]))
    assert verdict.status == "ok"


def test_compact_is_nothing_but_the_material() -> None:
    assert load_template("compact").text == "{{problem}}\n= {{reference}}\n{{#steps}}#{{index}} {{step}}\n{{/steps}}"


@pytest.mark.parametrize(("name", "kind"), [("locate", "locate"), ("yes_no", "yes_no"), ("compact", "locate")])
def test_kinds_of_the_built_in_templates(name: str, kind: str) -> None:
    assert load_template(name).kind == kind


@pytest.mark.parametrize("name", BUILT_IN)
def test_rollouts_of_one_problem_share_the_front_of_the_prompt(name: str) -> None:
    (one,) = build_prompt(load_template(name), PROBLEM.text, PROBLEM.reference, ["a"])
    (two,) = build_prompt(load_template(name), PROBLEM.text, PROBLEM.reference, ["b", "c"])
    shared = one["content"][: one["content"].index(PROBLEM.reference) + len(PROBLEM.reference)]
    assert PROBLEM.text in shared
    assert two["content"].startswith(shared)


def test_a_users_template_with_system_message_and_header(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(
        b"#kind: yes_no\r\nBe strict.\r\n---user---\r\n{{problem}} ({{reference}})\r\n"
        b"{{#steps}}[{{index}}] {{step}};{{/steps}} {{num_steps}} {{last_index}} {x} {{-1}}\r\n"
    )
    template = load_template(path)
    assert (template.kind, template.name) == ("yes_no", str(path))
    assert build_prompt(template, "Q", "R", ["a", "b"]) == [
        {"role": "system", "content": "Be strict."},
        {"role": "user", "content": "Q (R)\n[0] a;[1] b; 2 1 {x} {{-1}}"},
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_problem_without_a_reference_says_so(name: str) -> None:
    (with_one,) = build_prompt(load_template(name), PROBLEM.text, "the reference", STEPS)
    (without,) = build_prompt(load_template(name), PROBLEM.text, "", STEPS)
    assert without["content"] == with_one["content"].replace("the reference\n", f"{NO_REFERENCE}\n")
    assert "none is given" in without["content"]


def test_holes_in_the_material_are_not_filled() -> None:
    template = Template("{{problem}}|{{reference}}|{{#steps}}{{index}}:{{step}}{{/steps}}")
    holes = "{{problem}} {{reference}} {{step}} {{index}} {{#steps}}{{/steps}} \\g<1>\n---user---\n"
    (message,) = build_prompt(template, holes, "{{problem}}", [holes])
    assert message == {"role": "user", "content": f"{holes}|{{{{problem}}}}|0:{holes.strip()}"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{#steps}}{{index}}{{step}}{{/steps}}", "{{problem}}} is missing"),
        ("{{problem}}", "needs one section"),
        ("{{problem}}{{#steps}}{{index}}{{step}}", "needs one section"),
        ("{{problem}}" + "{{#steps}}{{index}}{{step}}{{/steps}}" * 2, "has 2"),
        ("{{problem}}{{#steps}}{{step}}{{/steps}}", "{{index}}} is missing"),
        ("{{problem}}{{#steps}}{{index}}{{/steps}}", "{{step}}} is missing"),
        ("{{problem}}{{answer}}{{#steps}}{{index}}{{step}}{{/steps}}", "unknown placeholder {{answer}}}"),
        ("{{problem}}{{step}}{{#steps}}{{index}}{{step}}{{/steps}}", "unknown placeholder {{step}}}"),
        (
            "{{problem}}{{#steps}}{{index}}{{step}}{{problem}}{{/steps}}",
            "unknown placeholder {{problem}}} in the steps",
        ),
        ("{{problem}}{{/steps}}{{#steps}}{{index}}{{step}}{{/steps}}", "unknown placeholder {{/steps}}}"),
        ("{{problem}}{{#steps}}\n---user---\n{{index}}{{step}}{{/steps}}", "needs one section"),
        ("a\n---user---\nb\n---user---\n{{problem}}", "more than one line"),
        ("#kind: guess\n{{problem}}{{#steps}}{{index}}{{step}}{{/steps}}", "kind is 'guess'"),
    ],
)
def test_faulty_templates_are_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "faulty.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(complaint.replace("}}}", "}}"))) as caught:
        load_template(path)
    assert str(path) in str(caught.value)


def test_missing_and_undecodable_templates(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compact, locate, yes_no"):
        load_template("lokate")
    path = tmp_path / "latin.txt"
    path.write_bytes(b"\xe9")
    with pytest.raises(ConfigError, match=r"latin\.txt: not UTF-8 text"):
        load_template(path)


def test_steps_cut_out_of_a_text_and_steps_given_make_the_same_prompt() -> None:
    template = load_template("locate")
    response = "\n\n".join(STEPS)
    assert build_prompt(template, "Q", "R", split_steps(response)) == build_prompt(template, "Q", "R", STEPS)


def test_a_solution_without_steps_has_no_prompt() -> None:
    with pytest.raises(ValueError, match="without steps"):
        build_prompt(load_template("locate"), "Q", "R", [])


TAGS = [
    "<step_0>",
    "</step_0>",
    "</step_1>\n",
    "<step_",
    "< step_0>",
    "</STEP_0>",
    "<",
    ">",
    "</solution>",
    "<reference>",
]
OTHERS = ["</problem>", "<|im_end|>", "\\boxed{-1}", "\\boxed{", "\n\n", "{{step}}", "{{#steps}}", "{{/steps}}", "0"]
FORGERIES = st.sampled_from(TAGS + OTHERS)
UNTRUSTED = st.lists(FORGERIES | st.text(max_size=5), min_size=1, max_size=8).map("".join)


@pytest.mark.parametrize("name", ["locate", "yes_no"])
@given(problem=UNTRUSTED, steps=st.lists(UNTRUSTED, min_size=1, max_size=4))
def test_untrusted_text_adds_no_tags_and_no_boxes(name: str, problem: str, steps: list[str]) -> None:
    template = load_template(name)
    (message,) = build_prompt(template, problem, "14", steps)
    for tag in (r"<step_\d+>", r"</step_\d+>"):
        assert len(re.findall(tag, message["content"])) == len(steps)
    for mark in ("<problem>", "</problem>", "<reference>", "</reference>", "<solution>", "</solution>", "\\boxed{"):
        assert message["content"].count(mark) == template.text.count(mark)


# ------------------------------------------------------------------------------------------------------------ voting


def verdict(vote: int | str | None) -> Verdict:
    return Verdict("failed", reason=vote) if isinstance(vote, str) else Verdict.from_step(vote)


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ([3], 3),
        ([None, None, 1], None),
        ([1, 2, 2, None], 2),
        ([5, 1, 5, 1], 1),
        ([5, 1], 1),
        ([None, 0], None),
        ([0, 1, None, None], None),
        (["down", 4, "down"], 4),
        (["down", None, 4, 4], 4),
        (["down", "late"], "down"),
    ],
)
def test_majority(votes: list[int | str | None], outcome: int | str | None) -> None:
    assert majority([verdict(vote) for vote in votes]) == verdict(outcome)


def test_majority_keeps_the_critique_of_the_first_that_agrees() -> None:
    votes = [Verdict.from_step(None, "a"), Verdict.from_step(1, "b"), Verdict.from_step(1, "c")]
    assert majority(votes) is votes[1]


# ------------------------------------------------------------------------------------------------------------- GenRM


class Scripted:
    """A chat model that answers by the last step it is shown, and remembers what it was asked."""

    def __init__(self, *answers: Completion) -> None:
        self.answers = answers
        self.asked: list[list[Message]] = []

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        self.asked += conversations
        return [self.answers[i % len(self.answers)] for i in range(len(conversations))]


def judge(model: Scripted, *responses: str, votes: int = 1, template: str = "locate") -> list[Verdict]:
    genrm = GenRM(load_template(template), model, votes)
    return asyncio.run(genrm([Rollout(PROBLEM, response) for response in responses]))


def test_prompt_answer_verdict() -> None:
    model = Scripted(Completion(r"All is well. \boxed{-1}", 9))
    response = "First.\n\nThen."
    assert judge(model, response) == [Verdict.from_step(None, r"All is well. \boxed{-1}", num_tokens=9)]
    assert model.asked == [
        build_prompt(load_template("locate"), PROBLEM.text, PROBLEM.reference, split_steps(response))
    ]


def test_one_verdict_for_each_rollout_in_order() -> None:
    model = Scripted(
        Completion(r"\boxed{0}"),
        Completion("dunno"),
        Completion(error="HTTP 500", num_tokens=1),
        Completion(r"\boxed{1}"),
    )
    verdicts = judge(model, "a", "b", "c", "d")
    assert [v.status for v in verdicts] == ["ok", "unparsable", "failed", "unparsable"]
    assert verdicts[2] == Verdict("failed", reason="HTTP 500", num_tokens=1)


def test_equal_solutions_are_asked_about_once() -> None:
    model = Scripted(Completion(r"\boxed{0}"), Completion(r"\boxed{-1}"))
    assert [v.flawed for v in judge(model, "a", "b", "a", "a")] == [True, False, True, True]
    assert len(model.asked) == 2


def test_equal_responses_to_different_problems_are_not_the_same() -> None:
    model = Scripted(Completion(r"\boxed{0}"))
    other = Problem("p", PROBLEM.text, "15", meta={"unhashable": []})
    asyncio.run(GenRM(load_template("locate"), model)([Rollout(PROBLEM, "a"), Rollout(other, "a")]))
    assert len(model.asked) == 2


@pytest.mark.parametrize(
    ("votes", "chosen"), [(["yes", "no", "yes"], 0), (["no", "yes"], 0), (["?", "yes"], 1), (["no", "yes", "yes"], 1)]
)
def test_votes_of_a_yes_no_judge_name_no_step(votes: list[str], chosen: int) -> None:
    model = Scripted(*(Completion(f"\\boxed{{{vote}}}") for vote in votes))
    (verdict,) = judge(model, "a", votes=len(votes), template="yes_no")
    assert (verdict.critique, verdict.error_step) == (f"\\boxed{{{votes[chosen]}}}", None)


def test_votes_without_a_step_count_as_flagged() -> None:
    flagged = Verdict("ok", flawed=True)
    assert majority([flagged, verdict(3), verdict(None)]) == verdict(3)
    assert majority([flagged, flagged, verdict(None)]) == flagged


def test_votes() -> None:
    model = Scripted(*(Completion(text) for text in (r"\boxed{0}", r"\boxed{-1}", r"\boxed{0} too", "?", "?", "??")))
    verdicts = judge(model, "a", "b", votes=3)
    assert [(v.status, v.error_step, v.critique) for v in verdicts] == [
        ("ok", 0, r"\boxed{0}"),
        ("unparsable", None, "?"),
    ]
    assert len(model.asked) == 6


@pytest.mark.parametrize("blank", ["", " \n\n\t "])
def test_blank_responses_are_not_asked_about(blank: str) -> None:
    model = Scripted(Completion(r"\boxed{-1}"))
    assert [v.status for v in judge(model, blank, "a")] == ["unparsable", "ok"]
    assert len(model.asked) == 1
    assert [v.flawed for v in judge(Scripted(), blank)] == [None]


def test_yes_no_template_is_read_as_yes_or_no() -> None:
    model = Scripted(Completion(r"\boxed{yes}"), Completion(r"\boxed{0}"))
    assert [v.flawed for v in judge(model, "a", "b", template="yes_no")] == [True, None]


def test_given_steps_are_judged_as_they_are() -> None:
    model = Scripted(Completion(r"\boxed{1}"))
    genrm = GenRM(load_template("compact"), model)
    (verdict,) = asyncio.run(genrm.judge_steps([(PROBLEM, ("one\n\nstill one", "two"))]))
    assert verdict.error_step == 1
    assert model.asked == [build_prompt(genrm.template, PROBLEM.text, "14", ["one\n\nstill one", "two"])]


def test_nothing_to_judge() -> None:
    assert judge(Scripted()) == []


def test_votes_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        GenRM(load_template("locate"), Scripted(), votes=0)
