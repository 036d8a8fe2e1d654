"""What a run achieved: a metric at its start, at its end, and the differences that claims are made of.

Every function raises `NotMeasuredError` where the run has no such measurement.
"""

from __future__ import annotations

from statistics import fmean

from fapo.errors import DataError
from fapo.training.run_reader import Run, Series

LAST = 3
"""Number of validations whose mean is taken for the end of a run."""


class NotMeasuredError(DataError):
    """A metric that a run has not measured."""


def measured_series(run: Run, key: str, kind: str = "validation") -> Series:
    """Return the values of a metric over a run.

    Args:
        run: The run.
        key: Name of the metric, for example validation/accuracy.
        kind: Kind of the rows: validation or train.

    Returns:
        At least one value.

    Raises:
        NotMeasuredError: If there is no value.
    """
    if not (series := run.series(key, kind)):
        raise NotMeasuredError(f"{run.path}: {key} was not measured; delete the folder to have the run made anew")
    return series


def start(run: Run, key: str) -> float:
    """Return a metric at the first validation."""
    return measured_series(run, key).values[0]


def end(run: Run, key: str) -> float:
    """Return the mean of a metric over the LAST validations, without the first one, which precedes training."""
    values = measured_series(run, key).values[1:]
    if not values:
        raise NotMeasuredError(f"{run.path}: {key} was not measured after the start; let the run finish")
    return fmean(values[-LAST:])


def gain(run: Run, key: str) -> float:
    """Return end - start of a metric."""
    return end(run, key) - start(run, key)


def gap(low: Run, high: Run, key: str) -> float:
    """Return the end of `high` minus the end of `low`."""
    return end(high, key) - end(low, key)
