"""Parquet files hold what Python texts hold, except for lone surrogates."""

from __future__ import annotations

from pathlib import Path

import pytest

from fapo.data.verl_rows import verl_row, write_parquet


def test_rows_come_back_and_lone_surrogates_are_escaped(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    prompt = [{"role": "user", "content": "1+1? \ud800"}]
    row = verl_row(
        data_source="train", prompt=prompt, ability="math", ground_truth="2", extra_info={"steps": ["\udfff", "é"]}
    )
    write_parquet(tmp_path / "rows.parquet", [row])
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == [
        {
            "data_source": "train",
            "prompt": [{"role": "user", "content": "1+1? \\ud800"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"steps": ["\\udfff", "é"]},
        }
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]
