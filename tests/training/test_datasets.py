"""Data sets of a config: prompts beyond the length limit."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fapo.config.reader import from_dict
from fapo.config.schema import Config
from fapo.data.jsonl import write_jsonl
from fapo.errors import ConfigError
from fapo.training.datasets import load_sets

LONG = "1 + 1 " * 9
"""Question with more tokens than LIMIT; the others have fewer."""
LIMIT = 12


def config(folder: Path, train: list[str], validation: list[str], **data: Any) -> Config:
    for name, questions in (("train", train), ("validation", validation)):
        rows = [{"id": f"{name}-{i}", "problem": q, "answer": "2"} for i, q in enumerate(questions)]
        write_jsonl(folder / f"{name}.jsonl", rows)
    sources = {"train": str(folder / "train.jsonl"), "validation": {"easy": str(folder / "validation.jsonl")}}
    return from_dict(
        {
            "name": "run",
            "task": "policy",
            "model": {"path": "miniature:policy"},
            "data": sources | {"max_prompt_tokens": LIMIT} | data,
            "rollout": {"max_tokens": 8, "num_prompts": 1},
            "reward": {"kind": "outcome"},
            "optim": {"steps": 1, "learning_rate": 1e-3},
        }
    )


def test_training_rows_with_long_prompts_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fapo"):
        sets = load_sets(config(tmp_path, ["1 + 1", LONG, "1 + 1"], ["1 + 1"]))
    assert [example.problem.id for example in sets["train"]] == ["train-0", "train-2"]
    assert (
        "data.train: 1 of 3 prompts are longer than data.max_prompt_tokens = 12; these rows are left out" in caplog.text
    )


def test_nothing_is_left_out_at_the_limit_of_verl(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sets = load_sets(config(tmp_path, ["1 + 1", LONG], [LONG], max_prompt_tokens=2048))
    assert [len(examples) for examples in sets.values()] == [2, 1]
    assert not caplog.records


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (["1 + 1"], ["1 + 1", LONG], r"data\.validation\.easy: 1 of 2 prompts are longer .* row 'validation-1'; raise"),
        (
            [LONG],
            ["1 + 1"],
            r"data\.train: 1 of 1 prompts are longer than data\.max_prompt_tokens = 12; raise the limit",
        ),
    ],
)
def test_sets_that_would_be_cut_silently_are_refused(
    train: list[str], validation: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sets(config(tmp_path, train, validation))


def named(folder: Path, *names: str) -> Config:
    """Return a config with validation sets of these names."""
    settled = config(folder, ["1 + 1"], ["1 + 1"])
    sets = dict.fromkeys(names, str(folder / "validation.jsonl"))
    return replace(settled, data=replace(settled.data, validation=sets))


@pytest.mark.parametrize("name", ["../esc", "/tmp/esc", "a/b", "..", ".x", "", "a b", "a\n"])
def test_the_name_of_a_validation_set_is_that_of_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.validation: name a set by letters, .* \(it names a file\), not '"):
        load_sets(named(tmp_path, name))


def test_the_names_of_the_sets_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'^data\.validation: "train" names the training set; choose another name$'):
        load_sets(named(tmp_path, "train"))
    names = "MATH-500", "aime_2024", "v1.5"
    assert tuple(load_sets(named(tmp_path, *names))) == ("train", *names)
