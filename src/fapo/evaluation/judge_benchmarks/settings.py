"""Settings of `fapo bench`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Lt
from tyro.conf import Positional, UseAppendAction, arg

from fapo.config.options import Prices
from fapo.config.ranges import Count, Rate, check_ranges
from fapo.errors import ConfigError
from fapo.evaluation.judge_settings import ModelSettings

Benchmark = Literal["flawed-positive", "process"]
"""Name of a benchmark."""
RULES: dict[str, int | None] = {"flag-all": 0, "flag-none": None}
"""Judges that read nothing, with the first wrong step that they always name; None for no wrong step."""


def _files(predictions: UseAppendAction[tuple[tuple[Path, ...], ...]] = ()) -> tuple[Path, ...]:
    """Return the values of `--predictions`, which may be given several times, each time with several values.

    Args:
        predictions: File of rows {id, error_step, status} or {id, scores} that is scored in place of a judge. Several
            are compared on the rows that all of them have; the first one is the baseline of the differences.

    Returns:
        All values in one tuple.
    """
    return sum(predictions, ())


def _data(data: UseAppendAction[tuple[tuple[str, ...], ...]] = ()) -> tuple[str, ...]:
    """Return the values of `--data`, which may be given several times, each time with several values.

    Args:
        data: JSONL or Parquet files with rows as in ProcessBench, Hugging Face ids, or miniature:critic-test.

    Returns:
        All values in one tuple.
    """
    return sum(data, ())


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Labelled solutions."""

    data: Annotated[tuple[str, ...], arg(constructor=_data)] = ()
    """JSONL or Parquet files with rows as in ProcessBench, Hugging Face ids, or miniature:critic-test."""
    limit: Count | None = None
    """Number of rows of each source that are used, a fixed random choice; the default is all."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings(ModelSettings, LabelledRows):
    """A benchmark, and the judge or the file of predictions that is scored on it.

    The judge may also be flag-all or flag-none, which read nothing. Several prompts or files are compared.
    """

    benchmark: Positional[Benchmark]
    """flawed-positive: find flawed solutions among those with a correct answer. process: find the first wrong step."""
    template: UseAppendAction[tuple[str, ...]] = ()
    """Prompt: locate (the default), locate_small, yes_no, compact or a file. Several are compared on the same rows."""
    predictions: Annotated[tuple[Path, ...], arg(constructor=_files)] = ()
    """Files of rows {id, error_step, status} or {id, scores} that are scored in place of a judge."""
    threshold: float | None = None
    """Score below which a step is wrong, for prm: judges and predictions with scores; the default is 0.5."""
    choose_threshold: bool = False
    """Choose the threshold with the best F1 on a random half of the problems, and score the other half."""
    invalid: Literal["wrong", "flagged"] = "wrong"
    """Meaning of an answer without a verdict in flawed-positive; flagged is the convention of the public script."""
    concurrency: Count = 32
    """Number of requests under way at once, over all servers; a model in this process ignores it."""
    prices: Prices = None
    out: Path | None = None
    """File for the answers of the judge, which --predictions reads; the cache lies beside it. With several prompts each
    has its own file, with the name of the prompt before the suffix."""
    table: Path | None = None
    """File for the comparison of several prompts or files: .md (Markdown) or .html."""
    plot: Path | None = None
    """File (.png or .svg) for F1 against the tokens of a critique in the comparison; needs fapo[report]."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo bench")
        if bool(self.predictions) == bool(self.judge):
            raise ConfigError(
                "give either --predictions FILE or --judge (URL, local:PATH, prm:URL, flag-all, flag-none)"
            )
        if mixed := [name for name in self.judge if name in RULES and not self.rules]:
            raise ConfigError(
                f"--judge {mixed[0]} does not go with a model as another --judge; write the answers of each to a file "
                "with --out, and compare the files with --predictions"
            )
        if self.predictions or self.rules:
            used = {"judge", "steps", "threshold"} if self.predictions else {"judge", "steps"}
            unused = self.changed_settings(used) + (["prices"] if self.prices else [])
            if unused:
                what = "--predictions" if self.predictions else f"--judge {self.rules[0]}"
                remedy = "name the steps by --steps instead" if unused[0] == "template" else "remove it"
                option = unused[0].replace("_", "-")
                raise ConfigError(f"--{option} does not go with {what}: no model is asked; {remedy}")
        if self.benchmark == "process" and self.invalid != "wrong":
            raise ConfigError(
                "--invalid is for flawed-positive; in process an answer without a verdict is always wrong; remove it"
            )
        if self.choose_threshold and self.threshold is not None:
            raise ConfigError("--threshold and --choose-threshold exclude each other; give one")
        if self.choose_threshold and self.compares:
            raise ConfigError("--choose-threshold is for one judge or file, not for a comparison; give one")
        if self.predictions and self.out:
            raise ConfigError("--out is for answers of a --judge; leave it out with --predictions")
        given = {
            "--judge": self.rules,
            "--template": [Path(name).stem for name in self.template],
            "--predictions": self.predictions,
        }
        for option, values in given.items():
            if twice := [value for value, num in Counter(values).items() if num > 1]:
                raise ConfigError(f"{option}: {twice[0]} is named twice; name each one once")
        files = (("--table", self.table, (".md", ".html")), ("--plot", self.plot, (".png", ".svg")))
        for option, file, suffixes in files:
            if file and not self.compares:
                raise ConfigError(f"{option} is for a comparison; give several --template or several --predictions")
            if file and file.suffix not in suffixes:
                raise ConfigError(f"{option} {file}: must end in {' or '.join(suffixes)}")

    @property
    def compares(self) -> bool:
        """Whether several prompts, several files, or flag-all and flag-none are compared."""
        return len(self.rules or self.predictions or self.template) > 1

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts, at least one."""
        return self.template or ("locate",)

    def out_of(self, name: str) -> Path | None:
        """Return the file for the answers to one prompt, or of flag-all or flag-none; None without an output file."""
        return self.out and self.out.with_stem(f"{self.out.stem}.{Path(name).stem}") if self.compares else self.out

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the judges that read nothing; empty if there is any other judge."""
        return self.judge if all(name in RULES for name in self.judge) else ()


@dataclass(frozen=True, kw_only=True)
class CascadeSettings(LabelledRows):
    """Labelled rows with the answers of two judges, and the wanted bound on the errors of the cascade."""

    cheap: Path
    """Predictions of the cheap judge, rows with scores, flag_probability or flag_rate, from `fapo bench --out`."""
    strong: Path | None = None
    """Predictions of the strong judge on the same rows; without them only the rate of rows that it reads is shown."""
    max_error: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Largest rate of flawed rows that the cheap judge may clear, and of correct rows that it may flag."""
    threshold: Rate = 0.5
    """Score below which a step is wrong, for predictions of the cheap judge with scores; judge.cheap.threshold."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo cascade")
        if not self.data:
            raise ConfigError("--data is missing; name labelled rows, such as those of ProcessBench")
