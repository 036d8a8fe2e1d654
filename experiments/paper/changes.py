"""Changes of a metric: its start and its end in a run, and the differences between runs that claims use.

Every function raises `NotMeasuredError` if a run lacks the measurement.
"""

from __future__ import annotations

from statistics import fmean

from fapo.errors import DataError
from fapo.training.run_reader import Run, Series

LAST = 3
"""Number of validations at the end of a run; their mean is the end of a metric."""


class NotMeasuredError(DataError):
    """Raised if a run has not measured a metric."""


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
    """Return the mean of a metric over the LAST validations; the first one, before training, never counts."""
    values = measured_series(run, key).values[1:]
    if not values:
        raise NotMeasuredError(f"{run.path}: {key} was not measured after the start; let the run finish")
    return fmean(values[-LAST:])


def gain(run: Run, key: str) -> float:
    """Return the end minus the start of a metric."""
    return end(run, key) - start(run, key)


def gap(low: Run, high: Run, key: str) -> float:
    """Return the end of `high` minus the end of `low`."""
    return end(high, key) - end(low, key)
