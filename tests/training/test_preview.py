"""What a run will do, and what it needs that is not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from fapo.config.paths import shipped_configs
from fapo.config.reader import load_with_places
from fapo.data.jsonl import write_jsonl
from fapo.errors import ConfigError, DataError
from fapo.inference.served_models import served_models
from fapo.training.preview import WIDTH, check_inputs, preview
from tests.support.command_line import fapo
from tests.support.json_server import json_server
from tests.support.paths import ROOT

POLICY = ROOT / "src/fapo/data/miniature/configs/policy.toml"
NO_ONE = 'judge.urls=["http://127.0.0.1:9/v1"]'


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    served_models.cache_clear()


def shown(config: str, *overrides: str, engine: str = "trl") -> str:
    """Return the page about a run, without its line breaks."""
    return " ".join(preview(*load_with_places(config, overrides), engine).split())


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_fits_a_page(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = preview(*load_with_places(name), "trl")
    lines = page.splitlines()
    assert len(lines) <= 50
    assert all(len(line) <= WIDTH for line in lines)
    assert not list(tmp_path.iterdir())


def test_the_page_of_a_run() -> None:
    page = shown("miniature", "optim.updates_per_batch=4", "data.limit=4096", "judge.votes=3")
    for text in (
        "train: miniature:train, 8,192 rows, the first 4,096 are used",
        "48 prompts x 8 = 384 a step, of at most 64 tokens",
        "50, 4 updates each, learning rate 0.0002, 0.59 passes over the data",  # 50 x 48 / 4096
        "at most 24,576 a step, 1,228,800 in all",
        "fapo; overlong_buffer 0, checker math, on_unscored mask, penalty 1.0",
        "miniature:genrm in this process, prompt compact; the correct rollouts, at most 384 a step, 3 critiques each",
        "every 20 steps",
    ):
        assert text in page
    assert "does not work here" not in page
    assert "1 nodes x 2 GPUs of the Ray cluster" in shown("miniature", "verl.trainer.n_gpus_per_node=2", engine="verl")
    assert "imitation of a genrm" in shown("miniature_genrm", "method=sft")


def test_the_page_names_adapters() -> None:
    adapter = "model.lora.rank=8", "judge=", "judge.kind=adapter", "judge.template=compact"
    page = shown("miniature", *adapter, "judge.model=base")
    assert "miniature:policy, float32, an adapter of rank 8" in page
    assert "an adapter of rank 8, weights in 4bit" in shown(
        "miniature", *adapter, "judge.model=base", "model.lora.save=adapter", "model.lora.quantization=4bit"
    )
    assert "base on the weights of the policy, prompt compact" in page
    assert "does not work here" not in page
    page = shown("miniature", *adapter, "judge.model=policy")
    assert "policy itself, as it is at each step, prompt compact" in page
    assert "does not work here" not in page
    assert "judge.model: ./nothing: no such folder" in shown("miniature", *adapter, "judge.model=./nothing")


MISSING = [
    ("data.train=nothing.jsonl", "data.train: nothing.jsonl: neither a file"),
    ("data.train=owner/nothing", "data.train: owner/nothing: the Hugging Face Hub cannot be reached"),
    ("data.validation.far=nothing.jsonl", "data.validation.far: nothing.jsonl: neither"),
    ("model.path=./nothing", "model.path: ./nothing: no such folder"),
    ("model.path=owner/nothing", "model.path: owner/nothing: no such folder, and the Hugging Face Hub"),
    ("model.path=miniature:nothing", "model.path: no model 'miniature:nothing'"),
    ("judge.model=./nothing", "judge.model: ./nothing: no such folder"),
    ("judge.canaries=nothing.jsonl", "judge.canaries: nothing.jsonl: neither"),
]


@pytest.mark.parametrize(("override", "message"), MISSING)
def test_what_cannot_be_reached_is_named_with_its_place(override: str, message: str) -> None:
    page = shown("miniature", override)
    assert f'- miniature, override "{override}": {message}' in page
    assert page.count(" - miniature, override") == 1


def test_too_few_rows_for_a_step_are_named() -> None:
    assert "data.train: 47 rows are fewer than rollout.num_prompts = 48" in shown("miniature", "data.limit=47")
    assert "are fewer than" not in shown("miniature", "data.limit=48")


def test_the_line_of_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(POLICY.read_text(encoding="utf-8").replace('"miniature:policy"', '"./nothing"'), encoding="utf-8")
    line = 1 + file.read_text(encoding="utf-8").splitlines().index('path = "./nothing"')
    assert f"- {file}:{line}: model.path: {tmp_path}/nothing: no such folder" in shown(str(file))


def test_a_served_judge_is_asked_for_its_models() -> None:
    served = ("judge.kind=served", "judge.model=genrm")
    assert "judge.urls: http://127.0.0.1:9/v1: no answer" in shown("miniature", *served, NO_ONE)
    with json_server({"/v1/models": {"data": [{"id": "other"}]}}) as url:
        page = shown("miniature", *served, f'judge.urls=["{url}/v1"]')
        assert f"judge.model: {url}/v1 has other, not genrm" in page
        page = shown("miniature", "judge.kind=served", "judge.model=other", f'judge.urls=["{url}/v1"]')
        assert "does not work here" not in page


@pytest.mark.parametrize(
    ("settings", "purpose"),
    [
        ("", ""),
        ("correct = true", ", to correct the reward"),
        ('min_j = 0.3\non_low_j = "switch"', ", and below a J of 0.3 all are judged by this judge"),
    ],
)
def test_a_judge_that_audits_is_on_the_page(settings: str, purpose: str, tmp_path: Path) -> None:
    audit = f"[judge.audit]\n{settings}\n[judge.audit.judge]\n"
    audit += 'kind = "local"\nmodel = "./nothing"\nsteps = "lines"\n'
    text = POLICY.read_text(encoding="utf-8") + audit
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    page = shown(str(tmp_path / "run.toml"))
    assert f"a random 2% of them are audited{purpose}: {tmp_path}/nothing in this process, prompt locate" in page
    assert f"judge.audit.judge.model: {tmp_path}/nothing: no such folder" in page


def test_the_line_of_a_process_reward_model() -> None:
    prm = ("judge.kind=prm", "judge.model=prm", "judge.tokenizer=miniature:genrm", 'judge.separator="\\n"')
    with json_server({"/v1/models": {"data": [{"id": "prm"}]}}) as url:
        page = shown("miniature", *prm, f'judge.urls=["{url}"]')
    assert f"prm at {url}, scores of steps, threshold 0.5; the correct rollouts, at most 384 a step" in page
    assert "does not work here" not in page
    missing = ("judge.kind=prm", "judge.model=./nothing", "judge.prompt=plain")
    assert "judge.model: ./nothing: no such folder" in shown("miniature", *missing)


def test_a_folder_with_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "fapo").mkdir()
    (tmp_path / "fapo/config.json").write_text("{}", encoding="utf-8")
    assert f"name: {tmp_path}/fapo holds a run" in shown("miniature", f"output={tmp_path}")


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("data.train=nothing.jsonl", DataError, r"miniature, override .*: data\.train: nothing\.jsonl: neither"),
        ("data.validation.far=empty.jsonl", DataError, r"data\.validation\.far: empty\.jsonl is empty"),
        ("data.train=rows.csv", DataError, r"data\.train: rows\.csv: unknown kind of file"),
        ("data.train=rows.jsonl", DataError, r"data\.train: rows\.jsonl:1: .*reference"),
        ("judge.canaries=rows.jsonl", DataError, r"judge\.canaries: rows\.jsonl:1: "),
        ("data.prompt=nothing", ConfigError, "nothing: no such file"),
        ("judge.template=nothing", ConfigError, "no prompt template 'nothing'"),
    ],
)
def test_inputs_are_checked_before_an_engine_is_loaded(override, error, message, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    Path("rows.csv").touch()
    write_jsonl(Path("rows.jsonl"), [{"problem": "1+1"}])
    check_inputs(*load_with_places("miniature"))
    with pytest.raises(error, match=message):
        check_inputs(*load_with_places("miniature", [override]))


def test_the_command_prints_the_page_or_the_arguments(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    assert fapo(monkeypatch, "train", "miniature", "--dry-run") == 0
    said = capsys.readouterr().out
    assert said.startswith("run  ") and said.endswith("TRL accepts the settings; --verbose prints its arguments\n")
    assert fapo(monkeypatch, "train", "miniature", "--dry-run", "--verbose") == 0
    assert capsys.readouterr().out.startswith("{")
    assert not list(tmp_path.iterdir())
