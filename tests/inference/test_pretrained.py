"""Models of the Hugging Face Hub, from a folder here: their commits are in the keys of the response cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fapo.data.miniature.sets import BASE_FOLDER

pytest.importorskip("transformers")

SETTINGS = """
import json, sys
from fapo.inference.token_classifier import TokenClassifier
from fapo.inference.transformers_model import LocalModel
loaded = [LocalModel.load("some/genrm"), LocalModel.load(sys.argv[1])]
print(json.dumps([model.settings.get("commit") for model in [*loaded, TokenClassifier.load("some/prm")]]))
"""


def publish(hub: Path, id: str, folder: Path, commit: str) -> None:
    """Put a folder into the cache of the Hub, as its current commit."""
    repository = hub / f"models--{id.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit, encoding="ascii")


@pytest.mark.slow
def test_the_commit_of_a_model_from_the_hub_is_a_setting(tmp_path: Path) -> None:
    """The name is the same after the authors have changed the weights, so the cache would give old answers."""
    from transformers import Qwen2Config, Qwen2ForTokenClassification

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=16, num_key_value_heads=1, num_labels=2, **sizes)
    Qwen2ForTokenClassification(config).save_pretrained(tmp_path / "prm")
    hub = tmp_path / "hub"
    environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    for commit in ("a" * 40, "b" * 40):
        publish(hub, "some/genrm", BASE_FOLDER / "genrm", commit)
        publish(hub, "some/prm", tmp_path / "prm", commit)
        command = [sys.executable, "-c", SETTINGS, str(BASE_FOLDER / "policy")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout) == [commit, None, commit]
