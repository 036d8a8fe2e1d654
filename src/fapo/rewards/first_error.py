"""First-error credit: right steps before the first error are rewarded, the wrong step is punished, the rest is ignored.

A reward of a whole rollout punishes the right steps of a wrong one, and does not say which step was wrong. Here a
rollout with a located error has three parts with an advantage each:

    each of the t steps before the error: A^+ / t, where A^+ = (1 - mean) / std
    the wrong step:                       A = (R - mean) / std, where R = R_FAPO: +1, 1 - lambda or -1
    what follows it:                      0

The steps before the error share A^+, so that those of a group and its wrong steps have a sum of 0, as rollouts have in
plain GRPO. If each of them had all of it (`share_credit = false`), more steps would have a larger sum, wherever the
judge puts the error: a judge that names random steps would reward length.

Mean and standard deviation are over the rewards R of the rollouts of a group, and a 1 for each rollout with steps
before its error. A rollout without a located error has the advantage A as a whole. The length penalty of a rollout is
added to its R and to its 1. What changes in the closed forms of FAPO, without that penalty:

* Let k rollouts of a group of G have steps before their error, and q = k / (G + k). The mean reward is
  (1 - q) mean_FAPO + q, and its variance (1 - q) (var_FAPO + q (1 - mean_FAPO)^2).
* The wrong step of a flawed positive is discouraged where rho + k / (G beta) > 2 / lambda - 1: never later than under
  FAPO. Its steps before that are encouraged at any rho.
* A group without a correct rollout learns, if some of its rollouts begin well. Under FAPO it does not.
* Without a located error the advantages are those of FAPO.

Source: VPPO (arXiv 2601.18984), which credits the steps before the first error of wrong rollouts and punishes all that
follows. Here only the wrong step is punished, and flawed positives are treated in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fapo.data.trajectory import judged_steps
from fapo.errors import EngineError
from fapo.rewards.advantages import Table, group_advantages
from fapo.types import Rollout, ScoredRollout, StepRule, Verdict


@dataclass(frozen=True)
class Parts:
    """The parts of a rollout, as places in its response, and their advantages."""

    response: str
    """Response of the rollout."""
    start: int
    """Number of characters before the first wrong step; 0 if no error is located."""
    end: int
    """Number of characters before the step after it; the length of the response if no error is located."""
    before: float
    """Advantage of each step before the wrong one."""
    error: float
    """Advantage of the wrong step, or of the whole rollout if no error is located; what follows the step has 0."""


def first_error_advantages(
    rewards: Table, begins_well: npt.ArrayLike, overlong: npt.ArrayLike = 0.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return A^+ and A, normalised together as `group_advantages` does.

    Args:
        rewards: Rewards, [num_prompts, group_size]; NaN or None for an unscored rollout.
        begins_well: Whether steps come before a located error, [num_prompts, group_size].
        overlong: Length penalties, part of `rewards`, at most 0, [num_prompts, group_size]; 0 for none.

    Returns:
        A^+, the advantages of the steps before the first error, and A, those of the wrong step or of the whole rollout;
        each [num_prompts, group_size], without a unit. A^+ is 0 where no steps come before an error. Both are 0 for an
        unscored rollout.

    Raises:
        ValueError: If an array does not have two dimensions, a group is empty or a reward is infinite.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    credit = 1.0 + np.asarray(overlong, dtype=np.float64)
    before = np.where(np.asarray(begins_well, dtype=bool) & ~np.isnan(rewards), credit, np.nan)
    both = group_advantages(np.concatenate([before, rewards], axis=1))
    return both[:, : before.shape[1]], both[:, before.shape[1] :]


def begins_well(verdict: Verdict | None) -> bool:
    """Return whether a judge has located an error, and at least one step comes before it."""
    return bool(verdict and verdict.flawed and verdict.error_step)


def parts_of(
    rollout: Rollout, verdict: Verdict | None, rule: StepRule, before: float, error: float, share: bool = True
) -> Parts:
    """Return the parts of a rollout.

    Args:
        rollout: Rollout of one turn.
        verdict: Verdict on it.
        rule: Rule by which the judge splits it into steps.
        before: A^+, the advantage that the steps before the error share.
        error: A, the advantage of the wrong step, or of the whole rollout.
        share: Whether the steps before the error share A^+; if not, each of them has all of it.

    Returns:
        The parts.

    Raises:
        EngineError: If the rollout has several turns, between which are tokens that the policy did not write, or the
            judge names a step that the rollout does not have.
    """
    if rollout.earlier_turns:
        raise EngineError(
            f"a rollout of problem {rollout.problem.id} has several turns; first-error credit places errors in those "
            'of one turn only: use plain FAPO, which is reward.kind "fapo"'
        )
    if not (verdict and verdict.flawed and verdict.error_step is not None):
        return Parts(rollout.response, 0, len(rollout.response), 0.0, error)
    lengths = [len(str(step)) for step in judged_steps(rollout, rule)]
    if verdict.error_step >= max(len(lengths), 1):
        raise EngineError(
            f"the judge names step {verdict.error_step}, counted from 0, of a rollout of problem {rollout.problem.id}, "
            f"which has {len(lengths)} by the rule {rule!r}: pass the rule of the judge as `steps` to "
            "flawed_aware_reward, or correct the judge"
        )
    start, end = sum(lengths[: verdict.error_step]), sum(lengths[: verdict.error_step + 1])
    of_step = before / max(verdict.error_step, 1) if share else before
    return Parts(rollout.response, start, end, of_step, error)


def parts_of_all(
    scored: Sequence[ScoredRollout],
    rule: StepRule,
    before: npt.NDArray[np.float64],
    error: npt.NDArray[np.float64],
    share: bool = True,
) -> list[Parts]:
    """Return the parts of scored rollouts, [num_rollouts], as `parts_of` does for each; so are its arguments."""
    pairs = zip(scored, before.tolist(), error.tolist(), strict=True)
    return [parts_of(s.rollout, s.verdict, rule, of_start, of_error, share) for s, of_start, of_error in pairs]


def tokens_before(tokens: Sequence[int], place: int, decode: Callable[[Sequence[int]], str]) -> int:
    """Return how many tokens come before a place in their text.

    Args:
        tokens: Ids of the tokens.
        place: Number of characters before the place, in the text of all tokens.
        decode: Function that returns the text of the first tokens.

    Returns:
        The smallest number of first tokens with a text that reaches the place. A token on both sides of it counts.
    """
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(decode(tokens[:middle])) >= place else (middle + 1, high)
    return low


def token_places(parts: Parts, tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[int, int]:
    """Return where the parts of a rollout begin and end in its tokens.

    Args:
        parts: Parts of the rollout.
        tokens: Ids of its tokens, without padding.
        decode: Function that returns the text of the first tokens, without special tokens.

    Returns:
        Number of tokens before the wrong step, and before what follows it. A token that belongs to two parts counts to
        the first one. Thinking counts to the steps before the error, and the end of the sequence to the last step. If
        no error is located, or the response is not in the text of the tokens, the result is 0 and the length.
    """
    if (parts.start, parts.end) == (0, len(parts.response)):
        return 0, len(tokens)
    begin = decode(tokens).rfind(parts.response)
    if begin < 0:
        return 0, len(tokens)
    start = tokens_before(tokens, begin + parts.start, decode)
    is_last = parts.end == len(parts.response)
    return start, len(tokens) if is_last else tokens_before(tokens, begin + parts.end, decode)


def token_values(parts: Parts, tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[float]:
    """Return the advantage of each token of a rollout; the arguments are those of `token_places`."""
    start, end = token_places(parts, tokens, decode)
    return [parts.before] * start + [parts.error] * (end - start) + [0.0] * (len(tokens) - end)
