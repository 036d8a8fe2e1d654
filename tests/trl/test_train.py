"""Complete training runs with TRL: run folder, kinds of rewards, interruptions, missing verdicts, several processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerState

from experiments.base_models.writers import Habits, trace
from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.world import tasks
from fapo.data.steps import split_steps
from fapo.errors import ConfigError, UnscoredError
from fapo.report import read_run, summarize
from fapo.report.intervals import POLICY_PARTS, intervals
from fapo.rewards.advantages import group_advantages
from fapo.trl.checkpoints import last_checkpoint
from fapo.trl.train import train
from tests.support.chat_server import ChatServer, Reply, chat_server
from tests.support.paths import SOURCE
from tests.support.processes import Listener, finished, interrupt_twice, start, wait_for
from tests.support.trl_runs import (
    GROUP,
    ONE_THREAD,
    STEPS,
    Row,
    all_rollouts,
    assert_same_curve,
    assert_same_weights,
    curve,
    replay,
    rows,
    settings,
)

pytestmark = pytest.mark.slow


def config(output: Path, policy: Path, **changed: Any) -> Config:
    return from_dict(settings(output, policy, **changed))


def checkpoints(folder: Path) -> list[int]:
    """Return the numbers of the checkpoints."""
    return sorted(int(path.name.rpartition("-")[2]) for path in (folder / "checkpoints").glob("checkpoint-*"))


# --- what a run leaves behind -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle_run(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    progress: list[tuple[int, int]] = []
    settled = config(tmp_path_factory.mktemp("oracle"), tiny_policy)
    return train(settled, progress=lambda _, step, total, metrics: progress.append((step, total))), progress


def test_a_cut_off_thought_is_no_answer_where_the_template_opens_it(tiny_policy: Path, tmp_path: Path) -> None:
    policy = shutil.copytree(tiny_policy, tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|assistant|>{% endif", "<|assistant|><think>{% endif")
    assert "<think>" in tokenizer.chat_template
    tokenizer.save_pretrained(policy)
    changed = {"optim.steps": 1, "rollout.max_tokens": 6, "rollout.num_prompts": 32}
    found = rows(train(config(tmp_path, policy, **changed)), "rollouts")
    ended = [row["num_tokens"] < 6 for row in found]
    assert {True, False} == set(ended)
    assert [bool(row["response"]) for row in found] == ended
    assert not any(row["correct"] for row in found if row["num_tokens"] == 6)


def test_the_files_of_a_run_folder(oracle_run, tiny_policy: Path) -> None:
    folder, _ = oracle_run
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "prompts.json", "env.json", "metrics.jsonl", "rollouts.jsonl", "checkpoints", "model"),
    }
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert from_dict(stored) == config(folder.parent, tiny_policy)
    assert json.loads(json.dumps(to_dict(from_dict(stored)))) == stored
    environment = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    assert {"fapo", "torch", "trl"} <= environment["versions"].keys()
    assert datetime.now(UTC) - datetime.fromisoformat(environment["started"]) < timedelta(hours=6)
    assert AutoModelForCausalLM.from_pretrained(folder / "model").num_parameters() > 0
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template


def test_the_model_of_a_run_may_be_a_link_to_a_folder_on_another_disk(tiny_policy: Path, tmp_path: Path) -> None:
    link, disk = tmp_path / "run" / "model", tmp_path / "disk"
    for folder in (link.parent, disk):
        folder.mkdir()
    link.symlink_to(disk)
    train(config(tmp_path, tiny_policy, **{"optim.steps": 1, "data.validation": None}))
    assert link.readlink() == disk
    assert (disk / "config.json").is_file()


def test_one_row_of_measurements_for_each_step_and_validation(oracle_run) -> None:
    folder, progress = oracle_run
    found = rows(folder, "metrics")
    assert [row["step"] for row in found if row["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [row["step"] for row in found if row["kind"] == "validation"] == [0, 2, 4, 6]
    assert [row["seconds"] for row in found] == sorted(row["seconds"] for row in found)
    assert progress == [(step, STEPS) for step in range(1, STEPS + 1)]
    for row in found:
        if row["kind"] == "train":
            assert {"loss", "reward", "grad_norm", "learning_rate", "entropy", "rollout/accuracy"} <= row.keys()
            parts = [row[f"time/{part}"] for part in ("rollout", "score", "update")]
            assert min(parts) > 0
            assert sum(parts) < row["seconds"]
            assert {"rollout/length", "rollout/unscored_rate", "advantage/wrong", "advantage/true_wrong"} <= row.keys()
        else:
            assert {"easy/accuracy", "easy/length", "easy/truncated_rate"} <= row.keys()
        right = row.get("rollout/accuracy", row.get("easy/accuracy")) > 0
        area = "rollout" if row["kind"] == "train" else "easy"
        assert all((f"{area}/{name}" in row) == right for name in ("fp_ratio", "true_fp_ratio", "rho"))
        assert ("rollout/flawed_rho" in row) == ("rollout/true_flawed_rho" in row) == (right and area == "rollout")
        if right:
            assert row[f"{area}/fp_ratio"] == row[f"{area}/true_fp_ratio"], "the oracle makes no mistakes"
    assert any("judge/f1" in row and row["judge/f1"] == 1.0 for row in found)


def test_metrics_reach_tensorboard(tiny_policy: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: pip install -e '.[dev]'")
    from tensorboardX.proto.event_pb2 import Event

    folder = train(config(tmp_path, tiny_policy, trl={"report_to": "tensorboard"}, **{"optim.steps": 2}))
    (file,) = folder.rglob("events.out.tfevents.*")
    content, logged = file.read_bytes(), {}
    while content:  # length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        logged |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + length :]
    measured = {(row["kind"], row["step"]): row for row in rows(folder, "metrics")}
    for key in ("rollout/accuracy", "rollout/unscored_rate", "advantage/wrong", "time/rollout", "loss"):
        assert logged[f"train/{key}", 2] == pytest.approx(measured["train", 2][key], rel=1e-5)
    tags = {tag.removeprefix("eval/") for tag, _ in logged if tag.startswith("eval/")}
    assert {tag.partition("/")[0] for tag in tags} == {"easy"}, "and not those of TRL, which do not name the set"
    assert logged["eval/easy/accuracy", 2] == pytest.approx(measured["validation", 2]["easy/accuracy"], rel=1e-5)


def test_one_row_for_each_rollout(oracle_run) -> None:
    folder, _ = oracle_run
    found = rows(folder, "rollouts")
    trained = [row for row in found if row["split"] == "train"]
    assert [row["step"] for row in trained] == [step for step in range(1, STEPS + 1) for _ in range(8 * GROUP)]
    assert {row["step"] for row in found if row["split"] == "easy"} == {0, 2, 4, 6}
    assert len([row for row in found if row["split"] == "easy"]) == 4 * 16
    schema = {
        *("schema", "step", "split", "problem_id", "problem", "reference", "response", "num_tokens", "correct"),
        *("status", "flawed", "error_step", "critique", "critique_tokens", "reason"),
        *("reward", "parts", "advantage", "truth"),
    }
    assert all(row.keys() == schema and row["schema"] == 1 for row in found)
    assert any(row["correct"] for row in trained)
    for row in found:
        expected = -1.0 if not row["correct"] else 0.0 if row["flawed"] else 1.0
        assert row["reward"] == expected == pytest.approx(sum(row["parts"].values()))
        assert row["status"] == ("ok" if row["correct"] else "skipped")
        assert 0 < row["num_tokens"] <= 24
        if row["correct"]:
            assert row["error_step"] == row["truth"]["error_step"]


def test_advantages_on_record_are_those_of_the_groups(oracle_run) -> None:
    folder, _ = oracle_run
    trained = [row for row in rows(folder, "rollouts") if row["split"] == "train"]
    groups = [trained[i : i + GROUP] for i in range(0, len(trained), GROUP)]
    assert all(len({row["problem_id"] for row in group}) == 1 for group in groups)
    expected = group_advantages([[row["reward"] for row in group] for group in groups]).reshape(-1)
    assert [row["advantage"] for row in trained] == pytest.approx(expected, abs=1e-5)
    assert {row["advantage"] for row in rows(folder, "rollouts") if row["split"] == "easy"} == {None}


def test_the_measurements_follow_from_the_rollouts(oracle_run) -> None:
    folder, _ = oracle_run
    for row in rows(folder, "metrics"):
        name, area = ("train", "rollout") if row["kind"] == "train" else ("easy", "easy")
        own = [r for r in rows(folder, "rollouts") if (r["step"], r["split"]) == (row["step"], name)]
        assert row[f"{area}/accuracy"] == pytest.approx(sum(r["correct"] for r in own) / len(own))
        assert row[f"{area}/length"] == pytest.approx(sum(r["num_tokens"] for r in own) / len(own))
        if area == "rollout":
            assert row["reward"] == pytest.approx(sum(r["reward"] for r in own) / len(own), abs=1e-5)


def test_the_same_seed_gives_the_same_run(oracle_run, tiny_policy: Path, tmp_path: Path) -> None:
    folder, _ = oracle_run
    assert_same_curve(train(config(tmp_path, tiny_policy)), folder)


def test_validation_leaves_training_alone(oracle_run, tiny_policy: Path, tmp_path: Path) -> None:
    folder, _ = oracle_run
    without = train(config(tmp_path, tiny_policy, **{"data.validation": {}}))
    losses = [[row["loss"] for row in rows(f, "metrics") if row["kind"] == "train"] for f in (without, folder)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert {row["kind"] for row in rows(without, "metrics")} == {"train"}


# --- kinds of runs ----------------------------------------------------------------------------------------------------


def test_a_local_judge(tiny_policy: Path, tiny_genrm: Path, tmp_path: Path) -> None:
    judge = {"kind": "local", "model": str(tiny_genrm), "template": "compact", "max_tokens": 8}
    folder = train(config(tmp_path, tiny_policy, judge=judge, **{"optim.steps": 2}))
    judged = [row for row in rows(folder, "rollouts") if row["correct"]]
    assert judged
    assert {row["status"] for row in judged} <= {"ok", "unparsable"}
    assert any(row["status"] == "ok" for row in judged)
    assert all(row["critique"] for row in judged if row["status"] == "ok")
    for row in judged:
        assert (row["reward"] is None) == (row["status"] == "unparsable")


@pytest.mark.parametrize("kind", ["outcome", "step_ratio"])
def test_other_rewards(kind: str, tiny_policy: Path, tmp_path: Path) -> None:
    judge = None if kind == "outcome" else {"kind": "oracle"}
    folder = train(config(tmp_path, tiny_policy, judge=judge, **{"reward.kind": kind, "optim.steps": 2}))
    found = rows(folder, "rollouts")
    assert {row["status"] for row in found} == {"skipped" if kind == "outcome" else "ok"}
    for row in found:
        steps = len(split_steps(row["response"], "lines"))
        before = steps if row["error_step"] is None else row["error_step"]
        bonus = 0 if kind == "outcome" else before / steps
        assert row["reward"] == pytest.approx((1 if row["correct"] else -1) + bonus)
        assert row["truth"] is not None, "every run in the miniature has the knowledge of the oracle"


@pytest.fixture(scope="module")
def critic_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write correct solutions of an imperfect writer, with labels of the oracle."""
    import random

    rng, found = random.Random(0), []
    for task in tasks(0, 200):
        response = trace(rng, task, Habits())
        truth, problem = examine(task, response), task.problem()
        if is_answer_correct(task, response):
            row = {"id": problem.id, "problem": problem.text, "reference": problem.reference}
            label = -1 if truth.error_step is None else truth.error_step
            found.append(row | {"steps": [step.strip() for step in split_steps(response, "lines")], "label": label})
    file = tmp_path_factory.mktemp("data") / "critic.jsonl"
    write_jsonl(file, found)
    return file


@pytest.mark.parametrize("kind", ["genrm_step", "genrm_outcome"])
def test_a_genrm(kind: str, tiny_genrm: Path, critic_data: Path, tmp_path: Path) -> None:
    changed = {
        "task": "genrm",
        "data": {"train": str(critic_data), "validation": {"test": str(critic_data)}},
        "reward.kind": kind,
        "judge": None,
        "genrm": {"template": "compact"},
        "optim.steps": 2,
        "validation.limit": 8,
    }
    folder = train(config(tmp_path, tiny_genrm, **changed))
    labels = {row["id"]: row["label"] for row in read_jsonl(critic_data)}
    found = rows(folder, "rollouts")
    for row in found:
        label = labels[row["problem_id"]]
        assert row["truth"] == {"error_step": None if label == -1 else label, "flaw": None, "answer_correct": True}
        right = row["status"] == "ok" and row["flawed"] == (label != -1)
        assert row["parts"]["outcome"] == (1 if right else -1)
        assert ("process" in row["parts"]) == (kind == "genrm_step")
    for row in rows(folder, "metrics"):
        prefix = "test/" if row["kind"] == "validation" else ""
        assert {f"{prefix}{name}" for name in ("precision", "recall", "f1", "location", "tokens")} <= row.keys()


@pytest.mark.parametrize("max_tokens", [3, 5], ids=["nearly all are truncated", "some are truncated"])
def test_truncated_completions_may_be_masked(max_tokens: int, tiny_policy: Path, tmp_path: Path) -> None:
    changed = {"rollout.max_tokens": max_tokens, "optim.steps": 2, "optim.micro_batch_size": 4, "data.validation": {}}
    folder = train(config(tmp_path, tiny_policy, trl={"mask_truncated_completions": True}, **changed))
    found = rows(folder, "metrics")
    assert [row["step"] for row in found] == [1, 2]
    for row in found:
        assert all(math.isfinite(row[key]) for key in ("loss", "grad_norm", "entropy"))
        assert row["completions/clipped_ratio"] > 0.1
        assert (row["completions/clipped_ratio"] > 0.9) == (max_tokens == 3)


def test_several_updates_on_one_batch(tiny_policy: Path, tmp_path: Path) -> None:
    settled = config(tmp_path, tiny_policy, **{"optim.updates_per_batch": 2, "optim.steps": 4})
    folder = train(settled)
    found = rows(folder, "metrics")
    assert [row["step"] for row in found if row["kind"] == "train"] == [1, 2, 3, 4]
    assert [row["step"] for row in found if row["kind"] == "validation"] == [0, 2, 4]
    trained = [row["step"] for row in rows(folder, "rollouts") if row["split"] == "train"]
    assert trained == [step for step in (1, 2, 3, 4) for _ in range(8 * GROUP)]
    assert checkpoints(folder) == [4, 8]
    shutil.rmtree(folder / "checkpoints" / "checkpoint-8")
    whole = shutil.copytree(folder, tmp_path / "whole")
    train(settled, resume=True)
    assert_same_curve(folder, whole)
    with pytest.raises(ConfigError, match=r"cannot resume, the config differs in optim\.updates_per_batch"):
        train(config(tmp_path, tiny_policy, **{"optim.updates_per_batch": 4, "optim.steps": 4}), resume=True)


def test_micro_batches_change_no_reward(oracle_run, tiny_policy: Path, tmp_path: Path) -> None:
    folder, _ = oracle_run
    parts = train(config(tmp_path, tiny_policy, **{"optim.micro_batch_size": 8, "optim.steps": 1}))
    mine, its = (next(row for row in rows(f, "metrics") if row["step"] == 1) for f in (parts, folder))
    assert [mine[key] for key in ("loss", "reward", "rollout/accuracy")] == pytest.approx(
        [its[key] for key in ("loss", "reward", "rollout/accuracy")], abs=1e-5
    )


# --- starting where there is a run already ----------------------------------------------------------------------------


def test_a_run_is_not_overwritten_and_not_resumed_with_another_config(
    oracle_run, tiny_policy: Path, tmp_path: Path
) -> None:
    folder, _ = oracle_run
    shutil.copytree(folder, tmp_path / "run")
    before = curve(tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds a run; remove it, choose another name, or resume it"):
        train(config(tmp_path, tiny_policy))
    with pytest.raises(ConfigError, match="cannot resume, the config differs in reward"):
        train(config(tmp_path, tiny_policy, **{"reward.penalty": 2.0}), resume=True)
    assert curve(tmp_path / "run") == before


def test_a_finished_run_resumed_stays_as_it_is(oracle_run, tiny_policy: Path, tmp_path: Path) -> None:
    folder, _ = oracle_run
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")  # as after a kill between the last checkpoint and the end
    train(config(tmp_path, tiny_policy), resume=True)
    assert rows(tmp_path / "run", "metrics") == rows(folder, "metrics")
    assert rows(tmp_path / "run", "rollouts") == rows(folder, "rollouts")
    assert_same_weights(tmp_path / "run", folder)


def test_a_finished_run_can_be_made_longer(oracle_run, tiny_policy: Path, tmp_path: Path) -> None:
    folder, _ = oracle_run
    shutil.copytree(folder, tmp_path / "run")
    train(config(tmp_path, tiny_policy, **{"optim.steps": STEPS + 1}), resume=True)
    assert curve(tmp_path / "run")[: len(curve(folder))] == curve(folder)
    assert [row["step"] for row in curve(tmp_path / "run")][-1] == STEPS + 1


def test_a_checkpoint_cut_off_while_being_written_does_not_count(oracle_run, tiny_policy: Path, tmp_path: Path) -> None:
    folder, _ = oracle_run
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "checkpoint-6" / "trainer_state.json").unlink()
    train(config(tmp_path, tiny_policy), resume=True)
    assert_same_curve(tmp_path / "run", folder)


@pytest.mark.parametrize("num_bytes", [0, 30])
def test_a_checkpoint_whose_last_file_is_cut_off_does_not_count(num_bytes: int, tmp_path: Path) -> None:
    for number in (2, 10):
        checkpoint = tmp_path / f"checkpoint-{number}"
        checkpoint.mkdir()
        TrainerState(global_step=number).save_to_json(str(checkpoint / "trainer_state.json"))
    assert last_checkpoint(tmp_path) == (10, str(tmp_path / "checkpoint-10"))
    os.truncate(tmp_path / "checkpoint-10" / "trainer_state.json", num_bytes)
    assert last_checkpoint(tmp_path) == (2, str(tmp_path / "checkpoint-2"))


def test_resume_without_a_run_starts_a_new_one(tiny_policy: Path, tmp_path: Path) -> None:
    folder = train(config(tmp_path, tiny_policy, **{"optim.steps": 1}), resume=True)
    assert [row["step"] for row in rows(folder, "metrics") if row["kind"] == "train"] == [1]


# --- interruptions ----------------------------------------------------------------------------------------------------


def verdict(body: Row) -> Reply:
    """Return a verdict that depends on the solution alone; one in three cannot be parsed."""
    number = zlib.crc32(body["messages"][-1]["content"].encode())
    return Reply("who knows" if number % 3 == 0 else f"hm\n\\boxed{{{-1 if number % 2 else 0}}}")


def served(server: ChatServer) -> Row:
    return {"judge": {"kind": "served", "urls": [server.url], "model": "judge", "template": "compact"}}


def toml(output: Path, table: Row) -> Path:
    """Write settings as a TOML file."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for name, inner in table.items():
        if isinstance(inner, dict):
            lines.append(f"[{name}]")
            for key, value in inner.items():
                text = json.dumps(value)
                if isinstance(value, dict):
                    text = "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }"
                lines.append(f"{key} = {text}")
    path = output / "run.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def start_training(file: Path, *options: str) -> subprocess.Popen[str]:
    return start("train", file, "--quiet", *options)


class Gate:
    """Judge that answers until the rollouts of `step` are on record, and then waits until it is opened."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, body: Row, index: int) -> Reply:
        if not self.opened.is_set() and self.on_record():
            self.reached.set()
            self.opened.wait(600)
        return verdict(body)

    def on_record(self) -> bool:
        file = self.folder / "rollouts.jsonl"
        if not file.exists():
            return False
        found = read_jsonl(file, ignore_torn_tail=True)
        return any((row["step"], row["split"]) == (self.step, "train") for row in found)


def judged(found: list[Row]) -> set[tuple[str, str, str]]:
    """Return the rollouts that the judge is asked about, each once: those with a correct answer."""
    return {(r["problem"], r["reference"], r["response"]) for r in found if r["correct"]}


@pytest.fixture(scope="module")
def whole_run(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without an interruption."""
    output = tmp_path_factory.mktemp("whole")
    with chat_server(lambda body, _: verdict(body)) as server:
        process = start_training(toml(output, settings(output, tiny_policy, **served(server))))
        code, printed = finished(process)
        assert code == 0, printed
        assert printed.endswith(f"run folder: {output / 'run'}\n")
        found = rows(output / "run", "rollouts")
        assert len(server.requests) == len(judged(found)) < sum(row["correct"] for row in found)
        assert {"ok", "unparsable", "skipped"} == {row["status"] for row in found}
    return output / "run"


def stopped(
    output: Path, policy: Path, step: int, stop: Callable[[subprocess.Popen[str], Gate], tuple[int, str]]
) -> tuple[int, str, list[Row], list[Row], int]:
    """Stop a run when `step` is on record, and resume it with another server.

    Returns exit code and output, rows of rollouts before and after resuming, and the number of requests afterwards.
    """
    gate = Gate(output / "run", step)
    with chat_server(gate) as server:
        process = start_training(toml(output, settings(output, policy, **served(server))))
        wait_for(lambda: gate.reached.is_set() or process.poll() is not None)
        code, printed = stop(process, gate)
        gate.opened.set()
        assert gate.reached.is_set(), printed
    before = rows(output / "run", "rollouts")
    with chat_server(lambda body, _: verdict(body)) as server:
        file = toml(output, settings(output, policy, **served(server)))
        resumed_code, resumed_printed = finished(start_training(file, "--resume"))
        assert resumed_code == 0, resumed_printed
        after = rows(output / "run", "rollouts")
        assert checkpoints(output / "run")[-1] == STEPS
        return code, printed, before, after, len(server.requests)


def test_a_killed_and_resumed_run_has_the_result_of_an_uninterrupted_one(
    whole_run: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    def kill(process: subprocess.Popen[str], gate: Gate) -> tuple[int, str]:
        process.send_signal(signal.SIGKILL)
        return finished(process)

    code, _, before, after, num_requests = stopped(tmp_path, tiny_policy, 3, kill)
    assert code == -signal.SIGKILL
    assert max(row["step"] for row in before) == 3
    lost = [row for row in before if row["step"] > 2]
    assert judged(lost), "there are verdicts after the checkpoint"
    assert num_requests == len(judged(after) - judged(before))
    assert_same_curve(tmp_path / "run", whole_run)
    whole = rows(whole_run, "rollouts")
    assert [row["response"] for row in after] == [row["response"] for row in whole]
    assert [row["status"] for row in after] == [row["status"] for row in whole]
    assert [row["critique"] for row in after] == [row["critique"] for row in whole]


def test_control_c_leaves_a_checkpoint_and_no_finished_run(whole_run: Path, tiny_policy: Path, tmp_path: Path) -> None:
    def interrupt(process: subprocess.Popen[str], gate: Gate) -> tuple[int, str]:
        listener = Listener(process)
        process.send_signal(signal.SIGINT)
        listener.wait_for("stopping after this step")
        gate.opened.set()
        code, printed = listener.finished()
        assert checkpoints(tmp_path / "run") == [2, 4], "the current step was finished and saved"
        assert not (tmp_path / "run" / "model").exists()
        return code, printed

    code, printed, before, after, num_requests = stopped(tmp_path, tiny_policy, 3, interrupt)
    assert code == 130
    assert printed.rstrip().endswith("run.toml --quiet --resume"), "the command that continues"
    assert "Traceback" not in printed
    assert max(row["step"] for row in before) == 4
    assert num_requests == len(judged(after) - judged(before))
    assert_same_curve(tmp_path / "run", whole_run)


SLOW_LOOPS = """
import asyncio, time
run_once = asyncio.BaseEventLoop._run_once
asyncio.BaseEventLoop._run_once = lambda loop: (time.sleep(0.05), run_once(loop))[1]
"""
"""Module that Python imports when it starts: event loops get as little of the processor as on a busy machine."""


@pytest.mark.parametrize("overlap", [True, False])
def test_pressing_control_c_twice_ends_training_at_once(overlap: bool, tiny_policy: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_LOOPS)
    with chat_server(Reply(delay=600)) as server:
        table = settings(tmp_path, tiny_policy, **served(server))
        table["judge"]["overlap"] = overlap
        process = start("train", toml(tmp_path, table), "--quiet", PYTHONPATH=f"{SOURCE}{os.pathsep}{tmp_path}")
        wait_for(lambda: server.under_way > 0 or process.poll() is not None)
        code, printed = interrupt_twice(process)
    assert code == 130
    assert "Traceback" not in printed, printed
    assert "destroyed" not in printed, printed


# --- rollouts without a verdict ---------------------------------------------------------------------------------------


def test_unscored_rollouts_stay_out_of_the_group(whole_run: Path) -> None:
    trained = [row for row in rows(whole_run, "rollouts") if row["split"] == "train"]
    unscored = [row for row in trained if row["status"] == "unparsable"]
    assert unscored
    assert all((row["reward"], row["advantage"]) == (None, 0.0) for row in unscored)
    groups = [
        [math.nan if r["reward"] is None else r["reward"] for r in trained[i : i + GROUP]]
        for i in range(0, len(trained), GROUP)
    ]
    assert [row["advantage"] for row in trained] == pytest.approx(group_advantages(groups).reshape(-1), abs=1e-5)
    rates = {row["step"]: row["rollout/unscored_rate"] for row in rows(whole_run, "metrics") if row["kind"] == "train"}
    for step, rate in rates.items():
        own = [row for row in trained if row["step"] == step]
        assert rate == pytest.approx(sum(row["reward"] is None for row in own) / len(own))


def test_a_run_that_needs_verdicts_stops_without_them(tiny_policy: Path, tmp_path: Path) -> None:
    with chat_server(Reply(status=400, body=b"{}")) as server:
        table = settings(tmp_path, tiny_policy, **served(server), **{"reward.on_unscored": "raise"})
        with pytest.raises(UnscoredError, match="HTTP 400"):
            train(from_dict(table | {"name": "here"}))
        code, printed = finished(start_training(toml(tmp_path, table)))
    assert code == 2
    assert "fapo: no verdict on a rollout of problem miniature-" in printed
    assert "HTTP 400" in printed
    assert 'set reward.on_unscored to "mask" or "correctness_only"' in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(("on_unscored", "reward"), [("mask", None), ("correctness_only", 1.0)])
def test_a_run_may_continue_with_a_dead_judge(
    on_unscored: str, reward: float | None, tiny_policy: Path, tmp_path: Path
) -> None:
    with chat_server(Reply(status=400, body=b"{}")) as server:
        changed = {"reward.on_unscored": on_unscored, "optim.steps": 2, "judge.max_failure_rate": 1.0}
        folder = train(config(tmp_path, tiny_policy, **served(server), **changed))
    right = [row for row in rows(folder, "rollouts") if row["correct"]]
    assert {row["status"] for row in right} == {"failed"}
    assert {row["reward"] for row in right} == {reward}


def test_a_dead_judge_stops_a_run_with_a_clear_message(tiny_policy: Path, tmp_path: Path) -> None:
    with chat_server(Reply(status=400, body=b"{}")) as server:
        code, printed = finished(start_training(toml(tmp_path, settings(tmp_path, tiny_policy, **served(server)))))
    assert code == 2
    assert "fapo: the judge is down: " in printed
    assert "HTTP 400" in printed
    assert "Traceback" not in printed


def test_a_judge_with_a_cache_gets_each_request_once(tiny_policy: Path, tmp_path: Path) -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        table = served(server)
        table["judge"]["cache"] = str(tmp_path / "cache.sqlite")
        first = train(config(tmp_path, tiny_policy, **table, **{"optim.steps": 2}))
        num_requests = len(server.requests)
        second = train(config(tmp_path, tiny_policy, **table, **{"optim.steps": 2, "name": "again"}))
        assert len(server.requests) == num_requests > 0
    verdicts = [[(r["response"], r["status"], r["critique"]) for r in rows(f, "rollouts")] for f in (first, second)]
    assert verdicts[0] == verdicts[1]


def test_judging_while_generating_changes_no_result(tiny_policy: Path, tmp_path: Path) -> None:
    folders, prompts = [], []
    for overlap in (True, False):
        with chat_server(lambda body, _: verdict(body)) as server:
            table = served(server)
            table["judge"] |= {"overlap": overlap}
            changed = {"optim.steps": 3, "name": f"overlap-{overlap}"}
            folders.append(train(config(tmp_path, tiny_policy, **table, **changed)))
            prompts.append(sorted(body["messages"][-1]["content"] for body in server.requests))
    assert rows(folders[0], "rollouts") == rows(folders[1], "rollouts")
    assert {row["status"] for row in rows(folders[0], "rollouts")} == {"ok", "unparsable", "skipped"}
    assert_same_curve(*folders)
    assert prompts[0] == prompts[1]


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replayed(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return the run folders of the same run with 1, 2 and 4 processes, on the same rollouts.

    With 4 processes a process has 6 rollouts of a batch, so that groups of 4 are split. The last batches of the
    validation are filled up by accelerate, with problems that were there before.
    """
    output = tmp_path_factory.mktemp("replayed")
    changed = {
        "rollout": {"max_tokens": 64, "num_prompts": 6, "group_size": GROUP},
        "optim.steps": 2,
        "validation": {"every": 1, "num_samples": 2, "limit": 10},
        "judge.canaries": "miniature:critic-test",
        "judge.canary_rate": 0.5,
        "trl": {"per_device_eval_batch_size": 6, "save_strategy": "no"},
    }
    return replay(output, settings(output, tiny_policy, **changed), 1, 2, 4)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_every_number_is_that_of_one_process(num_processes: int, replayed: dict[int, Path]) -> None:
    one, several = replayed[1], replayed[num_processes]
    assert len(list(several.glob("rollouts*.jsonl"))) == num_processes
    assert all_rollouts(several) == all_rollouts(one), "with their advantages, and no problem twice"
    assert_same_curve(several, one)
    mine, theirs = ([read_run(folder)] for folder in (several, one))
    ends, expected = summarize(mine), summarize(theirs)
    assert [row.end for row in ends] == pytest.approx([row.end for row in expected])
    found, wanted = (list(intervals(*pair).values()) for pair in ((mine, ends), (theirs, expected)))
    assert len(found) == len(wanted) > 3
    assert found == [pytest.approx(interval) for interval in wanted]


def test_a_value_of_several_processes_and_its_interval_have_the_same_rows(replayed: dict[int, Path]) -> None:
    for row in rows(replayed[4], "metrics"):
        split, area = ("train", "rollout") if row["kind"] == "train" else ("easy", "easy")
        own = [r for r in all_rollouts(replayed[4]) if (r["split"], r["step"]) == (split, row["step"])]
        assert len(own) == (24 if split == "train" else 20)
        for name in ("accuracy", "length", "fp_ratio", "true_fp_ratio", "reliable_accuracy"):
            sums = [sum(column) for column in zip(*map(POLICY_PARTS[name], own), strict=True)]
            assert row[f"{area}/{name}"] == pytest.approx(sums[0] / sums[1]), name
    assert {r["advantage"] is None for r in all_rollouts(replayed[4]) if r["split"] == "train"} == {False}


def test_two_processes_train_one_model(tiny_policy: Path, tiny_genrm: Path, tmp_path: Path) -> None:
    """Start training as `accelerate launch` does on GPUs: each process judges its rollouts and writes them.

    The processes have different host names, as on two nodes.
    """
    judge = {"kind": "local", "model": str(tiny_genrm), "template": "compact", "max_tokens": 20}
    table = settings(tmp_path, tiny_policy, **{"optim.steps": 2, "validation.every": 2, "judge": judge})
    (tmp_path / "config.json").write_text(json.dumps(table), encoding="utf-8")
    code = (
        "import json, os, socket, sys; socket.gethostname = lambda: 'node-' + os.environ['RANK']; "
        "from fapo.config.reader import from_dict; from fapo.trl.train import train; "
        "train(from_dict(json.load(open(sys.argv[1]))))"
    )
    (tmp_path / "run.py").write_text(code, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "run.py"), str(tmp_path / "config.json")],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, **ONE_THREAD},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "run"
    parts = [[row for row in rows(folder, name) if row["split"] == "train"] for name in ("rollouts", "rollouts-1")]
    assert [len(part) for part in parts] == [2 * 8 * GROUP // 2] * 2, "each process has half of each batch"
    assert not {row["problem_id"] for row in parts[0]} & {row["problem_id"] for row in parts[1]}
    found = rows(folder, "metrics")
    assert [(row["step"], row["kind"]) for row in found if row["kind"] == "train"] == [(1, "train"), (2, "train")]
    assert all(math.isfinite(row["loss"]) for row in found if row["kind"] == "train")
    for part in parts:
        for step in (1, 2):
            mine = [row for row in part if row["step"] == step]
            values = [[row["reward"] for row in mine[i : i + GROUP]] for i in range(0, len(mine), GROUP)]
            assert group_advantages(values).ravel() == pytest.approx([row["advantage"] for row in mine], abs=1e-5)
    assert AutoModelForCausalLM.from_pretrained(folder / "model").num_parameters() > 0
    assert {path.name for path in folder.glob("*.sqlite")} == {"cache-0.sqlite", "cache-1.sqlite"}
