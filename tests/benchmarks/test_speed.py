"""Tools of the benchmarks: the slow judge, the lower bound of the wall time, turns and ratios."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measuring import slow_judge as judge
from benchmarks.measuring.turns import in_turn, peak_memory, run_module, spread
from fapo.inference.client import ChatClient


@given(st.lists(st.text(max_size=5), max_size=40), st.integers(1, 50))
def test_no_client_is_faster_than_the_slots(questions: list[str], num_slots: int) -> None:
    times = [judge.latency(question) for question in questions]
    end = judge.ideal_seconds(questions, num_slots)
    assert end >= max([sum(times) / num_slots, *times]) - 1e-9
    assert end <= sum(times) / num_slots + max(times, default=0) + 1e-9
    assert judge.ideal_seconds(questions, 1) == pytest.approx(sum(times))


def test_latencies_are_log_normal_and_depend_on_the_question() -> None:
    times = sorted(judge.latency(str(i)) for i in range(2001))
    assert times[1000] == pytest.approx(judge.MEDIAN, rel=0.1)
    assert times[1683] / times[1000] == pytest.approx(2.718**judge.SIGMA, rel=0.15)
    assert judge.latency("0") == judge.latency("0")


def test_faults_have_the_given_rate() -> None:
    drawn = [judge.fault(str(i), attempt, 0.05) for i in range(2000) for attempt in (1, 2)]
    assert 0.04 < sum(map(bool, drawn)) / len(drawn) < 0.06
    assert set(drawn) == {"", *judge.FAULTS}


def test_replicas_answer_despite_faults_and_count_their_work() -> None:
    questions = [str(i) for i in range(60)]

    async def ask(urls: list[str]) -> list[str]:
        client = ChatClient(urls, "genrm", concurrency=60, backoff=0.01, cooldown=0.01, retries=20)
        answers = await client([[{"role": "user", "content": question}] for question in questions])
        await client.aclose()
        return [answer.error or answer.text[-11:] for answer in answers]

    with judge.slow_judge(2, 30, fault_rate=0.3) as urls:
        assert set(asyncio.run(ask(urls))) == {" \\boxed{-1}"}
        done = json.load(urllib.request.urlopen(urls[0].removesuffix("/v1") + "/done"))
        again = json.load(urllib.request.urlopen(urls[1].removesuffix("/v1") + "/done"))
    assert done["requests"] == 60 + done["faults"]
    assert done["faults"] > 5
    assert done["work"] >= sum(map(judge.latency, questions)) - 1e-6
    assert len(done["spans"]) == done["requests"]
    assert sum(end - begin for begin, end in done["spans"]) >= done["work"] - 1e-6
    assert again == {"requests": 0, "work": 0, "faults": 0, "spans": []}


def test_sides_take_turns() -> None:
    order: list[str] = []
    sides = {name: lambda number, name=name: order.append(f"{name}{number}") for name in "ab"}
    assert list(in_turn(sides, 2)) == ["a", "b"]
    assert order == ["a0", "b0", "b1", "a1"]
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"


def test_the_memory_of_a_started_process_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ballast = bytearray(b"x" * 100_000_000)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = tmp_path / "one_side.py"
    script.write_text(
        "from benchmarks.measuring.turns import *\nprint('more')\nprint_result(cost_of(lambda: None)[0], found=7)\n"
    )
    found = run_module("one_side")
    assert found["found"] == 7
    assert found["peak"] < 60 < peak_memory()
    script.write_text("raise SystemExit('no luck')")
    with pytest.raises(RuntimeError, match="no luck"):
        run_module("one_side")
    assert ballast
