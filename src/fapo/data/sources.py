"""Read the rows of a local file or of a Hugging Face data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fapo.data.columns import Row
from fapo.data.hub import use_cache_without_network
from fapo.data.jsonl import PlacedRow, json_rows, jsonl_rows
from fapo.errors import ConfigError, DataError, install

DATA_SUFFIXES = (".jsonl", ".json", ".parquet")
"""Endings of data files; a source without one of them may be a Hugging Face id."""
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?::([\w.-]+))?")
"""Hugging Face id of a data set: `owner/name`, or `owner/name:config`."""


def source_name(source: str | Path) -> str:
    """Return the name of a source: a file's without its ending, a Hugging Face id's without owner and config."""
    path = Path(source)
    return path.stem if path.suffix in DATA_SUFFIXES else path.name.partition(":")[0]


def is_hub_id(source: str | Path) -> bool:
    """Return whether a source is neither a file nor named like one, so that it is looked for on the Hub."""
    path = Path(source)
    return not path.exists() and path.suffix not in DATA_SUFFIXES and HUB_ID.fullmatch(str(source)) is not None


def read_rows(source: str | Path, split: str | None = None) -> Iterator[PlacedRow]:
    """Read the rows of a source one by one.

    Args:
        source: File (.jsonl, .json, .parquet) or Hugging Face id (`owner/name`, `owner/name:config`).
        split: Split of a Hugging Face data set; None uses the only split.

    Returns:
        An iterator over the rows with their places, such as "file:line".

    Raises:
        ConfigError: The split does not fit, or a package is not installed.
        DataError: The source cannot be found or read.
    """
    path = Path(source)
    if path.is_file():
        if split is not None:
            raise ConfigError(f"{path}: split={split!r} is for Hugging Face data sets, a file has none; leave it out")
        readers = {".jsonl": jsonl_rows, ".json": json_rows, ".parquet": _parquet_rows}
        if path.suffix not in readers:
            raise DataError(f"{path}: unknown kind of file, must be one of {', '.join(readers)}")
        return readers[path.suffix](path)
    hub_id = HUB_ID.fullmatch(str(source))
    if not hub_id or not is_hub_id(source):
        raise DataError(f"{source}: neither a file nor a Hugging Face id (owner/name or owner/name:config); correct it")
    return _hub_rows(hub_id[1], hub_id[2], split)


def _parquet_rows(path: Path) -> Iterator[PlacedRow]:
    """Yield the rows of a Parquet file with their places."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"{path}: reading Parquet needs pyarrow: {install('train')}") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            start = 0
            for batch in file.iter_batches():
                for index, row in enumerate(_decoded(path, start, batch), start):
                    yield f"{path}[{index}]", row
                start += len(batch)
    except pyarrow.ArrowInvalid as failure:
        raise DataError(f"{path}: invalid Parquet: {failure}") from None


def _decoded(path: Path, start: int, batch: Any) -> list[Row]:
    """Return the rows of a batch; if one is not UTF-8, bisect the batch to name its place in the error."""
    try:
        rows: list[Row] = batch.to_pylist()
    except UnicodeDecodeError as failure:
        if len(batch) > 1:
            half = len(batch) // 2
            return _decoded(path, start, batch[:half]) + _decoded(path, start + half, batch[half:])
        raise DataError(f"{path}[{start}]: invalid UTF-8 at byte {failure.start} of a text") from None
    return rows


def _hub_rows(name: str, config: str | None, split: str | None) -> Iterator[PlacedRow]:
    """Yield the rows of a Hugging Face data set with their places."""
    if find_spec("huggingface_hub"):
        use_cache_without_network()
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{name}: data sets of the Hub need `datasets`: {install('train')}") from None
    try:
        table = datasets.load_dataset(name, config, split=split)
    except ConnectionError as failure:
        raise DataError(
            f"{name}: no such file, and the Hugging Face Hub cannot be reached: {failure}; "
            "correct the path, or connect to the network"
        ) from None
    except (FileNotFoundError, ValueError) as failure:  # no such data set, config or split
        raise DataError(f"{name}: {failure}; correct the name, the config after `:` or the split") from failure
    if isinstance(table, datasets.DatasetDict):
        if len(table) != 1:
            raise ConfigError(f"{name}: choose a split, one of {', '.join(map(str, table))}")
        table = next(iter(table.values()))
    for index, row in enumerate(table):
        yield f"{name}[{index}]", dict(row)
