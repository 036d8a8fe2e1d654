"""Canaries: they look like rollouts, they measure the judge, and a judge that gets worse is noticed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.base_models.writers import Habits, trace
from fapo.config.reader import from_dict, judge_config
from fapo.data.jsonl import write_jsonl
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.data.miniature.world import tasks
from fapo.data.steps import split_steps
from fapo.errors import DataError, JudgeDownError
from fapo.judge.canaries import MIN_CANARIES, WINDOW, Canaries, CanaryWindow, find_canaries
from fapo.judge.from_config import make_judge
from fapo.judge.oracle import oracle
from fapo.judge.template import NO_REFERENCE, build_prompt, load_template
from fapo.rewards.from_config import make_scorer
from fapo.types import LabelledSolution, Problem, Rollout, StepRule, Verdict
from tests.support.chat_server import Reply, chat_server


def labelled(num: int) -> list[LabelledSolution]:
    import random

    rng, found = random.Random(0), []
    for task in tasks(0, num):
        response = trace(rng, task, Habits())
        truth = examine(task, response)
        if is_answer_correct(task, response):
            steps = tuple(step.strip() for step in split_steps(response, "lines"))
            found.append(LabelledSolution(task.problem("miniature-train"), steps, truth.error_step, True))
    return found


KNOWN = labelled(300)
ROLLOUTS = [Rollout(s.problem, "\n".join(s.steps)) for s in KNOWN[:100]]


class Watched:
    """The oracle, which from some call on finds no error any more."""

    def __init__(self, corrupt_after: int = 10**9, status: str = "ok") -> None:
        self.oracle, self.corrupt_after, self.status, self.asked = oracle(), corrupt_after, status, list[int]()

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        self.asked.append(len(rollouts))
        if self.status == "failed":
            return [Verdict("failed", reason="down")] * len(rollouts)
        if len(self.asked) > self.corrupt_after:
            return [Verdict.from_step(None, "fine")] * len(rollouts)
        return await self.oracle(rollouts)


def test_the_rollouts_get_their_own_verdicts() -> None:
    judge = Watched()
    canaries = Canaries(judge, KNOWN, 0.2)
    assert asyncio.run(canaries(ROLLOUTS)) == asyncio.run(oracle()(ROLLOUTS))
    assert judge.asked == [100, 20]
    assert canaries.metrics() == {
        "canary/precision": 1.0,
        "canary/recall": 1.0,
        "canary/f1": 1.0,
        "canary/location": 1.0,
        "canary/invalid_rate": 0.0,
    }


def test_canaries_without_a_flawed_one_have_no_f1_and_stop_nothing() -> None:
    window = CanaryWindow(0.9)
    window.add([(Verdict.from_step(None), None)] * MIN_CANARIES)
    assert math.isnan(window.metrics()["canary/f1"])
    window.check()


@pytest.mark.parametrize(("rate", "fewest", "most"), [(0.0, 100, 100), (0.05, 105, 106), (1.0, 200, 201)])
def test_the_number_of_canaries_follows_from_the_rate(rate: float, fewest: int, most: int) -> None:
    judge = Watched()
    canaries = Canaries(judge, KNOWN, rate)
    asyncio.run(canaries(ROLLOUTS))
    assert fewest <= sum(judge.asked) <= most
    assert bool(canaries.metrics()) == (rate > 0)


def test_the_choice_follows_from_seed_and_rollouts() -> None:
    seen: list[list[str]] = []
    known = {"\n\n".join(solution.steps) for solution in KNOWN[100:]}

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        if rollouts[0].response in known:
            seen.append([rollout.response for rollout in rollouts])
        return [Verdict.from_step(None)] * len(rollouts)

    for seed, rollouts in ((0, ROLLOUTS), (0, ROLLOUTS), (1, ROLLOUTS), (0, ROLLOUTS[1:])):
        asyncio.run(Canaries(judge, KNOWN[100:], 0.2, seed=seed)(rollouts))
    assert seen[0] == seen[1]
    assert seen[0] != seen[2] and set(seen[0]) != set(seen[3])


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_a_judge_sabotaged_mid_run_is_noticed(rate: float) -> None:
    """The judge is corrupt after 40 batches. It is noticed within one window of canaries, and not earlier."""
    judge = Watched(corrupt_after=80)
    canaries = Canaries(judge, KNOWN, rate, min_f1=0.8)
    with pytest.raises(
        JudgeDownError, match=r"not to be trusted: F1 0\.\d\d on the last \d+ .*judge.canary_min_f1 is 0.8"
    ):
        for _ in range(100):
            asyncio.run(canaries(ROLLOUTS))
    delay = len(judge.asked) // 2 - 40
    assert 1 <= delay <= WINDOW / (100 * rate) + 1


def test_a_judge_that_is_inverted_is_noticed_although_a_cache_has_answered_all_canaries_before(tmp_path: Path) -> None:
    template, known = load_template("compact"), KNOWN[:10]
    labels = {build_prompt(template, s.problem.text, s.problem.reference, s.steps)[-1]["content"]: s for s in known}
    inverted = False

    def answer(body: dict[str, Any], index: int) -> Reply:
        label = labels[body["messages"][-1]["content"]].error_step
        return Reply(f"\\boxed{{{(-1 if label is None else label) if not inverted else 0 if label is None else -1}}}")

    data = tmp_path / "known.jsonl"
    columns = [(s.problem.id, s.problem.text, s.steps, -1 if s.error_step is None else s.error_step) for s in known]
    write_jsonl(data, [dict(zip(("id", "problem", "steps", "label"), row, strict=True)) for row in columns])
    labels = {build_prompt(template, s.problem.text, "", s.steps)[-1]["content"]: s for s in known} | labels
    with chat_server(answer) as server:
        table = {"kind": "served", "urls": [server.url], "model": "m", "template": "compact"}
        table |= {"cache": str(tmp_path / "cache.sqlite"), "canaries": str(data), "canary_rate": 1.0}
        judge = make_judge(judge_config(table | {"canary_min_f1": 0.9}, "test"))
        canaries = find_canaries(judge)
        assert canaries

        async def run() -> None:
            nonlocal inverted
            for _ in range(10):
                await judge(ROLLOUTS[:10])
            assert canaries.metrics()["canary/f1"] == 1.0
            num_requests, inverted = len(server.requests), True
            with pytest.raises(JudgeDownError, match="not to be trusted"):
                for _ in range(WINDOW // 10 + 1):
                    await judge(ROLLOUTS[:10])
            for body in server.requests[num_requests:]:
                assert NO_REFERENCE in body["messages"][-1]["content"], "rollouts still come from the cache"

        asyncio.run(run())


def test_failed_verdicts_do_not_count_for_the_quality() -> None:
    canaries = Canaries(Watched(status="failed"), KNOWN, 1.0, min_f1=0.9)
    assert {v.status for v in asyncio.run(canaries(ROLLOUTS))} == {"failed"}
    assert canaries.metrics() == {}


def test_too_few_canaries_never_stop_the_run() -> None:
    canaries = Canaries(Watched(corrupt_after=0), KNOWN, (MIN_CANARIES - 1) / 100, min_f1=0.9)
    asyncio.run(canaries(ROLLOUTS[:99]))
    assert canaries.metrics()["canary/f1"] == 0.0


def test_canaries_need_flawed_and_fully_correct_solutions() -> None:
    with pytest.raises(
        DataError, match=r"judge.canaries: 0 flawed and \d+ fully correct solutions with a correct answer; needs"
    ):
        Canaries(Watched(), [s for s in KNOWN if s.error_step is None], 0.1)


def test_solutions_with_a_wrong_answer_are_no_canaries() -> None:
    wrong = [replace(s, problem=replace(s.problem, id="wrong"), correct=False) for s in KNOWN]
    seen: set[str] = set()

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        seen.update(rollout.problem.id for rollout in rollouts)
        return [Verdict.from_step(None)] * len(rollouts)

    asyncio.run(Canaries(judge, [*wrong, *KNOWN], 1.0)(ROLLOUTS))
    assert "wrong" not in seen
    with pytest.raises(DataError, match="0 flawed and 0 fully correct solutions with a correct answer"):
        Canaries(judge, wrong, 1.0)


@pytest.mark.parametrize("rule", ["paragraphs", "lines"])
def test_canaries_are_split_into_the_steps_of_their_label(rule: StepRule) -> None:
    seen: list[list[str]] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        seen.extend([step.strip() for step in split_steps(rollout.response, rule)] for rollout in rollouts)
        return [Verdict.from_step(None)] * len(rollouts)

    problem = Problem("p", "?", "2")
    known = [LabelledSolution(problem, ("a\nb", "c"), 0, True), LabelledSolution(problem, ("a", "b"), None, True)]
    asyncio.run(Canaries(judge, known, 0.5)(ROLLOUTS[:40]))
    assert ["a\nb", "c"] in seen
    assert ["a", "b"] in seen


@pytest.mark.skipif(
    not Path(BASE_FOLDER / "critic-test.jsonl").exists(), reason="the miniature's base models are not there"
)
def test_canaries_from_a_config() -> None:
    settings = {
        "name": "run",
        "task": "policy",
        "model": {"path": "miniature:policy"},
        "data": {"train": "miniature:train"},
        "rollout": {"max_tokens": 24},
        "reward": {"kind": "fapo"},
        "judge": {"kind": "oracle", "canaries": "miniature:critic-test", "canary_rate": 0.5},
        "optim": {"steps": 1, "learning_rate": 1e-3},
    }
    scorer = make_scorer(from_dict(settings))
    asyncio.run(scorer(ROLLOUTS))
    canaries = find_canaries(scorer.judge)
    assert canaries
    assert canaries.metrics()["canary/f1"] == 1.0
    assert find_canaries(None) is None
