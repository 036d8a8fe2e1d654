"""One vLLM server on the CPU with a base model and two adapters, compared with the same models in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fapo.config.sampling import Sampling
from fapo.data.miniature.sets import labelled
from fapo.inference.client import ChatClient
from fapo.inference.models import ModelSpec, model_folder
from fapo.inference.pretrained import load_weights
from fapo.judge.template import build_prompt, load_template
from tests.support.model_server import ModelServer
from tests.support.vllm_cpu import SERVER_MARKS, vllm_on_cpu

pytestmark = SERVER_MARKS
GENRM = Path(model_folder("miniature:genrm"))
NAMES = ("policy", "judge")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two adapters with small random weights."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        settings = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(load_weights(str(GENRM), torch.float32), settings)
        for key, weights in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weights, std=0.03)
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def server(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    options = [
        *("--generation-config", "vllm", "--block-size", "32"),
        *("--enable-lora", "--max-loras", "2", "--max-lora-rank", "8"),
        *("--lora-modules", *(f"{name}={adapters / name}" for name in NAMES)),
    ]
    with vllm_on_cpu("genrm", tmp_path_factory.mktemp("vllm") / "log", GENRM.parent, *options) as server:
        yield server


def test_each_name_has_the_critiques_of_its_adapter(server: ModelServer, adapters: Path) -> None:
    template = load_template("compact")
    solutions = labelled("miniature:critic-test", 24)
    prompts = [build_prompt(template, s.problem.text, s.problem.reference, s.steps) for s in solutions]
    said = {}
    for name in ("genrm", *NAMES):
        client = ChatClient(server.url, name, temperature=0.0, max_tokens=60, retries=0)
        said[name] = [completion.text for completion in asyncio.run(client(prompts))]
        path = str(adapters / name) if name in NAMES else str(GENRM)
        here = ModelSpec(path).open("model", Sampling(max_tokens=60))
        assert said[name] == [completion.text for completion in asyncio.run(here(prompts))], name
    assert len({tuple(texts) for texts in said.values()}) == 3, "the three models differ"
