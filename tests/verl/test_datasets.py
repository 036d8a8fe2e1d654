"""Parquet files of `fapo data`, read by verl: multiple choice, with another order of the choices in each question."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow.parquet
import pytest
from transformers import AutoTokenizer
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from fapo.config.reader import from_dict, load
from fapo.config.schema import Config
from fapo.data.jsonl import write_jsonl
from fapo.errors import FapoError
from fapo.inference.models import model_folder
from fapo.training.datasets import load_sets
from fapo.verl.datasets import parquet_files, write_sets
from fapo.verl.reward import compute_score
from fapo.verl.train import prepare
from tests.support.paths import SOURCE

METALS = ("iron", "lead", "zinc", "gold")
GPQA = [
    {
        "Question": f"Which metal is meant in {number}?",
        "Correct Answer": METALS[0],
        **{f"Incorrect Answer {i}": METALS[i] for i in (1, 2, 3)},
        "Pre-Revision Correct Answer": "tin",
    }
    for number in range(12)
]
"""Rows with the columns of GPQA."""


def settings(folder: Path, seed: int = 0) -> Config:
    write_jsonl(folder / "gpqa.jsonl", GPQA)
    return from_dict(
        {
            "name": "run",
            "task": "policy",
            "seed": seed,
            "output": str(folder),
            "model": {"path": "miniature:policy"},
            "data": {"train": "miniature:train", "limit": 4, "validation": {"gpqa": str(folder / "gpqa.jsonl")}},
            "rollout": {"max_tokens": 64, "num_prompts": 4},
            "reward": {"kind": "outcome"},
            "optim": {"steps": 1, "learning_rate": 1e-3},
            "validation": {"num_samples": 4},
        }
    )


def test_choices_have_letters_and_the_reference_is_a_letter(tmp_path: Path) -> None:
    _, written = write_sets(load_sets(settings(tmp_path)), tmp_path / "data")
    rows = pyarrow.parquet.read_table(written).to_pylist()
    assert len(rows) == len(GPQA), "val_kwargs.n makes the four samples, not copies of rows"
    letters = [row["reward_model"]["ground_truth"] for row in rows]
    assert len(set(letters)) > 1, "the right choice does not always come first"
    for row, letter in zip(rows, letters, strict=True):
        asked = row["prompt"][0]["content"]
        assert [asked.count(f"{other}) ") for other in "ABCD"] == [1, 1, 1, 1]
        assert f"{letter}) iron" in asked
        assert "tin" not in asked
    again = write_sets(load_sets(settings(tmp_path, seed=7)), tmp_path / "again")[1]
    assert [row["prompt"] for row in pyarrow.parquet.read_table(again).to_pylist()] == [row["prompt"] for row in rows]


@pytest.mark.parametrize(("given", "right"), [("the letter", True), ("another letter", False)])
def test_a_letter_is_checked_like_any_other_answer(given: str, right: bool, tmp_path: Path) -> None:
    config = settings(tmp_path)
    write_sets(load_sets(config), tmp_path / "data")
    row = pyarrow.parquet.read_table(parquet_files(config, tmp_path / "data")[1]).to_pylist()[0]
    truth = row["reward_model"]["ground_truth"]
    letter = truth if given == "the letter" else next(other for other in "ABCD" if other != truth)
    file = tmp_path / "run.toml"
    file.write_text(
        'name = "run"\ntask = "policy"\nmodel.path = "miniature:policy"\ndata.train = "miniature:train"\n'
        'rollout.max_tokens = 64\nreward.kind = "outcome"\noptim = { steps = 1, learning_rate = 1e-3 }\n'
    )
    found = asyncio.run(compute_score("gpqa", f"So \\boxed{{{letter}}}.", truth, row["extra_info"], config=str(file)))
    assert (found["acc"], found["score"]) == (float(right), 1.0 if right else -1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.limit=47", r"data\.train: 47 rows are fewer than rollout\.num_prompts = 48"),
        ("data.max_prompt_tokens=1", r"data\.train: .* prompts are longer than data\.max_prompt_tokens = 1"),
        ("data.train=absent.jsonl", r"absent\.jsonl: neither a file nor"),
    ],
)
def test_a_mistake_in_the_data_leaves_no_run_folder(change: str, message: str, tmp_path: Path) -> None:
    """The folder would be in the way of the corrected command."""
    policy = SOURCE / "fapo/data/miniature/configs/policy.toml"
    here = f'output="{tmp_path}"'
    with pytest.raises(FapoError, match=message):
        prepare(load(policy, [here, change]))
    assert not list(tmp_path.iterdir())
    folder = prepare(load(policy, [here, "data.limit=48"]))
    assert (folder / "data/train.parquet").exists()


def test_prompts_have_the_tokens_that_trl_gives_them() -> None:
    config = load(SOURCE / "fapo/data/miniature/configs/policy.toml", ["data.limit=1", "rollout.num_prompts=1"])
    tokenizer = AutoTokenizer.from_pretrained(model_folder(config.model.path))
    builder = create_continuous_token_builder(tokenizer, hf_model_type="llama", chat_template_kwargs={})
    sets = load_sets(config)
    prompts = [example.prompt for name in config.data.validation for example in sets[name]]
    assert len(prompts) == 1024
    for prompt in prompts:
        expected = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        assert list(builder.build_initial_tokens(prompt)) == list(expected)
