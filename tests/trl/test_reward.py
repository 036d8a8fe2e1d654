"""The reward function in TRL's own GRPOTrainer, with a judge behind a real HTTP server."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import math
import multiprocessing
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from fapo.config.schema import OutcomeReward
from fapo.data.miniature.world import Difficulty, tasks
from fapo.errors import ConfigError, DataError
from fapo.inference.client import ChatClient
from fapo.rewards.advantages import group_advantages
from fapo.rewards.scorer import PolicyScorer
from fapo.trl.judge_while_generating import judge_ahead
from fapo.trl.reward import FlawedAwareReward, flawed_aware_reward
from fapo.types import Rollout, StepRule, Verdict
from tests.support import parity
from tests.support.chat_server import Reply, chat_server
from tests.support.trl_trainer import UsableTrainer

GROUP = 4


def dataset(**renamed: str) -> Dataset:
    """Return questions that a guess answers every other time."""
    rows = []
    for task in tasks(0, 8, Difficulty((1, 1), ("mod 2",))):
        problem = task.problem()
        columns = {"prompt": [{"role": "user", "content": problem.text}], "answer": problem.reference}
        rows.append({renamed.get(name, name): value for name, value in columns.items()})
    return Dataset.from_list(rows)


def grpo(output: Path, **settings: Any) -> GRPOConfig:
    arguments: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": 4 * GROUP,
        "num_generations": GROUP,
        "max_completion_length": 24,
        "max_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "log_completions": True,
        "num_completions_to_print": 0,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    return GRPOConfig(**arguments | settings)


class Log(TrainerCallback):
    """Keeps what the trainer logs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, args, state, control, logs=None, **_) -> None:
        self.rows.append(dict(logs))


def train(
    policy: Path,
    output: Path,
    reward: Any,
    data: Dataset | None = None,
    change: Callable[[GRPOTrainer], None] = lambda _: None,
) -> list[dict[str, float]]:
    log = Log()
    trainer = UsableTrainer(
        model=str(policy),
        reward_funcs=reward,
        args=grpo(output),
        train_dataset=data or dataset(),
        callbacks=[log],
    )
    change(trainer)
    trainer.train()
    return [row for row in log.rows if "loss" in row]


def completions(output: Path) -> list[pd.DataFrame]:
    return [pd.read_parquet(file) for file in sorted((output / "completions").glob("*.parquet"))]


@pytest.fixture(scope="module")
def tables(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[pd.DataFrame, dict[str, float]]]:
    """Train two steps with the lines of the README and a judge over HTTP; its first answer is garbage."""
    output = tmp_path_factory.mktemp("run")
    asked: list[str] = []

    def judge(body: dict[str, Any], index: int) -> Reply:
        asked.append(body["messages"][-1]["content"])
        return Reply("I cannot tell." if index == 0 else "The guess.\n\\boxed{0}" if index % 2 else "\\boxed{-1}")

    with chat_server(judge) as server:
        reward = flawed_aware_reward(server.url, model="judge", max_tokens=100)
        logs = train(tiny_policy, output, reward)
        assert asked
        assert all("<reference>" in prompt for prompt in asked)
        assert {request["max_tokens"] for request in server.requests} == {100}
    return list(zip(completions(output), logs, strict=True))


def test_every_completion_has_its_verdict_and_critique(tables) -> None:
    assert len(tables) == 2
    for table, _ in tables:
        assert {"status", "error_step", "critique", "reference", "fapo_reward", "advantage"} <= set(table.columns)
        assert set(table.status) <= {"ok", "unparsable", "skipped"}
        assert ((table.status == "skipped") == (table.fapo_reward == -1)).all(), "only correct rollouts are judged"
        assert (table.critique[table.status == "skipped"] == "").all()
        assert (table.critique[table.status == "ok"].str.contains("boxed")).all()
        flagged = (table.status == "ok") & table.error_step.notna()
        assert (table.fapo_reward[flagged] == 0).all()
        assert (table.fapo_reward[(table.status == "ok") & ~flagged] == 1).all()


def test_garbage_has_no_reward_and_no_advantage(tables) -> None:
    table, log = tables[0]
    garbage = table[table.status == "unparsable"]
    assert len(garbage) >= 1
    assert (garbage.critique == "I cannot tell.").all()
    assert garbage.fapo_reward.isna().all()
    assert (garbage.advantage == 0).all()
    assert log["fapo/unscored_rate"] == pytest.approx(len(garbage) / len(table))


def test_advantages_of_trl_are_ours(tables) -> None:
    for table, _ in tables:
        ours = group_advantages(table.fapo_reward.to_numpy().reshape(-1, GROUP))
        assert table.advantage.to_numpy() == pytest.approx(ours.reshape(-1), abs=1e-4)
    assert any((table.advantage != 0).any() for table, _ in tables)


def test_judging_ahead_changes_no_result_of_a_users_trainer(tiny_policy: Path, tmp_path: Path) -> None:
    asked = threading.Event()

    def ahead(trainer: GRPOTrainer) -> None:
        judge_ahead(trainer)
        rewards = trainer._calculate_rewards

        def later(*args: Any) -> Any:
            assert asked.wait(600), "the judge has a request before the rewards are computed"
            return rewards(*args)

        trainer._calculate_rewards = later

    def judge(body: dict[str, Any], index: int) -> Reply:
        asked.set()
        return Reply(f"\\boxed{{{-(len(body['messages'][-1]['content']) % 2)}}}")

    found = []
    for name, change in (("at once", lambda _: None), ("ahead", ahead)):
        with chat_server(judge) as server:
            asked.clear()
            logs = train(tiny_policy, tmp_path / name, flawed_aware_reward(server.url, model="judge"), change=change)
            questions = sorted(body["messages"][-1]["content"] for body in server.requests)
        numbers = [{key: row[key] for key in ("loss", "reward", "fapo/accuracy", "fapo/fp_ratio")} for row in logs]
        found.append((questions, numbers, [table.to_dict("records") for table in completions(tmp_path / name)]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert repr(found[0][2]) == repr(found[1][2])


def test_only_a_flawed_aware_reward_can_be_judged_ahead(tiny_policy: Path, tmp_path: Path) -> None:
    def right(completions: list[Any], **_: Any) -> list[float]:
        return [1.0] * len(completions)

    with pytest.raises(ConfigError, match="one flawed_aware_reward is needed in reward_funcs, not 0"):
        train(tiny_policy, tmp_path, right, change=judge_ahead)


def test_what_the_trainer_logs(tables) -> None:
    for table, log in tables:
        right = table[table.status != "skipped"]
        assert log["fapo/accuracy"] == pytest.approx(len(right) / len(table))
        judged = right[right.status == "ok"]
        assert ("fapo/fp_ratio" in log) == (not judged.empty), "without verdicts there is no ratio"
        if not judged.empty:
            assert log["fapo/fp_ratio"] == pytest.approx(judged.error_step.notna().mean())
        assert math.isfinite(log["loss"])
    assert any("fapo/fp_ratio" in log for _, log in tables)


def test_the_same_verdicts_make_the_same_advantages_as_under_verl(tiny_policy: Path, tmp_path: Path) -> None:
    """Send the table of tests/support/parity.py through TRL; tests/verl/test_advantages.py sends it through verl."""
    with chat_server(parity.judge) as server:
        reward = flawed_aware_reward(server.url, model="judge", penalty=parity.PENALTY)
        seen: list[int] = []

        async def prescribed(prompts: list, completions: list, row: list[int], **columns: Any) -> list[float | None]:
            """Score the solutions of the table, not those of the model; TRL shuffles prompts, not groups."""
            seen.extend(row[::GROUP])
            texts = [parity.solution(parity.GROUPS[index][i % GROUP]) for i, index in enumerate(row)]
            return await reward(prompts, texts, reference=[parity.REFERENCE] * len(row), **columns)

        number = len(parity.GROUPS)
        trainer = UsableTrainer(
            model=str(tiny_policy),
            reward_funcs=prescribed,
            args=grpo(tmp_path, max_steps=1, per_device_train_batch_size=number * GROUP),
            train_dataset=Dataset.from_dict({"prompt": ["1+1?"] * number, "row": list(range(number))}),
        )
        trainer.train()
        assert server.requests
    expected = group_advantages(np.array([parity.REWARDS[index] for index in seen], dtype=float))
    theirs = np.array(list(trainer._logs["advantages"])).reshape(expected.shape)
    np.testing.assert_allclose(theirs, expected, atol=1e-5)
    assert sorted(seen) == list(range(number))


@pytest.mark.parametrize("column", ["reference", "answer", "solution"])
def test_right_answers_may_stand_in_any_of_these_columns(column: str) -> None:
    rows = asyncio.run(
        flawed_aware_reward(nobody)(["2+2?"] * 2, ["\\boxed{4}", "\\boxed{5}"], [[1], [1]], **{column: ["4", "4"]})
    )
    assert rows == [1.0, -1.0]


def test_a_row_takes_the_first_column_that_has_a_value_and_a_list_of_one_answer_is_the_answer() -> None:
    columns = {"reference": [None, "5", ["4"]], "answer": ["4", "4", "5"]}
    rows = flawed_aware_reward(nobody)(["2+2?"] * 3, ["\\boxed{4}"] * 3, [[1]] * 3, **columns)
    assert asyncio.run(rows) == [1.0, -1.0, 1.0]


@pytest.mark.parametrize("answer", [None, "", " ", math.nan, ["4", "5"], {"target": "4"}, "Trivial.\n####"])
def test_a_row_without_a_right_answer_is_an_error_and_no_wrong_answer(answer: Any) -> None:
    rows = flawed_aware_reward(nobody)(["1+1?", "2+2?"], ["\\boxed{4}"] * 2, [[1]] * 2, answer=["4", answer])
    with pytest.raises(DataError, match=r"data set, row with the problem '2\+2\?': answer (is|holds)"):
        asyncio.run(rows)


@pytest.mark.parametrize("answer", ["4", "It is 2+2.\n#### 4", "Since $2+2=4$, it is \\boxed{4}."])
def test_of_a_worked_solution_the_final_answer_counts(answer: str) -> None:
    rows = flawed_aware_reward(nobody)(["2+2?"] * 2, ["\\boxed{4}", "\\boxed{5}"], [[1], [1]], answer=[answer] * 2)
    assert asyncio.run(rows) == [1.0, -1.0]


async def nobody(rollouts: list[Rollout]) -> list[Verdict]:
    return [Verdict.from_step(None)] * len(rollouts)


def test_without_right_answers_the_trainer_stops_with_a_clear_message(tiny_policy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column with the right answers: name it one of reference, answer, solut"):
        train(tiny_policy, tmp_path, flawed_aware_reward(nobody), dataset(answer="gold"))


@pytest.mark.parametrize(
    ("prompt", "columns", "expected"),
    [
        ("2+2?", {}, "2+2?"),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}], {}, "2+2?"),
        ([{"role": "user", "content": "Solve: 2+2?"}], {"problem": ["2+2?"]}, "2+2?"),
        ([{"role": "user", "content": "2+2?"}], {"problem": [None]}, "2+2?"),
        ([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "Well,"}], {}, "2+2?"),
        ([{"role": "user", "content": [{"type": "text", "text": "2+2?"}, {"type": "image"}]}], {}, "2+2?\n(image)"),
    ],
    ids=[
        "text",
        "conversation",
        "problem column",
        "row without a problem",
        "prefilled answer",
        "blocks of an environment",
    ],
)
def test_which_question_the_judge_reads(prompt: Any, columns: dict[str, Any], expected: str) -> None:
    seen: list[Rollout] = []

    async def judge(rollouts: list[Rollout]) -> list[Verdict]:
        seen.extend(rollouts)
        return [Verdict.from_step(None)] * len(rollouts)

    message = [{"role": "assistant", "content": "\\boxed{4}"}]
    asyncio.run(flawed_aware_reward(judge)([prompt], [message], [[1, 2]], answer=["4"], **columns))
    assert [(r.problem.text, r.problem.reference, r.response) for r in seen] == [(expected, "4", "\\boxed{4}")]


@pytest.mark.parametrize("problem", [math.nan, 5, [], ["2+2?"], {"text": "2+2?"}])
def test_a_problem_without_a_question_is_an_error(problem: Any) -> None:
    with pytest.raises(DataError, match="problem or prompt must be a text or a conversation, is"):
        asyncio.run(flawed_aware_reward(nobody)(["2+2?"], ["\\boxed{4}"], [[1]], answer=["4"], problem=[problem]))


@pytest.mark.parametrize(
    ("num_tokens", "limit", "truncated"), [(9, 10, False), (10, 10, True), (11, 10, True), (9, 0, False)]
)
def test_a_completion_as_long_as_the_limit_is_truncated(num_tokens: int, limit: int, truncated: bool) -> None:
    function = flawed_aware_reward(nobody, max_completion_length=limit)
    rollout = function.rollout(0, "2+2?", "\\boxed{4}", [1] * num_tokens, {"answer": ["4"]})
    assert (rollout.num_tokens, rollout.truncated) == (num_tokens, truncated)


def test_where_the_template_opens_the_thinking_a_cut_off_thought_is_no_answer() -> None:
    function = copy.copy(flawed_aware_reward(nobody, thinking=True, max_completion_length=8))  # as TRL sends it
    texts = ["\\boxed{4}, or", "5?</think>\\boxed{4}", "\\boxed{4}"]
    rewards = asyncio.run(function(["2+2?"] * 3, texts, [[1] * 8, [1] * 8, [1]], answer=["4"] * 3))
    assert rewards == [-1.0, 1.0, 1.0]


@pytest.mark.parametrize(("penalty", "reward"), [(0.0, 1.0), (1.0, 0.0), (2.0, -1.0)])
def test_the_penalty_is_lambda(penalty: float, reward: float) -> None:
    async def harsh(rollouts: list[Rollout]) -> list[Verdict]:
        return [Verdict.from_step(0)] * len(rollouts)

    function = flawed_aware_reward(harsh, penalty=penalty)
    assert asyncio.run(function(["?"], ["\\boxed{4}"], [[1]], answer=["4"])) == [reward]


def test_overlong_shaping_knows_the_trainers_limit() -> None:
    function = flawed_aware_reward(nobody, overlong_buffer=4, max_completion_length=8)
    found = asyncio.run(function(["?"] * 2, ["\\boxed{4}"] * 2, [[1] * 4, [1] * 8], answer=["4"] * 2))
    assert found == [1.0, 0.0]


def test_the_options_of_the_client_have_its_defaults() -> None:
    ours = {name: p.default for name, p in inspect.signature(flawed_aware_reward).parameters.items()}
    theirs = {name: p.default for name, p in inspect.signature(ChatClient).parameters.items()}
    options = theirs.keys() - {"urls", "model", "extra_body", "logprobs_after"}  # the last one is for cascades
    assert {name: ours[name] for name in options} == {name: theirs[name] for name in options}
    assert "extra_body" in ours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": -1.0}, "flawed_aware_reward: penalty"),
        ({"penalty": "1"}, "flawed_aware_reward: penalty: should be a valid number, not '1'"),
        ({"thinking": True}, "thinking needs max_completion_length"),
        ({"overlong_buffer": 8}, "max_completion_length is 0; pass the max_completion_length"),
        ({"max_failure_rate": 50.0}, "max_failure_rate is 50.0, must be a rate from 0 to 1"),
        ({"on_unscored": "guess"}, "on_unscored is 'guess'; choose one of mask, correctness_only, raise"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        flawed_aware_reward(nobody, **options)


class Somebody:
    async def __call__(self, rollouts: list[Rollout]) -> list[Verdict]:
        return await nobody(rollouts)


class Blocking:
    def __call__(self, rollouts: list[Rollout]) -> list[Verdict]:
        return [Verdict.from_step(None)] * len(rollouts)


@pytest.mark.parametrize("judge", [Blocking(), Blocking().__call__, functools.partial(Blocking())])
def test_a_judge_that_cannot_be_awaited_is_an_error(judge: Any) -> None:
    with pytest.raises(ConfigError, match=r"judge (Blocking|__call__|partial): must be an `async def`"):
        flawed_aware_reward(judge)


@pytest.mark.parametrize("judge", [Somebody(), Somebody().__call__, functools.partial(Somebody())])
def test_a_judge_may_be_an_object_a_method_or_a_partial(judge: Any) -> None:
    assert asyncio.run(flawed_aware_reward(judge)(["2+2?"], ["\\boxed{4}"], [[1]], answer=["4"])) == [1.0]


@pytest.mark.parametrize("answer", [Decimal(4), np.int64(4)])
def test_an_answer_of_another_type_is_an_error_that_names_the_type(answer: Any) -> None:
    rows = flawed_aware_reward(nobody)(["2+2?"], ["\\boxed{4}"], [[1]], answer=[answer])
    with pytest.raises(DataError, match=rf"answer is '4' \({type(answer).__name__}\), must be a text"):
        asyncio.run(rows)


def test_options_reach_the_server() -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        options = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 7, "extra_body": {"top_k": 5}}
        function = flawed_aware_reward([server.url], model="judge", template="compact", **options)
        assert asyncio.run(function(["2+2?"], ["2+2=4, \\boxed{4}"], [[1]], answer=["4"])) == [1.0]
        (request,) = server.requests
    assert {key: request[key] for key in ("temperature", "top_p", "max_tokens", "top_k")} == {
        **{key: options[key] for key in ("temperature", "top_p", "max_tokens")},
        "top_k": 5,
    }


@pytest.mark.parametrize(("steps", "found"), [(None, 1), ("lines", 2)])
def test_the_rule_for_steps_reaches_the_prompt(steps: StepRule | None, found: int) -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        function = flawed_aware_reward(server.url, model="judge", steps=steps)
        assert asyncio.run(function(["2+2?"], ["2+2=4\n\\boxed{4}"], [[1]], answer=["4"])) == [1.0]
        (request,) = server.requests
    assert request["messages"][-1]["content"].count("</step_") == found


def test_trl_takes_it_for_an_async_function() -> None:
    reward = flawed_aware_reward(nobody)
    assert inspect.iscoroutinefunction(reward)
    assert inspect.iscoroutinefunction(reward.func), "TRL looks through a partial"
    assert (reward.__name__, reward.func.__name__) == ("fapo_reward", "fapo_reward")
    assert list(inspect.signature(reward).parameters)[:3] == ["prompts", "completions", "completion_ids"]
    assert isinstance(reward, FlawedAwareReward)


BATCH: dict[str, Any] = {
    "prompts": ["2+2?"] * 2,
    "completions": ["2+2=4, \\boxed{\\sqrt{16}}"] * 2,  # computer algebra decides
    "completion_ids": [[1], [1]],
    "answer": ["4", "5"],
}


def score_elsewhere(reward: Any, results: Any) -> None:
    results.put((reward.__name__, asyncio.run(reward(**BATCH))))


def test_it_works_in_a_daemonic_process_also_after_use() -> None:
    """Send it to a spawned process that may have no children of multiprocessing, as AsyncGRPOTrainer does."""
    context = multiprocessing.get_context("spawn")
    with chat_server(Reply("\\boxed{0}")) as server:
        reward, results = flawed_aware_reward(server.url, model="judge", penalty=0.5), context.Queue()

        async def start_after_use() -> list[float | None]:
            values = await reward(**BATCH)
            process.start()  # while its connections are open
            return values

        process = context.Process(target=score_elsewhere, args=(reward, results), daemon=True)
        values = asyncio.run(start_after_use())
        assert results.get(timeout=600) == ("fapo_reward", values)
        process.join()
        assert (values, len(server.requests), process.exitcode) == ([0.5, -1.0], 2, 0)


def test_the_name_in_the_logs_is_that_of_the_kind() -> None:
    assert FlawedAwareReward(PolicyScorer(OutcomeReward(), None)).__name__ == "outcome_reward"
