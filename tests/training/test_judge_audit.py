"""The audit of a judge: its sample, its rates, the rule that stops a run, several processes, resumed runs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config, FapoReward
from fapo.data.jsonl import read_jsonl
from fapo.errors import ConfigError, JudgeDownError
from fapo.rewards.from_config import check_scorer, make_scorer
from fapo.rewards.policy import corrected_reward
from fapo.training.judge_audit import (
    MIN_AUDITED,
    MIN_CORRECTED_J,
    WINDOW,
    AuditedVerdict,
    AuditWindow,
    JudgeAudit,
    conservative_rates,
)
from fapo.training.recorder import Recorder
from fapo.training.run_folder import RunFolder
from fapo.training.stop_rules import StopRules
from fapo.types import Reward, Rollout, ScoredRollout, Verdict
from tests.support.chat_server import Reply, chat_server
from tests.support.miniature import RIGHT, TASK
from tests.support.paths import ROOT
from tests.support.processes import wait_for

GUESS = "\\boxed{3}"
ORACLE = {"judge": {"kind": "oracle"}, "rate": 1.0}


def config(output: Path, audit: dict[str, Any] = ORACLE) -> Config:
    """Return a config with a judge that is blind to guesses, and an audit."""
    return from_dict(
        {
            "name": "run",
            "task": "policy",
            "output": str(output),
            "model": {"path": "miniature:policy"},
            "data": {"train": "miniature:train"},
            "rollout": {"max_tokens": 24, "num_prompts": 2, "group_size": 4},
            "reward": {"kind": "fapo"},
            "judge": {"kind": "oracle", "blind_to": ["guess"], "audit": audit},
            "optim": {"steps": 4, "learning_rate": 1e-3},
        }
    )


def rollout(response: str, flawed: bool | None, *, correct: bool = True) -> ScoredRollout:
    """Return a rollout of TASK with the verdict of a judge; None is no verdict."""
    verdict = Verdict("failed", reason="HTTP 500") if flawed is None else Verdict.from_step(0 if flawed else None, "")
    return ScoredRollout(Rollout(TASK.problem(), response, 9), correct, verdict, Reward(1.0))


def audit_of(settled: Config, seed: int = 0) -> JudgeAudit:
    """Return the audit of a config."""
    assert settled.judge and settled.judge.audit
    return JudgeAudit(settled.judge.audit, seed)


# --- the sample --------------------------------------------------------------------------------------------------


def test_only_correct_rollouts_with_a_verdict_are_read_flagged_and_cleared_alike(tmp_path: Path) -> None:
    audit = audit_of(config(tmp_path))
    fine, missed, wrongly = rollout(RIGHT, False), rollout(GUESS, False), rollout(RIGHT, True)
    audit.begin(3, [fine, rollout(RIGHT, None), missed, rollout("\\boxed{4}", False, correct=False), wrongly])
    audited, rows = audit.finish()
    assert audited == [AuditedVerdict(False, False), AuditedVerdict(False, True), AuditedVerdict(True, False)]
    assert [row["response"] for row in rows] == [RIGHT, GUESS, RIGHT]
    assert rows[1]["step"] == 3 and rows[1]["second_judge"]["flawed"] and not rows[1]["judge"]["flawed"]
    assert audit.finish() == ([], []), "each verdict counts once"


def test_the_sample_has_the_rate_and_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    settled, one = config(tmp_path, ORACLE | {"rate": 0.1}), rollout(RIGHT, False)
    many = [replace(one, rollout=replace(one.rollout, problem=replace(TASK.problem(), id=str(i)))) for i in range(3000)]

    def drawn(seed: int, step: int) -> list[str]:
        audit = audit_of(settled, seed)
        audit.begin(step, many)
        return [row["problem_id"] for row in audit.finish()[1]]

    assert len(drawn(0, 1)) / 3000 == pytest.approx(0.1, abs=0.02)
    assert drawn(0, 1) == drawn(0, 1) != drawn(0, 2)
    assert drawn(1, 1) != drawn(0, 1)


def test_a_served_judge_reads_while_the_policy_is_updated(tmp_path: Path) -> None:
    reading, updating = threading.Event(), threading.Event()

    def reply(body: dict[str, Any], index: int) -> Reply:
        reading.set()
        assert updating.wait(600)
        return Reply("The first step is wrong. \\boxed{0}")

    with chat_server(reply) as server:
        served = {"kind": "served", "urls": [server.url], "model": "gold", "template": "compact"}
        audit = audit_of(config(tmp_path, {"judge": served, "rate": 1.0}))
        audit.begin(1, [rollout(GUESS, False)])
        assert reading.wait(600), "it reads before anybody waits for it"
        updating.set()
        audited, (row,) = audit.finish()
    assert audited == [AuditedVerdict(False, True)]
    assert row["second_judge"]["critique"] == "The first step is wrong. \\boxed{0}"


def test_a_process_that_ends_does_not_wait_for_a_served_judge(tmp_path: Path) -> None:
    """An error, or Ctrl-C twice, ends a run while the second judge reads."""
    code = """
        import sys
        from pathlib import Path
        from tests.training.test_judge_audit import GUESS, audit_of, config, rollout
        served = {"kind": "served", "urls": [sys.argv[1]], "model": "gold", "template": "compact"}
        audit_of(config(Path(sys.argv[2]), {"judge": served, "rate": 1.0})).begin(1, [rollout(GUESS, False)])
        sys.stdin.read()
    """
    with chat_server(Reply(delay=600)) as server:
        command = [sys.executable, "-c", textwrap.dedent(code), server.url, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        wait_for(lambda: bool(server.requests) or process.poll() is not None)
        assert process.communicate(timeout=300)[1] == ""
        assert process.returncode == 0
        assert len(server.requests) == 1, "which was not answered"


def test_a_second_judge_that_is_down_stops_nothing_and_is_counted(tmp_path: Path) -> None:
    with chat_server(lambda body, index: Reply(status=400)) as server:
        served = {"kind": "served", "urls": [server.url], "model": "gold", "template": "compact"}
        audit = audit_of(config(tmp_path, {"judge": served, "rate": 1.0}))
        audit.begin(1, [rollout(GUESS, False)] * 2)
        audited, _ = audit.finish()
    window = AuditWindow(min_j=0.9)
    window.add(audited * MIN_AUDITED)
    window.check()
    assert window.metrics()["audit/invalid_rate"] == 1.0
    assert window.metrics()["audit/num"] == 0


# --- rates, and the rule that stops a run ------------------------------------------------------------------------


def window_of(true_positives: int, misses: int, false_positives: int, cleared: int, min_j: float = 0.0) -> AuditWindow:
    """Return a window with these numbers of verdicts."""
    window = AuditWindow(min_j)
    window.add([AuditedVerdict(True, True)] * true_positives + [AuditedVerdict(False, True)] * misses)
    window.add([AuditedVerdict(True, False)] * false_positives + [AuditedVerdict(False, False)] * cleared)
    return window


def test_the_rates_of_the_judge_take_the_second_judge_for_the_truth() -> None:
    found = window_of(6, 2, 3, 29).metrics()
    assert found["audit/num"] == 40
    assert found["audit/recall"] == 6 / 8
    assert found["audit/false_positive_rate"] == 3 / 32
    assert found["audit/youden_j"] == pytest.approx(6 / 8 - 3 / 32)
    assert found["audit/gap"] == pytest.approx((8 - 9) / 40), "the judge flags one more than there are"
    assert AuditWindow().metrics() == {}


def test_the_interval_of_the_gap_is_that_of_two_rates_of_the_same_rollouts() -> None:
    """No rollout is both missed and flagged wrongly, so that the difference varies more than that of two samples."""
    rng, truth, hits = np.random.default_rng(0), 0.3 - 0.2, 0
    for missed, wrongly, others in rng.multinomial(WINDOW, [0.3, 0.2, 0.5], size=400).tolist():
        found = window_of(others // 2, missed, wrongly, others - others // 2).metrics()
        hits += found["audit/gap_low"] <= truth <= found["audit/gap_high"]
    assert 0.93 * 400 <= hits <= 0.97 * 400


counts = st.integers(0, 60)


@given(counts, counts, counts, counts)
def test_the_intervals_hold_the_rates_and_the_window_is_bounded(tp: int, fn: int, fp: int, tn: int) -> None:
    window = window_of(tp, fn, fp, tn)
    assert len(window.recent) == min(tp + fn + fp + tn, WINDOW)
    found = window.metrics()
    defined = {"recall": tp + fn, "false_positive_rate": fp + tn, "f1": tp + fn, "youden_j": (tp + fn) * (fp + tn)}
    for name, num in (defined | {"gap": tp + fn + fp + tn}).items():
        if num and tp + fn + fp + tn <= WINDOW:
            low, value, high = (found[f"audit/{name}{end}"] for end in ("_low", "", "_high"))
            assert -1 <= low <= value <= high <= 1
            assert low < high


def test_the_run_stops_only_where_j_is_surely_too_low() -> None:
    window_of(1, 30, 0, 60).check()  # 0: only watch
    window_of(1, 30, 0, 60, min_j=0.1).check()  # the interval reaches above 0.1
    window_of(1, 10, 0, 20, min_j=0.9).check()  # too few
    with pytest.raises(JudgeDownError, match=r"Youden's J 0.03, at most 0.16, on the last 91 rollouts .*min_j is 0.5"):
        window_of(1, 30, 0, 60, min_j=0.5).check()
    with pytest.raises(
        JudgeDownError,
        match=r"J at most 0.09, on the last 40 rollouts .* \(the second judge found none .* fully correct\)",
    ):
        window_of(0, 40, 0, 0, min_j=0.5).check()  # the judge clears everything, and everything is flawed
    with pytest.raises(JudgeDownError, match=r"J at most 0.09, .* found none of them flawed\)"):
        window_of(0, 0, 40, 0, min_j=0.5).check()
    window_of(40, 0, 0, 0, min_j=0.9).check()
    window_of(0, 0, 0, 40, min_j=0.9).check()
    window_of(0, 30, 0, 0, min_j=0.9).check()  # too few


def test_in_a_long_run_a_judge_just_above_the_limit_is_stopped_by_chance() -> None:
    """A run looks at the interval at every step; these are the numbers of docs/reliability.md."""

    def is_stopped(j: float, rng: np.random.Generator) -> bool:
        window = AuditWindow(min_j=0.3)
        for _ in range(400):
            gold = rng.random(5) < 0.1
            flagged = rng.random(5) < np.where(gold, 0.1 + j, 0.1)
            window.add(AuditedVerdict(bool(a), bool(b)) for a, b in zip(flagged, gold, strict=True))
            if window.is_low:
                return True
        return False

    rng = np.random.default_rng(0)
    assert [sum(is_stopped(j, rng) for _ in range(20)) for j in (0.35, 0.5)] == [8, 0]


# --- rates for which rewards are corrected -----------------------------------------------------------------------


@given(counts, counts, counts, counts)
def test_the_rates_of_a_correction_flatter_the_judge_and_are_always_defined(tp: int, fn: int, fp: int, tn: int) -> None:
    found = window_of(tp, fn, fp, tn).counts()
    recall, rate = conservative_rates(found)
    assert 0 <= rate < recall <= 1
    assert recall - rate >= MIN_CORRECTED_J - 1e-9
    assert not found.num_flawed or recall >= min(found.recall, 1.0) - 1e-9
    assert found.fp + found.tn == 0 or rate <= found.fp / (found.fp + found.tn) + 1e-9
    for flawed in (True, False):
        value = corrected_reward(True, flawed, 1.0, recall, rate)
        assert value is not None
        assert abs(value - 1) <= 1 / MIN_CORRECTED_J + 1e-6


def test_with_more_verdicts_the_rates_approach_those_of_the_judge() -> None:
    found = [conservative_rates(window_of(3 * n, 7 * n, 2 * n, 8 * n).counts()) for n in (0, 1, 4, 12)]
    assert found[0] == (1.0, 0.0), "no correction without verdicts"
    assert found[1] == pytest.approx((0.603, 0.057), abs=1e-3)
    assert found[3] == pytest.approx((0.395, 0.138), abs=0.03)
    gaps = [recall - rate for recall, rate in found]
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize(("tp", "fn", "fp", "tn"), [(0, 100, 0, 100), (0, 100, 100, 0), (100, 0, 128, 0)])
def test_a_judge_no_better_than_chance_is_corrected_as_far_as_it_may_be(tp: int, fn: int, fp: int, tn: int) -> None:
    recall, rate = conservative_rates(window_of(tp, fn, fp, tn).counts())
    assert recall - rate == pytest.approx(MIN_CORRECTED_J)


def test_below_the_minimum_the_rates_of_the_config_hold() -> None:
    given_rates = FapoReward(shift=3.0, judge_recall=0.9, judge_false_positive_rate=0.1)
    assert window_of(5, 10, 5, MIN_AUDITED - 21).corrected(given_rates) == given_rates
    measured = window_of(5, 10, 5, MIN_AUDITED - 20).corrected(given_rates)
    assert measured.judge_recall < 0.9
    assert measured.penalty == given_rates.penalty == 0.5


# --- in a run ------------------------------------------------------------------------------------------------------


def recorder_of(settled: Config, rank: int = 0, gather: Any = list, *, resume: bool = False) -> Recorder:
    """Return the recorder of one process at step 0."""
    recorder = Recorder(settled, RunFolder(settled, resume=resume, rank=rank), make_scorer(settled), gather)
    recorder.trainer = SimpleNamespace(state=SimpleNamespace(global_step=0))
    return recorder


def test_audits_of_all_processes_are_measured_together_and_each_writes_its_own(tmp_path: Path) -> None:
    settled, meeting, sent = config(tmp_path), threading.Barrier(2), {}

    def summary(rank: int) -> dict[str, float]:
        def gather(own: list[Any]) -> list[Any]:
            meeting.wait(600)
            sent[rank] = own
            meeting.wait(600)
            return [*sent[0], *sent[1]]

        recorder = recorders[rank]
        recorder.gather = gather
        recorder.record([rollout(GUESS, False)] * 4 if rank else [rollout(RIGHT, False)] * 4, {})
        recorder.write()
        return recorder.summary("train")

    recorders = [recorder_of(settled, rank) for rank in range(2)]
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(summary, range(2))
    assert first == pytest.approx(second, nan_ok=True)
    assert (first["audit/num"], first["audit/recall"], first["audit/gap"]) == (8, 0.0, 0.5)
    for name, response in (("audit.jsonl", RIGHT), ("audit-1.jsonl", GUESS)):
        assert [row["response"] for row in read_jsonl(tmp_path / "run" / name)] == [response] * 4


def test_a_resumed_run_knows_its_earlier_audits_and_not_those_of_repeated_steps(tmp_path: Path) -> None:
    settled = config(tmp_path)
    recorder = recorder_of(settled)
    for step in range(2):
        recorder.trainer.state.global_step = step
        recorder.record([rollout(GUESS, False)] * 4, {})
        recorder.write()
        recorder.summary("train")
    RunFolder(settled, resume=True).rewind(1)
    resumed = recorder_of(settled, resume=True)
    resumed.trainer.state.global_step = 1
    resumed.record([rollout(RIGHT, False)] * 8, {})
    resumed.write()
    assert resumed.summary("train")["audit/num"] == 4 + 8


def test_the_audits_of_a_step_keep_the_order_of_the_processes(tmp_path: Path) -> None:
    settled = config(tmp_path)
    for rank in (11, 2, 0, 1):
        RunFolder(settled, resume=True, rank=rank).audits([{"step": 1, "rank": rank}, {"step": 0, "rank": rank}])
    found = RunFolder(settled, resume=True).earlier_audits()
    assert [(row["step"], row["rank"]) for row in found] == [(step, rank) for step in (0, 1) for rank in (0, 1, 2, 11)]


def test_a_batch_is_corrected_for_the_audits_before_and_its_reasons_for_no_reward_stay(tmp_path: Path) -> None:
    recorder = recorder_of(config(tmp_path, ORACLE | {"correct": True}))
    recorder.record([rollout(GUESS, False)] * 20 + [rollout(RIGHT, False)] * 20, {})
    assert recorder.write() == [1.0] * 40
    assert recorder.summary("train")["reward/judge_recall"] == 1.0
    wrong = replace(rollout("\\boxed{4}", None, correct=False), verdict=None, reward=Reward(-1.0))
    masked = replace(rollout(RIGHT, None), reward=Reward(None))
    by_outcome = rollout(RIGHT, None)
    batch = [rollout(RIGHT, True), rollout(RIGHT, False), wrong, masked, by_outcome, *[rollout(RIGHT, False)] * 3]
    recorder.record(batch, {})
    found = recorder.write()
    assert found is not None
    assert found[:5] == pytest.approx([1 - 1 / MIN_CORRECTED_J, 1.0, -1.0, None, 1.0])
    metrics = recorder.summary("train")
    assert (metrics["reward/judge_recall"], metrics["reward/judge_false_positive_rate"]) == (MIN_CORRECTED_J, 0.0)
    assert [row["reward"] for row in read_jsonl(tmp_path / "run/rollouts.jsonl")][40:] == found


def test_rewards_of_a_validation_are_not_corrected(tmp_path: Path) -> None:
    recorder = recorder_of(config(tmp_path, ORACLE | {"correct": True}))
    recorder.evaluating = "easy"
    recorder.record([rollout(GUESS, False)] * 4, {})
    assert recorder.write() is None
    assert not any(name.startswith("reward/") for name in recorder.summary("easy"))


@pytest.mark.parametrize("reward", [{"kind": "outcome"}, {"kind": "step_ratio"}, {"kind": "decoupled"}])
def test_only_the_reward_of_fapo_can_be_corrected(reward: dict[str, Any], tmp_path: Path) -> None:
    table = to_dict(config(tmp_path, ORACLE | {"correct": True})) | {"reward": reward}
    with pytest.raises(ConfigError, match=r'judge.audit.correct is for reward.kind "fapo"'):
        from_dict(table)


def test_validations_are_not_audited(tmp_path: Path) -> None:
    recorder = recorder_of(config(tmp_path))
    recorder.evaluating = "easy"
    recorder.record([rollout(GUESS, False)] * 4, {})
    recorder.write()
    assert "audit/num" not in recorder.summary("easy")
    assert not (tmp_path / "run/audit.jsonl").exists()


def test_a_run_with_a_blind_judge_is_stopped_by_its_audit(tmp_path: Path) -> None:
    recorder = recorder_of(config(tmp_path, ORACLE | {"min_j": 0.5}))
    batch = [rollout(GUESS, False)] * 20 + [rollout(RIGHT, False)] * 20
    recorder.record(batch, {})
    recorder.write()
    assert recorder.summary("train")["audit/youden_j"] == 0
    recorder.record(batch, {})
    with pytest.raises(JudgeDownError, match=r"judge\.audit\.min_j"):
        recorder.write()


@pytest.mark.parametrize("watched", [{"canaries": "miniature:critic-test"}, {"audit": ORACLE}])
def test_a_second_judge_is_not_watched_itself(watched: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"judge.audit: `judge` of an audit is not watched itself"):
        config(tmp_path, {"judge": {"kind": "oracle"} | watched})


def test_a_mistake_in_the_second_judge_is_found_under_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"judge.audit.judge.votes: .*does not belong to kind \"oracle\""):
        config(tmp_path, {"judge": {"kind": "oracle", "votes": 3}})
    with pytest.raises(ConfigError, match=r"judge.audit.judge.blindto: unknown key"):
        config(tmp_path, {"judge": {"kind": "oracle", "blindto": []}})


SWITCH = ORACLE | {"min_j": 0.5, "on_low_j": "switch"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judge.audit.min_j": 0.0}, r'judge.audit: `on_low_j` "switch" needs the limit `min_j` above 0'),
        ({"judge.audit.correct": True}, r'judge.audit: `correct` cannot be used with `on_low_j` "switch"'),
        ({"judge.audit.judge": {"kind": "adapter", "model": "base"}}, r"`judge` of an audit has weights of its own"),
        ({"reward": {"kind": "outcome"}}, r'on_low_j "switch" does nothing with reward.kind "outcome"'),
        ({"reward": {"kind": "fapo", "judge_recall": 0.8}}, r"judge_recall and .* are those of one judge"),
    ],
)
def test_a_switch_that_makes_no_sense_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    table = to_dict(config(tmp_path, SWITCH))
    for key, value in changed.items():
        inner = table
        *parents, last = key.split(".")
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    with pytest.raises(ConfigError, match=message):
        from_dict(table)


def test_judges_that_replace_each_other_read_the_same_steps(tmp_path: Path) -> None:
    local = {"kind": "local", "model": "miniature:genrm", "template": "locate"}
    with pytest.raises(ConfigError, match=r"into lines and judge.audit.judge, .*, into paragraphs; set `steps`"):
        check_scorer(config(tmp_path, SWITCH | {"judge": local}))
    check_scorer(config(tmp_path, SWITCH | {"judge": local | {"steps": "lines"}}))
    by_ratio = to_dict(config(tmp_path, SWITCH | {"judge": local | {"template": "yes_no", "steps": "lines"}}))
    with pytest.raises(ConfigError, match=r"judge.audit.judge.template: 'yes_no' asks yes or no"):
        check_scorer(from_dict(by_ratio | {"reward": {"kind": "step_ratio"}}))


def test_the_second_judge_is_stopped_by_its_own_failure_rate(tmp_path: Path) -> None:
    served = {"kind": "served", "urls": ["http://127.0.0.1:9/v1"], "model": "gold", "steps": "lines"}
    rules = StopRules(config(tmp_path, SWITCH | {"judge": served | {"max_failure_rate": 0.1}}))
    failed = [rollout(RIGHT, None)] * 8
    rules.check(failed)  # an oracle cannot fail
    rules.audit.add([AuditedVerdict(False, True), AuditedVerdict(False, False)] * MIN_AUDITED)
    rules.check([])  # the run is not stopped
    assert rules.switch_if_low()
    assert not rules.switch_if_low(), "once"
    assert rules.judge and rules.judge.kind == "served"
    with pytest.raises(JudgeDownError, match="the judge is down"):
        rules.check(failed)


# --- a person as the second judge ----------------------------------------------------------------------------------

PERSON = {"judge": {"kind": "person"}, "rate": 1.0}


def test_for_a_person_rollouts_are_drawn_and_recorded_and_nothing_is_measured(tmp_path: Path) -> None:
    settled = config(tmp_path, PERSON)
    recorder = recorder_of(settled)
    recorder.record([rollout(GUESS, False)] * 40, {})
    recorder.write()
    assert not any(key.startswith("audit/") for key in recorder.summary("train"))
    found = list(read_jsonl(tmp_path / "run/audit.jsonl"))
    assert [(row["response"], row["second_judge"]["status"]) for row in found] == [(GUESS, "skipped")] * 40
    resumed = recorder_of(settled, resume=True)
    resumed.record([rollout(GUESS, False)] * 40, {})
    resumed.write()
    assert not any(key.startswith("audit/") for key in resumed.summary("train"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"min_j": 0.3}, "`min_j` cannot be used with a person"),
        ({"correct": True}, "`correct` cannot be used with a person"),
        (
            {"judge": {"kind": "person", "model": "m"}},
            'judge.audit.judge.model: `model` does not belong to kind "person"',
        ),
    ],
)
def test_a_run_does_not_wait_for_a_person(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, PERSON | changed)


def test_a_person_is_no_judge_of_the_rewards(tmp_path: Path) -> None:
    table = to_dict(config(tmp_path)) | {"judge": {"kind": "person"}}
    with pytest.raises(ConfigError, match=r"judge.kind: should be .*, not 'person'"):
        from_dict(table)
