"""verl's program on a Ray cluster of three nodes, on this machine: the trainer is not where the command was started.

The nodes have the file system in common, as `docs/verl.md` demands, but another working directory than the command.
The head node has no processor, and each other node has one device: Ray must put the trainer on another node than the
command, and one worker of the model on each.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from transfer_queue.utils.common import get_node_round_robin_scheduling_strategies

from fapo.config.reader import load
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.inference.models import model_folder
from fapo.inference.response_cache import ResponseCache
from fapo.verl.overrides import overrides
from tests.support.paths import SOURCE
from tests.support.verl_runs import GROUP, POLICY, PROMPTS, environment, logged, rows, run


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Start a node without a processor, where the command runs, and two others, with a device each."""
    for key, value in environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=6, num_gpus=1, object_store_memory=2**28)
    yield started
    ray.shutdown()
    started.shutdown()


def test_relative_paths_the_record_and_the_cache_of_a_run_on_other_nodes(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("policy", "genrm"):
        shutil.copytree(model_folder(f"miniature:{name}"), home / name)
    template = SOURCE / "fapo/judge/prompts/compact.txt"
    shutil.copyfile(template, home / "prompt.md")
    (home / "question.txt").write_text("{{problem}}", encoding="utf-8")
    write_jsonl(home / "canaries.jsonl", list(read_jsonl(BASE_FOLDER / "critic-test.jsonl"))[:16])
    relative = {
        "model.path": "policy",
        "data.prompt": "question.txt",
        "judge.model": "genrm",
        "judge.template": "prompt.md",
        "judge.canaries": "canaries.jsonl",
        "output": ".",
    }
    changed = [f'{key}="{value}"' for key, value in relative.items()]
    settings = {"reward.num_workers": 2, "actor_rollout_ref.rollout.agent.num_workers": 2}
    env = {"RAY_ADDRESS": cluster.address}
    monkeypatch.chdir(home)
    ray.init(address=cluster.address, log_to_driver=False)
    working_directory = ray.get(ray.remote(lambda: os.getcwd()).remote())
    derived = dict(line.split("=", 1) for line in overrides(load(POLICY)))
    needed = derived["+transfer_queue.backend.SimpleStorage.required_node_resource"]
    storage = {place.node_id for place in get_node_round_robin_scheduling_strategies(9, needed)}
    assert len(storage) == 2 and cluster.head_node.node_id not in storage, (
        "nothing can start on a node without a processor"
    )
    ray.shutdown()
    assert working_directory != str(home), "a relative path would not be found"
    run(
        home,
        *changed,
        "judge.canary_rate=1",
        "data.validation=",
        "optim.micro_batch_size=4",
        nodes=2,
        steps=1,
        verl=settings,
        env=env,
    )

    found = rows(home, "rollouts")
    assert len(found) == PROMPTS * GROUP
    judged = [row for row in found if row["status"] != "skipped"]
    assert judged and all(row["critique"] for row in judged)
    (metrics,) = rows(home, "metrics")
    assert "canary/f1" in metrics
    (cache,) = (home / "run").glob("cache-*.sqlite")
    assert cache.name == f"cache-{socket.gethostname()}.sqlite", "both nodes are this machine"
    assert len(ResponseCache(cache)) > 0
    assert not list((tmp_path / "elsewhere").iterdir())
    assert all(row["training/rollout_actor_probs_pearson_corr"] > 0.999 for row in logged(tmp_path))
