"""Consistency filter: flawed positives are dropped, and the rest of the group is balanced and learns by plain outcomes.

More rollouts are generated than train the policy: all of the group count in the budget of rollouts, and `keep` of them
have an advantage. What changes in the closed forms of FAPO:

* The advantage of a flawed positive is 0: it is never encouraged and never discouraged, at any rho.
* Rewards are +1 and -1 only. With enough rollouts of both kinds half of the kept ones are correct (keep is even), so
  that the mean reward is 0, its variance 1, and the advantages are +1 and -1 in large groups.
* A group without fully correct rollouts has no advantage, even if its flawed positives have the right answer.

Source: the consistency filter of PROF (arXiv 2509.03403), with the verdict as the process score of correct rollouts.
Wrong rollouts have no score here, and equal ones are dropped in the order of the group, from its end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fapo.rewards.advantages import group_advantages


def kept_rollouts(sound: npt.ArrayLike, wrong: npt.ArrayLike, keep: int) -> npt.NDArray[np.bool_]:
    """Return which rollouts train the policy: at most `keep` of a group, half of them correct if there are enough.

    Args:
        sound: Whether a rollout is fully correct, [num_prompts, group_size].
        wrong: Whether its answer is wrong, [num_prompts, group_size]. Flawed and unscored rollouts are neither.
        keep: Largest number of rollouts of a group.

    Returns:
        Whether a rollout is kept, [num_prompts, group_size].
    """
    sound, wrong = np.asarray(sound, dtype=bool), np.asarray(wrong, dtype=bool)
    num_sound, num_wrong = sound.sum(axis=1, keepdims=True), wrong.sum(axis=1, keepdims=True)
    take = np.minimum(num_sound, np.maximum(keep // 2, keep - num_wrong))
    kept = (sound & (sound.cumsum(axis=1) <= take)) | (wrong & (wrong.cumsum(axis=1) <= keep - take))
    return np.asarray(kept)


def filtered_advantages(
    outcome: npt.ArrayLike, sound: npt.ArrayLike, wrong: npt.ArrayLike, keep: int
) -> npt.NDArray[np.float64]:
    """Return the advantages of plain GRPO over the kept rollouts of each group; 0 for the others.

    Args:
        outcome: Rewards of the answers, [num_prompts, group_size].
        sound: Whether a rollout is fully correct, [num_prompts, group_size].
        wrong: Whether its answer is wrong, [num_prompts, group_size].
        keep: Largest number of rollouts of a group that are kept.

    Returns:
        Advantages, [num_prompts, group_size], without a unit. The sum over a group is 0.

    Raises:
        ValueError: If the array does not have two dimensions, a group is empty or a kept reward is infinite.
    """
    kept = kept_rollouts(sound, wrong, keep)
    return group_advantages(np.where(kept, np.asarray(outcome, dtype=np.float64), np.nan))
