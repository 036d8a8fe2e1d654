"""Decoupled advantages: the outcome compared within the group, and the reasoning compared among its correct rollouts.

A = A_out + w A_proc. FAPO adds the penalty of a flaw to the reward and normalises the sum, so that many flawed
positives narrow the gap between right and wrong answers. Here they cannot. What changes in the closed forms of FAPO:

* The mean advantage of a group is 0, also over its correct rollouts for A_proc.
* The variance of the advantages is 1 + w^2 (1 - beta) in large groups, where FAPO has 1.
* The gap between the mean advantage of the correct rollouts and that of the wrong ones is the one of plain GRPO.
* A flawed positive has a negative advantage where rho > phi / w^2 (`fapo.rewards.theory.decoupled_shift_ratio`).
* A group with correct answers alone has A_out = 0, and learns by w A_proc; under plain GRPO it does not learn.

Source: the decoupled normalisation of PAPO (arXiv 2603.26535), with the verdict as a process score of 0 or -1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fapo.rewards.advantages import Table, group_advantages


def decoupled_advantages(outcome: Table, process: Table, weight: float) -> npt.NDArray[np.float64]:
    """Return A = A_out + w A_proc, each of them normalised as `group_advantages` does.

    A_out is over all scored rollouts of the group, A_proc over those with a process score. A_proc is 0 where fewer than
    two have one, and where all of them are equal.

    Args:
        outcome: Rewards of the answers, [num_prompts, group_size]; NaN or None for an unscored rollout.
        process: Process scores, [num_prompts, group_size]: 0 for a fully correct rollout, -1 for a flawed positive; NaN
            or None for a wrong rollout and for one without a verdict.
        weight: w, the weight of A_proc.

    Returns:
        Advantages, [num_prompts, group_size], without a unit. The sum over a group is 0.

    Raises:
        ValueError: If an array does not have two dimensions, a group is empty or a number is infinite.
    """
    return group_advantages(outcome) + weight * group_advantages(process)
