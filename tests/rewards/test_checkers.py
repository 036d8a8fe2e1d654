"""Answer checkers: the built-in rules, functions of the user, and all that can go wrong in one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.reader import from_dict
from fapo.config.schema import FapoReward, OutcomeReward, SolutionReward, StepRatioReward
from fapo.errors import ConfigError, EngineError, UnscoredError
from fapo.rewards.checkers import MAX_CHECKS, FunctionChecker, make_checker
from fapo.rewards.eager_scorer import make_eager
from fapo.rewards.from_config import make_scorer
from fapo.rewards.scorer import PolicyScorer
from fapo.rewards.verify import Check
from fapo.types import Problem, Reward, Rollout, ScoredRollout, Verdict
from tests.support import answer_checkers

PROBLEM = Problem("p", "Write a poem.", "roses", "poems", {"lines": 4})


def rollouts(*responses: str) -> list[Rollout]:
    return [Rollout(PROBLEM, response) for response in responses]


def checked(checker: Any, *responses: str, **options: Any) -> list[Check]:
    return asyncio.run(replace(make_checker(checker), **options)(rollouts(*responses)))


# --- built in ---------------------------------------------------------------------------------------------------------

RULES = [
    ("choice", r"So \boxed{B}.", "B", True),
    ("choice", r"\boxed{(b) 12}", "(B)", True),
    ("choice", "Answer: b", "B", True),
    ("choice", "the answer is (C).", "B", False),
    ("choice", r"\boxed{12}", "B", False),
    ("choice", "no idea", "B", False),
    ("exact", r"\boxed{ Ab c }", "Ab c ", True),
    ("exact", r"\boxed{ab c}", "Ab c", False),
    ("exact", r"\boxed{1.0}", "1", False),
    ("exact", "Ab c", "Ab c", False),
    ("math", r"\boxed{1.0}", "1", True),
    ("math", "1.0", "1", False),
]


@pytest.mark.parametrize(("rule", "response", "reference", "right"), RULES)
def test_built_in_rules(rule: str, response: str, reference: str, right: bool) -> None:
    (check,) = asyncio.run(make_checker(rule)([Rollout(Problem("p", "?", reference), response)]))
    assert check.correct is right and not check.unscored


@pytest.mark.parametrize(("rule", "required"), [("math", True), ("exact", True), ("choice", False)])
def test_whether_a_box_is_required(rule: str, required: bool) -> None:
    rollout = Rollout(Problem("p", "?", "B"), "The answer is B")
    for require_box, expected in ((None, required), (True, True), (False, False)):
        (check,) = asyncio.run(make_checker(rule, require_box=require_box)([rollout]))
        assert (check.status == "no_answer") == expected, require_box


def test_a_choice_without_a_letter_to_compare_with_is_an_error() -> None:
    (check,) = checked("choice", r"\boxed{B}")
    assert (check.status, check.unscored, check.detail) == ("error", True, "the reference 'roses' is no letter")


def test_a_long_answer_is_no_choice() -> None:
    (check,) = asyncio.run(
        make_checker("choice")([Rollout(Problem("p", "?", "B"), rf"\boxed{{0.{'1' * 5000}\overline{{3}}}}")])
    )
    assert (check.correct, check.status) == (False, "ok")


# --- functions --------------------------------------------------------------------------------------------------------


def test_a_function_gets_response_reference_and_problem() -> None:
    seen: list[Any] = []

    def keep(*arguments: Any) -> bool:
        seen.append((*arguments, threading.current_thread().name))
        return True

    assert checked(keep, "roses are red") == [Check(True, None, "ok")]
    assert seen == [("roses are red", "roses", PROBLEM, "fapo-checker")]


class Callable:
    """An object that can be called; async."""

    async def __call__(self, response: str, reference: str, problem: Problem) -> bool:
        await asyncio.sleep(0)
        return reference in response


@pytest.mark.parametrize(
    "checker",
    [
        lambda response, reference, problem: reference in response,
        Callable(),
        answer_checkers.ends_with_reference,
        "tests.support.answer_checkers:ends_with_reference",
    ],
    ids=["sync", "object", "async", "named"],
)
def test_sync_async_and_named(checker: Any) -> None:
    assert [check.correct for check in checked(checker, "red roses", "violets", "red roses")] == [True, False, True]


def test_a_bool_of_numpy_is_one() -> None:
    found = checked(lambda response, reference, problem: np.isclose(float(response), 3), "3.0", "4")
    assert [(check.correct, check.status) for check in found] == [(True, "ok"), (False, "ok")]
    assert {type(check.correct) for check in found} == {bool}, "it is written as JSON"


def leave() -> bool:
    raise SystemExit(3)


async def give_up() -> bool:
    raise asyncio.CancelledError


async def never() -> bool:
    await asyncio.sleep(600)
    return True


def long() -> bool:
    return OVER.wait(600)


OVER = threading.Event()
FAILURES: list[tuple[Any, str]] = [
    (lambda: 1, "the checker returned int, must be True or False"),
    (lambda: None, "the checker returned NoneType, must be True or False"),
    (lambda: "yes", "the checker returned str, must be True or False"),
    (lambda: 1 / 0, "the checker failed: ZeroDivisionError: division by zero"),
    (leave, "the checker failed: RuntimeError: SystemExit: 3"),
    (give_up, "the checker failed: CancelledError: "),
    (never, "the checker failed: no result within 2 s"),
    (long, "the checker failed: no result within 2 s"),
]


@pytest.mark.parametrize(("failure", "detail"), FAILURES, ids=[detail[12:40] for _, detail in FAILURES])
def test_a_failure_is_an_error_and_does_not_touch_the_others(failure: Any, detail: str) -> None:
    def check(response: str, reference: str, problem: Problem) -> Any:
        return failure() if response == "bad" else True

    bad, good = checked(check, "bad", "good", timeout=2.0 if "no result" in detail else 600.0)
    assert bad == Check(False, None, "error", detail, unscored=True)
    assert good == Check(True, None, "ok")


def test_equal_rollouts_are_checked_once_and_not_too_many_at_a_time() -> None:
    under_way, most, calls = 0, 0, 0

    async def check(response: str, reference: str, problem: Problem) -> bool:
        nonlocal under_way, most, calls
        under_way, calls = under_way + 1, calls + 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return True

    texts = [str(i) for i in range(2 * MAX_CHECKS)]
    assert all(check.correct for check in checked(check, *texts, *texts))
    assert (calls, most) == (2 * MAX_CHECKS, MAX_CHECKS)


def test_cancelling_a_check_cancels_the_function() -> None:
    begun: list[str] = []
    cancelled: list[str] = []

    async def check(response: str, reference: str, problem: Problem) -> bool:
        begun.append(response)
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.append(response)
            raise
        return True

    async def run() -> None:
        task = asyncio.ensure_future(make_checker(check)(rollouts("a", "b")))
        while len(begun) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert cancelled == ["a", "b"]


BAD_CHECKERS = [
    ("algebra", "choose math, choice, exact, or write package.module:function"),
    ("no_such_module:check", "No module named 'no_such_module'; install the module, or set PYTHONPATH"),
    ("tests.support.answer_checkers:missing", "has no missing; correct the name"),
    ("tests.support.answer_checkers:not_a_function", "int is not a function"),
    ("tests.support.answer_checkers:two_arguments", "it is called with (response, reference, problem)"),
]


@pytest.mark.parametrize(("checker", "message"), BAD_CHECKERS)
def test_a_checker_that_cannot_be_used(checker: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_checker(checker)
    assert message in str(error.value) and repr(checker) in str(error.value)


def test_a_box_cannot_be_required_of_a_function() -> None:
    with pytest.raises(ConfigError, match="a box is required by math, choice and exact only"):
        make_checker(answer_checkers.even_length, require_box=True)


# --- rewards ----------------------------------------------------------------------------------------------------------


async def flags_nothing(asked: Sequence[Rollout]) -> list[Verdict]:
    return [Verdict.from_step(None)] * len(asked)


async def fails_on_bad(response: str, reference: str, problem: Problem) -> Any:
    return {"good": True, "wrong": False}.get(response)


def score(config: SolutionReward, *responses: str, **options: Any) -> list[ScoredRollout]:
    scorer = PolicyScorer(config, flags_nothing, check=make_checker(fails_on_bad), **options)
    return asyncio.run(scorer(rollouts(*responses)))


@pytest.mark.parametrize(
    "config",
    [OutcomeReward(), FapoReward(), FapoReward(on_unscored="correctness_only"), StepRatioReward()],
    ids=lambda config: f"{config.kind}-{getattr(config, 'on_unscored', '')}",
)
def test_an_error_of_the_checker_is_never_a_reward(config: SolutionReward) -> None:
    good, bad, wrong = score(config, "good", "bad", "wrong", judge_all=True)
    assert bad.reward == Reward(None) and bad.verdict is None and not bad.correct
    assert bad.check_error == "the checker returned NoneType, must be True or False"
    assert [s.rollout_class for s in (good, bad, wrong)] == ["fully_correct", "unscored", "wrong"]
    assert good.reward.value and wrong.reward.value is not None and wrong.reward.value < good.reward.value


def test_raise_names_the_problem_and_the_error() -> None:
    with pytest.raises(UnscoredError, match=r"problem p could not be checked: the checker returned NoneType"):
        score(FapoReward(on_unscored="raise"), "good", "bad")


def test_a_checker_that_fails_too_often_stops_the_run() -> None:
    with pytest.raises(EngineError, match=r"the answer checker is down: 5 of the last 8 .*Mend the checker"):
        score(FapoReward(), *["bad"] * 5, *["good"] * 3)
    assert len(score(FapoReward(), *["bad"] * 4, *["good"] * 4)) == 8


@given(st.lists(st.sampled_from(["good", "bad", "wrong"]), max_size=10), st.data(), st.booleans())
def test_checking_ahead_gives_the_same_scores(texts: list[str], data: st.DataObject, judge_all: bool) -> None:
    begun = data.draw(st.lists(st.sampled_from(texts), max_size=10) if texts else st.just([]))
    check = make_checker(fails_on_bad)
    plain = PolicyScorer(FapoReward(), flags_nothing, judge_all=judge_all, check=check, max_failure_rate=1.0)
    scorer, eager = make_eager(plain)

    async def in_pieces() -> list[ScoredRollout]:
        for rollout in rollouts(*begun):
            eager.begin(rollout)
            await asyncio.sleep(0)
        return await scorer(rollouts(*texts))

    assert asyncio.run(in_pieces()) == asyncio.run(plain(rollouts(*texts)))


# --- in a config ------------------------------------------------------------------------------------------------------

TABLE = {
    "name": "run",
    "task": "policy",
    "model": {"path": "m"},
    "data": {"train": "miniature:train"},
    "rollout": {"max_tokens": 8},
    "optim": {"steps": 1, "learning_rate": 1e-3},
}


def test_a_config_names_a_checker() -> None:
    reward = {"kind": "outcome", "checker": "tests.support.answer_checkers:even_length"}
    scorer = make_scorer(from_dict(TABLE | {"reward": reward}))
    assert isinstance(scorer, PolicyScorer)
    assert scorer.check == FunctionChecker(answer_checkers.even_length)
    assert [s.reward.value for s in asyncio.run(scorer(rollouts("ab", "abc")))] == [1.0, -1.0]


def test_a_wrong_name_in_a_config() -> None:
    with pytest.raises(ConfigError, match=r"reward\.checker: should be math, choice, exact or package.module:function"):
        from_dict(TABLE | {"reward": {"kind": "outcome", "checker": "algebra"}})
    with pytest.raises(ConfigError, match="No module named 'no_such_module'"):
        make_scorer(from_dict(TABLE | {"reward": {"kind": "outcome", "checker": "no_such_module:check"}}))
