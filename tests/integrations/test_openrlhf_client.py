"""OpenRLHF's own client, from its wheel, asks our service; a scripted engine writes the response."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integrations.test_serve_command import service
from tests.support.chat_server import Reply, chat_server

pytestmark = pytest.mark.slow

VERSION = "0.11.2"
CLIENT = '''
import asyncio, json, sys
from types import SimpleNamespace
from openrlhf.utils.agent import SingleTurnAgentExecutor

class Tokens:
    """A tokenizer with one token for each character, and two special ones."""
    def __call__(self, text, **_):
        ids = [0, *map(ord, text)]
        return {"input_ids": [SimpleNamespace(tolist=lambda: ids)]}
    def decode(self, ids, **_):
        return "".join({0: "<s>", 1: "</s>"}.get(i) or chr(i) for i in ids)

class Engine:
    def __init__(self, text):
        self.text = text
    async def generate(self, *_, **__):
        output = SimpleNamespace(token_ids=[*map(ord, self.text), 1], finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])

url, prompt, response, label = sys.argv[1:]
params = SimpleNamespace(max_tokens=512, logprobs=None)
found = asyncio.run(SingleTurnAgentExecutor(url).execute(prompt, label, params, 4096, Tokens(), Engine(response)))
print(json.dumps({key: found[key] for key in ("reward", "scores", "extra_logs")}))
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openrlhf")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "-d", str(folder), f"openrlhf=={VERSION}"], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        pytest.skip(f"openrlhf {VERSION} cannot be downloaded: {done.stderr[-300:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(("openrlhf/utils/agent.py", "openrlhf/utils/logging_utils.py")):
                target = folder / "openrlhf" / "utils" / Path(name).name  # without __init__.py, which imports deepspeed
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    return folder


@pytest.mark.parametrize(
    ("critique", "label", "reward", "score"), [("-1", "2", 1, 1), ("0", "2", 0, 1), ("0", "3", -1, 0)]
)
def test_openrlhf_reads_our_rewards(package: Path, critique: str, label: str, reward: float, score: float) -> None:
    prompt = "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
    response = "1+1=2\n\nSo \\boxed{2}."
    with chat_server(Reply(f"\\boxed{{{critique}}}")) as judge, service(judge) as running:
        command = [sys.executable, "-c", CLIENT, f"{running.url}/openrlhf", prompt, response, label]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, env={"PYTHONPATH": str(package), "PATH": ""}
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads(done.stdout.splitlines()[-1])
    assert (found["reward"], found["scores"]) == ([reward], [score])
    assert found["extra_logs"] == {"correct": score, "flawed_positive": score - max(reward, 0), "no_verdict": 0}
    if score:
        asked = judge.requests[0]["messages"][-1]["content"]
        assert "What is 1+1?" in asked and "im_start" not in asked and "</s>" not in asked
