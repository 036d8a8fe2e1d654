"""API keys are in no output, and the code and pickles of other people are not run."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from fapo.config.reader import from_dict, judge_config
from fapo.errors import ConfigError
from fapo.inference.client import ChatClient, key_from_environment
from fapo.inference.models import loading
from tests.support.chat_server import Reply, chat_server
from tests.support.paths import ROOT
from tests.support.processes import rows_to_judge, start, toml

KEY = "sk-this-is-no-word-7391"
HELLO = [{"role": "user", "content": "hello"}]


def ask(url: str, **options: Any) -> Any:
    async def run() -> Any:
        client = ChatClient(url, "m", retries=0, **options)
        try:
            return (await client([HELLO]))[0]
        finally:
            await client.aclose()

    return asyncio.run(run())


def files_with_key(folder: Path) -> list[str]:
    """Return the files that contain the key."""
    return [str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]


# --- where keys come from ---------------------------------------------------------------------------------------------


def test_a_key_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    for name in ("FAPO_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FAPO_API_KEY_FILE", str(file))
    with pytest.raises(ConfigError, match=r"FAPO_API_KEY_FILE: cannot read .*key"):
        key_from_environment()
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty; it should hold the key"):
        key_from_environment()
    file.write_text(f"{KEY}\n")
    with chat_server() as server:
        ask(server.url)
    assert server.api_keys == [f"Bearer {KEY}"]
    monkeypatch.setenv("FAPO_API_KEY", "the variable wins")
    assert key_from_environment() == "the variable wins"


@pytest.mark.parametrize("key", ["two\nlines", "clé", "\x00"])
def test_a_key_that_does_not_fit_into_a_header_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="API key has characters") as caught:
        ChatClient("http://127.0.0.1:1/v1", "m", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://me:{KEY}@host/v1", f"https://host/v1?key={KEY}"])
def test_an_address_with_a_secret_is_refused_without_printing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="FAPO_API_KEY") as one:
        ChatClient(url, "m")
    with pytest.raises(ConfigError, match="FAPO_API_KEY") as two:
        judge_config({"kind": "served", "urls": [url], "model": "m"}, "command line")
    assert KEY not in str(one.value) + str(two.value)


@pytest.mark.parametrize("table", [{"hub_token": KEY}, {"actor": {"wandb_api_key": KEY}}, {"PASSWORD": KEY}])
def test_secrets_in_a_config_are_refused(table: dict[str, Any], tmp_path: Path) -> None:
    settings = {
        "name": "run",
        "task": "policy",
        "model": {"path": "x"},
        "data": {"train": "x"},
        "rollout": {"max_tokens": 8},
        "reward": {"kind": "outcome"},
        "optim": {"steps": 1, "learning_rate": 1e-6},
    }
    assert from_dict(settings | {"trl": {"hub_token": "", "max_tokens": "64", "eos_token": "</s>"}})
    with pytest.raises(ConfigError, match="would be written into the run folder; set it in the environment") as caught:
        from_dict(settings | {"trl": table})
    assert KEY not in str(caught.value)


# --- where keys do not go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=401, body=json.dumps({"error": {"message": f"no such key: {KEY}"}}).encode()),
        Reply(status=500, body=json.dumps({"error": {"message": f"Bearer {KEY}"}}).encode()),
        Reply(f"your key is {KEY}"),
    ],
    ids=["refused", "broken", "in a critique"],
)
def test_a_key_in_the_answer_of_a_server_is_removed(reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with chat_server(reply) as server:
        answer = ask(server.url, api_key=KEY)
    assert server.api_keys == [f"Bearer {KEY}"]
    assert "***" in answer.text + answer.error
    assert KEY not in repr(answer)
    assert caplog.records, "the logger of asyncio names its selector"
    assert KEY not in caplog.text


def test_a_redirect_to_another_server_does_not_get_the_key() -> None:
    with chat_server() as other, chat_server(lambda body, i: moved) as server:
        moved = Reply(status=307, headers={"location": f"{other.url}/chat/completions"}, body=b"")
        ask(server.url, api_key=KEY)
    assert server.api_keys == [f"Bearer {KEY}"]
    assert other.api_keys == [""]


def test_no_output_of_a_training_and_an_audit_has_the_key(tiny_policy: Path, tmp_path: Path) -> None:
    def script(body: dict[str, Any], index: int) -> Reply:
        return Reply(f"{KEY} \\boxed{{-1}}" if index % 2 else "\\boxed{0}")

    output = ""
    with chat_server(script) as server:
        file = toml(tmp_path / "runs", tiny_policy, server.url, cache=str(tmp_path / "training.sqlite"))
        rows = rows_to_judge(tmp_path / "in.jsonl", 8)
        runs: list[tuple[str | Path, ...]] = [
            ("train", file),
            (
                *("judge", rows, "--judge", server.url, "--model", "m", "--out", tmp_path / "out.jsonl"),
                *("--report", tmp_path / "audit.html"),
            ),
            ("report", tmp_path / "runs" / "run", "-o", tmp_path / "page.html"),
        ]
        for arguments in runs:
            process = start(*arguments, FAPO_API_KEY=KEY, OPENAI_LOG="debug", OPENAI_API_KEY=KEY)
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            output += out + err
        assert set(server.api_keys) == {f"Bearer {KEY}"}
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"training.sqlite", "out.jsonl", "out.cache.sqlite", "page.html", "audit.html", "env.json"} <= written
    assert files_with_key(tmp_path) == []
    assert KEY not in output


# --- code of other people --------------------------------------------------------------------------------------------


def test_every_model_is_loaded_without_its_code_and_without_pickle() -> None:
    found = 0
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]):
        text = path.read_text(encoding="utf-8")
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            assert name not in ("torch.load", "torch.hub.load", "joblib.load", "yaml.load"), where
            assert "allow_pickle" not in given, where
            assert given.get("trust_remote_code", "False") == "False", where
            if name == "peft.PeftModel.from_pretrained":
                continue  # peft runs no code of an adapter, and reads pickles with weights_only=True
            if name.endswith("from_pretrained") and None not in given:  # one call passes the items of a dict
                found += 1
                assert given["trust_remote_code"] == "False", where
                assert "Model" not in name or given["use_safetensors"] == "True", where
    assert found >= 5


def test_a_model_with_its_own_code_is_refused_and_the_code_is_not_run(tiny_genrm: Path, tmp_path: Path) -> None:
    from fapo.inference.transformers_model import LocalModel

    folder = tmp_path / "model"
    shutil.copytree(tiny_genrm, folder)
    settings = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(settings | {"auto_map": auto, "model_type": "own"}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refused = pytest.raises(ConfigError, match=r"judge\.model: .*code of its own, which fapo does not run")
    with refused, loading("judge.model", str(folder)):
        LocalModel.load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_model_in_a_pickle_is_refused(tiny_genrm: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from fapo.inference.transformers_model import LocalModel

    folder = tmp_path / "model"
    shutil.copytree(tiny_genrm, folder)
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused = pytest.raises(ConfigError, match=r"judge\.model: cannot load .*safetensors")
    with refused, loading("judge.model", str(folder)):
        LocalModel.load(str(folder))
