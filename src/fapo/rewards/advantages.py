"""Advantages: rewards, normalised within the group of rollouts of one prompt."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fapo.types import RolloutClass

Table = npt.ArrayLike | Sequence[Sequence[float | None]]
"""Numbers of rollouts, [num_prompts, group_size]; NaN or None where there is none."""


def group_advantages(rewards: Table, *, scale: bool = True, eps: float = 1e-4) -> npt.NDArray[np.float64]:
    """Return A_i = (R_i - mean) / (std + eps) within each group, or A_i = R_i - mean without `scale`.

    Unscored rollouts are left out of mean and std, and their advantage is 0. std has Bessel's correction. In a group
    with fewer than two scored rollouts or with equal rewards all advantages are 0. The result equals that of TRL's
    GRPOTrainer with scale_rewards "group" or "none". Source: GRPO (arXiv 2402.03300), outcome supervision.

    Args:
        rewards: Rewards, [num_prompts, group_size]; NaN or None for an unscored rollout.
        scale: Whether to divide by std + eps.
        eps: Number added to std, in units of the reward.

    Returns:
        Advantages, [num_prompts, group_size], without a unit if scaled.

    Raises:
        ValueError: If the array does not have two dimensions, a group is empty or a reward is infinite.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape[1] == 0:
        raise ValueError(f"rewards must be [num_prompts, group_size]; reshape the array, its shape is {rewards.shape}")
    if np.isinf(rewards).any():
        raise ValueError("rewards must be finite; mark an unscored rollout with NaN, not with an infinity")
    scored = ~np.isnan(rewards)
    count = scored.sum(axis=1, keepdims=True)
    # relative to the best reward of the group, so that equal rewards give deviations of exactly 0
    rewards = np.where(scored, rewards - np.fmax.reduce(rewards, axis=1, keepdims=True), 0.0)
    mean = rewards.sum(axis=1, keepdims=True) / np.maximum(count, 1)
    deviation = np.where(scored, rewards - mean, 0.0)
    if not scale:
        return np.asarray(deviation)
    std = np.sqrt((deviation**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    return np.asarray(np.divide(deviation, std + eps, out=np.zeros_like(deviation), where=std > 0))


def group_positions(groups: Iterable[Hashable]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return row and column of each rollout in a table of groups, which stand in any order and may differ in size.

    Args:
        groups: Name of the group of each rollout, [num_rollouts].

    Returns:
        Row, the number of the group in the order of first appearance, and column, the number of the rollout in its
        group; each [num_rollouts].
    """
    sizes: dict[Hashable, int] = {}
    numbers: dict[Hashable, int] = {}
    rows, columns = [], []
    for name in groups:
        rows.append(numbers.setdefault(name, len(numbers)))
        columns.append(sizes.get(name, 0))
        sizes[name] = columns[-1] + 1
    return np.array(rows, dtype=np.intp), np.array(columns, dtype=np.intp)


def group_table(
    values: npt.ArrayLike | Sequence[float | None], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Return a value of each rollout as a table of groups, with NaN in the places of smaller groups.

    Args:
        values: Value of each rollout, [num_rollouts]; NaN or None where there is none.
        rows: Row of each rollout from `group_positions`, [num_rollouts].
        columns: Column of each rollout from `group_positions`, [num_rollouts].

    Returns:
        Table, [num_groups, largest_group].
    """
    table = np.full((rows.max(initial=-1) + 1, columns.max(initial=0) + 1), np.nan)
    table[rows, columns] = np.asarray(values, dtype=np.float64)
    return table


def mean_advantage_by_class(advantages: npt.ArrayLike, classes: Sequence[RolloutClass]) -> dict[str, float]:
    """Return the mean advantage of each class of rollouts.

    Args:
        advantages: Advantage of each rollout, [num_rollouts].
        classes: Class of each rollout, [num_rollouts]. Unscored rollouts do not count.

    Returns:
        Mean advantage by class (fully_correct, flawed, wrong); NaN for a class without rollouts.

    Raises:
        ValueError: If the shapes differ.
    """
    groups = _by_class(advantages, classes)
    return {name: float(group.mean()) if len(group) else math.nan for name, group in groups.items()}


def flawed_fraction(advantages: npt.ArrayLike, classes: Sequence[RolloutClass]) -> float:
    """Return the fraction of all positive advantage that flawed positives get.

    It says what an update reinforces. Near 0 it is fully correct reasoning; near 1 it is mostly flawed reasoning, and a
    larger penalty lowers it: with penalty 2 it is 0, except for the errors of the judge.

    Args:
        advantages: Advantage of each rollout, [num_rollouts].
        classes: Class of each rollout, [num_rollouts]. Unscored rollouts do not count.

    Returns:
        The fraction, in [0, 1]; NaN if no advantage is positive.

    Raises:
        ValueError: If the shapes differ.
    """
    positive = {name: float(group[group > 0].sum()) for name, group in _by_class(advantages, classes).items()}
    total = sum(positive.values())
    return positive["flawed"] / total if total else math.nan


def _by_class(advantages: npt.ArrayLike, classes: Sequence[RolloutClass]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the advantages of the rollouts of each class."""
    advantages, names = np.asarray(advantages, dtype=np.float64), np.asarray(classes, dtype=object)
    if advantages.shape != names.shape or advantages.ndim != 1:
        raise ValueError(f"advantages and classes must be [num_rollouts]; got {advantages.shape} and {names.shape}")
    return {name: advantages[names == name] for name in ("fully_correct", "flawed", "wrong")}
