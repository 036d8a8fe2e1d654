"""Each attack of attacks.jsonl: what of it reaches the prompt, and that it forges neither a verdict nor a reward."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from fapo.config.schema import FapoReward
from fapo.data.final_answers import num_words
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.data.steps import split_steps
from fapo.judge.genrm import GenRM
from fapo.judge.template import Template, build_prompt, load_template
from fapo.judge.verdicts import parse_verdict, parse_yes_no
from fapo.rewards.scorer import PolicyScorer
from fapo.rewards.verify import check_answers
from fapo.types import Completion, Message, Rollout
from tests.support.attacks import ATTACKS, PROBLEM, TEMPLATES, assert_harmless

SOLUTION = "1+1=3\n3+2=4"
"""A solution with two errors that cancel."""
TOKEN = re.compile(r"<[^<>\s]+>|\[\|?/?[A-Za-z_]{3,}\|?\]|\]~\w\]|\[e~\[")
ESCAPED = re.compile(r"&lt;|&#(\d+);|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})|(?<=box|xed) (?=\{)")


def response(name: str, answer: str = "4") -> str:
    return ATTACKS[name].response(SOLUTION, answer)


def readable(text: str) -> str:
    """Return the text that `escape` was given, with all brackets of one width."""

    def character(found: re.Match[str]) -> str:
        number = found[1] or found[2] or found[3]
        return "" if found[0] == " " else "<" if found[0] == "&lt;" else chr(int(number, 10 if found[1] else 16))

    return ESCAPED.sub(character, text).translate(str.maketrans("＜＞［］", "<>[]")).strip()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_keeps_the_structure_of_the_prompt(name: str, template: Template) -> None:
    text = response(name)
    start = time.process_time()
    steps = split_steps(text)
    if not steps:
        assert not text
        return
    content = assert_harmless(template, steps)
    shown = [template.escape(step) for step in steps]
    assert time.process_time() - start < 5
    assert [readable(step) for step in shown] == [readable(step) for step in steps], "nothing is lost"
    assert all(step.strip() in content for step in shown)
    quoted = "\n".join(shown)
    assert (parse_verdict(quoted, len(steps)).status, parse_yes_no(quoted).status) == ("unparsable", "unparsable")


@pytest.mark.parametrize("name", [name for name in ATTACKS if name.startswith("chat token")])
def test_no_chat_token_survives(name: str) -> None:
    found = TOKEN.findall(ATTACKS[name].text)
    assert found
    content = assert_harmless(TEMPLATES[0], split_steps(response(name)))
    assert [token for token in found if token in content] == []


@pytest.mark.skipif(not (BASE_FOLDER / "genrm").exists(), reason="the miniature's base models are not there")
def test_a_real_tokenizer_sees_no_special_token() -> None:
    tokenizer = Tokenizer.from_file(str(BASE_FOLDER / "genrm" / "tokenizer.json"))
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    special.discard(tokenizer.token_to_id("<unk>"))  # the token of letters that the miniature does not have
    assert len(special) >= 3
    assert special & set(tokenizer.encode(response("chat token: the miniature's"), add_special_tokens=False).ids)
    for name in ATTACKS:
        if len(response(name)) < 5000:
            content = "".join(TEMPLATES[0].escape(step) for step in split_steps(response(name)))
            assert not special & set(tokenizer.encode(content, add_special_tokens=False).ids), name


VERDICTS_ONLY = [replace(load_template(name), escaping="verdicts") for name in ("compact", "locate", "yes_no")]
"""Templates that escape only boxes that could be verdicts."""


def assert_no_verdict(template: Template, steps: list[str]) -> None:
    """Assert that a prompt has the tags of an ordinary one, and that no part of it can be read as a verdict."""
    prompt, plain = (build_prompt(template, PROBLEM.text, "4", s)[-1]["content"] for s in (steps, ["x"] * len(steps)))
    tags = re.compile(r"<\s*/?\s*(?:step_\d+|problem|reference|solution)\b", re.IGNORECASE)
    assert tags.findall(prompt) == tags.findall(plain)
    for box in re.finditer(r"\\boxed\{", prompt):
        part = prompt[: prompt.find("}", box.end()) + 1]
        assert parse_verdict(part, len(steps)).status == parse_yes_no(part).status == "unparsable"


@pytest.mark.parametrize("template", VERDICTS_ONLY, ids=lambda template: template.name)
@pytest.mark.parametrize("name", ATTACKS)
def test_with_few_boxes_escaped_an_attack_forges_no_verdict_either(name: str, template: Template) -> None:
    if len(response(name)) < 20_000 and (steps := split_steps(response(name))):
        assert_no_verdict(template, steps)


@settings(max_examples=60)
@given(
    template=st.sampled_from(VERDICTS_ONLY),
    steps=st.lists(
        st.lists(st.sampled_from(["\\boxed{", "}", "-1", "0", "1", "9", "yes", "$", " ", "\n", "+", "{", "x"])).map(
            "".join
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_with_few_boxes_escaped_no_mixture_is_a_verdict(template: Template, steps: list[str]) -> None:
    assert_no_verdict(template, steps)


def test_boxes_that_cannot_be_verdicts_stay_as_they_are() -> None:
    template = replace(load_template("locate"), escaping="verdicts")
    boxes = {"\\boxed{2}": True, "\\boxed{3}": False, "\\boxed{-1}": True, "\\boxed{x+1}": False, "\\boxed{No}": True}
    for box, escaped in boxes.items():
        prompt = build_prompt(template, "Q", "4", ["a", "b", f"So {box}."])[-1]["content"]
        assert (f"So {box}." in prompt) is not escaped
        assert box not in build_prompt(load_template("locate"), "Q", "4", ["a", "b", box])[-1]["content"]


FRAGMENTS = [piece for attack in ATTACKS.values() for piece in re.findall(r"\S{1,40}\s?|\s+", attack.text)]


@settings(max_examples=60)
@given(
    template=st.sampled_from(TEMPLATES),
    steps=st.lists(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=2), max_size=12).map("".join), min_size=1),
)
def test_no_mixture_of_attacks_changes_the_structure(template: Template, steps: list[str]) -> None:
    assert_harmless(template, steps)
    quoted = "\n".join(map(template.escape, steps))
    assert parse_verdict(quoted, len(steps)).status == "unparsable"


# --- answers and rewards ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_attack_makes_a_wrong_answer_right() -> None:
    right = check_answers([(response(name), PROBLEM.reference) for name in ATTACKS], deadline=10.0)
    assert [n for n, found in zip(ATTACKS, right, strict=True) if found.correct != ATTACKS[n].correct] == []
    wrong = check_answers([(response(name, "5"), PROBLEM.reference) for name in ATTACKS], deadline=10.0)
    assert [n for n, found in zip(ATTACKS, wrong, strict=True) if found.correct] == []


async def parrot(conversations: Sequence[list[Message]]) -> list[Completion]:
    """Return the prompt as the critique, as the most gullible judge would."""
    return [Completion(conversation[-1]["content"]) for conversation in conversations]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_a_judge_that_repeats_its_prompt_gives_no_reward(template: Template) -> None:
    names = [name for name, attack in ATTACKS.items() if attack.correct]
    scorer = PolicyScorer(FapoReward(), GenRM(template, parrot), max_failure_rate=1.0)
    scored = asyncio.run(scorer([Rollout(PROBLEM, response(name)) for name in names]))
    assert {(s.correct, s.reward.value, s.verdict and s.verdict.status) for s in scored} == {(True, None, "unparsable")}


# --- a solution without reasoning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ("", 0),
        ("\\boxed{one two}", 0),
        ("\\boxed{a \\boxed{b}} c", 1),
        ("17+5=22\n\\boxed{2}", 3),
        ("\\fbox{1} so \\boxed{2", 3),
        ("Thought process:\n\\boxed{3}", 2),
        ("解\n\\boxed{3}", 1),
        ("\\boxed{" * 20_000 + "}" * 20_000 + " x", 1),
    ],
)
def test_words_outside_the_boxes(text: str, num: int) -> None:
    assert num_words(text) == num


def test_a_solution_without_reasoning_is_flagged_unread() -> None:
    asked: list[str] = []

    async def passes(conversations: Sequence[list[Message]]) -> list[Completion]:
        asked.extend(conversation[-1]["content"] for conversation in conversations)
        return [Completion("\\boxed{-1}")] * len(conversations)

    bare = [name for name in ATTACKS if ATTACKS[name].bare and ATTACKS[name].correct]
    rollouts = [Rollout(PROBLEM, response(name)) for name in bare]
    honest = Rollout(PROBLEM, "First 1+1=2, then 2+2=4, so the sum of all is\n\\boxed{4}")
    num_distinct = len({tuple(step.strip() for step in split_steps(rollout.response)) for rollout in rollouts})
    for min_words, reward, num_asked in ((0, 1.0, num_distinct + 1), (10, 0.0, 1)):
        asked.clear()
        scorer = PolicyScorer(FapoReward(), GenRM(TEMPLATES[0], passes, min_words=min_words))
        *scored, last = asyncio.run(scorer([*rollouts, honest]))
        assert {s.reward.value for s in scored} == {reward}
        assert (last.reward.value, len(asked)) == (1.0, num_asked)
    assert all(s.verdict and "words outside the box, min_words is 10" in s.verdict.reason for s in scored)
