"""fapo plan: parameter counts of published models, hand-computed cases, monotonicity, the command."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapo.config.paths import shipped_configs
from fapo.config.reader import load
from fapo.config.schema import Config
from fapo.errors import ConfigError
from fapo.inference.models import model_folder
from fapo.training.planner.assumptions import PlanAssumptions
from fapo.training.planner.plan import GIB, decoding_seconds, forward_flops, make_plan, size_server
from fapo.training.planner.shapes import KNOWN_SHAPES, ModelShape, find_shape
from tests.support.command_line import fapo

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "src/fapo/data/miniature/configs/policy.toml"
SMALL = ModelShape(8, 16, 2, 4, 2, 2, 100, tied_embeddings=False)


@cache
def paper_7b(*changed: str) -> Config:
    return load("fapo_7b", changed)


def results(config: Config, **assumed: Any) -> dict[str, float]:
    return {quantity.name: quantity.value for quantity in make_plan(config, PlanAssumptions(**assumed))}


# --- models -----------------------------------------------------------------------------------------------------------

LLAMA_8B = ModelShape(4096, 14336, 32, 32, 8, 128, 128256, False)
LLAMA_1B = ModelShape(2048, 8192, 16, 32, 8, 64, 128256, True)


@pytest.mark.parametrize(
    ("shape", "published", "left_out"),
    [
        pytest.param(LLAMA_8B, 8_030_261_248, 0, id="Llama-3.1-8B"),
        pytest.param(LLAMA_1B, 1_235_814_400, 0, id="Llama-3.2-1B"),
        pytest.param(KNOWN_SHAPES["smollm2"], 134_515_008, 0, id="SmolLM2-135M"),
        pytest.param(KNOWN_SHAPES["Qwen2.5-7B"], 7_615_616_512, 28 * (3584 + 2 * 512), id="Qwen2.5-7B"),
        pytest.param(KNOWN_SHAPES["Qwen2.5-32B"], 32_763_876_352, 64 * (5120 + 2 * 1024), id="Qwen2.5-32B"),
        pytest.param(KNOWN_SHAPES["Qwen3-4B"], 4_022_468_096, 36 * 2 * 128, id="Qwen3-4B"),
    ],
)
def test_parameters_are_the_published_ones_without_biases_and_head_norms(
    shape: ModelShape, published: int, left_out: int
) -> None:
    assert shape.num_params == published - left_out


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [
        ("Qwen2.5-7B", 2 * 28 * 4 * 128 * 2),
        ("Qwen2.5-32B", 2 * 64 * 8 * 128 * 2),
        ("Qwen3-4B", 2 * 36 * 8 * 128 * 2),
    ],
)
def test_cache_of_one_token(name: str, num_bytes: int) -> None:
    assert KNOWN_SHAPES[name].kv_bytes == num_bytes


def test_small_shape_by_hand() -> None:
    attention = 8 * 8 + 8 * 4 + 8 * 4 + 8 * 8  # q, k, v, o
    assert SMALL.num_params == 2 * (attention + 3 * 8 * 16 + 2 * 8) + 2 * 100 * 8 + 8
    assert SMALL.num_matmul_params == SMALL.num_params - 100 * 8
    assert replace(SMALL, tied_embeddings=True).num_params == SMALL.num_params - 100 * 8
    assert replace(SMALL, tied_embeddings=True).num_matmul_params == SMALL.num_matmul_params


def test_parameters_of_an_adapter_by_hand() -> None:
    attention = (8 + 8) + (8 + 4) + (8 + 4) + (8 + 8)  # q, k, v, o: inputs and outputs
    assert SMALL.num_lora_params(3, ("all-linear",)) == 2 * 3 * (attention + 3 * (8 + 16))
    assert SMALL.num_lora_params(3, ("v_proj", "down_proj")) == 2 * 3 * (8 + 4 + 16 + 8)
    with pytest.raises(ConfigError, match=r"model.lora.target_modules: query: the sizes are known for q_proj, "):
        SMALL.num_lora_params(3, ("query",))


@pytest.mark.parametrize("name", ["policy", "genrm"])
def test_parameters_of_a_model_on_disk(name: str) -> None:
    safetensors = pytest.importorskip("safetensors", reason="counting the weights needs the train extra")
    with safetensors.safe_open(f"{model_folder(f'miniature:{name}')}/model.safetensors", "np") as file:
        counted = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    assert find_shape(f"miniature:{name}", "model.path").num_params == counted


def test_a_folder_with_a_config_wins_over_a_known_name(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen2.5-7B"
    folder.mkdir()
    table = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    table |= {"num_key_value_heads": 2, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(table), encoding="utf-8")
    assert find_shape(str(folder), "model.path") == SMALL
    (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model\.path: .* does not describe a dense decoder .* KeyError\('hidden_"):
        find_shape(str(folder), "model.path")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        pytest.param({"model_type": "qwen3_moe", "num_experts": 128}, "num_experts = 128", id="Qwen3-30B-A3B"),
        pytest.param({"model_type": "mixtral", "num_local_experts": 8}, "num_local_experts = 8", id="Mixtral"),
        pytest.param(
            {"model_type": "deepseek_v3", "n_routed_experts": 256}, "n_routed_experts = 256", id="DeepSeek-V3"
        ),
        pytest.param({"model_type": "gpt_neox"}, "model_type = gpt_neox", id="Pythia"),
    ],
)
def test_other_architectures_with_the_same_fields_are_refused(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Their parameters would be counted wrongly, by a factor of 9 for Qwen3-30B-A3B."""
    table = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 32}
    (tmp_path / "config.json").write_text(json.dumps(table | {"vocab_size": 100} | config), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=re.escape(f"does not describe a dense decoder with a gated MLP: ValueError('{said}')")
    ):
        find_shape(str(tmp_path), "model.path")
    dense = {"model_type": "qwen3", "num_experts": None}
    (tmp_path / "config.json").write_text(json.dumps(table | {"vocab_size": 100} | dense), encoding="utf-8")
    assert find_shape(str(tmp_path), "model.path").num_layers == 48


# --- pure functions ---------------------------------------------------------------------------------------------------

WEIGHTS_7B = KNOWN_SHAPES["Qwen2.5-7B"].num_params * 2 / GIB
WEIGHTS_32B = KNOWN_SHAPES["Qwen2.5-32B"].num_params * 2 / GIB


@pytest.mark.parametrize(
    ("name", "memory", "context", "gpus", "sequences"),
    [
        pytest.param("Qwen2.5-7B", 2 * WEIGHTS_7B, 4096, 1, int(WEIGHTS_7B * GIB / (4096 * 57344)), id="fits"),
        pytest.param("Qwen2.5-7B", 1.5 * WEIGHTS_7B, 4096, 2, int(2 * WEIGHTS_7B * GIB / (4096 * 57344)), id="2 GPUs"),
        pytest.param("Qwen2.5-32B", 40, 20480, 4, int((160 - WEIGHTS_32B) * GIB / (20480 * 262144)), id="32B"),
        pytest.param("Qwen2.5-7B", 80, 1, 1, 256, id="short sequences"),
        pytest.param("Qwen2.5-7B", 80, 1e9, 1, 1, id="one does not fit"),
    ],
)
def test_server(name: str, memory: float, context: float, gpus: int, sequences: int) -> None:
    assert size_server(KNOWN_SHAPES[name], memory, context) == (gpus, sequences)


@pytest.mark.parametrize(
    ("tokens", "context", "flops"),
    [
        (1, 0, 2 * SMALL.num_matmul_params),
        (1, 10, 2 * SMALL.num_matmul_params + 640),  # scores and values: 2 x 2 FLOPs x 10 keys x 2 layers x 8 columns
        (7, 10, 7 * (2 * SMALL.num_matmul_params + 640)),
    ],
)
def test_forward_pass(tokens: int, context: int, flops: int) -> None:
    assert forward_flops(SMALL, tokens, context) == flops


def test_decoding_reads_weights_once_an_iteration_and_the_cache_once_a_token() -> None:
    read = 5 * SMALL.num_matmul_params * 2 + 20 * 30 * SMALL.kv_bytes
    assert decoding_seconds(SMALL, 1000, iterations=5, tokens=20, context=30) == pytest.approx(read / 1000)


# --- a plan -----------------------------------------------------------------------------------------------------------


def test_a_plan_by_hand() -> None:
    """Check 7B with 4096 rollouts of 1000 tokens after prompts of 200, on 16 GPUs, against the formulas."""
    found = results(paper_7b(), gpus=16, response=1000, critique=2000, accuracy=0.25)
    params, matmul = 7_615_487_488, 7_615_487_488 - 152064 * 3584
    assert found["policy parameters"] == params
    assert found["training weights"] == found["training gradients"] == pytest.approx(params * 4 / 16 / 2**30)
    assert found["training optimizer"] == 2 * found["training weights"]
    assert (found["rollouts"], found["written tokens"]) == (4096, 4096 * 1000)
    assert found["trained tokens"] == 4096 * 1200
    flops = 5 * 4096 * 1200 * (2 * matmul + 4 * 28 * 28 * 128 * 600)
    assert found["update FLOPs"] == pytest.approx(flops)
    assert found["update time"] == pytest.approx(flops / (16 * 989e12 * 0.35))
    assert found["update GPU-hours"] == pytest.approx(200 * flops / (989e12 * 0.35) / 3600)
    assert (found["rollout server"], found["rollout slots"]) == (1, 256)
    assert 4096 * 1000 / 16 / 256 < 8192, "the longest response decides how often the weights are read"
    read = 8192 * 2 * matmul + 4096 * 1000 / 16 * (200 + 500) * 57344
    assert found["rollout time"] == pytest.approx(read / 3.35e12)
    judge, slots = 4_022_458_880, int((72 * 2**30 - 2 * 4_022_458_880) / ((600 + 1000 + 1000) * 147456))
    assert found["judge slots"] == slots
    assert (found["critiques"], found["critique tokens"]) == (1024, 1024 * 2000)
    reading = 1024 * 1600 * (2 * judge + 4 * 36 * 32 * 128 * 800) / (989e12 * 0.35)
    writing = (1024 * 2000 / slots * 2 * judge + 1024 * 2000 * 2600 * 147456) / 3.35e12
    assert found["judge time"] == pytest.approx(reading + writing)
    assert found["judge speed"] == pytest.approx(1024 * 2000 / (reading + writing))
    assert found["judge replicas"] == math.ceil((reading + writing) / found["rollout time"])


def test_measured_speeds_replace_the_bounds() -> None:
    found = results(paper_7b(), rollout_seconds=100.0, judge_tokens_per_second=2000.0, critique=1000)
    assert found["rollout time"] == 100
    assert found["judge time"] == 2048 * 1000 / 2000
    assert found["judge replicas"] == 11  # 1024 s of one replica in 100 s
    assert found["judge GPU-hours"] == pytest.approx(200 * 1024 / 3600)


@pytest.mark.parametrize(
    ("changed", "critiques"),
    [
        ((), 2048),
        (("judge.votes=3",), 3 * 2048),
        (("judge.all=true",), 4096),
        (("reward.kind=outcome",), 2048),
        (("reward.kind=step_ratio",), 4096),
        (("reward.kind=outcome", "judge="), None),
    ],
)
def test_rollouts_that_are_judged(changed: tuple[str, ...], critiques: int | None) -> None:
    assert results(paper_7b(*changed)).get("critiques") == critiques


def test_an_adapter_has_fewer_gradients() -> None:
    whole, found = results(paper_7b()), results(paper_7b("model.lora.rank=8"))
    adapter = KNOWN_SHAPES["Qwen2.5-7B"].num_lora_params(8, ("all-linear",))
    assert found["adapter parameters"] == adapter
    assert found["training weights"] == whole["training weights"]
    assert found["training gradients"] == pytest.approx(adapter * 4 / 8 / GIB)
    assert found["training optimizer"] == 2 * found["training gradients"]
    assert found["update FLOPs"] == pytest.approx(whole["update FLOPs"] * 4 / 5)


def test_weights_in_four_bits() -> None:
    adapted = "model.lora.rank=8", "model.lora.save=adapter"
    whole, found = results(paper_7b(*adapted)), results(paper_7b(*adapted, "model.lora.quantization=4bit"))
    shape = KNOWN_SHAPES["Qwen2.5-7B"]
    layers = 28 * (2 * 3584 * (28 + 4) * 128 + 3 * 3584 * 18944)
    assert shape.num_layer_params == layers
    smaller = (whole["training weights"] - found["training weights"]) * GIB * 8
    assert smaller == pytest.approx(layers * (4 - (4 + 8 / 64 + 32 / (64 * 256)) / 8))
    assert found["training gradients"] == whole["training gradients"], "those of the adapter, in float32"


def test_an_adapter_judge_has_no_server() -> None:
    config = load(MINIATURE, ["judge=", "judge.kind=adapter", "judge.model=base", "model.lora.rank=8"])
    found = results(config)
    assert found["judge parameters"] == found["policy parameters"]
    assert found["judge time"] > 0
    assert not {"judge server", "judge weights", "judge slots", "judge replicas"} & found.keys()


@pytest.mark.parametrize(("kind", "judged"), [("local", True), ("oracle", False)])
def test_an_oracle_needs_nothing(kind: str, judged: bool) -> None:
    changed = [] if kind == "local" else ["judge=", "judge.kind=oracle"]
    config = load(MINIATURE, changed)
    assert ("judge replicas" in results(config)) == judged
    assert PlanAssumptions().mean_critique(config) == (80 if judged else 0)


def test_the_default_critique_keeps_to_the_limit() -> None:
    assert results(paper_7b())["critique tokens"] == 2048 * 3400
    assert results(paper_7b("judge.max_tokens=99"))["critique tokens"] == 2048 * 99


MORE = {
    "gpus": st.sampled_from([4, 8, 16, 64, 512]),
    "response": st.integers(1, 8192),
    "prompt": st.integers(1, 4096),
    "accuracy": st.floats(0.01, 1),
    "critique": st.integers(1, 8192),
    "gpu_tflops": st.floats(10, 5000),
    "gpu_bandwidth": st.floats(0.1, 20),
    "utilisation": st.floats(0.01, 1),
    "rollout_seconds": st.floats(1, 1e4),
    "judge_tokens_per_second": st.floats(1, 1e6),
}
"""Assumptions and values for them; each pair of values is tried in order."""
NOT_LESS = [
    ("response", "update FLOPs"),
    ("response", "rollout time"),
    ("prompt", "update time"),
    ("prompt", "rollout time"),
    ("accuracy", "judge replicas"),
    ("critique", "judge time"),
    ("critique", "judge replicas"),
]
NOT_MORE = [
    ("gpus", "training weights"),
    ("gpus", "update time"),
    ("gpus", "rollout time"),
    ("gpu_tflops", "update GPU-hours"),
    ("gpu_tflops", "judge time"),
    ("gpu_bandwidth", "rollout time"),
    ("gpu_bandwidth", "judge time"),
    ("utilisation", "update time"),
    ("rollout_seconds", "judge replicas"),
    ("judge_tokens_per_second", "judge replicas"),
]


@pytest.mark.parametrize(("assumption", "result", "sign"), [(*p, 1) for p in NOT_LESS] + [(*p, -1) for p in NOT_MORE])
@given(data=st.data())
@settings(max_examples=30)
def test_more_of_an_assumption_moves_a_result_one_way(assumption: str, result: str, sign: int, data: Any) -> None:
    few, many = sorted((data.draw(MORE[assumption]), data.draw(MORE[assumption])))
    low, high = (results(paper_7b(), **{assumption: value})[result] for value in (few, many))
    assert sign * (high - low) >= -1e-9 * abs(low)


# --- the command ------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(ROOT)
    return fapo(monkeypatch, "plan", *arguments, columns=200)


@pytest.mark.parametrize("config", list(shipped_configs()))
def test_every_shipped_config_has_a_plan(config: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, config, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert found["name"] == load(config).name
    assert found["assumptions"]["gpus"] == 8
    judge = load(config).judge
    assert ("judge replicas" in found["results"]) == bool(judge and judge.kind != "adapter")
    assert all(value > 0 for value in found["results"].values())


def test_the_tables_name_every_assumption_and_every_result(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "fapo_7b", "--json", "--gpus", "16") == 0
    found = json.loads(capsys.readouterr().out)
    assert run(monkeypatch, "fapo_7b", "--gpus", "16", "--rollout-seconds", "90") == 0
    shown = capsys.readouterr().out
    assert [name for name in found["results"] if name not in shown] == []
    unset = {"judge_tokens_per_second"}
    assert [name for name in found["assumptions"] if f"--{name.replace('_', '-')}" not in shown] == [*unset]
    assert "50% of a GPU" in shown
    assert "90.0 s a step" in shown
    assert "Not included: activations" in shown


MISTAKES = {
    "no length": (["--response", "0"], "--response must be above 0 and at most 8192, not 0"),
    "too long": (["--response", "9000"], "--response must be above 0 and at most 8192, not 9000"),
    "no rate": (["--accuracy", "1.5"], "--accuracy must be above 0 and at most 1, not 1.5"),
    "no GPUs": (["--gpus", "-1"], "--gpus must be above 0"),
    "no model": (["model.path=nowhere"], "model.path: the shape of 'nowhere' is not known; give a folder"),
    "no judge": (["--judge-model", "package.json"], "--judge-model: the shape of 'package.json' is not known"),
    "too few GPUs": (["--gpu-memory", "20", "--gpus", "2"], "--gpus 2: a rollout server of"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_have_a_message(name: str, monkeypatch, capsys) -> None:
    arguments, said = MISTAKES[name]
    assert run(monkeypatch, "fapo_7b", *arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_the_numbers_of_the_page_are_those_of_its_command(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "fapo_7b", "--gpus", "16") == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    shown = {
        cells[0]: cells[1] for cells in ([cell.strip() for cell in row if cell.strip()] for row in rows) if cells[1:]
    }
    page = (ROOT / "docs/plan.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([\w -]+?) \| ([^|]+?) \|", page, re.MULTILINE))
    names = {"rollout weights", "rollout KV cache", "update FLOPs", "rollout time", "judge speed", "judge replicas"}
    assert names <= table.keys()
    assert {name: table[name] for name in names} == {name: shown[name] for name in names}
