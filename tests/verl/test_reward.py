"""verl's reward loop on Ray calls the reward function, which requests verdicts from a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from omegaconf import open_dict
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.reward_loop import RewardLoopManager

from experiments.base_models.writers import PERFECT, trace
from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config
from fapo.data.miniature.sets import problems
from fapo.data.miniature.world import parse
from fapo.errors import ConfigError, DataError
from fapo.inference.models import model_folder
from fapo.training.datasets import Example
from fapo.training.run_folder import RunFolder
from fapo.types import Given, GroundTruth, LabelledSolution, Problem, Reward, Rollout, ScoredRollout, Verdict
from fapo.verl.datasets import verl_rows
from fapo.verl.overrides import compose, overrides
from fapo.verl.payload import Payload, decode, encode
from fapo.verl.reward import compute_score
from tests.support.chat_server import Reply, chat_server
from tests.support.ports import dead_url
from tests.support.prm import pooling

ROOT = Path(__file__).parents[2]
MAX_TOKENS = 64
PROBLEMS = problems("miniature:train", 6)
FLAWED = PROBLEMS[1].text
"""Text of the problem with solutions that the server flags; NONSENSE: of the one with an unparsable answer."""
NONSENSE = PROBLEMS[2].text


def answer(body: dict[str, Any], _: int) -> Reply:
    asked = body["messages"][-1]["content"]
    return Reply("not a word" if NONSENSE in asked else "0\n\\boxed{0}" if FLAWED in asked else "ok\n\\boxed{-1}")


@pytest.mark.parametrize(("judge", "found"), [({}, 2), ({"steps": "paragraphs"}, 1)])
def test_the_rule_for_steps_reaches_the_prompt(judge: dict[str, str], found: int, tmp_path: Path) -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        settings(tmp_path, server.url, **judge)
        config = str(tmp_path / "run/config.json")
        score = asyncio.run(compute_score("d", "1+1=2\n\\boxed{2}", "2", {"problem": "1+1?"}, config=config))
        (request,) = server.requests
    assert score["score"] == 1.0
    usage = decode(score["fapo"], 1.0, 2, 8).usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 1, 1)
    assert request["messages"][-1]["content"].count("\n#") == found


@pytest.mark.parametrize("name", ["problem", "question"])  # "question": rows of verl's own example for GSM8K
def test_the_judge_reads_the_question_of_rows_that_fapo_has_not_written(name: str, tmp_path: Path) -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        settings(tmp_path, server.url)
        config = str(tmp_path / "run/config.json")
        row = "openai/gsm8k", "1+1=2\n\\boxed{2}", "1+1=2\n#### 2"
        score = asyncio.run(compute_score(*row, {name: "What is 1+1?"}, config=config))
        with pytest.raises(DataError, match=r"row 3 of openai/gsm8k: no extra_info.problem"):
            asyncio.run(compute_score(*row, {"index": 3}, config=config))
        (request,) = server.requests
    assert score["score"] == 1.0
    assert "What is 1+1?" in request["messages"][-1]["content"]


@pytest.mark.parametrize("number", [1e-05, np.float64(1e-05)])
def test_a_number_as_the_reference_is_compared_as_a_number(number: float) -> None:
    found = asyncio.run(compute_score("d", r"\boxed{10^{-5}}", number, {"problem": "?"}))
    assert found["score"] == 1.0


def test_an_exception_reaches_the_recorder(tmp_path: Path) -> None:
    file = tmp_path / "run/config.json"
    settings(tmp_path, "http://127.0.0.1:9/v1", cache=str(tmp_path / "notes.txt"))
    (tmp_path / "notes.txt").write_text("no database " * 100, encoding="utf-8")
    row, right = ("d", "1+1=2\n\\boxed{2}", "2"), {"problem": "1+1?"}

    def raised(extra_info: Any) -> pytest.ExceptionInfo[Exception]:
        found = asyncio.run(compute_score(*row, extra_info, config=str(file), recorded=True))
        assert found.keys() == {"score", "acc", "flawed", "unscored", "fapo"} and math.isnan(found["score"])
        with pytest.raises(Exception) as error:
            decode(found["fapo"], found["score"], 2, 8)
        return error

    assert raised(right).type is DataError
    assert "notes.txt: no response cache" in str(raised(right).value)
    bug = raised(None)
    assert bug.type is RuntimeError and "AttributeError: 'NoneType' object has no attribute 'get'" in str(bug.value)


def assert_needs_the_recorder(path: Path, table: dict[str, Any], message: str) -> None:
    """Assert that the reward function refuses a config, and scores under it where a recorder completes the rewards."""
    path.write_text(json.dumps(table), encoding="utf-8")
    row = "d", "1+1=2\n\\boxed{3}", "2", {"problem": "1+1?"}
    with pytest.raises(ConfigError, match=message):
        asyncio.run(compute_score(*row, config=str(path)))
    found = asyncio.run(compute_score(*row, config=str(path), recorded=True))
    assert found["score"] == -1.0


def test_a_reward_that_compares_a_group_needs_the_recorder(tmp_path: Path) -> None:
    table = to_dict(settings(tmp_path, "http://127.0.0.1:9/v1")) | {"reward": {"kind": "decoupled"}}
    assert_needs_the_recorder(
        tmp_path / "run/config.json", table, r'reward.kind "decoupled" compares the rollouts of a group'
    )


def test_overlong_shaping_needs_the_reward_manager_of_a_whole_run(tmp_path: Path) -> None:
    table = to_dict(settings(tmp_path, "http://127.0.0.1:9/v1")) | {"reward": {"kind": "fapo", "overlong_buffer": 16}}
    assert_needs_the_recorder(tmp_path / "run/config.json", table, "reward.overlong_buffer is not applied here")


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"audit": {"judge": {"kind": "oracle"}}}, "judge.audit needs the rollouts of whole steps"),
        ({"canaries": "miniature:critic-test"}, "judge.canaries have results that nothing reads"),
    ],
)
def test_what_watches_a_judge_needs_the_recorder(judge: dict[str, Any], message: str, tmp_path: Path) -> None:
    table = to_dict(settings(tmp_path, "http://127.0.0.1:9/v1"))
    table["judge"] = {"kind": "oracle", **judge}
    assert_needs_the_recorder(tmp_path / "run/config.json", table, message)


def test_a_rollout_without_a_verdict_can_stop_only_a_whole_run(tmp_path: Path) -> None:
    table = to_dict(settings(tmp_path, "http://127.0.0.1:9/v1")) | {"reward": {"kind": "fapo", "on_unscored": "raise"}}
    assert_needs_the_recorder(tmp_path / "run/config.json", table, 'reward.on_unscored "raise" cannot stop this run')


def test_a_judge_whose_place_another_has_taken_is_asked_in_validations_only(tmp_path: Path) -> None:
    file, row = tmp_path / "run/config.json", ("d", "1+1=2\n\\boxed{2}", "2")
    second = {"kind": "oracle"}
    with chat_server(Reply("\\boxed{-1}")) as server:
        config = settings(tmp_path, server.url, audit={"judge": second, "min_j": 0.5, "on_low_j": "switch"})

        async def verdict(split: str) -> Any:
            found = await compute_score(*row, {"split": split, "problem": "1+1?"}, config=str(file), recorded=True)
            return decode(found["fapo"], found["score"], 2, 8).scored.verdict

        async def check() -> None:
            assert await verdict("train")
            RunFolder(config, resume=True).switched.touch()
            assert await verdict("train") is None
            assert await verdict("validation")

        asyncio.run(check())


def test_a_checker_of_the_user(tmp_path: Path) -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        table = to_dict(settings(tmp_path, server.url))
        for checker, expected in (("even_length", [1.0, -1.0]), ("broken", [math.nan] * 2)):
            file = tmp_path / f"{checker}.json"
            table["reward"]["checker"] = f"tests.support.answer_checkers:{checker}"
            file.write_text(json.dumps(table), encoding="utf-8")
            row = {"problem": "1+1?"}
            found = [asyncio.run(compute_score("d", text, "2", row, config=str(file))) for text in ("ab", "abc")]
            assert [row["score"] for row in found] == pytest.approx(expected, nan_ok=True)
        scored = decode(found[0]["fapo"], math.nan, 2, 8).scored
    assert (scored.correct, scored.reward, found[0]["unscored"]) == (False, Reward(None), 1.0)
    assert scored.check_error == "the checker failed: RuntimeError: the unit tests are gone"


def solutions() -> list[str]:
    """Return four correct solutions, a wrong one, and one without an answer."""
    rng = random.Random(0)
    right = [trace(rng, parse(p.text), PERFECT) for p in PROBLEMS[:4]]
    return [*right, "1+1=2\n\\boxed{-12345}", "1+1=2"]


def settings(folder: Path, *urls: str, overlong: int = 0, **judge: Any) -> Config:
    """Write config.json of a run folder with a served judge, and return its config."""
    table = {
        "name": "run",
        "task": "policy",
        "output": str(folder),
        "model": {"path": "miniature:policy"},
        "data": {"train": "miniature:train"},
        "rollout": {"max_tokens": MAX_TOKENS, "num_prompts": 8},
        "reward": {"kind": "fapo", "overlong_buffer": overlong},
        "judge": {
            "kind": "served",
            "model": "m",
            **({} if judge.get("kind") == "prm" else {"template": "compact"}),
            **({"urls": list(urls)} if urls else {}),
            **judge,
        },
        "optim": {"steps": 1, "learning_rate": 1e-3},
        "verl": {"reward.num_workers": 2},
    }
    config = from_dict(table)
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run/config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
    return config


def batch(texts: list[str]) -> DataProto:
    """Return rollouts as verl's trainer passes them to the reward loop."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("miniature:policy"))
    ids = [tokenizer(text)["input_ids"] for text in texts]
    responses, mask = torch.zeros(len(texts), MAX_TOKENS, dtype=torch.long), torch.ones(len(texts), 4 + MAX_TOKENS)
    for i, own in enumerate(ids):
        responses[i, : len(own)] = torch.tensor(own)
        mask[i, 4 + len(own) :] = 0
    prompts = torch.ones(len(texts), 4, dtype=torch.long)
    table = verl_rows("train", [Example(p, [{"role": "user", "content": p.text}]) for p in PROBLEMS])
    columns = {key: np.empty(len(texts), dtype=object) for key in ("data_source", "reward_model", "extra_info")}
    for key, column in columns.items():
        column[:] = [row[key] for row in table]
    tensors = {"prompts": prompts, "responses": responses, "attention_mask": mask.long()}
    return DataProto.from_dict(
        tensors={**tensors, "input_ids": torch.cat([prompts, responses], dim=1)}, non_tensors=columns
    )


def lengths(data: DataProto) -> list[int]:
    return data.batch["attention_mask"][:, 4:].sum(dim=1).tolist()


def expected(data: DataProto, before: list[float]) -> list[float]:
    """Return rewards with overlong shaping, which verl's reward manager adds."""
    over = [min(0.0, max(-1.0, (MAX_TOKENS - 60 - length) / 60)) for length in lengths(data)]
    return [value + penalty for value, penalty in zip(before, over, strict=True)]


REWARDS = [1.0, 0.0, math.nan, 1.0, -1.0, -1.0]


def test_a_process_reward_model_judges_and_its_scores_reach_the_trainer(tmp_path: Path) -> None:
    def rows(body: dict[str, Any], _: int) -> Reply:
        return Reply(body=pooling([[0.1, 0.9] if token != 20 else [0.7, 0.3] for token in body["input"]]))

    with chat_server(rows) as server:
        judge = {"kind": "prm", "tokenizer": "miniature:genrm", "separator": "\n", "steps": "lines"}
        settings(tmp_path, server.url, **judge)
        config, row = str(tmp_path / "run/config.json"), {"problem": "1+1?"}
        score = asyncio.run(compute_score("d", "1+1=2\n\\boxed{2}", "2", row, config=config, num_workers=2))
        assert server.paths == ["/pooling"]
    assert (score["score"], score["flawed"]) == (0.0, 1.0)
    payload = decode(score["fapo"], score["score"], 8, MAX_TOKENS)
    assert payload.scored.verdict == Verdict("ok", True, 0, scores=(0.3, 0.3))


def test_verl_refuses_a_process_reward_model_in_its_workers(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"judge\.urls is missing: verl's reward workers load no process reward model"
    ):
        overrides(settings(tmp_path, kind="prm", model="miniature:genrm"))


def test_batch_and_streaming_path_of_verls_reward_loop(ray_here, tmp_path: Path) -> None:
    with chat_server(answer) as server:
        manager = RewardLoopManager(compose(overrides(settings(tmp_path, server.url, overlong=60))))
        data = batch(solutions())
        whole = manager.compute_rm_score(data)
        np.testing.assert_allclose(whole.batch["rm_scores"].sum(dim=-1), expected(data, REWARDS), atol=1e-6)
        places = [int((row != 0).nonzero()[-1]) for row in whole.batch["rm_scores"]]
        assert places == [length - 1 for length in lengths(data)]
        assert len(server.requests) == 4, "only correct rollouts are judged"
        workers = manager.reward_loop_worker_handles
        one_by_one = ray.get([workers[i % 2].compute_score.remote(data[i : i + 1]) for i in range(len(data))])
        found = [float(one["reward_score"]) for one in one_by_one]
        np.testing.assert_allclose(found, expected(data, REWARDS), atol=1e-6)
        for i, (one, length) in enumerate(zip(one_by_one, lengths(data), strict=True)):
            info = one["reward_extra_info"]
            scored = decode(info["fapo"], found[i], length, MAX_TOKENS).scored
            assert scored.rollout.problem == replace(PROBLEMS[i], meta={})
            assert scored.rollout.response == solutions()[i]
            assert (scored.rollout.num_tokens, scored.correct) == (length, i < 4)
            assert info["flawed"] == float(i == 1)
            assert info["unscored"] == float(scored.reward.value is None) == float(i == 2)
            assert scored.reward.value is None or scored.reward.value == pytest.approx(
                sum(scored.reward.parts.values())
            )
    for handle in workers:
        ray.kill(handle)


def slow(body: dict[str, Any], index: int) -> Reply:
    return replace(answer(body, index), delay=600.0)


@pytest.mark.parametrize("case", ["dead beside a living", "slow beside a living", "dead"])
def test_a_dead_and_a_slow_endpoint(case: str, ray_here, tmp_path: Path) -> None:
    with chat_server(answer) as living, chat_server(slow) as sleepy:
        ill = sleepy.url if case.startswith("slow") else dead_url()
        urls = [ill] if case == "dead" else [ill, living.url]
        config = settings(tmp_path, *urls, overlong=60, timeout=10.0, deadline=300.0, max_failure_rate=0.0)
        manager = RewardLoopManager(compose(overrides(config)))
        data = batch(solutions())
        found = manager.compute_rm_score(data)
        for handle in manager.reward_loop_worker_handles:
            ray.kill(handle)
    unscored = [0, 1, 2, 3] if case == "dead" else [2]
    rewards = [math.nan if i in unscored else reward for i, reward in enumerate(REWARDS)]
    np.testing.assert_allclose(found.batch["rm_scores"].sum(dim=-1), expected(data, rewards), atol=1e-6)
    statuses = [json.loads(text)["scored"]["verdict"] for text in found.non_tensor_batch["fapo"]]
    assert (statuses[0]["status"] == "failed") == (case == "dead")


def test_without_a_config_only_final_answers_count(ray_here, tmp_path: Path) -> None:
    config = compose(overrides(settings(tmp_path, "http://127.0.0.1:9/v1", overlong=60)))
    assert config.reward.custom_reward_function.path == "pkg://fapo.verl.reward"
    with open_dict(config):
        config.reward.custom_reward_function.reward_kwargs = {}
    data = batch(solutions())
    manager = RewardLoopManager(config)
    found = manager.compute_rm_score(data)
    for handle in manager.reward_loop_worker_handles:
        ray.kill(handle)
    correct = [float(i < 4) for i in range(len(data))]
    assert list(found.non_tensor_batch["acc"]) == correct
    np.testing.assert_allclose(
        found.batch["rm_scores"].sum(dim=-1), expected(data, [2 * right - 1 for right in correct]), atol=1e-6
    )


def score(config: str, problem: Problem, text: str, **kwargs: Any) -> dict[str, Any]:
    (row,) = verl_rows("train", [Example(problem, [])])
    asked = compute_score(
        "train", text, row["reward_model"]["ground_truth"], row["extra_info"], config=config, **kwargs
    )
    return asyncio.run(asked)


def test_the_router_of_verl_replaces_the_servers(tmp_path: Path) -> None:
    with chat_server(answer) as server:
        settings(tmp_path, kind="local", model="miniature:genrm")
        router = server.url.removeprefix("http://").removesuffix("/v1")
        found = score(str(tmp_path / "run/config.json"), PROBLEMS[1], solutions()[1], reward_router_address=router)
    assert (found["score"], found["flawed"]) == (0.0, 1.0)
    (asked,) = server.requests
    assert asked["model"] == model_folder("miniature:genrm"), "verl serves the model under its path"


def test_a_cache_in_the_run_folder_answers_other_workers(tmp_path: Path) -> None:
    with chat_server(answer) as server:
        settings(tmp_path, server.url)
        file = str(tmp_path / "run/config.json")
        found = [score(file, PROBLEMS[1], solutions()[1], num_workers=number) for number in (1, 2)]
        assert len(server.requests) == 1
    first, second = (decode(result.pop("fapo"), 1.0, 2, 8) for result in found)
    assert found[0] == found[1] and first.scored == second.scored and (tmp_path / "run/cache.sqlite").exists()
    assert (first.usage.requests, second.usage.requests, second.usage.from_cache) == (1, 0, 1)


def test_a_retrained_judge_behind_the_router_is_asked_again(tmp_path: Path) -> None:
    """The cache knows a judge by its path and its files, wherever it runs."""
    model = tmp_path / "judge"
    shutil.copytree(model_folder("miniature:genrm"), model)
    with chat_server(answer) as server:
        for run, changed in (("a", False), ("b", False), ("c", True)):
            if changed:
                (model / "config.json").write_bytes((model / "config.json").read_bytes() + b"\n")
            (tmp_path / run).mkdir()
            settings(tmp_path / run, kind="local", model=str(model), cache=str(tmp_path / "cache.sqlite"))
            router = server.url.removeprefix("http://").removesuffix("/v1")
            file = str(tmp_path / run / "run/config.json")
            assert score(file, PROBLEMS[1], solutions()[1], reward_router_address=router)["flawed"] == 1.0
            assert len(server.requests) == (2 if changed else 1), run


def test_results_of_canaries_are_sent_with_the_rollouts(tmp_path: Path) -> None:
    watched = {"canaries": "miniature:critic-test", "canary_rate": 1.0, "canary_min_f1": 1.0}
    with chat_server(answer) as server:
        settings(tmp_path, server.url, **watched)
        file = str(tmp_path / "run/config.json")
        found = [score(file, PROBLEMS[i], solutions()[i], recorded=True) for i in (0, 1, 4)]
    payloads = [decode(row["fapo"], row["score"], 7, MAX_TOKENS) for row in found]
    assert [len(payload.canaries) for payload in payloads] == [1, 1, 0], "one for each judged rollout, sent once"
    assert len(server.requests) == 4
    assert {verdict.status for payload in payloads for verdict, _ in payload.canaries} == {"ok"}
    assert [row["score"] for row in found] == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("kind", "critique", "label", "reward"),
    [
        ("genrm_step", "\\boxed{-1}", None, 1.0),
        ("genrm_step", "\\boxed{0}", None, -1.0),
        ("genrm_step", "\\boxed{0}", 1, 0.5),
        ("genrm_outcome", "\\boxed{0}", 1, 1.0),
        ("genrm_step", "\\boxed{2}", 1, -1.0),
    ],
)
def test_critiques_are_scored_by_the_label_of_their_row(
    kind: str, critique: str, label: int | None, reward: float, tmp_path: Path
) -> None:
    file = tmp_path / "genrm.toml"
    base = (ROOT / "src/fapo/data/miniature/configs/genrm.toml").read_text(encoding="utf-8")
    file.write_text(base.replace("genrm_step", kind), encoding="utf-8")
    correct = label != 1
    solution = LabelledSolution(PROBLEMS[0], ("1+1=2", "2+2=5"), label, correct)
    (row,) = verl_rows("test", [Example(PROBLEMS[0], [], solution)])
    asked = compute_score("test", critique, row["reward_model"]["ground_truth"], row["extra_info"], config=str(file))
    found = asyncio.run(asked)
    assert found["score"] == reward
    payload = decode(found["fapo"], reward, 7, MAX_TOKENS)
    assert (payload.split, payload.truth, payload.scored.verdict.num_tokens) == (
        "test",
        GroundTruth(label, answer_correct=correct),
        7,
    )
    cut_off = compute_score(
        "test",
        critique,
        row["reward_model"]["ground_truth"],
        {**row["extra_info"], "truncated": True},
        config=str(file),
    )
    assert asyncio.run(cut_off)["score"] == -1.0


@pytest.mark.parametrize(("noisy", "reward"), [(1, 1.0), (None, -1.0), (0, 0.5)])
def test_label_noise_reaches_the_reward_but_not_the_measurements(
    noisy: int | None, reward: float, tmp_path: Path
) -> None:
    """The critique names step 1; the label of the data is 0, and label noise has made `noisy` of it."""
    file = tmp_path / "genrm.toml"
    file.write_bytes((ROOT / "src/fapo/data/miniature/configs/genrm.toml").read_bytes())
    noise = {"mislabelled": True, "wrong_step": noisy} if noisy != 0 else {}
    solution = LabelledSolution(PROBLEMS[0], ("1+1=2", "2+2=5"), 0, True, **noise)
    (row,) = verl_rows("train", [Example(PROBLEMS[0], [], solution)])
    asked = compute_score(
        "train", "\\boxed{1}", row["reward_model"]["ground_truth"], row["extra_info"], config=str(file)
    )
    found = asyncio.run(asked)
    assert found["score"] == reward
    truth = decode(found["fapo"], reward, 7, MAX_TOKENS).truth
    assert truth == GroundTruth(0, answer_correct=True), "metrics use the label of the data"


VERDICTS = [None, Verdict.from_step(1, "bad", num_tokens=3), Verdict("failed", reason="down"), Verdict("unparsable")]


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("value", [None, 0.0, 2 / 3])
def test_decoding_restores_a_payload(verdict: Verdict | None, value: float | None) -> None:
    turns = "Tool call: f(1)", Given('{"text": 1}')
    rollout = Rollout(Problem("id", "text \u2028 {}", "1", "here"), 'a "solution"\n\\boxed{1}', earlier_turns=turns)
    parts = {"outcome": 1.0} if value is None else {"outcome": 1.0, "flaw": value - 1, "overlong": 0.0}
    canaries = ((Verdict.from_step(2, "there", num_tokens=9), None), (Verdict("unparsable"), 0))
    payload = Payload("train", ScoredRollout(rollout, True, verdict, Reward(value, parts)), canaries=canaries)
    shaped = np.float32(math.nan if value is None else value - 0.25).item()
    back = decode(encode(payload), shaped, MAX_TOKENS, MAX_TOKENS)
    assert back.scored.rollout == replace(rollout, num_tokens=MAX_TOKENS, truncated=True)
    assert back.canaries == canaries
    assert (back.scored.verdict, back.scored.flawed) == (verdict, payload.scored.flawed)
    if value is None:
        assert back.scored.reward == Reward(None, parts)
    else:
        assert back.scored.reward.parts == {**parts, "overlong": -0.25}
        assert back.scored.reward.value == pytest.approx(value - 0.25, abs=1e-9)
