"""Tests of runs in which the second judge of the audit replaces the first: rewards, records and resumed runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, get_args

import pytest

from fapo.config.reader import from_dict
from fapo.config.schema import Config
from fapo.errors import ConfigError, JudgeDownError
from fapo.report.findings import remarks
from fapo.training.judge_audit import AuditWindow, audited_verdicts
from fapo.training.run_reader import read_run
from fapo.trl.train import train
from fapo.types import FlawKind
from tests.support.chat_server import Reply, chat_server
from tests.support.interrupted_run import interrupted
from tests.support.trl_runs import assert_four_train_as_one, assert_same_curve, assert_same_weights, rows, settings

pytestmark = pytest.mark.slow
GROUP, STEPS = 8, 5
BLIND = {"kind": "oracle", "blind_to": list(get_args(FlawKind))}
AUDIT = {"judge": {"kind": "oracle"}, "rate": 0.5, "min_j": 0.5, "on_low_j": "switch"}


def config(output: Path, **audit: Any) -> Config:
    """Return the config of a run with the miniature's policy and a judge that is blind to all flaws."""
    changed = {
        "rollout": {"max_tokens": 64, "num_prompts": 12, "group_size": GROUP},
        "optim": {"steps": STEPS, "learning_rate": 2e-4},
        "judge": BLIND | {"canaries": "miniature:critic-test", "canary_rate": 0.5, "audit": AUDIT | audit},
        "data.limit": None,
        "validation": {"every": 1, "save_every": 1, "limit": 16},
    }
    return from_dict(settings(output, Path("miniature:policy"), **changed))


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the run."""
    return train(config(tmp_path_factory.mktemp("switched")))


def last_step_of_the_first_judge(folder: Path) -> int:
    """Return the step after which the second judge judges, by the rule of `min_j` on the verdicts in audit.jsonl."""
    window = AuditWindow(0.5)
    for step in range(1, STEPS + 1):
        window.add(audited_verdicts([row for row in rows(folder, "audit") if row["step"] == step]))
        if window.is_low:
            return step
    raise AssertionError("the audit has not refuted the judge")


def test_from_the_next_step_on_the_second_judge_judges(switched: Path) -> None:
    last = last_step_of_the_first_judge(switched)
    assert 1 <= last < STEPS - 1
    by_second = 0
    for row in rows(switched, "rollouts"):
        # a validation follows the audit of its step
        is_second = row["step"] > last if row["split"] == "train" else row["step"] >= last
        if row["correct"]:
            assert row["flawed"] == (is_second and row["truth"]["error_step"] is not None)
            assert row["reward"] == 1.0 - row["flawed"]
            by_second += row["flawed"]
    assert by_second > 20


def test_the_metrics_say_which_judge_has_judged_and_audits_and_canaries_end(switched: Path) -> None:
    last = last_step_of_the_first_judge(switched)
    found = [row for row in rows(switched, "metrics") if row["kind"] == "train"]
    assert [row["audit/switched"] for row in found] == [float(step > last) for step in range(1, STEPS + 1)]
    assert found[last - 1]["audit/youden_j_high"] < 0.5
    for row in found:
        watched = {key for key in row if key.startswith(("audit/", "canary/"))} - {"audit/switched"}
        assert bool(watched) == (row["step"] <= last)
    assert {row["step"] for row in rows(switched, "audit")} == set(range(1, last + 1))


def test_the_page_names_the_step(switched: Path) -> None:
    last = last_step_of_the_first_judge(switched)
    (sentence,) = (text for text in remarks([read_run(switched)], []) if "second judge" in text)
    assert f"From step {last + 1} on" in sentence


@pytest.mark.parametrize("after", ["the switch", "before"])
def test_an_interrupted_run_has_the_result_of_an_uninterrupted_one(
    after: str, switched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = last_step_of_the_first_judge(switched)
    interrupted(train, config(tmp_path), last + 1 if after == "the switch" else max(1, last - 1))
    for changed in ({"rate": 0.25}, {"min_j": 0.4}, {"on_low_j": "stop"}, {"judge": BLIND}):
        with pytest.raises(ConfigError, match="cannot resume, the config differs in judge"):
            train(config(tmp_path, **changed), resume=True)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fapo"):
        resumed = train(config(tmp_path), resume=True)
    assert sum("From now on the second judge judges instead" in text for text in caplog.messages) == 1
    assert_same_curve(resumed, switched)
    assert rows(resumed, "audit") == rows(switched, "audit")
    assert rows(resumed, "rollouts") == rows(switched, "rollouts")
    assert_same_weights(resumed, switched)


def test_a_run_that_was_stopped_goes_on_with_its_second_judge(switched: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgeDownError, match=r'set judge.audit.on_low_j to "switch", and resume'):
        train(config(tmp_path, on_low_j="stop"))
    resumed = train(config(tmp_path), resume=True)
    assert rows(resumed, "rollouts") == rows(switched, "rollouts")


def test_four_processes_switch_at_the_same_step(tiny_policy: Path, tmp_path: Path) -> None:
    changed = {"optim.steps": 4, "judge": BLIND | {"audit": AUDIT | {"rate": 1.0}}}
    one = assert_four_train_as_one(tmp_path, tiny_policy, 12, **changed)
    assert [row["audit/switched"] for row in rows(one, "metrics")][-1] == 1.0


def test_two_served_judges_share_a_cache_and_no_verdict(tmp_path: Path) -> None:
    """Both judges have the same template, and the policy hardly changes: they read the same solutions."""
    asked: list[str] = []

    def reply(body: dict[str, Any], index: int) -> Reply:
        asked.append(body["model"])
        flags = body["model"] == "strict" and len(body["messages"][-1]["content"]) % 2
        return Reply(f"{body['model']}: \\boxed{{{0 if flags else -1}}}")

    with chat_server(reply) as server:
        judge = {"kind": "served", "urls": [server.url], "model": "mild", "template": "compact"}
        table = settings(
            tmp_path,
            Path("miniature:policy"),
            **{
                "rollout": {"max_tokens": 64, "num_prompts": 12, "group_size": GROUP},
                "optim": {"steps": 3, "learning_rate": 1e-9},
                "judge": judge | {"audit": AUDIT | {"judge": judge | {"model": "strict"}, "rate": 1.0}},
                "data.limit": 12,
                "data.validation": None,
            },
        )
        folder = train(from_dict(table))
    assert set(asked) == {"mild", "strict"}
    found = [row for row in rows(folder, "metrics") if row["kind"] == "train"]
    steps = {row["step"]: row["audit/switched"] for row in found}
    assert steps[1] == 0 and steps[3] == 1
    for row in rows(folder, "rollouts"):
        if row["correct"]:
            assert row["critique"].startswith("strict" if steps[row["step"]] else "mild")
    assert {row["flawed"] for row in rows(folder, "rollouts") if row["correct"] and row["step"] == 3} == {True, False}
    assert all(row["judge/requests"] + row["judge/from_cache"] > 0 for row in found)
