"""The run folder: what resuming removes and what it refuses, and where the cache of critiques lies."""

from __future__ import annotations

import fcntl
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import fapo.training.run_folder
from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.errors import ConfigError
from fapo.inference.response_cache import shared_file_system
from fapo.training.preview import check_inputs
from fapo.training.run_folder import RunFolder, with_cache
from fapo.trl.arguments import grpo_config
from fapo.trl.run import open_run
from fapo.verl.train import prepare

PROMPT = "Problem: {{problem}} {{#steps}}{{index}} {{step}}{{/steps}}"


def config(folder: Path, **judge: Any) -> Config:
    judge = {"kind": "served", "urls": ["http://127.0.0.1:1/v1"], "model": "m", **judge}
    return from_dict(
        {
            "name": "run",
            "task": "policy",
            "model": {"path": "miniature:policy"},
            "data": {"train": "miniature:train", "prompt": str(folder / "policy.txt")},
            "rollout": {"max_tokens": 24},
            "reward": {"kind": "fapo"},
            "judge": {"template": str(folder / "judge.txt"), **judge}
            if judge["kind"] != "oracle"
            else {"kind": "oracle"},
            "optim": {"steps": 1, "learning_rate": 1e-3},
            "output": str(folder / "runs"),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.txt").write_text("Solve {{problem}}", encoding="utf-8")
    (tmp_path / "judge.txt").write_text(PROMPT, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("file", "key"), [("policy.txt", "data.prompt"), ("judge.txt", "judge.template")])
def test_a_prompt_file_with_another_text_is_noticed_on_resume(file: str, key: str, folder: Path) -> None:
    RunFolder(config(folder), resume=False)
    RunFolder(config(folder), resume=True)
    old = (folder / file).read_text(encoding="utf-8")
    (folder / file).write_text(old + " Be strict.", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=f"cannot resume, the text of {key} has changed; the old text is in prompts.json"
    ):
        RunFolder(config(folder), resume=True)
    (folder / file).write_text(old, encoding="utf-8")
    RunFolder(config(folder), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_process_that_is_refused_changes_nothing_of_the_run_that_is_training(resume: bool, folder: Path) -> None:
    path = folder / "runs" / "run"
    path.mkdir(parents=True)
    if resume:
        RunFolder(config(folder), resume=False)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    other = os.open(path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)  # as that of another process, since it is not in the list of ours
    with pytest.raises(ConfigError, match="another process is training here"):
        RunFolder(config(folder, timeout=5.0), resume=resume, lock=True)
    os.close(other)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize("correct", [True, False])
def test_the_prompt_of_an_audit_may_change_unless_it_corrects_rewards(correct: bool, folder: Path) -> None:
    judge = {"kind": "local", "model": "m", "template": str(folder / "judge.txt")}
    settled = config(folder, template="locate", audit={"judge": judge, "correct": correct})
    RunFolder(settled, resume=False)
    (folder / "judge.txt").write_text(f"{PROMPT} Be strict.", encoding="utf-8")
    if not correct:
        RunFolder(settled, resume=True)
        return
    with pytest.raises(ConfigError, match=r"the text of judge\.audit\.judge\.template has changed"):
        RunFolder(settled, resume=True)


@pytest.mark.parametrize(
    ("same", "changed"), [("#steps: paragraphs", "#steps: lines"), ("#escape: full", "#escape: verdicts")]
)
def test_another_header_of_a_template_is_noticed_on_resume(same: str, changed: str, folder: Path) -> None:
    RunFolder(config(folder), resume=False)
    old = (folder / "judge.txt").read_text(encoding="utf-8")
    (folder / "judge.txt").write_text(f"{same}\n{old}", encoding="utf-8")
    RunFolder(config(folder), resume=True)
    (folder / "judge.txt").write_text(f"{changed}\n{old}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the text of judge\.template has changed"):
        RunFolder(config(folder), resume=True)


@pytest.mark.parametrize(("engine", "checkpoint"), [("trl", "global_step_50/actor"), ("verl", "checkpoint-50")])
def test_a_run_is_not_resumed_with_the_other_engine(engine: str, checkpoint: str, folder: Path) -> None:
    """That engine would find no checkpoint, remove all rows, and train from the start."""
    settled = config(folder)
    run = RunFolder(settled, resume=False)
    (run.checkpoints / checkpoint).mkdir(parents=True)
    write_jsonl(run.path / "metrics.jsonl", [{"step": step} for step in range(1, 51)])
    before = {file.name: file.read_bytes() for file in run.path.iterdir() if file.is_file()}
    other = {"trl": "verl", "verl": "trl"}[engine]
    message = f"runs/run: cannot resume with --engine {engine}, since .* resume the run with --engine {other}$"
    with pytest.raises(ConfigError, match=message):
        prepare(settled, resume=True) if engine == "verl" else open_run(settled, grpo_config(settled), resume=True)
    assert {file.name: file.read_bytes() for file in run.path.iterdir() if file.is_file()} == before


def test_rewinding_removes_the_rows_of_steps_that_are_repeated(folder: Path) -> None:
    run = RunFolder(config(folder), resume=False)
    for name in ("metrics", "rollouts"):
        write_jsonl(run.path / f"{name}.jsonl", [{"step": step} for step in (1, 2, 2, 3)])
    run.rewind(2)
    for name in ("metrics", "rollouts"):
        assert [row["step"] for row in read_jsonl(run.path / f"{name}.jsonl")] == [1, 2, 2]


def test_rewinding_takes_no_memory_for_the_rows(folder: Path) -> None:
    run = RunFolder(config(folder), resume=False)
    write_jsonl(run.path / "rollouts.jsonl", ({"step": step, "response": "x" * 10_000} for step in range(1, 1001)))
    tracemalloc.start()
    run.rewind(999)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (run.path / "rollouts.jsonl").stat().st_size > 9_990_000
    assert most < 2_000_000


def test_a_run_that_is_resumed_with_fewer_processes_repeats_no_rows_of_the_others(folder: Path) -> None:
    run = RunFolder(config(folder), resume=False)
    for name in ("rollouts", "rollouts-1", "audit", "audit-1"):
        write_jsonl(run.path / f"{name}.jsonl", [{"step": step} for step in (1, 2, 3)])
    alone = RunFolder(config(folder), resume=True)
    alone.rewind(1)
    for name in ("rollouts", "rollouts-1", "audit", "audit-1"):
        assert [row["step"] for row in read_jsonl(run.path / f"{name}.jsonl")] == [1], name
    assert [row["step"] for row in alone.earlier_audits()] == [1, 1]


@pytest.mark.parametrize("resume", [False, True])
def test_no_process_of_a_start_that_is_refused_removes_rows(resume: bool, folder: Path) -> None:
    """The processes of `accelerate launch` open the folder at the same time, and only the first one checks the run."""
    run = RunFolder(config(folder), resume=False)
    for name in ("metrics", "rollouts", "rollouts-1", "audit-1"):
        write_jsonl(run.path / f"{name}.jsonl", [{"step": step} for step in (1, 2)])
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    other = config(folder, model="another")
    open_run(other, grpo_config(other), resume=resume, rank=1)
    with pytest.raises(ConfigError, match="cannot resume" if resume else "already holds a run"):
        open_run(other, grpo_config(other), resume=resume)
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


def test_the_cache_lies_in_the_run_folder_unless_the_config_names_one(folder: Path) -> None:
    def cache(cfg: Config) -> Any:
        return cfg.judge and cfg.judge.cache  # type: ignore[union-attr]

    assert cache(with_cache(config(folder))) == str(folder / "runs/run/cache.sqlite")
    assert cache(with_cache(config(folder, cache="mine.sqlite"))) == "mine.sqlite"
    assert cache(with_cache(config(folder), num_nodes=2, node="1")) == str(folder / "runs/run/cache-1.sqlite")
    oracle = config(folder, kind="oracle")
    assert with_cache(oracle) == oracle


def test_a_cache_that_several_nodes_may_share_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = config(folder, cache=str(folder / "mine.sqlite"))
    assert with_cache(mine, num_nodes=2) == mine, "this disk is a local one"
    monkeypatch.setattr(fapo.training.run_folder, "shared_file_system", lambda path: "nfs4")
    assert with_cache(mine) == mine, "one node may have its files anywhere"
    with pytest.raises(
        ConfigError, match=r"judge\.cache: .*mine\.sqlite is on a file system \(nfs4\) that several nodes may share"
    ):
        with_cache(mine, num_nodes=2)


def test_an_audit_by_another_server_under_the_same_model_name_is_refused(folder: Path) -> None:
    def audited(**second: Any) -> Config:
        table = to_dict(config(folder))
        judge = {
            "kind": "served",
            "model": "m",
            "template": str(folder / "judge.txt"),
            "urls": ["http://127.0.0.1:2/v1"],
        }
        return from_dict(table | {"judge": table["judge"] | {"audit": {"judge": judge | second}}})

    for same in (audited(), audited(min_words=3, concurrency=1)):
        for check in (with_cache, lambda cfg: check_inputs(cfg, lambda key: "run.toml")):
            with pytest.raises(ConfigError, match=r"judge and judge\.audit\.judge are at different urls .* name 'm'"):
                check(same)
    for apart in (audited(revision="2"), audited(cache=str(folder / "other.sqlite")), audited(template="locate")):
        with_cache(apart)


MOUNTS = """\
overlay / overlay rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
lustre /home/a\\040b/scratch lustre rw 0 0
/dev/sda /home/local xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/x/cache.sqlite", ""),
        ("/home/me/runs/cache.sqlite", "nfs4"),
        ("/home/a b/scratch/new/cache.sqlite", "lustre"),
        ("/home/local/cache.sqlite", ""),
        ("/homes/cache.sqlite", ""),
    ],
)
def test_file_systems_that_machines_share(
    path: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS, encoding="utf-8")
    monkeypatch.setattr(fapo.inference.response_cache, "MOUNTS", tmp_path / "mounts")
    assert shared_file_system(path) == kind
    monkeypatch.setattr(fapo.inference.response_cache, "MOUNTS", tmp_path / "none")
    assert shared_file_system(path) == "", "not Linux"
