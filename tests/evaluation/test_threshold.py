"""The threshold of step scores: the best one on one half of the problems, measured on the other half."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.jsonl import write_jsonl
from fapo.data.problems import sampling_key
from fapo.errors import ConfigError, DataError
from fapo.evaluation.judge_benchmarks.output import as_json
from fapo.evaluation.judge_benchmarks.run import run_benchmark, score
from fapo.evaluation.judge_benchmarks.settings import BenchSettings
from fapo.evaluation.judge_benchmarks.threshold import THRESHOLDS, best_threshold, halves, with_threshold
from fapo.judge.prm import first_below
from fapo.types import LabelledSolution, Problem, Verdict


def row(index: int, label: int | None, num_steps: int = 2, problem: int | None = None) -> LabelledSolution:
    text = f"{index if problem is None else problem}+1"
    return LabelledSolution(Problem(f"r-{index}", text, "2"), ("x",) * num_steps, label, True)


def scored(*scores: float) -> Verdict:
    step = first_below(scores, 0.5)
    return Verdict("ok", step is not None, step, scores=scores)


CASES = {
    "all are too low": ([(None, (0.3, 0.4)), (1, (0.4, 0.1)), (0, (0.05, 0.4))], False, 0.3),
    "all are too high": ([(None, (0.9, 0.95)), (1, (0.9, 0.7)), (0, (0.6, 0.9))], False, 0.71),
    "0.5 among the best": ([(None, (0.9, 0.9)), (0, (0.1, 0.1))], False, 0.5),
    "the step counts in process": ([(None, (0.9, 0.9)), (1, (0.6, 0.2)), (1, (0.7, 0.3))], True, 0.5),
    "a lower one for the step": ([(None, (0.9, 0.9)), (1, (0.4, 0.2)), (1, (0.4, 0.3))], True, 0.4),
}


@pytest.mark.parametrize("name", CASES)
def test_the_best_threshold(name: str) -> None:
    pairs, process, expected = CASES[name]
    rows = [row(i, label) for i, (label, _) in enumerate(pairs)]
    assert best_threshold(rows, [scored(*scores) for _, scores in pairs], process=process) == expected


def test_no_threshold_without_scores_or_without_both_labels() -> None:
    with pytest.raises(DataError, match="no threshold can be chosen on 2 rows: it needs step scores"):
        best_threshold([row(0, None), row(1, 0)], [Verdict.from_step(0)] * 2, process=False)
    with pytest.raises(DataError, match="rows with and without an error"):
        best_threshold([row(0, 0), row(1, 1)], [scored(0.2, 0.3)] * 2, process=False)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.sampled_from(THRESHOLDS))
def test_scores_decide_at_any_threshold(scores: list[float], threshold: float) -> None:
    found = with_threshold(scored(*scores), threshold)
    assert (found.flawed, found.error_step) == (min(scores) < threshold, first_below(scores, threshold))
    failed = Verdict("failed", reason="HTTP 500")
    assert with_threshold(failed, threshold) is failed


@given(st.integers(0, 30))
def test_each_row_is_in_one_half(num: int) -> None:
    first, second = halves([row(i, None) for i in range(num)])
    assert sorted([*first, *second]) == list(range(num))
    assert len(second) - len(first) in (0, 1)
    assert first == sorted(sorted(range(num), key=lambda index: sampling_key(f"r-{index}"))[: num // 2])


@given(st.lists(st.integers(0, 9), max_size=40), st.randoms())
def test_solutions_of_one_problem_are_in_one_half(problems: list[int], rnd: random.Random) -> None:
    rows = [row(i, None, problem=problem) for i, problem in enumerate(problems)]
    first, second = halves(rows)
    assert sorted([*first, *second]) == list(range(len(rows)))
    texts = [{rows[i].problem.text for i in half} for half in (first, second)]
    assert texts[0].isdisjoint(texts[1]) and len(texts[1]) - len(texts[0]) in (0, 1)
    shuffled = rnd.sample(rows, len(rows))
    assert {shuffled[i].problem.text for i in halves(shuffled)[0]} == texts[0], "whatever the order of the rows"


def bench(data: Path, predictions: Path, **options: Any) -> dict[str, Any]:
    settings = BenchSettings(benchmark="flawed-positive", data=(str(data),), predictions=(predictions,), **options)
    rows, (context,) = run_benchmark(settings)
    return as_json(score(settings, rows, context), context)


def test_the_numbers_are_of_the_other_half(tmp_path: Path) -> None:
    """Flawed rows score 0.6 on the half that chooses; on the other half they score 0.6 or, unseen, 0.9."""
    rng = random.Random(0)
    rows = [row(i, rng.choice([None, 0])) for i in range(40)]
    _, measured = halves(rows)
    scores = {i: 0.8 if rows[i].error_step is None else 0.6 for i in range(40)}
    missed = [i for i in measured if rows[i].error_step == 0][:3]
    scores |= dict.fromkeys(missed, 0.9)
    table = [
        {
            "id": r.problem.id,
            "problem": r.problem.text,
            "steps": ["x", "y"],
            "label": -1 if r.error_step is None else 0,
            "final_answer_correct": True,
        }
        for r in rows
    ]
    write_jsonl(tmp_path / "rows.jsonl", table)
    predicted = [{"id": r.problem.id, "scores": [scores[i], 0.9]} for i, r in enumerate(rows)]
    write_jsonl(tmp_path / "scores.jsonl", predicted)
    found = bench(tmp_path / "rows.jsonl", tmp_path / "scores.jsonl", choose_threshold=True)
    assert found["conventions"]["threshold"] == 0.61
    assert found["conventions"]["choice"].startswith("the threshold has the best F1 on 20 other rows")
    assert (found["n"], found["fn"], found["fp"]) == (20, 3, 0)
    given_one = bench(tmp_path / "rows.jsonl", tmp_path / "scores.jsonl", threshold=0.61)
    assert (given_one["n"], given_one["fn"], "choice" in given_one["conventions"]) == (40, 3, False)
    with pytest.raises(ConfigError, match="--threshold and --choose-threshold exclude each other"):
        bench(tmp_path / "rows.jsonl", tmp_path / "scores.jsonl", threshold=0.5, choose_threshold=True)
