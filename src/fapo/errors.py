"""Exceptions for mistakes and failures that a user can act on.

    FapoError
    ├── ConfigError       a setting that cannot be used                    (also a ValueError)
    ├── DataError         input data that cannot be used                   (also a ValueError)
    ├── JudgeError        a judge that cannot be used
    │   └── JudgeDownError    a judge that fails for too many rollouts
    ├── UnscoredError     a rollout without a reward where `on_unscored` is "raise"
    └── EngineError       a trainer, a model server or another program that has failed

The command line prints the message of a `FapoError` without a traceback and exits with status 2. Every other exception
is a bug of fapo, and its traceback is shown. A message says what is wrong, where (file, line or key) and what to do.
"""


class FapoError(Exception):
    """Base class of the errors that a user can act on."""


class ConfigError(FapoError, ValueError):
    """A setting that cannot be used; the message names the setting and the remedy."""


class DataError(FapoError, ValueError):
    """Input data that cannot be used; the message names the file and line, or the row and column."""


class JudgeError(FapoError):
    """A judge that cannot be used, for example because its server cannot be reached."""


class JudgeDownError(JudgeError):
    """A judge that fails for too many rollouts, or is too often wrong on canaries; the run can be resumed."""


class UnscoredError(FapoError):
    """A rollout without a reward in a run with `on_unscored = "raise"`."""


class EngineError(FapoError):
    """A trainer, a model server or another program that fapo needs and that has failed."""


def install(extra: str) -> str:
    """Return the command that installs an extra of fapo, for a message, from an index and from a checkout."""
    return f"pip install 'fapo[{extra}]', or in a checkout: pip install -e '.[{extra}]'"
