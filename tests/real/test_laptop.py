"""The recipe for a laptop: SmolLM2 trains for a few steps, judged by a served Qwen2.5-Coder-0.5B."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments.real_model.from_gguf import main as from_gguf
from experiments.real_model.sums import main as write_sums
from fapo.config.reader import load
from fapo.config.sampling import Sampling
from fapo.data.jsonl import read_jsonl
from fapo.inference.transformers_model import LocalModel
from tests.support.llama_server import __file__ as PROGRAM
from tests.support.model_server import running


@pytest.fixture(scope="module")
def smollm2(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the checkpoint of SmolLM2."""
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    from_gguf([str(weights / "smollm2.gguf"), str(folder)])
    return folder


def test_a_model_from_a_gguf_file_answers(smollm2: Path) -> None:
    names = {file.name for file in smollm2.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert [file.name for file in smollm2.parent.iterdir()] == ["smollm2"], "no draft remains"

    sampling = json.loads((smollm2 / "generation_config.json").read_text(encoding="utf-8"))
    assert sampling["do_sample"], "a server that reads this would ignore every temperature"

    model = LocalModel.load(str(smollm2), Sampling(max_tokens=24))
    assert type(model.model).__name__ == "LlamaForCausalLM"
    assert model.tokenizer.eos_token == "<|im_end|>"
    assert model.tokenizer.pad_token is not None
    (answer,) = model.generate([[{"role": "user", "content": "What is 2+2?"}]])
    assert "4" in answer.text
    assert answer.num_tokens < 24, "the answer did not end"


def test_the_recipe_trains_with_valid_verdicts(weights: Path, smollm2: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from fapo.trl.train import train

    write_sums([str(tmp_path / "sums.jsonl")])
    command = [sys.executable, PROGRAM, str(weights / "qwen2.5-coder-0.5b.gguf")]
    with running(lambda port: [*command, str(port)], tmp_path / "server.log") as server:
        paths = [f"model.path={smollm2}", f"data.train={tmp_path / 'sums.jsonl'}", f"output={tmp_path}"]
        config = load("laptop", [*paths, f'judge.urls=["{server.url}"]'])
        run = train(config)

    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert len(rows) == config.optim.steps * config.rollout.num_prompts * config.rollout.group_size
    correct = [row for row in rows if row["correct"]]
    assert correct, "the policy solves some sums"
    for row in rows:
        assert row["response"].strip()
        assert row["status"] == ("ok" if row["correct"] else "skipped")
        assert row["reward"] == (-1.0 if not row["correct"] else 0.0 if row["error_step"] is not None else 1.0)
    assert all(json.loads(row["critique"])["critique"].strip() for row in correct), "the judge has written"

    steps = [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]
    assert len(steps) == config.optim.steps
    assert all(row["grad_norm"] > 0 for row in steps)
    before, after = (load_file(folder / "model.safetensors") for folder in (smollm2, run / "model"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before[name], after[name])
