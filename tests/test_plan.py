"""fapo plan: the simulation against closed forms and a slow twin, memory by hand, the paper's time split."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import fapo
from hypothesis import given, settings
from hypothesis import strategies as st

from fapo.config import Config, load, to_dict
from fapo.data import write_jsonl
from fapo.miniature.sources import model_folder
from fapo.plan.layout import Layout
from fapo.plan.make import Plan, make_plan
from fapo.plan.memory import GIB, serving_memory, training_memory
from fapo.plan.options import PlanOptions
from fapo.plan.pool import Pool, finish_times
from fapo.plan.shapes import KNOWN, Shape, find_shape
from fapo.plan.step import Speeds, Step, simulate, smallest_pool, with_replicas
from fapo.plan.workload import Workload, assumed, batch_pace, read_run

ROOT = Path(__file__).parents[1]
MINIATURE = ROOT / "src/fapo/miniature/configs/policy.toml"

# --- a pool -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "tokens", "pool", "seconds"),
    [
        (8, 10, Pool(1, 8, 0.5), 5.0),
        (9, 10, Pool(1, 8, 0.5), 10.0),
        (9, 10, Pool(2, 8, 0.5), 5.0),
        (16, 10, Pool(2, 4, 0.5), 10.0),
        (16, 10, Pool(2, 4, 0.5, limit=4), 20.0),
        (8, 10, Pool(1, 8, 0.5, 0.25), 10 * (0.5 + 8 * 0.25)),
        (8, 10, Pool(4, 8, 0.5, 0.25), 10 * (0.5 + 2 * 0.25)),
        (1, 10, Pool(4, 8, 0.5, 0.25), 10 * (0.5 + 0.25)),
        (8, 10, Pool(1, 8, 0.0), 0.0),
    ],
)
def test_equal_lengths_take_waves_of_equal_time(number: int, tokens: int, pool: Pool, seconds: float) -> None:
    assert max(finish_times([0.0] * number, [tokens] * number, pool)) == pytest.approx(seconds)


SEQUENCES = st.lists(st.tuples(st.floats(0, 50), st.integers(0, 60)), min_size=1, max_size=40)
POOLS = st.builds(
    Pool,
    replicas=st.integers(1, 5),
    slots=st.integers(1, 6),
    step_seconds=st.sampled_from([0.0, 0.5, 1.0]),
    sequence_seconds=st.sampled_from([0.0, 0.25]),
    limit=st.sampled_from([None, 1, 7]),
)


def token_by_token(tokens: list[int], pool: Pool) -> list[float]:
    """The same for sequences that are all there at once: each round writes one token of each that has a place."""
    left, done, now = dict(enumerate(tokens)), [0.0] * len(tokens), 0.0
    while True:
        for i in [i for i in list(left)[: pool.places] if left[i] == 0]:
            done[i] = now
            del left[i]
        under_way = list(left)[: pool.places]
        if not under_way:
            return done
        if any(left[i] == 0 for i in under_way):
            continue
        now += pool.token_seconds(len(under_way))
        for i in under_way:
            left[i] -= 1


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20), POOLS)
def test_it_is_what_counting_every_token_gives(tokens: list[int], pool: Pool) -> None:
    assert finish_times([0.0] * len(tokens), tokens, pool) == pytest.approx(token_by_token(tokens, pool))


@given(SEQUENCES, POOLS, st.integers(1, 4))
@settings(max_examples=60)
def test_more_replicas_are_never_slower(rows: list[tuple[float, int]], pool: Pool, more: int) -> None:
    arrivals, tokens = zip(*rows, strict=True)
    few = finish_times(arrivals, tokens, pool)
    many = finish_times(arrivals, tokens, replace(pool, replicas=pool.replicas + more))
    assert all(b <= a + 1e-9 for a, b in zip(few, many, strict=True))


@given(SEQUENCES, POOLS)
def test_nothing_is_written_faster_than_alone_or_before_it_comes(rows: list[tuple[float, int]], pool: Pool) -> None:
    arrivals, tokens = zip(*rows, strict=True)
    for done, arrival, number in zip(finish_times(arrivals, tokens, pool), arrivals, tokens, strict=True):
        assert done >= arrival + number * pool.token_seconds(1) - 1e-9


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.floats(0.01, 1))
@settings(max_examples=40)
def test_a_server_without_idle_places_writes_its_tokens_one_after_the_other(tokens: list[int], each: float) -> None:
    done = finish_times([0.0] * len(tokens), tokens, Pool(1, len(tokens), 0.0, each))
    assert max(done) == pytest.approx(sum(tokens) * each)


@pytest.mark.parametrize("wrong", [{"replicas": 0}, {"slots": 0}, {"limit": 0}, {"step_seconds": -1.0}])
def test_a_pool_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a pool needs|less than no time"):
        Pool(**{"replicas": 1, "slots": 1, "step_seconds": 1.0, **wrong})


# --- a step -----------------------------------------------------------------------------------------------------------

WORK = st.builds(
    lambda rows, votes: Workload(tuple(r for r, _ in rows), tuple((c,) * votes if c else () for _, c in rows), 5, 7),
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=30),
    st.integers(1, 3),
)
SPEEDS = st.builds(Speeds, POOLS, POOLS, st.sampled_from([0.0, 0.1]), st.sampled_from([0.01, 0.1]))


@given(WORK, SPEEDS)
@settings(max_examples=40)
def test_a_step_waits_for_the_last_verdict_and_no_longer(work: Workload, speeds: Speeds) -> None:
    steps = [with_replicas(work, speeds, replicas) for replicas in (1, 2, 5)]
    assert all(step.exposed >= 0 and step.ratio >= 1 for step in steps)
    assert all(b.total <= a.total + 1e-9 for a, b in pairwise(steps))
    alone = simulate(replace(work, critiques=((),) * len(work.critiques)), speeds)
    assert (alone.exposed, alone.ratio) == (0, 1)
    assert all((step.rollout, step.update) == (alone.rollout, alone.update) for step in steps)
    free = replace(speeds, judge=replace(speeds.judge, step_seconds=0.0, sequence_seconds=0.0))
    assert simulate(work, free).ratio == 1


@given(WORK, SPEEDS, st.floats(0, 1))
@settings(max_examples=40)
def test_the_smallest_pool_keeps_to_the_goal_or_comes_near_and_a_smaller_one_does_not(
    work: Workload, speeds: Speeds, goal: float
) -> None:
    found, reached = smallest_pool(work, speeds, goal, 9)
    steps = [with_replicas(work, speeds, replicas) for replicas in range(1, 10)]
    assert reached == (steps[-1].ratio <= 1 + goal)
    longest = (1 + goal) * (steps[-1].rollout + steps[-1].update if reached else steps[-1].total)
    assert found == next(step.replicas for step in steps if step.total <= longest)


def test_a_step_by_hand() -> None:
    """Rollouts end at 10 and 20 s; the judge reads 10 of 20 tokens as one and writes 4: done at 30 s, 10 s exposed."""
    work = Workload((10, 20), ((), (4,)), 5, 40)
    speeds = Speeds(Pool(1, 2, 1.0), Pool(3, 1, 1.0), read_share=0.1, update_seconds=0.5)
    assert simulate(work, speeds) == Step(3, rollout=20.0, exposed=10.0, update=20.0)
    assert (work.policy_tokens, work.judge_tokens, work.read_tokens) == (30, 4, 60)


# --- what is assumed --------------------------------------------------------------------------------------------------


def paper_7b(*changed: str) -> Config:
    return load(ROOT / "configs/fapo_7b.toml", [f"data.prompt={ROOT / 'configs/boxed.txt'}", *changed])


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("votes", [1, 2])
def test_lengths_and_shares_are_those_that_were_asked_for(accuracy: float, votes: int) -> None:
    config = paper_7b(f"judge.votes={votes}")
    options = PlanOptions(response=1000, accuracy=accuracy, critique=2000)
    work = assumed(config, options)
    number = 512 * 8
    assert len(work.responses) == len(work.critiques) == number
    assert np.mean(work.responses) == pytest.approx(1000, rel=0.02)
    assert max(work.responses) <= 8192
    assert sum(map(bool, work.critiques)) == pytest.approx(accuracy * number, abs=number * 0.01)
    assert {len(own) for own in work.critiques if own} <= {votes}
    if accuracy:
        assert np.mean([tokens for own in work.critiques for tokens in own]) == pytest.approx(2000, rel=0.02)
    cut = [own for tokens, own in zip(work.responses, work.critiques, strict=True) if tokens == 8192]
    assert cut
    assert not any(cut), "a rollout that the limit cut off has no answer to be right"


def test_what_the_config_says_of_the_judge_counts() -> None:
    assert not assumed(paper_7b("reward.kind=outcome"), PlanOptions()).judge_tokens
    assert all(assumed(paper_7b("judge.all=true"), PlanOptions()).critiques)
    assert max(max(own, default=0) for own in assumed(paper_7b("judge.max_tokens=99"), PlanOptions()).critiques) <= 99
    narrow = make_plan(paper_7b("judge.concurrency=8"), PlanOptions(replicas=4))
    assert narrow.speeds.judge.limit == 8
    assert narrow.pools[-1].exposed > make_plan(paper_7b(), PlanOptions(replicas=4)).pools[-1].exposed


@pytest.mark.parametrize(
    ("name", "billions"), [("Qwen2.5-Math-7B", 7.615), ("Qwen2.5-32B", 32.76), ("Qwen3-4B", 4.022)]
)
def test_the_weights_of_known_models(name: str, billions: float) -> None:
    assert find_shape(f"someone/{name}", "--shape").num_params / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize("name", ["policy", "genrm"])
def test_the_weights_of_a_model_on_disk(name: str) -> None:
    safetensors = pytest.importorskip("safetensors", reason="counting the weights needs the train extra")
    with safetensors.safe_open(f"{model_folder(f'miniature:{name}')}/model.safetensors", "np") as file:
        counted = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    assert find_shape(f"miniature:{name}", "--shape").num_params == counted


def test_memory_by_hand() -> None:
    shape = Shape(8, 16, 2, 4, 2, 2, 100, tie_word_embeddings=False)
    per_layer = 8 * 2 * (4 + 4) + 8 * 2 * 4 + 3 * 8 * 16 + 2 * 8
    assert shape.num_params == 2 * per_layer + 2 * 100 * 8 + 8
    assert shape.kv_bytes == 2 * 2 * 2 * 2 * 2
    layout = Layout(4, 2, 9, 0.5, 4, offload_params=False, offload_optimizer=False, prompt_limit=1)
    found = training_memory(shape, layout, "float32", 3, 10)
    assert found.gradients * GIB == pytest.approx(shape.num_params)
    assert found.optimizer == 2 * found.gradients
    assert found.activations * GIB == pytest.approx(30 * (2 * 8 + 8 * 8 + 3 * 16 + 2 * 100) * 2)
    assert training_memory(shape, replace(layout, offload_optimizer=True), "float32", 3, 10).optimizer == 0
    serving = serving_memory("judge", shape, 6, 2, (shape.num_params + 1000) / GIB, 99, 10)
    assert serving.sequences == int(1000 / (10 * shape.kv_bytes / 2))
    assert serving.total * GIB == pytest.approx(shape.num_params + 1000)


# --- from a run -------------------------------------------------------------------------------------------------------


def run_folder(folder: Path, steps: list[tuple[list[int], list[int]]], *changed: str) -> Path:
    """A run whose batch takes 2 s for a token of the longest and 0.5 s for each token, its judge 1 s and 0.25 s."""
    rows, metrics = [], []
    for step, (tokens, critiques) in enumerate(steps, start=1):
        pairs = zip(tokens, critiques, strict=True)
        rows += [{"step": step, "split": "train", "num_tokens": n, "critique_tokens": c} for n, c in pairs]
        seconds = {
            "time/rollout": 2 * max(tokens) + 0.5 * sum(tokens),
            "time/score": max(critiques) + 0.25 * sum(critiques),
            "time/update": 0.125 * sum(tokens),
        }
        metrics += [{"step": step, "kind": "train", **seconds}, {"step": step, "kind": "validation"}]
    write_jsonl(folder / "rollouts.jsonl", [*rows, {"step": 0, "split": "validation", "num_tokens": 999}])
    write_jsonl(folder / "metrics.jsonl", metrics)
    (folder / "config.json").write_text(json.dumps(to_dict(load(MINIATURE, changed))), encoding="utf-8")
    return folder


def test_speeds_and_lengths_of_a_run(tmp_path: Path) -> None:
    found = read_run(run_folder(tmp_path, [([3, 5], [4, 0]), ([9, 1], [2, 7]), ([2, 2], [0, 0])]))
    assert found.rollout == pytest.approx((2, 0.5))
    assert found.judge == pytest.approx((1, 0.25))
    assert found.update_seconds == pytest.approx(0.125)
    assert sorted(found.rows) == [(1, 7), (2, 0), (2, 0), (3, 4), (5, 0), (9, 2)]


def test_a_plan_from_a_run_gives_its_seconds_back(tmp_path: Path) -> None:
    """Rollouts of one length: the step of the plan is that of the run, with the judge after the rollouts."""
    run_folder(tmp_path, [([4, 4, 4, 4], [6, 6, 6, 6])] * 3)
    small = load(MINIATURE, ["rollout.num_prompts=2", "rollout.group_size=2"])
    step = make_plan(small, PlanOptions(measured=tmp_path, replicas=1)).pools[0]
    assert (step.rollout, step.exposed) == pytest.approx((2 * 4 + 0.5 * 16, 6 + 0.25 * 24))
    assert step.update == pytest.approx(0.125 * 16)


SERVED = ("judge.kind=served", 'judge.urls=["http://localhost/v1"]')


@pytest.mark.parametrize("engine", ["trl", "verl"])
def test_the_time_of_a_judge_beside_the_rollouts_is_not_taken_for_all_of_it(engine: str, tmp_path: Path) -> None:
    run_folder(tmp_path, [([4, 4], [6, 6]), ([8, 4], [6, 6]), ([4, 1], [6, 6])], *(SERVED if engine == "trl" else ()))
    if engine == "verl":
        (tmp_path / "hydra").mkdir()
    found = make_plan(load(MINIATURE, SERVED), PlanOptions(measured=tmp_path, replicas=1))
    assert (found.speeds.policy.step_seconds, found.speeds.policy.sequence_seconds) == pytest.approx((2, 0.5))
    h100 = find_shape("Qwen3-4B", "").num_params * 2 / (3.35e12 * 0.6)
    assert found.speeds.judge.step_seconds == pytest.approx(h100)
    assert found.speeds.judge.limit == 64
    assert found.work.read_tokens == 384 * 600 + found.work.policy_tokens


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 200), st.floats(0, 9)), min_size=1, max_size=9))
def test_no_pace_is_below_0(rows: list[tuple[int, int, float]]) -> None:
    longest, more, seconds = zip(*rows, strict=True)
    found = batch_pace(longest, [a + b for a, b in zip(longest, more, strict=True)], seconds)
    assert min(found) >= 0


# --- the command ------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(ROOT)
    return fapo(monkeypatch, "plan", *arguments, columns=200)


@pytest.mark.parametrize("config", sorted(path.stem for path in ROOT.glob("configs/*_*b.toml")))
def test_every_run_of_the_paper_has_a_plan(config: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, f"configs/{config}.toml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gpu_hours"]["policy"] == pytest.approx(found["hours"] * 8 * {"7b": 2}.get(config[-2:], 4))
    assert ("judge" in [role["role"] for role in found["memory_gib"]]) == config.startswith("fapo")
    assert all(role["total"] < 80 for role in found["memory_gib"])
    if not config.startswith("fapo"):
        assert [step["ratio"] for step in found["pools"]] == [1]
        assert found["gpu_hours"]["judge"] == 0


def test_the_tables_say_what_keeps_to_the_goal_or_what_to_do(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "configs/fapo_32b.toml") == 0
    said = capsys.readouterr().out
    assert "> 8 " in said
    assert "the fewest judges that lengthen a step by no more than 5%" in said
    assert run(monkeypatch, "configs/fapo_7b.toml", "--replicas", "16") == 0
    assert "judge.concurrency = 512 holds them back; raise it" in capsys.readouterr().out
    assert run(monkeypatch, "configs/fapo_7b.toml", "judge.concurrency=99999", "--replicas", "16") == 0
    assert "16 judges still lengthen a step by 58.6%, not 5%: critiques have to wait" in capsys.readouterr().out
    assert run(monkeypatch, "configs/fapo_7b.toml", "judge.concurrency=99999", "--replicas", "128") == 0
    said = capsys.readouterr().out
    assert "the last critiques take so long, even alone; shorten them" in said
    assert "the fewest judges that come within 5% of that" in said


MISTAKES = {
    "no length": (["configs/fapo_7b.toml", "--response", "0"], "--response must be above 0, not 0"),
    "no share": (["configs/fapo_7b.toml", "--accuracy", "1.5"], "--accuracy is a share, from 0 to 1, not 1.5"),
    "no model": (["configs/fapo_7b.toml", "--shape", "nowhere"], "--shape: the shape of 'nowhere' is not known here"),
    "no decoder": (["configs/fapo_7b.toml", "--shape", "package.json"], "--shape: the shape of 'package.json' is not"),
    "no run": (["configs/fapo_7b.toml", "--from", "nowhere"], "--from nowhere: no run folder: No such file"),
    "too small a GPU": (["configs/fapo_7b.toml", "--gpu-memory", "10"], "are more than 1 x 5 GiB; give it more GPUs"),
    "half a server": (["configs/fapo_32b.toml", "--gpus", "6"], "6 GPUs are no multiple of the 4 of a rollout server"),
    "no nodes": (["configs/fapo_7b.toml", "verl.trainer.nnodes=0"], "trainer.nnodes must be a whole number above 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str, monkeypatch, capsys) -> None:
    arguments, said = MISTAKES[name]
    assert run(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_run_without_times_is_told(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rollouts.jsonl", [{"step": 1, "split": "train", "num_tokens": 3, "critique_tokens": 0}])
    write_jsonl(tmp_path / "metrics.jsonl", [{"step": 1, "kind": "train"}])
    with pytest.raises(ValueError, match="no step in it has both rollouts and time/rollout"):
        read_run(tmp_path)


# --- the paper's time split -------------------------------------------------------------------------------------------

PAPER = {"7b": (42, 18, 33), "32b": (60, 14, 20), "4b": (72, 10, 14)}
"""Rollout, GenRM, update in % of a step (PAPER section 4); the rest is neither."""
ASSUMED = {
    "7b": ("fapo_7b", {"response": 1200, "flops_share": 0.135}),
    "32b": ("fapo_32b", {"response": 4000, "flops_share": 0.443, "decode_share": 0.3}),
    "4b": ("fapo_7b", {"response": 6000, "flops_share": 0.373, "shape": "Qwen3-4B"}),
}
"""docs/plan.md says which of these are fitted."""


def paper_plan(name: str, replicas: int) -> Plan:
    config, options = ASSUMED[name]
    more = ["rollout.max_tokens=20480"] if name == "4b" else []
    settled = load(
        ROOT / f"configs/{config}.toml",
        [
            *(f"data.prompt={ROOT / 'configs/boxed.txt'}", "judge.concurrency=100000", "verl.trainer.nnodes=8"),
            *("verl.actor_rollout_ref.rollout.gpu_memory_utilization=0.8", *more),
        ],
    )
    return make_plan(settled, PlanOptions(replicas=replicas, **options))


@pytest.mark.parametrize(("name", "replicas"), [("7b", 47), ("32b", 12), ("4b", 37)])
def test_the_papers_time_split_with_update_and_pool_fitted(name: str, replicas: int) -> None:
    step = paper_plan(name, replicas).pools[-1]
    found = [100 * part / step.total for part in (step.rollout, step.exposed, step.update)]
    expected = [100 * part / sum(PAPER[name]) for part in PAPER[name]]
    assert found == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize(("name", "low", "high"), [("4b", 9, 11), ("32b", 2, 4)])
def test_the_pool_of_7b_hits_4b_and_misses_32b(name: str, low: float, high: float) -> None:
    """The one prediction: 10 % of 4B comes out; 15 % of 32B does not."""
    step = paper_plan(name, 47).pools[-1]
    assert low < 100 * step.exposed / step.total < high
    assert KNOWN["FAPO-GenRM-4B"] == find_shape("Qwen3-4B", "")
