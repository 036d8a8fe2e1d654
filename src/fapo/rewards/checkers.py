"""Answer checkers: the built-in ones, and functions of the user for code, science or free text.

A function gets the response, the reference and the problem, and returns True or False. It may be async. Anything else
that it does, an exception or no result in time, is an error of the checker: the rollout is then unscored.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np

from fapo.data.final_answers import choice_letter, extract
from fapo.errors import ConfigError
from fapo.inference.concurrency import in_thread
from fapo.rewards.verify import Check, acheck_answers
from fapo.types import Problem, Rollout

CheckerFunction = Callable[[str, str, Problem], bool | Awaitable[bool]]
"""Function of response, reference and problem that returns whether the response is correct."""
BuiltIn = Literal["math", "choice", "exact"]
"""Name of a built-in checker."""
TIMEOUT = 300.0
"""Seconds for one check by a function."""
MAX_CHECKS = 64
"""Number of checks by functions under way at once in one event loop."""
_SLOTS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@dataclass(frozen=True)
class BuiltInChecker:
    r"""Checker of final answers by rules of fapo.

    math: equal as mathematics, as `fapo.rewards.check_answers` decides. choice: the same letter of a multiple-choice
    question. exact: the same characters, without blanks around them.
    """

    rule: BuiltIn = "math"
    """Rule by which answers are equal."""
    require_box: bool = True
    """Whether only a boxed answer counts; see `fapo.data.final_answers.extract`."""

    def key(self, rollout: Rollout) -> Hashable:
        """Return a key that is the same for rollouts that need one check."""
        return extract(rollout.response, require_box=self.require_box), rollout.problem.reference

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Check]:
        """Return one check for each rollout, in order."""
        if self.rule == "math":
            pairs = [(rollout.response, rollout.problem.reference) for rollout in rollouts]
            return await acheck_answers(pairs, require_box=self.require_box)
        return [self._check(rollout) for rollout in rollouts]

    def _check(self, rollout: Rollout) -> Check:
        """Return the check of a letter, or of characters."""
        answer, reference = extract(rollout.response, require_box=self.require_box), rollout.problem.reference.strip()
        if self.rule == "choice":
            letter = choice_letter(reference)
            if letter is None:
                return Check(False, answer, "error", f"the reference {reference[:40]!r} is no letter", unscored=True)
            equal = answer is not None and choice_letter(answer) == letter
        else:
            equal = answer == reference
        return Check(False, None, "no_answer", "no final answer") if answer is None else Check(equal, answer, "ok")


@dataclass(frozen=True)
class FunctionChecker:
    """Checker by a function of the user. It can be pickled if the function can."""

    function: CheckerFunction
    """Function, sync or async. A sync one runs in a thread, several at once."""
    timeout: float = TIMEOUT
    """Seconds for one check; the thread of a sync function that takes longer cannot be stopped, and is left behind."""

    def key(self, rollout: Rollout) -> Hashable:
        """Return a key that is the same for rollouts that need one check."""
        return rollout.response, rollout.problem.reference, rollout.problem.text

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Check]:
        """Return one check for each rollout, in order; equal rollouts are checked once."""
        distinct = {self.key(rollout): rollout for rollout in rollouts}
        checks = await asyncio.gather(*map(self._check, distinct.values()))
        found = dict(zip(distinct, checks, strict=True))
        return [found[self.key(rollout)] for rollout in rollouts]

    async def _check(self, rollout: Rollout) -> Check:
        """Return one check; whatever goes wrong in the function is an error, never a result."""
        slots = _SLOTS.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_CHECKS))
        limit = asyncio.timeout(None)
        try:
            async with slots, limit:
                limit.reschedule(asyncio.get_running_loop().time() + self.timeout)
                result = await self._call(rollout)
        except (Exception, asyncio.CancelledError) as error:  # the function is not ours, so any exception may come
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise  # the check itself is cancelled
            late = f"no result within {self.timeout:g} s" if limit.expired() else f"{type(error).__name__}: {error}"
            return Check(False, None, "error", f"the checker failed: {late}", unscored=True)
        if not isinstance(result, bool | np.bool_):
            detail = f"the checker returned {type(result).__name__}, must be True or False"
            return Check(False, None, "error", detail, unscored=True)
        return Check(bool(result), None, "ok")

    async def _call(self, rollout: Rollout) -> Any:
        """Return what the function returns."""
        arguments = rollout.response, rollout.problem.reference, rollout.problem
        if inspect.iscoroutinefunction(self.function):
            result: Any = self.function(*arguments)
        else:
            result = await _in_thread(self.function, *arguments)
        return await result if inspect.isawaitable(result) else result


MATH = BuiltInChecker()
"""Checker of boxed answers by mathematics, the default in training."""
AnswerChecker = BuiltInChecker | FunctionChecker
"""A checker: an async callable that returns one `Check` for each rollout."""


def make_checker(checker: str | CheckerFunction = "math", *, require_box: bool | None = None) -> AnswerChecker:
    r"""Return the checker that a setting names.

    Args:
        checker: math, choice, exact, "package.module:function", or a function.
        require_box: Whether only a boxed answer counts, for a built-in checker. None: the rule of training, which is
            yes for math and exact, and no for choice.

    Returns:
        The checker.

    Raises:
        ConfigError: The name or the function cannot be used, or `require_box` is set for a function.
    """
    if isinstance(checker, str) and checker in get_args(BuiltIn):
        return BuiltInChecker(checker, checker != "choice" if require_box is None else require_box)  # type: ignore[arg-type]
    if require_box:
        raise ConfigError(f"a box is required by math, choice and exact only; checker {checker!r} reads the response")
    function = _imported(checker) if isinstance(checker, str) else checker
    if not callable(function):
        raise ConfigError(f"checker {checker!r}: {type(function).__name__} is not a function; name one")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        signature = None
    if signature:
        try:
            signature.bind("", "", Problem("", "", ""))
        except TypeError as error:
            raise ConfigError(
                f"checker {checker!r}: {error}; it is called with (response, reference, problem)"
            ) from None
    return FunctionChecker(function)


def _imported(name: str) -> Any:
    """Return the function that "package.module:function" names; raise ConfigError if there is none."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ConfigError(f"checker {name!r}: choose math, choice, exact, or write package.module:function")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"checker {name!r}: {error}; install the module, or set PYTHONPATH to the folder that holds it"
        ) from None
    if not hasattr(found, function):
        raise ConfigError(f"checker {name!r}: {module} has no {function}; correct the name behind the colon")
    return getattr(found, function)


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a thread, which does not keep the process from ending."""

    def run() -> Any:
        try:
            return function(*arguments)
        except Exception:
            raise
        except BaseException as raised:  # such as SystemExit, which must not end the training
            raise RuntimeError(f"{type(raised).__name__}: {raised}") from raised

    return await asyncio.wrap_future(in_thread(run, "fapo-checker"))
