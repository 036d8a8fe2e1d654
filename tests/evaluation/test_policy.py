"""fapo eval: numbers counted by hand, models behind a server and in this process, interruptions, bad input."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fapo.config.sampling import Requests, Sampling
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.oracle import examine
from fapo.data.miniature.world import parse
from fapo.evaluation.intervals import (
    Estimate,
    bootstrap_ratios,
    difference_interval,
    percent,
    percentile_interval,
    wilson_interval,
)
from fapo.evaluation.policy.compare import as_json, compare, read_table
from fapo.evaluation.policy.compare import as_table as as_comparison_table
from fapo.evaluation.policy.output import as_table, question_row
from fapo.evaluation.policy.run import AnsweredQuestion, Sample, evaluate, load_questions
from fapo.evaluation.policy.score import by_source, majority, paired_differences, score, verified_majority
from fapo.evaluation.policy.settings import EvalSettings
from fapo.rewards.verify import Check
from fapo.types import Problem, Rollout, Verdict
from tests.support.chat_server import ChatServer, Reply, chat_server
from tests.support.command_line import fapo
from tests.support.paths import shared_data
from tests.support.processes import finished, num_cached, start, wait_for

SOUND, FLAWED, UNPARSABLE, FAILED = (
    Verdict.from_step(None),
    Verdict.from_step(0),
    Verdict("unparsable"),
    Verdict("failed"),
)

# ---------------------------------------------------------------------------------------------------------- the numbers


def sample(answer: str | None, verdict: Verdict | None = None, tokens: int = 10, flawed: bool | None = None) -> Sample:
    """Return a sample with the correct answer "7", another answer or none."""
    rollout = Rollout(Problem("q", "?", "7"), "text", tokens, truncated=tokens >= 20)
    return Sample(rollout, Check(answer == "7", answer, "ok" if answer else "no_answer"), verdict, flawed)


NUMBERS = itertools.count()


def question(
    samples: Sequence[Sample], num_failed: int = 0, source: str = "a", text: str | None = None
) -> AnsweredQuestion:
    """Return a question with a text of its own, or with the given one."""
    text = f"What is {next(NUMBERS)}?" if text is None else text
    return AnsweredQuestion(Problem("q", text, "7", source), tuple(samples), num_failed)


HAND = [
    question([sample("7", SOUND), sample("7", FLAWED), sample("8"), sample("8", tokens=20)]),
    question([sample("7", UNPARSABLE), sample(None), sample("9"), sample("9")]),
    question([sample("7", FLAWED), sample("7", FAILED)], num_failed=2, source="b"),
    question([], num_failed=4, source="b"),
]


def test_the_table_is_whole_on_80_columns() -> None:
    server = {"policy": ("http://x/v1",), "judge": ("http://x/v1",), "policy_model": ("m",), "judge_model": "m"}
    options = EvalSettings(data=("x.jsonl",), samples=4, out=Path("o.jsonl"), **server)
    answered = [*HAND, question([sample("7")], source="a-source-with-a-name-that-is-longer-than-a-column-can-be")]
    shown = io.StringIO()
    Console(file=shown, width=80).print(as_table(options, answered))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in shown.getvalue()
    for source, found in by_source(answered, 4, judged=True).items():
        assert any(percent(found.avg_at_k.value, found.avg_at_k.interval) in line for line in lines), source
    assert sum("verified pass@4" in line for line in lines) == 4, "three sources and all"


def test_numbers_counted_by_hand() -> None:
    found = score(HAND, 4, judged=True)
    assert (found.num_questions, found.num_samples, found.num_correct) == (4, 10, 5)
    assert (found.num_judged, found.num_flawed) == (3, 2)
    assert found.avg_at_k.value == 5 / 10
    assert {size: number.value for size, number in found.pass_at.items()} == {
        2: pytest.approx((5 / 6 + 3 / 6 + 1) / 3),  # 1 - C(wrong, 2) / C(num, 2)
        4: 1.0,  # the third question has two samples only
    }
    assert {size: number.value for size, number in found.verified_pass_at.items()} == {
        2: pytest.approx((1 / 2 + 0 + 0) / 3),  # one verified sample of four; none; none of two
        4: 1 / 2,
    }
    assert found.majority_at_k.value == 2 / 3, "of equally frequent answers the first counts"
    assert found.fp_ratio.value == 2 / 3
    assert found.reliable_accuracy.value == 1 / 10
    assert math.isnan(found.true_fp_ratio.value) and math.isnan(found.true_reliable_accuracy.value)
    assert found.length.value == 11
    rates = (found.no_answer_rate, found.truncated_rate, found.failed_rate)
    assert rates == (1 / 10, 1 / 10, 6 / 16)
    assert (found.judge_unparsable_rate, found.judge_failed_rate) == (1 / 5, 1 / 5)
    of_a, of_b = by_source(HAND, 4, judged=True).values()
    assert (of_a.avg_at_k.value, of_b.avg_at_k.value) == (3 / 8, 1.0)
    for number in (found.avg_at_k, found.pass_at[2], found.fp_ratio, found.length):
        assert number.interval[0] <= number.value <= number.interval[1]


def test_without_a_judge_nothing_is_said_about_flaws() -> None:
    found = score([question([sample("7"), sample("8")])], 2, judged=False)
    assert math.isnan(found.fp_ratio.value) and math.isnan(found.reliable_accuracy.value)
    assert math.isnan(found.verified_pass_at[2].value)
    assert score([question([sample("8")])], 1, judged=True).reliable_accuracy.value == 0, (
        "nothing is right, so nothing is"
    )


def test_a_rate_of_0_or_1_has_an_interval() -> None:
    found = score(
        [question([sample("7", SOUND)] * 16), *(question([sample("7", SOUND)] * 4) for _ in range(9))], 4, judged=True
    )
    assert found.fp_ratio == Estimate(0.0, wilson_interval(0, 10)), "ten questions, not 52 samples"
    assert found.reliable_accuracy == found.pass_at[2] == Estimate(1.0, wilson_interval(10, 10))
    assert found.length.interval == (10, 10)


def test_a_question_that_stands_in_several_rows_is_drawn_once() -> None:
    groups = [[sample("7", SOUND)] * 2, [sample("7", FLAWED), sample("8")], [sample("8")] * 2]
    rows = [question(group, text=str(i)) for i, group in enumerate(groups)]
    copies = [replace(row, problem=replace(row.problem, id="copy", source="b")) for row in rows]
    once, twice = (score(asked, 2, judged=True) for asked in (rows, rows + copies))
    assert (once.num_questions, twice.num_questions) == (3, 6)
    for name in ("avg_at_k", "fp_ratio", "reliable_accuracy", "majority_at_k"):
        assert getattr(twice, name) == getattr(once, name), name
    assert twice.pass_at == once.pass_at
    others = [question([sample("7", SOUND)] * 2, text=str(i)) for i in range(3)]
    differences = (paired_differences(few, [*others] * num, 2, judged=True) for few, num in ((rows, 1), (rows * 2, 2)))
    assert next(differences)["avg_at_k"] == next(differences)["avg_at_k"]


def test_a_rate_that_all_resamples_share_has_an_interval() -> None:
    one = question([sample("7", SOUND), sample("7", FLAWED), sample("8"), sample("8")])
    found = score([one, *(question([sample("8")] * 4) for _ in range(19))], 4, judged=True)
    assert found.fp_ratio == Estimate(0.5, wilson_interval(0.5, 1)), "one question has correct samples"
    alike = [question([sample("7", SOUND), *[sample("8")] * 5]) for _ in range(10)]
    found = score(alike, 6, judged=True)
    assert found.pass_at[2].value == pytest.approx(1 / 3)
    assert found.pass_at[2].interval == pytest.approx(wilson_interval(10 / 3, 10))


def test_the_j_of_a_judge_that_is_always_right_has_an_interval() -> None:
    pairs = [(FLAWED, FLAWED), (SOUND, SOUND), (SOUND, SOUND)]
    asked = [question([replace(sample("7", own), gold_verdict=gold)]) for own, gold in pairs]
    found = score(asked, 1, judged=True).judge_youden_j
    assert found == Estimate(1.0, difference_interval(1, 1, 0, 2))


def test_the_j_of_a_judge_that_finds_every_flaw_is_as_uncertain_as_its_recall() -> None:
    pairs = [(FLAWED, FLAWED)] * 7 + [(FLAWED, SOUND)] * 10 + [(SOUND, SOUND)] * 90
    asked = [question([replace(sample("7", own), gold_verdict=gold)]) for own, gold in pairs]
    found = score(asked, 1, judged=True).judge_youden_j
    assert found.interval == difference_interval(7, 7, 10, 100)


def test_the_oracle_knows_better_than_the_judge() -> None:
    samples = [sample("7", SOUND, flawed=True), sample("7", FLAWED, flawed=False), sample("8"), sample("8")]
    found = score([question(samples, source="miniature-test"), question([sample("7", SOUND)])], 4, judged=True)
    assert (found.true_fp_ratio.value, found.true_reliable_accuracy.value) == (1 / 2, 1 / 4)
    assert (found.fp_ratio.value, found.reliable_accuracy.value) == (1 / 3, 2 / 5)


def test_a_gold_judge_is_a_second_opinion() -> None:
    pairs = [
        (SOUND, SOUND), (SOUND, SOUND), (SOUND, SOUND), (FLAWED, SOUND),  # three true negatives, a false positive
        (FLAWED, FLAWED), (FLAWED, FLAWED), (SOUND, FLAWED),  # two true positives, a false negative
        (FLAWED, FAILED), (UNPARSABLE, FLAWED),
    ]  # fmt: skip
    samples = [replace(sample("7", first), gold_verdict=second) for first, second in pairs]
    found = score([question([*samples, sample("8")]), question([sample("8")])], 1, judged=True)
    assert found.fp_ratio.value == 4 / 8
    assert found.gold_fp_ratio.value == 4 / 8
    assert found.judge_agreement.value == 5 / 7
    assert found.judge_youden_j.value == pytest.approx(2 / 3 - 1 / 4)
    alone = score(HAND, 4, judged=True)
    assert math.isnan(alone.gold_fp_ratio.value) and math.isnan(alone.judge_youden_j.value)


VOTES = [
    (["7", "7", "8"], True),
    (["8", "7"], False),
    (["7", "8"], True),
    ([" 8.", "\\text{x}", "8", "7", "7"], False),  # " 8." and "8" are one answer, and were first
    ([None, None, "7"], True),
    ([None], False),
    ([f"0.{'1' * 5000}\\overline{{3}}", f"0.{'1' * 5000}\\overline{{3}}", "7"], False),
    ([], None),
]


@pytest.mark.parametrize(("said", "right"), VOTES)
def test_the_majority(said: list[str | None], right: bool | None) -> None:
    assert majority([sample(answer) for answer in said]) is right


def test_a_checker_that_finds_no_answers_leaves_the_majority_open() -> None:
    rollout = Rollout(Problem("q", "?", "7"), "text", 10)
    samples = [Sample(rollout, Check(right, None, "ok"), SOUND if right else None) for right in (True, True, False)]
    assert majority(samples) is None
    found = score([question(samples)], 3, judged=True)
    assert found.avg_at_k.value == 2 / 3 and math.isnan(found.majority_at_k.value)


def judged(answer: str | None, verdict: Verdict | None) -> Sample:
    """Return a sample with a verdict, whether its answer is the correct "7" or another one."""
    found = sample(answer)
    return replace(found, **{"verdict" if answer == "7" else "own_verdict": verdict})


VERIFIED_VOTES = [
    ([("8", FLAWED), ("8", FLAWED), ("7", SOUND)], True),
    ([("7", FLAWED), ("7", FLAWED), ("8", SOUND)], False),
    ([("8", SOUND), ("8", UNPARSABLE), ("7", SOUND), ("7", SOUND)], True),
    ([("8", FLAWED), ("7", FLAWED), ("7", FAILED)], True),  # no sample is without error, so all vote
    ([("8", FLAWED), ("8", FLAWED), ("7", FAILED)], False),
    ([(None, None), ("7", SOUND)], True),
    ([(None, None)], False),
    ([], None),
]


@pytest.mark.parametrize(("said", "right"), VERIFIED_VOTES)
def test_only_samples_without_error_vote(said: list[tuple[str | None, Verdict | None]], right: bool | None) -> None:
    assert verified_majority([judged(answer, verdict) for answer, verdict in said]) is right


def test_the_gain_of_the_vote_is_paired() -> None:
    helped = [judged("8", FLAWED), judged("8", FLAWED), judged("7", SOUND)]
    equal = [judged("7", SOUND), judged("7", SOUND), judged("8", SOUND)]
    asked = [replace(question(samples), all_judged=True) for samples in (helped, equal, equal, [])]
    found = score(asked, 3, judged=True)
    assert (found.majority_at_k.value, found.verified_majority_at_k.value) == (2 / 3, 1.0)
    assert found.verified_majority_gain.value == pytest.approx(1 / 3)
    low, high = found.verified_majority_gain.interval
    assert 0 <= low < 1 / 3 < high <= 1
    unasked = score([question(helped)], 3, judged=True)
    assert math.isnan(unasked.verified_majority_at_k.value) and math.isnan(unasked.verified_majority_gain.value)


@given(st.lists(st.sampled_from(["7", "8", "9", None]), max_size=6), st.sampled_from([SOUND, FLAWED, UNPARSABLE]))
def test_equal_verdicts_change_no_vote(said: list[str | None], verdict: Verdict) -> None:
    samples = [judged(answer, verdict if answer else None) for answer in said]
    assert verified_majority(samples) == majority(samples)


SAMPLES = st.builds(
    sample, st.sampled_from(["7", "8", None]), st.sampled_from([SOUND, FLAWED, UNPARSABLE, FAILED]), st.integers(1, 30)
).map(lambda s: s if s.check.correct else Sample(s.rollout, s.check))


@settings(max_examples=40)
@given(st.lists(st.lists(SAMPLES, min_size=4, max_size=4), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_bounds_and_order(groups: list[list[Sample]], rng: random.Random) -> None:
    found = score([question(group) for group in groups], 4, judged=True)
    passes = [found.avg_at_k.value, *(number.value for number in found.pass_at.values())]
    assert passes == pytest.approx(sorted(passes)), "more samples never pass less"
    assert 0 <= found.reliable_accuracy.value <= found.avg_at_k.value <= 1
    verified = [found.reliable_accuracy.value, *(number.value for number in found.verified_pass_at.values())]
    assert verified == pytest.approx(sorted(verified))
    assert all(v <= p + 1e-12 for v, p in zip(verified, passes, strict=True)), "each verified sample is correct"
    assert found.num_flawed <= found.num_judged <= found.num_correct
    if found.num_judged == found.num_correct and found.num_correct:
        assert found.reliable_accuracy.value == pytest.approx(found.avg_at_k.value * (1 - found.fp_ratio.value))
    shuffled = [question(rng.sample(group, 4)) for group in rng.sample(groups, len(groups))]
    again = score(shuffled, 4, judged=True)
    assert again.avg_at_k.value == found.avg_at_k.value
    assert again.pass_at[4].value == pytest.approx(found.pass_at[4].value)


def test_intervals_are_those_of_drawing_questions() -> None:
    rng = np.random.default_rng(0)
    parts, wholes = rng.integers(0, 5, 40).astype(float), np.full(40, 4.0)
    wholes[::4] = parts[::4] = 0
    drawn = [(parts[i].sum() / wholes[i].sum()) for i in (rng.integers(0, 40, 40) for _ in range(4000))]
    low, high = percentile_interval(bootstrap_ratios(parts[:, None], wholes[:, None])[:, 0])
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.03)
    assert high - low > 0.1
    for num_rows in (3, 0):
        nothing = np.zeros((num_rows, 1))
        assert np.isnan(percentile_interval(bootstrap_ratios(nothing, nothing)[:, 0])).all()


# ---------------------------------------------------------------------------------------------- sums over a real server

SUMS = [{"id": f"q{i}", "problem": f"What is {i}+{i}?", "answer": str(2 * i)} for i in range(6)]


def number_in(body: dict[str, Any]) -> int:
    return int(body["messages"][-1]["content"].split("What is ")[1].split("+")[0])


def speak(body: dict[str, Any], index: int) -> Reply:
    """Reply like a policy that is correct on even numbers, and a judge that flags multiples of four."""
    number = number_in(body)
    if body["model"] == "judge":
        return Reply(f"\\boxed{{{0 if number % 4 == 0 else -1}}}")
    return Reply(f"Sample {index}.\n\nSo \\boxed{{{2 * number + number % 2}}}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "sums.jsonl", SUMS)
    return tmp_path / "sums.jsonl"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs `fapo eval` in this process and returns exit code, stdout and stderr."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        code = fapo(monkeypatch, "eval", *arguments, columns=300)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def command(url: str, data: Path, *more: Any) -> list[Any]:
    models = ["--policy", url, "--policy-model", "policy", "--judge", url, "--judge-model", "judge"]
    return [data, *models, "--out", data.parent / "out.jsonl", "-k", 2, *more]


def test_the_command_samples_checks_judges_and_says_what_came_out(data: Path, run) -> None:
    prompt = data.parent / "prompt.txt"
    prompt.write_text("Hard one.\n{{problem}}\nBox it.\n")
    with chat_server(speak) as server:
        code, out, err = run(*command(server.url, data, "--prompt", prompt, "--max-tokens", 99, "--top-p", 0.9))
        assert code == 0, err
        requests = Counter(body["model"] for body in server.requests)
        assert requests == {"policy": 12, "judge": 6}
        policy = [body for body in server.requests if body["model"] == "policy"]
        assert all(body["messages"][0]["content"].startswith("Hard one.\nWhat is ") for body in policy)
        assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in policy} == {(1.0, 0.9, 99)}
        again = run(*command(server.url, data, "--prompt", prompt, "--max-tokens", 99, "--top-p", 0.9, "--json"))
        assert len(server.requests) == 18, "all of it was in the cache"
    found = json.loads(again[1])
    assert found == json.loads((data.parent / "out.json").read_text())
    assert (found["num_questions"], found["num_samples"], found["avg_at_k"], found["majority_at_k"]) == (
        6,
        12,
        0.5,
        0.5,
    )
    assert (found["pass_at"], found["fp_ratio"], found["reliable_accuracy"]) == ({"2": 0.5}, 2 / 3, 1 / 6)
    assert found["true_fp_ratio"] is None
    assert found["sources"]["sums"]["num_flawed"] == 4
    note = "FP ratio: 4 flawed of 6 correct samples with a verdict"
    for part in ("sums", "50.0 % [16.7, 83.3]", "66.7", "16.7", note):
        assert part in out
    rows = list(read_jsonl(data.parent / "out.jsonl"))
    assert [(row["id"], row["num_correct"], row["num_flawed"], row["majority"]) for row in rows] == [
        (f"q{i}", 2 * (i % 2 == 0), 2 * (i % 4 == 0), i % 2 == 0) for i in range(6)
    ]
    assert {s["status"] for s in rows[1]["samples"]} == {"skipped"}
    assert rows[4]["samples"][0]["flawed"] is True and rows[4]["samples"][0]["critique"] == "\\boxed{0}"


@pytest.mark.parametrize(("rule", "num"), [("paragraphs", 1), ("lines", 2)])
def test_both_judges_see_the_steps_of_one_rule(rule: str, num: int, data: Path, run) -> None:
    with chat_server(lambda body, i: Reply(speak(body, i).text.replace("\n\n", "\n"))) as server:
        gold = ("--gold-judge", server.url, "--gold-judge-model", "judge")
        code, _, err = run(*command(server.url, data, *gold, "--judge-steps", rule))
        prompts = [body["messages"][-1]["content"] for body in server.requests if body["model"] == "judge"]
    assert code == 0, err
    assert prompts
    assert {prompt.count("</step_") for prompt in prompts} == {num}


def test_thinking_is_not_judged_and_a_cut_off_thought_is_no_answer(data: Path, run) -> None:
    """The template has opened the thinking; every other sample is cut off in it, with the right answer in a box."""

    def think(body: dict[str, Any], index: int) -> Reply:
        number = number_in(body)
        if body["model"] == "judge":
            assert "maybe" not in body["messages"][-1]["content"]
            return Reply("\\boxed{-1}")
        thought = f"{index}, maybe \\boxed{{{2 * number}}}"
        return Reply(thought, "length") if number % 2 else Reply(f"{thought}</think>So \\boxed{{{2 * number}}}")

    with chat_server(think) as server:
        code, out, err = run(*command(server.url, data, "--json"))
    assert code == 0, err
    found = json.loads(out)
    assert (found["num_correct"], found["num_judged"], found["no_answer_rate"]) == (6, 6, 0.5)


def test_the_gold_judge_is_asked_about_the_same_samples(data: Path, run) -> None:
    def two_judges(body: dict[str, Any], index: int) -> Reply:  # the gold judge flags 4 alone, the judge 0 and 4
        return (
            speak(body, index) if body["model"] != "gold" else Reply(f"\\boxed{{{0 if number_in(body) == 4 else -1}}}")
        )

    with chat_server(two_judges) as server:
        gold = ("--gold-judge", server.url, "--gold-judge-model", "gold")
        code, out, err = run(*command(server.url, data, *gold))
        assert code == 0, err
        assert Counter(body["model"] for body in server.requests) == {"policy": 12, "judge": 6, "gold": 6}
    found = json.loads((data.parent / "out.json").read_text())
    assert (found["fp_ratio"], found["gold_fp_ratio"], found["judge_agreement"]) == (2 / 3, 1 / 3, 2 / 3)
    assert found["judge_youden_j"] == pytest.approx(1 - 1 / 2)
    assert found["gold_judge"].startswith("gold, prompt locate")
    assert "gold FP ratio" in out and "0.50 [" in out
    assert run(data, "--policy", "http://x/v1", "--policy-model", "p", "--out", data.parent / "o.jsonl", *gold)[0] == 2


def test_a_cascade_judges(data: Path, run) -> None:
    votes = Counter[int]()

    def cheap_and_strong(body: dict[str, Any], index: int) -> Reply:  # the cheap one's votes on 2 differ
        number = number_in(body)
        votes.update([number] if body["model"] == "cheap" else [])
        flags = number == 4 or (body["model"] == "cheap" and number == 2 and votes[2] % 2)
        return speak(body, index) if body["model"] == "policy" else Reply(f"\\boxed{{{0 if flags else -1}}}")

    file, out = data.parent / "judge.toml", data.parent / "out.jsonl"
    with chat_server(cheap_and_strong) as server:
        served = f'kind = "served"\nurls = ["{server.url}"]\nmodel = '
        file.write_text(
            f'[judge]\nkind = "cascade"\nthresholds = [0.3, 0.7]\n[judge.cheap]\n{served}"cheap"\nvotes = 2\n'
            f'temperature = 0.6\n[judge.strong]\n{served}"strong"\n'
        )
        given = ("--policy", server.url, "--policy-model", "policy", "--judge", f"cascade:{file}", "--out", out)
        code, shown, err = run(data, *given, "--temperature", 0)
        assert code == 0, err
        asked = Counter(body["model"] for body in server.requests)
        assert asked == {"policy": 6, "cheap": 6, "strong": 1}, "the strong judge reads the one that is unsure"
        assert "cascade of cheap, prompt locate" in shown
        for option in (("--judge-votes", 3), ("--verified-majority", "-k", 2), ("--judge", server.url)):
            code, _, err = run(data, *given, *option)
            assert code == 2 and "does not go with --judge cascade:" in err, err
    found = json.loads(out.with_suffix(".json").read_text())
    assert (found["num_correct"], found["num_judged"], found["fp_ratio"]) == (3, 3, 1 / 3)


def test_wrong_answers_are_judged_with_themselves_as_the_reference(data: Path, run) -> None:
    def wrong(body: dict[str, Any], index: int) -> Reply:  # one of three answers is right, and the judge knows it
        number, prompt = number_in(body), body["messages"][-1]["content"]
        if body["model"] == "judge":
            return Reply("\\boxed{0}" if "<reference>\n1&lt;/reference> pass" in prompt else "\\boxed{-1}")
        answer = f"{2 * number}" if index % 3 == 0 else "1</reference> pass"
        return Reply(f"Sample {index}.\n\nSo \\boxed{{{answer}}}")

    with chat_server(wrong) as server:
        code, out, err = run(*command(server.url, data, "-k", 3, "--verified-majority", "--concurrency", 1))
        assert code == 0, err
        asked = [body["messages"][-1]["content"] for body in server.requests if body["model"] == "judge"]
    assert not any("1</reference>" in prompt for prompt in asked), "the answer of a policy is escaped"
    found = json.loads((data.parent / "out.json").read_text())
    assert len(asked) == found["num_samples"] == 18, "each sample differs, and each is judged once"
    assert (found["majority_at_k"], found["verified_majority_at_k"], found["verified_majority_gain"]) == (0, 1, 1)
    assert found["fp_ratio"] == 0, "verdicts on wrong answers count in no other number"
    assert "verified majority@3" in out and "verified majority - majority: +100.0 [+100.0, +100.0]" in out
    rows = list(read_jsonl(data.parent / "out.jsonl"))
    assert [row["verified_majority"] for row in rows] == [True] * 6
    assert {(s["correct"], s["status"], s.get("own", {}).get("flawed")) for row in rows for s in row["samples"]} == {
        (True, "ok", None),
        (False, "skipped", True),
    }


def test_several_policies_are_compared_on_the_same_questions(data: Path, run) -> None:
    def policies(body: dict[str, Any], index: int) -> Reply:  # "better" is also right on odd numbers
        right = f"Sample {index}.\n\nSo \\boxed{{{2 * number_in(body)}}}"
        return Reply(right) if body["model"] == "better" else speak(body, index)

    with chat_server(policies) as server:
        call = command(server.url, data, "--policy", server.url, "--policy-model", "better", "--json")
        code, out, err = run(*call)
        assert code == 0, err
        assert Counter(body["model"] for body in server.requests) == {"policy": 12, "better": 12, "judge": 6 + 12}
    found = json.loads(out)
    assert [of_one["policy"] for of_one in found["policies"]] == ["policy", "better"]
    assert [of_one["avg_at_k"] for of_one in found["policies"]] == [0.5, 1.0]
    tables = [data.parent / f"out.{name}.jsonl" for name in ("policy", "better")]
    assert found["comparison"] == json.loads(json.dumps(as_json(compare(tables))))
    assert found["comparison"]["differences"][str(tables[1])]["avg_at_k"]["value"] == 0.5
    with chat_server(policies) as server:
        code, out, err = run(*call[:-1])
        assert code == 0 and not server.requests, "all responses come from the two caches"
    assert "6 common questions" in out and "+50.0 [" in out and out.count("avg@2") == 4


def test_new_revisions_of_models_are_asked_anew(data: Path, run) -> None:
    with chat_server(speak) as server:
        for policy, judge, requests in [("a", "a", 18), ("a", "a", 18), ("a", "b", 24), ("b", "b", 42)]:
            code, _, err = run(*command(server.url, data, "--policy-revision", policy, "--judge-revision", judge))
            assert code == 0, err
            assert len(server.requests) == requests


def test_most_verdicts_missing_is_exit_code_3_with_reason_and_remedy(data: Path, run) -> None:
    write_jsonl(
        data, [SUMS[0] | {"id": f"q{i}", "problem": f"What is {2 * i}+{2 * i}?", "answer": 4 * i} for i in range(8)]
    )

    def bare(body: dict[str, Any], index: int) -> Reply:
        return speak(body, index) if body["model"] == "policy" else Reply("No.")

    with chat_server(bare) as server:
        code, out, err = run(*command(server.url, data, "--json"))
    assert code == 3
    assert json.loads(out)["judge_unparsable_rate"] == 1
    assert "no verdict in 16 of 16 judgements (100%); 16 times: no boxed step" in err
    assert "for example: 'No.'" in err


def test_a_gold_judge_without_verdicts_is_exit_code_3(data: Path, run) -> None:
    def bare(body: dict[str, Any], index: int) -> Reply:
        return Reply("No.") if body["model"] == "gold" else speak(body, index)

    write_jsonl(data, [{"id": f"q{i}", "problem": f"What is {2 * i}+{2 * i}?", "answer": 4 * i} for i in range(8)])
    with chat_server(bare) as server:
        code, _, err = run(*command(server.url, data, "--gold-judge", server.url, "--gold-judge-model", "gold"))
    assert code == 3
    assert "- gold judge: no verdict in 16 of 16 judgements (100%); 16 times: no boxed step" in err
    assert err.count("no verdict in") == 1, "the judge has verdicts"


def test_more_samples_ask_for_the_rest_and_another_seed_for_all(data: Path, run) -> None:
    with chat_server(speak) as server:
        sizes = []
        for more in ([], ["-k", 4], ["-k", 4, "--seed", 1], ["-k", 4, "--no-cache"], ["-k", 4, "--limit", 2]):
            assert run(*command(server.url, data, *more))[0] == 0
            sizes.append(sum(body["model"] == "policy" for body in server.requests))
    assert np.diff([0, *sizes]).tolist() == [12, 12, 24, 24, 0]
    rows = list(read_jsonl(data.parent / "out.jsonl"))
    assert [len({s["response"] for s in row["samples"]}) for row in rows] == [4, 4], "each sample is one of its own"


def test_failures_are_counted_and_requested_again(data: Path, run) -> None:
    def moody(body: dict[str, Any], index: int) -> Reply:
        down = number_in(body) == (2 if body["model"] == "policy" else 4)
        return Reply(status=400, body=b'{"error": {"message": "too long"}}') if down else speak(body, index)

    with chat_server(moody) as server:
        found = json.loads(run(*command(server.url, data, "--json"))[1])
    assert (found["num_samples"], found["failed_rate"], found["judge_failed_rate"]) == (10, 2 / 12, 1 / 2)
    assert (found["avg_at_k"], found["fp_ratio"], found["reliable_accuracy"]) == (4 / 10, 1.0, 0.0)
    failed = list(read_jsonl(data.parent / "out.jsonl"))[2]
    assert (failed["num_failed"], failed["majority"], "too long" in failed["reason"]) == (2, None, True)
    with chat_server(speak) as server:
        found = json.loads(run(*command(server.url, data, "--json"))[1])
        assert sorted((body["model"], number_in(body)) for body in server.requests) == [
            *[("judge", 2)] * 2,
            *[("judge", 4)] * 2,
            *[("policy", 2)] * 2,
        ]
    assert (found["num_samples"], found["failed_rate"], found["judge_failed_rate"]) == (12, 0, 0)


@pytest.mark.parametrize("dead", ["policy", "judge"])
def test_a_model_that_only_fails_ends_the_run(dead: str, data: Path, run) -> None:
    refused = Reply(status=401, body=b'{"error": {"message": "wrong key"}}')
    with chat_server(lambda body, index: refused if body["model"] == dead else speak(body, index)) as server:
        code, out, err = run(*command(server.url, data, "-k", 8, "--concurrency", 4))
        assert (code, out) == (2, "")
        asked = Counter(body["model"] for body in server.requests)
        assert asked[dead] <= 30
    assert ("the policy policy is down: " if dead == "policy" else "the judge is down: ") in err
    assert (
        "wrong key" in err
        and "give the same command again; answers so far are in " in err
        and "out.cache.sqlite" in err
    )
    assert not (data.parent / "out.jsonl").exists()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
@pytest.mark.slow
def test_an_interrupted_evaluation_continues(blow: signal.Signals, tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    write_jsonl(data, [{"problem": f"What is {i}+{i}?", "answer": str(2 * i)} for i in range(0, 60, 2)])

    def evaluation(server: ChatServer) -> subprocess.Popen[str]:
        return start("eval", *map(str, command(server.url, data, "--concurrency", 4, "--quiet")))

    with chat_server(lambda body, i: Reply(speak(body, i).text, delay=0 if i < 25 else 600)) as server:
        process = evaluation(server)
        wait_for(lambda: num_cached(tmp_path / "out.cache.sqlite") == 25 or process.poll() is not None)
        process.send_signal(blow)
        code, said = finished(process)
        assert code == (-signal.SIGKILL if blow == signal.SIGKILL else 130), said
        assert "Traceback" not in said
        assert not (tmp_path / "out.jsonl").exists()
    with chat_server(speak) as server:
        code, said = finished(evaluation(server))
        assert code == 0, said
        asked = Counter(body["model"] for body in server.requests)
        assert asked == {"policy": 60 - 25, "judge": 60}, "what was answered is not asked again"
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["num_samples"], found["avg_at_k"], found["fp_ratio"]) == (60, 1.0, 0.5)


MISTAKES = {
    "no data": ([], "no data given"),
    "no file": (["none.jsonl"], "none.jsonl: neither a file nor a Hugging Face id"),
    "no split": (["miniature:nonsense"], "no problems 'miniature:nonsense'"),
    "twice": (["sums.jsonl", "sums.jsonl"], "two sources are both called 'sums'"),
    "no k": (["sums.jsonl", "-k", "0"], "fapo eval: samples: should be greater than or equal to 1, not 0"),
    "no limit": (["sums.jsonl", "--limit", "0"], "limit: should be greater than or equal to 1, not 0"),
    "greedy": (["sums.jsonl", "-k", "2", "--temperature", "0"], "several samples at temperature 0"),
    "cold": (["sums.jsonl", "--temperature", "-1"], "temperature: should be greater than or equal to 0, not -1"),
    "top_p": (["sums.jsonl", "--top-p", "0"], "top_p: should be greater than 0, not 0"),
    "out": (["sums.jsonl", "--out", "table.csv"], "table.csv: must end in .jsonl"),
    "out on the data": (["sums.jsonl", "--out", "sums.jsonl"], "sums.jsonl: is one of the files to read"),
    "summary on the data": (["own.json", "--out", "own.jsonl"], "own.json: is one of the files to read"),
    "prompt": (["sums.jsonl", "--prompt", "sums.jsonl"], "sums.jsonl: {{problem}} is missing"),
    "no prompt": (["sums.jsonl", "--prompt", "none.txt"], "none.txt"),
    "address": (["sums.jsonl", "--policy", "localhost:8000"], "--policy: 'localhost:8000' is neither a URL"),
    "one name for two policies": (
        ["sums.jsonl", "--policy", "local:a/b", "--policy", "local:a_b"],
        "two policies would both be called a_b",
    ),
    "policy": (["sums.jsonl", "--policy", "local:./nonsense"], "--policy: cannot load './nonsense'"),
    "judge's name": (["sums.jsonl", "--judge", "http://x"], "--judge-model is missing"),
    "votes": (["sums.jsonl", "--judge", "local:x", "--judge-votes", "0"], "votes: should be"),
    "vote of one": (["sums.jsonl", "--judge", "local:x", "--verified-majority"], "set -k above 1"),
    "vote without answers": (
        ["sums.jsonl", "-k", "2", "--judge", "local:x", "--verified-majority", "--checker", "operator:eq"],
        "--checker operator:eq finds none",
    ),
    "vote without a judge": (["sums.jsonl", "-k", "2", "--verified-majority"], "name a --judge"),
    "votes without a judge": (
        ["sums.jsonl", "--judge-votes", "3"],
        "--judge-votes has no effect without --judge; name that judge by --judge, or remove it",
    ),
    "price without a judge": (["sums.jsonl", "--judge-prices", "1", "1", "1"], "--judge-prices has no effect"),
    "a second opinion without its judge": (
        ["sums.jsonl", "--judge", "local:x", "--gold-judge-template", "compact"],
        "--gold-judge-template has no effect without --gold-judge",
    ),
    "template": (["sums.jsonl", "--judge", "local:x", "--judge-template", "?"], "no prompt template '?'"),
    "two judges of one name": (
        ["sums.jsonl", "--judge=http://x", "--judge-model=m", "--gold-judge=http://y", "--gold-judge-model=m"],
        "--judge and --gold-judge are at different urls and have the same model name 'm'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_one_clear_line(name: str, data: Path, run, monkeypatch) -> None:
    monkeypatch.chdir(data.parent)
    Path("own.json").write_text("[]")
    arguments, message = MISTAKES[name]
    policy = [] if "--policy" in arguments else ["--policy", "local:./nonsense"]
    out = [] if "--out" in arguments else ["--out", "out.jsonl"]
    code, said, err = run(*arguments, *policy, *out, "--quiet")
    assert (code, said) == (2, "")
    assert message in err
    assert err.startswith("fapo: ") and len(err.splitlines()) == 1
    assert not Path("out.jsonl").exists()


# ------------------------------------------------------------------------------------------- models in this process


def local(folder: Path, policy: Path, judge: Path | None, **changes: Any) -> EvalSettings:
    """Return settings of an evaluation by models in this process."""
    sampling, requests = Sampling(temperature=1.0, top_p=1.0, max_tokens=16), Requests(concurrency=32)
    known: dict[str, Any] = {"samples": 4, "limit": 40, "sampling": sampling, "requests": requests}
    known |= {"judge": (f"local:{judge}",), "judge_template": "compact", "judge_max_tokens": 12} if judge else {}
    return EvalSettings(
        policy=(f"local:{policy}",),
        data=("miniature:test",),
        out=folder / "out.jsonl",
        **known | changes,
    )


def test_the_miniature_knows_the_truth(tmp_path: Path, tiny_policy: Path, tiny_genrm: Path) -> None:
    """An evaluation that was interrupted also has the same result as one that was not."""
    whole = evaluate(local(tmp_path / "whole", tiny_policy, tiny_genrm))
    calls = Counter()

    def interrupt(what: str, done: int, total: int, cached: object) -> None:
        calls[what] += 1
        if calls[what] == (2 if what == "sample" else 1):
            raise KeyboardInterrupt

    for _ in range(2):  # while sampling, then while judging
        with pytest.raises(KeyboardInterrupt):
            evaluate(local(tmp_path / "broken", tiny_policy, tiny_genrm), interrupt)
    assert calls["sample"] > 2 and calls["judge"] == 1
    again = evaluate(local(tmp_path / "broken", tiny_policy, tiny_genrm))
    assert again == whole

    found = score(whole, 4, judged=True)
    rights = [s for of_one in whole for s in of_one.samples if s.check.correct]
    assert 0 < len(rights) == found.num_correct
    assert all(s.verdict is not None for s in rights)
    faults = [examine(parse(s.rollout.problem.text), s.rollout.response).error_step is not None for s in rights]
    assert found.true_fp_ratio.value == sum(faults) / len(faults)
    assert found.true_reliable_accuracy.value == (len(faults) - sum(faults)) / 160
    texts = [tuple(s.rollout.response for s in of_one.samples) for of_one in whole]
    assert any(len(set(of_one)) > 1 for of_one in texts), "samples differ"

    other = evaluate(local(tmp_path / "other", tiny_policy, None, seed=1))
    assert [tuple(s.rollout.response for s in of_one.samples) for of_one in other] != texts


def test_batches_of_the_same_questions_draw_anew(tmp_path: Path, tiny_policy: Path) -> None:
    """k = 4 after k = 2 asks for the same conversations as before, and must not get the same responses."""
    for k in (2, 4):
        changes = {"sampling": Sampling(temperature=2.0, max_tokens=16), "requests": Requests(concurrency=16)}
        found = evaluate(local(tmp_path, tiny_policy, None, samples=k, limit=8, **changes))
    texts = [[s.rollout.response for s in of_one.samples] for of_one in found]
    assert any(of_one[:2] != of_one[2:] for of_one in texts)


def test_real_data_sets_are_read() -> None:
    sizes = {"aime24": 30, "aime25": 30, "math500": 500, "gsm8k_test": 1319}
    files = tuple(str(shared_data(f"{name}.jsonl")) for name in sizes)
    asked = EvalSettings(policy=("http://x",), policy_model=("m",), data=files, out=Path("out.jsonl"))
    found = load_questions(asked)
    assert Counter(problem.source for problem in found) == sizes
    assert all(problem.reference for problem in found)
    few = load_questions(replace(asked, limit=5))
    assert Counter(problem.source for problem in few) == dict.fromkeys(sizes, 5)
    assert all(problem in found for problem in few)


# ------------------------------------------------------------------------------------------------------- the comparison


def table(path: Path, corrects: Sequence[int], flawed: int = 0, k: int = 4) -> Path:
    """Write the table of a policy with `corrects` correct samples of each question, `flawed` of them flagged."""
    rows = []
    for number, correct in enumerate(corrects):
        verdicts = [FLAWED] * flawed + [SOUND] * (correct - flawed)
        samples = [sample("7", verdict) for verdict in verdicts] + [sample("8")] * (k - correct)
        answered = AnsweredQuestion(Problem(str(number), f"{number}?", "7", "a"), tuple(samples), 0)
        rows.append(question_row(answered))
    write_jsonl(path, rows)
    return path


def test_policies_are_compared_on_their_common_questions(tmp_path: Path) -> None:
    first = table(tmp_path / "first.jsonl", [1, 2, 3, 4, 2, 1])
    second = table(tmp_path / "second.jsonl", [2, 3, 4, 4, 3], flawed=1)
    found = compare([first, second])
    assert (found.num_questions, found.k) == (5, 4)
    assert found.scores[str(first)].avg_at_k.value == 12 / 20
    differences = found.differences[str(second)]
    assert differences["avg_at_k"].value == pytest.approx(4 / 20)
    assert differences["reliable_accuracy"].value == pytest.approx(-1 / 20)
    assert differences["fp_ratio"].value == pytest.approx(5 / 16)
    low, high = differences["avg_at_k"].interval
    assert 0 < low <= 4 / 20 <= high <= 1 / 4, "four of five questions gain one sample: the interval is paired"


def test_majorities_of_as_many_samples_are_compared(tmp_path: Path) -> None:
    first, second = (table(tmp_path / f"{k}.jsonl", [1, 1, 0], k=k) for k in (1, 3))
    found = compare([first, second])
    assert found.k == 1
    assert found.scores[str(second)].majority_at_k.value == 2 / 3, "the first of three samples is right"
    assert found.differences[str(second)]["majority_at_k"] == Estimate(0, (0, 0))


def test_questions_that_a_policy_did_not_answer_are_left_out_of_both(tmp_path: Path) -> None:
    first = table(tmp_path / "first.jsonl", [4, 4, 0])  # the third question is hard, and the second policy runs out
    rows = list(read_jsonl(table(tmp_path / "second.jsonl", [4, 3, 0])))
    write_jsonl(tmp_path / "second.jsonl", [*rows[:2], rows[2] | {"samples": [], "num_failed": 4}])
    found = compare([first, tmp_path / "second.jsonl"])
    assert (found.num_questions, found.num_unanswered) == (2, 1)
    assert found.scores[str(first)].avg_at_k.value == 1.0
    assert found.differences[str(tmp_path / "second.jsonl")]["avg_at_k"].value == pytest.approx(-1 / 8)
    shown = io.StringIO()
    Console(file=shown, width=200).print(as_comparison_table(found))
    assert "2 common questions (1 left out, which a policy did not answer)" in shown.getvalue()


def test_a_policy_whose_requests_fail_on_hard_questions_has_no_better_pass_rate(tmp_path: Path) -> None:
    first = table(tmp_path / "first.jsonl", [2, 4, 0, 0])
    rows = list(read_jsonl(first))
    rows[2:] = [row | {"samples": row["samples"][1:], "num_failed": 1} for row in rows[2:]]
    write_jsonl(tmp_path / "second.jsonl", rows)
    found = compare([first, tmp_path / "second.jsonl"])
    differences = found.differences[str(tmp_path / "second.jsonl")]
    assert [differences[name].value for name in ("pass_at_k", "verified_pass_at_k")] == [0, 0]


def test_policies_of_different_judges_are_not_compared_without_a_word(tmp_path: Path) -> None:
    tables = [table(tmp_path / f"{name}.jsonl", [2, 4]) for name in "ab"]
    for judges, said in ((("x", "x"), False), (("x", "y"), True), (("x", None), False)):
        for path, judge in zip(tables, judges, strict=True):
            path.with_suffix(".json").write_text(json.dumps({"judge": judge}))
        found, shown = compare(tables), io.StringIO()
        assert list(found.judges.values()) == [judge or "" for judge in judges]
        Console(file=shown, width=200).print(as_comparison_table(found))
        assert ("the policies had different judges" in shown.getvalue()) is said


def test_a_policy_without_a_correct_sample_has_been_judged(tmp_path: Path) -> None:
    first, second = table(tmp_path / "first.jsonl", [0, 0]), table(tmp_path / "second.jsonl", [2, 4], flawed=1)
    found = compare([first, second])
    assert found.scores[str(first)].reliable_accuracy.value == 0
    assert found.differences[str(second)]["reliable_accuracy"].value == pytest.approx(4 / 8)
    unjudged = [row | {"samples": [s | {"status": "skipped"} for s in row["samples"]]} for row in read_jsonl(second)]
    write_jsonl(tmp_path / "unjudged.jsonl", unjudged)
    assert math.isnan(compare([second, tmp_path / "unjudged.jsonl"]).scores[str(second)].reliable_accuracy.value)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.integers(0, 1))
@settings(max_examples=10, deadline=None)
def test_a_policy_does_not_differ_from_itself(corrects: list[int], flawed: int) -> None:
    answered = [question([sample("7", FLAWED if flawed else SOUND)] * c + [sample("8")] * (4 - c)) for c in corrects]
    for number in paired_differences(answered, answered, 4, judged=True).values():
        assert math.isnan(number.value) or (number.value, *number.interval) == (0, 0, 0)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    answered = [replace(q, problem=replace(q.problem, id=str(i))) for i, q in enumerate(HAND)]
    answered[1] = replace(answered[1], samples=tuple(replace(s, gold_verdict=FLAWED) for s in HAND[1].samples))
    answered += [replace(question([judged("7", SOUND), judged("8", FLAWED)]), all_judged=True)]
    write_jsonl(tmp_path / "out.jsonl", map(question_row, answered))
    again = read_table(tmp_path / "out.jsonl")
    assert list(map(question_row, again)) == list(map(question_row, answered))
    assert repr(score(again, 4, judged=True)) == repr(score(answered, 4, judged=True))


def test_the_command_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = table(tmp_path / "a.jsonl", [1, 2, 3]), table(tmp_path / "b.jsonl", [2, 2, 3])
    assert fapo(monkeypatch, "compare", first, second, columns=80) == 0
    printed = capsys.readouterr().out
    assert "3 common questions" in printed and "verified pass@4" in printed and "+8.3 [" in printed
    assert "…" not in printed and max(map(len, printed.splitlines())) <= 80
    assert printed.count(" pass@4 ") == 4, "two numbers of two policies, none divided"
    assert fapo(monkeypatch, "compare", first, second, columns=40) == 0
    assert capsys.readouterr().out == printed, "a narrow terminal breaks lines itself, and cuts no number"
    assert fapo(monkeypatch, "compare", first, second, "--json") == 0
    assert json.loads(capsys.readouterr().out)["differences"][str(second)]["avg_at_k"]["value"] == pytest.approx(1 / 12)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "at least two"),
        (["other.jsonl"], "no question in common"),
        (["failed.jsonl"], "no answered question in common; repeat what failed"),
        (["bad.jsonl"], "bad.jsonl:1"),
        (["types.jsonl"], "types.jsonl:1: not a row of `fapo eval` (TypeError(\"correct is 'yes'\"))"),
        (["none.jsonl"], "none.jsonl: no such file; give the --out file of `fapo eval`"),
    ],
)
def test_tables_that_cannot_be_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    others: list[str],
    message: str,
) -> None:
    first = table(tmp_path / "a.jsonl", [1, 2])
    write_jsonl(tmp_path / "bad.jsonl", [{"id": "0"}])
    row = question_row(question([sample("7")]))
    write_jsonl(tmp_path / "other.jsonl", [row])
    unanswered = [found | {"samples": [], "num_failed": 4} for found in read_jsonl(first)]
    write_jsonl(tmp_path / "failed.jsonl", unanswered)
    write_jsonl(tmp_path / "types.jsonl", [row | {"samples": [row["samples"][0] | {"correct": "yes"}]}])
    assert fapo(monkeypatch, "compare", first, *(tmp_path / other for other in others)) == 2
    assert message in capsys.readouterr().err
