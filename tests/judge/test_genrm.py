"""The GenRM: from prompts to verdicts, in order, with votes, each solution asked about once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from fapo.data.steps import split_steps
from fapo.errors import ConfigError
from fapo.inference.client import ChatClient
from fapo.inference.response_cache import CachedModel, ResponseCache
from fapo.judge.genrm import GenRM
from fapo.judge.template import build_prompt, load_template
from fapo.judge.verdicts import FLAGGED_UNREAD, GIVEN_STEP
from fapo.types import Completion, Given, Message, Problem, Rollout, Verdict
from tests.support.chat_server import Reply, chat_server

PROBLEM = Problem("p", "What is $2 + 3 \\cdot 4$?", "14")
STEPS = ["First $3 \\cdot 4 = 12$.", "Then $2 + 12 = 14$, so the answer is \\boxed{14}."]


class Scripted:
    """A chat model that returns given completions in turn, and keeps the conversations."""

    def __init__(self, *answers: Completion) -> None:
        self.answers = answers
        self.asked: list[list[Message]] = []

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        self.asked += conversations
        return [self.answers[i % len(self.answers)] for i in range(len(conversations))]


def judge(model: Scripted, *responses: str, votes: int = 1, template: str = "locate") -> list[Verdict]:
    genrm = GenRM(load_template(template), model, votes)
    return asyncio.run(genrm([Rollout(PROBLEM, response) for response in responses]))


def test_prompt_completion_and_verdict() -> None:
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


BOX = r"Step 0 is wrong. \boxed{0}"


@pytest.mark.parametrize("template", ["locate", "yes_no"])
def test_a_critique_that_is_cut_off_is_no_verdict(template: str) -> None:
    text = BOX if template == "locate" else r"\boxed{yes}"
    (verdict,) = judge(Scripted(Completion(text, 7, truncated=True)), "a", template=template)
    assert verdict == Verdict("unparsable", critique=text, reason="cut off at the length limit", num_tokens=7)
    complete, cut = Completion(text), Completion(r"\boxed{-1} \boxed{no}", truncated=True)
    assert judge(Scripted(cut, cut, complete), "a", votes=3, template=template)[0].flawed, "it has no vote"


@pytest.mark.parametrize("finish_reason", ["length", "model_length", "stop"])
def test_a_server_that_cuts_off(finish_reason: str, tmp_path: Path) -> None:
    cache, found = ResponseCache(tmp_path / "cache.sqlite"), []

    async def run(url: str) -> None:
        async with aclosing(ChatClient(url, "m")) as client:
            genrm = GenRM(load_template("locate"), CachedModel(client, cache, model="m"))
            for _ in range(2):
                found.extend(await genrm([Rollout(PROBLEM, "a")]))

    with chat_server(Reply(BOX, finish_reason=finish_reason)) as server:
        asyncio.run(run(server.url))
        assert len(server.requests) == 1, "the second verdict comes from the cache"
    cache.close()
    status = "ok" if finish_reason == "stop" else "unparsable"
    assert [verdict.status for verdict in found] == [status, status]


def test_reasoning_in_a_field_of_its_own_holds_no_verdict() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": BOX, "reasoning": BOX}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()

    async def run(url: str) -> list[Verdict]:
        async with aclosing(ChatClient(url, "m")) as client:
            return await GenRM(load_template("locate"), client)([Rollout(PROBLEM, "a")])

    with chat_server(Reply(body=body)) as server:
        assert asyncio.run(run(server.url)) == [Verdict("unparsable", reason="no boxed step")]


def test_equal_solutions_are_asked_about_once() -> None:
    model = Scripted(Completion(r"\boxed{0}"), Completion(r"\boxed{-1}"))
    assert [v.flawed for v in judge(model, "a", "b", "a", "a")] == [True, False, True, True]
    assert len(model.asked) == 2


def test_solutions_that_differ_in_blanks_only_are_one_prompt_and_one_question() -> None:
    model = Scripted(Completion(r"\boxed{0}"), Completion(r"\boxed{-1}"))
    genrm = GenRM(load_template("locate"), model, votes=2)
    solutions = [(PROBLEM, ("one", "two")), (PROBLEM, ("one ", "\n two")), (PROBLEM, ("one", "\u2028two"))]
    verdicts = asyncio.run(genrm.judge_steps(solutions))
    assert len(model.asked) == 2 and verdicts[0] is verdicts[1] is verdicts[2]


def test_equal_responses_to_different_problems_are_not_the_same() -> None:
    model = Scripted(Completion(r"\boxed{0}"))
    other = Problem("p", PROBLEM.text, "15", meta={"unhashable": []})
    asyncio.run(GenRM(load_template("locate"), model)([Rollout(PROBLEM, "a"), Rollout(other, "a")]))
    assert len(model.asked) == 2


@pytest.mark.parametrize(
    ("votes", "chosen"),
    [(["yes", "no", "yes"], 0), (["no", "yes"], 0), (["yes", "no"], 0), (["?", "yes"], 1), (["no", "yes", "yes"], 1)],
)
def test_votes_of_a_yes_no_judge_name_no_step(votes: list[str], chosen: int) -> None:
    model = Scripted(*(Completion(f"\\boxed{{{vote}}}") for vote in votes))
    (verdict,) = judge(model, "a", votes=len(votes), template="yes_no")
    assert (verdict.critique, verdict.error_step) == (f"\\boxed{{{votes[chosen]}}}", None)


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


@pytest.mark.parametrize(("template", "num"), [("locate", 1), ("compact", 2)])
def test_a_response_is_split_as_the_template_says(template: str, num: int) -> None:
    model = Scripted(Completion(r"\boxed{1}"))
    assert [v.error_step for v in judge(model, "one\ntwo", "one\n\ntwo", template=template)] == [
        1 if num == 2 else None,
        1,
    ]
    assert len({repr(conversation) for conversation in model.asked}) == 3 - num, "equal steps make equal prompts"


def test_given_steps_are_judged_as_they_are() -> None:
    model = Scripted(Completion(r"\boxed{1}"))
    genrm = GenRM(load_template("compact"), model)
    (verdict,) = asyncio.run(genrm.judge_steps([(PROBLEM, ("one\n\nstill one", "two"))]))
    assert verdict.error_step == 1
    assert model.asked == [build_prompt(genrm.template, PROBLEM.text, "14", ["one\n\nstill one", "two"])]


TOOL = "Tool call: calculator(3*4)", Given("12"), "So 14, \\boxed{14}."
"""Steps of a solution with a tool."""


def test_a_step_that_the_policy_did_not_write_is_marked_and_never_wrong() -> None:
    model = Scripted(*(Completion(f"\\boxed{{{step}}}") for step in (0, 1, 2, -1)))
    genrm = GenRM(load_template("locate"), model)
    verdicts = asyncio.run(genrm.judge_steps([(Problem(str(i), str(i), "14"), TOOL) for i in range(4)]))
    assert [(v.status, v.error_step) for v in verdicts] == [("ok", 0), ("unparsable", None), ("ok", 2), ("ok", None)]
    assert verdicts[1].reason == GIVEN_STEP
    prompt = model.asked[0][-1]["content"]
    marked = '<step_1>\n<given note="not written by the solver, so never the wrong step">\n12\n</given>\n</step_1>'
    assert prompt.count("<given") == 1
    assert marked in prompt


def test_votes_for_a_given_step_do_not_count() -> None:
    model = Scripted(*(Completion(f"\\boxed{{{step}}}") for step in (1, 1, 2)))
    (verdict,) = asyncio.run(GenRM(load_template("locate"), model, votes=3).judge_steps([(PROBLEM, TOOL)]))
    assert verdict.error_step == 2


def test_the_judge_sees_all_turns_of_a_rollout() -> None:
    model = Scripted(Completion("\\boxed{-1}"))
    rollout = Rollout(PROBLEM, TOOL[2], earlier_turns=TOOL[:2])
    asyncio.run(GenRM(load_template("locate"), model)([rollout, Rollout(PROBLEM, TOOL[2])]))
    assert model.asked == [
        build_prompt(load_template("locate"), PROBLEM.text, PROBLEM.reference, steps) for steps in (TOOL, TOOL[2:])
    ]


def test_a_tools_words_are_no_words_of_the_policy() -> None:
    genrm = GenRM(load_template("locate"), Scripted(), min_words=5)
    (verdict,) = asyncio.run(genrm([Rollout(PROBLEM, "\\boxed{14}", earlier_turns=(Given("word " * 9),))]))
    assert verdict.reason == f"{FLAGGED_UNREAD}: 0 words outside the box, min_words is 5"


def test_nothing_to_judge() -> None:
    assert judge(Scripted()) == []


def test_votes_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        GenRM(load_template("locate"), Scripted(), votes=0)


def test_votes_on_a_solution_share_one_conversation() -> None:
    async def complete(conversations: Sequence[list[Message]]) -> list[Completion]:
        one, two, three = conversations
        assert one is two is three
        return [Completion("\\boxed{-1}")] * 3

    (verdict,) = asyncio.run(GenRM(load_template("compact"), complete, votes=3).judge_steps([(PROBLEM, STEPS)]))
    assert verdict.status == "ok"
