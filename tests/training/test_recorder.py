"""The recorder of a run with several processes: numbers and stops are those of all of them."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fapo.config.reader import from_dict
from fapo.config.schema import Config
from fapo.data.jsonl import read_jsonl
from fapo.errors import FapoError, JudgeDownError, UnscoredError
from fapo.inference.usage import find_usage
from fapo.judge.canaries import find_canaries
from fapo.judge.verdicts import NO_STEP
from fapo.rewards.advantages import group_advantages
from fapo.rewards.from_config import make_scorer
from fapo.training.recorder import Part, Recorder
from fapo.training.run_folder import RunFolder
from fapo.training.stop_rules import without_stops
from fapo.types import Completion, Problem, Reward, Rollout, ScoredRollout, Verdict
from tests.support.chat_server import Reply, chat_server

SOUND, FLAWED, FAILED, UNPARSABLE = (
    Verdict.from_step(None, "fine"),
    Verdict.from_step(0, "bad"),
    Verdict("failed", reason="HTTP 500"),
    Verdict("unparsable", critique="-1", reason=NO_STEP),
)


def config(output: Path, **judge: Any) -> Config:
    """Return a config with groups of 4 and a served judge."""
    return from_dict(
        {
            "name": "run",
            "task": "policy",
            "output": str(output),
            "model": {"path": "miniature:policy"},
            "data": {"train": "miniature:train"},
            "rollout": {"max_tokens": 24, "num_prompts": 2, "group_size": 4},
            "reward": {"kind": "fapo", "on_unscored": judge.pop("on_unscored", "mask")},
            "judge": {"kind": "served", "urls": ["http://localhost:1/v1"], "model": "genrm", **judge},
            "optim": {"steps": 1, "learning_rate": 1e-3},
        }
    )


def scored(verdict: Verdict | None, problem: str = "p") -> ScoredRollout:
    """Return a scored rollout; without a verdict it is wrong."""
    value = {SOUND: 1.0, FLAWED: 0.0, FAILED: None, UNPARSABLE: None, None: -1.0}[verdict]
    return ScoredRollout(
        Rollout(Problem(problem, "What?", "1"), "text", 9), verdict is not None, verdict, Reward(value)
    )


Result = tuple[Recorder, FapoError | None]


def in_processes(
    settled: Config, parts: list[list[ScoredRollout]], *, evaluating: str | None = None, requests: int = 0
) -> list[Result]:
    """Write a part of a batch in each of several threads; return their recorders, and the errors that stopped them."""
    meeting, sent = threading.Barrier(len(parts)), {}

    def written(rank: int) -> Result:
        def gather(own: list[Part]) -> list[Part]:
            sent[rank] = own
            meeting.wait(600)
            gathered = [part for other in sorted(sent) for part in sent[other]]
            meeting.wait(600)  # nobody sends again before all have read
            return gathered

        recorder = Recorder(settled, folders[rank], make_scorer(without_stops(settled)), gather)
        recorder.trainer = SimpleNamespace(state=SimpleNamespace(global_step=0))
        recorder.evaluating = evaluating
        recorder.record(parts[rank], {})
        if meter := find_usage(recorder.scorer.judge):
            meter.add([Completion("critique")] * requests)
        if canaries := find_canaries(recorder.scorer.judge):
            canaries.results += [(FLAWED if rank else SOUND, 0)] * 32
        try:
            recorder.write()
        except FapoError as error:
            return recorder, error
        return recorder, None

    folders = [RunFolder(settled, resume=False, rank=rank) for rank in range(len(parts))]
    with ThreadPoolExecutor(len(parts)) as threads:
        return list(threads.map(written, range(len(parts))))


def written_rows(settled: Config) -> list[dict[str, Any]]:
    """Return the rows of rollouts of all processes, in the order of their numbers."""
    folder = Path(settled.output) / settled.name
    return [
        row for file in sorted(folder.glob("rollouts*.jsonl"), key=lambda f: len(f.name)) for row in read_jsonl(file)
    ]


def test_a_group_that_is_split_over_processes_has_its_advantages(tmp_path: Path) -> None:
    settled = config(tmp_path)
    group = [scored(verdict) for verdict in (SOUND, FLAWED, None, FAILED)]
    batch = [*group, *[scored(None, "q") for _ in range(4)]]
    results = in_processes(settled, [batch[:3], batch[3:6], batch[6:]])
    assert [error for _, error in results] == [None] * 3
    expected = group_advantages([[s.reward.value for s in batch[i : i + 4]] for i in (0, 4)]).ravel()
    assert [row["advantage"] for row in written_rows(settled)] == pytest.approx(expected, abs=1e-6)
    summaries = [recorder.summary("train") for recorder, _ in results]
    assert summaries[0]["rollout/accuracy"] == 3 / 8
    assert summaries[0]["rollout/unscored_rate"] == 1 / 8
    assert summaries[0]["advantage/flawed"] == pytest.approx(expected[1])
    assert all(summary == pytest.approx(summaries[0], nan_ok=True) for summary in summaries[1:])


def test_a_validation_counts_each_problem_once(tmp_path: Path) -> None:
    settled = config(tmp_path)
    parts = [[scored(SOUND, "a"), scored(None, "b")], [scored(FLAWED, "c"), scored(SOUND, "a")]]  # "a" fills up
    (recorder, _), _ = in_processes(settled, parts, evaluating="easy")
    assert [row["problem_id"] for row in written_rows(settled)] == ["a", "b", "c"]
    assert recorder.summary("easy")["rollout/accuracy"] == 2 / 3
    assert recorder.summary("easy") == {}


def test_canaries_of_all_processes_are_measured_together(tmp_path: Path) -> None:
    settled = config(tmp_path, canaries="miniature:critic-test", canary_min_f1=0.6)
    (recorder, error), (_, other) = in_processes(settled, [[scored(SOUND)] * 4] * 2)
    assert (error, other) == (None, None), "F1 is 2/3; that of the first process alone is 0"
    assert recorder.summary("train")["canary/recall"] == 0.5
    stopped = in_processes(config(tmp_path / "high", canaries="miniature:critic-test", canary_min_f1=0.7), [[], []])
    assert all(isinstance(error, JudgeDownError) and "F1 0.67" in str(error) for _, error in stopped)


def test_one_failing_judge_stops_all_processes(tmp_path: Path) -> None:
    halves = [[scored(SOUND)] * 8, [scored(FAILED)] * 8]
    allowed = in_processes(config(tmp_path), halves)
    assert [error for _, error in allowed] == [None, None], "half of all judgements may fail"
    halves[0][0] = scored(FAILED)
    stopped = in_processes(config(tmp_path / "more"), halves)
    assert all(isinstance(error, JudgeDownError) and "9 of the last 16" in str(error) for _, error in stopped)


def test_a_missing_verdict_stops_all_processes_where_verdicts_are_needed(tmp_path: Path) -> None:
    settled = config(tmp_path, on_unscored="raise")
    stopped = in_processes(settled, [[scored(SOUND)] * 4, [scored(SOUND), scored(FAILED, "q")] * 2])
    assert all(isinstance(error, UnscoredError) and "problem q: HTTP 500" in str(error) for _, error in stopped)
    assert len(written_rows(settled)) == 8, "they can be looked at"


def test_a_judge_without_verdicts_is_warned_about_once_by_one_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [[scored(UNPARSABLE)] * 4, [scored(UNPARSABLE)] * 4]
    with caplog.at_level(logging.WARNING, "fapo"):
        in_processes(config(tmp_path / "validation"), parts, evaluating="test")
        assert not caplog.records, "validation rollouts do not count"
        ((recorder, _), _) = in_processes(config(tmp_path / "train"), parts)
        recorder.verdicts.watch([UNPARSABLE] * 8)
    assert caplog.text.count("no verdict in 8 of 8 judgements (100%); 8 times: no boxed step") == 1
    assert "for example: '-1'" in caplog.text
    assert caplog.text.count("what to try") == 1


def test_tokens_and_cost_of_the_judge_are_metrics(tmp_path: Path) -> None:
    settled = config(tmp_path, prices=[1.0, 0.5, 2.0])

    def asked(recorder: Recorder, num: int) -> None:
        meter = find_usage(recorder.scorer.judge)
        assert meter is not None
        meter.add([Completion("c", 10, prompt_tokens=100, cached_tokens=20)] * num)
        recorder.record([scored(SOUND)] * 4, {})
        recorder.write()

    recorder = Recorder(settled, RunFolder(settled, resume=False), make_scorer(without_stops(settled)))
    recorder.trainer = SimpleNamespace(state=SimpleNamespace(global_step=0))
    asked(recorder, 2)
    asked(recorder, 1)
    found = recorder.summary("train")
    assert {name: found[f"judge/{name}"] for name in ("requests", "prompt_tokens", "cached_tokens")} == {
        "requests": 3,
        "prompt_tokens": 300,
        "cached_tokens": 60,
    }
    assert found["judge/cost"] == pytest.approx((240 * 1.0 + 60 * 0.5 + 30 * 2.0) / 1e6)
    recorder.evaluating = "easy"
    asked(recorder, 4)
    assert recorder.summary("easy")["judge/requests"] == 4, "validations have their own"
    recorder.evaluating = None
    asked(recorder, 0)
    assert "judge/requests" not in recorder.summary("train")


def test_tokens_of_all_processes_are_summed(tmp_path: Path) -> None:
    settled = config(tmp_path)
    results = in_processes(settled, [[scored(SOUND)] * 4] * 2, requests=3)
    assert [recorder.summary("train")["judge/requests"] for recorder, _ in results] == [6, 6]
    assert all("judge/cost" not in recorder.summary("train") for recorder, _ in results)


def test_tokens_and_cost_of_the_second_judge_are_metrics(tmp_path: Path) -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        second = {"kind": "served", "urls": [server.url], "model": "gold", "prices": [1e6, 0.0, 0.0]}
        settled = config(tmp_path, audit={"judge": second, "rate": 1.0})
        recorder = Recorder(settled, RunFolder(settled, resume=False), make_scorer(without_stops(settled)))
        recorder.trainer = SimpleNamespace(state=SimpleNamespace(global_step=0))
        recorder.record([scored(SOUND, "p"), scored(SOUND, "p"), scored(None), scored(None)], {})
        recorder.write()
        found = recorder.summary("train")
    assert len(server.requests) == 1, "equal rollouts"
    assert (found["audit/requests"], found["audit/prompt_tokens"], found["audit/cost"]) == (1, 1, 1.0)
    assert "judge/requests" not in found
