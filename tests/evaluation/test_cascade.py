"""The thresholds of a cascade: the bound on its errors, what is measured, and the command."""

from __future__ import annotations

import random
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.errors import ConfigError, DataError
from fapo.evaluation.judge_benchmarks.cascade import CHEAP, STRONG, CascadeChoice, choose, choose_thresholds
from fapo.evaluation.judge_benchmarks.cascade_output import as_json, as_table, notes, toml_line
from fapo.evaluation.judge_benchmarks.settings import CascadeSettings
from tests.support.command_line import fapo

SCORES = st.one_of(st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))
ROWS = st.lists(st.tuples(SCORES, st.booleans()), max_size=40)
BOUNDS = st.floats(0.001, 0.999)
CUTS = st.floats(0, 1)

CASES = {
    "nothing without rows": ([], 0.5, (0.0, 1.0)),
    "too few rows for the bound": ([(0.1, True), (0.9, False)], 0.4, (0.0, 1.0)),
    "the lowest flawed and the highest correct row": ([(0.1, True), (0.9, False)], 0.5, (0.1, 0.9)),
    "one flawed row of three below": ([(0.1, True), (0.2, True), (0.3, True)], 0.5, (0.2, 1.0)),
    "up to the cut": ([(0.8, True)] * 9 + [(0.2, False)] * 9, 0.1, (0.5, 0.5)),
    "no verdict is never an error": ([(None, True)] * 9 + [(None, False)] * 9, 0.1, (0.5, 0.5)),
}


def columns(rows: Any, num_solutions: int = 1) -> tuple[list[float | None], list[bool], list[int]]:
    """Return scores, labels and problems of rows; this number of rows in a row are of one problem."""
    return [s for s, _ in rows], [flawed for _, flawed in rows], [i // num_solutions for i in range(len(rows))]


@pytest.mark.parametrize(("rows", "bound", "thresholds"), CASES.values(), ids=CASES)
def test_thresholds_by_hand(rows: list[Any], bound: float, thresholds: tuple[float, float]) -> None:
    assert choose_thresholds(*columns(rows), bound) == thresholds


def errors(rows: Any, low: float, high: float) -> tuple[int, int]:
    """Return the numbers of flawed rows that would be cleared, and of correct rows that would be flagged."""
    cleared = sum(flawed and score is not None and score < low for score, flawed in rows)
    return cleared, sum(not flawed and score is not None and score > high for score, flawed in rows)


@given(ROWS, st.integers(1, 5), BOUNDS, CUTS)
def test_the_bound_holds_in_each_class_of_the_rows(rows: Any, num_solutions: int, bound: float, cut: float) -> None:
    low, high = choose_thresholds(*columns(rows, num_solutions), bound, cut)
    assert 0 <= low <= cut <= high <= 1
    cleared, flagged = errors(rows, low, high)
    num_flawed = sum(flawed for _, flawed in rows)
    assert cleared <= bound * num_flawed and flagged <= bound * (len(rows) - num_flawed)


@given(ROWS, st.integers(1, 5), BOUNDS, BOUNDS, CUTS)
def test_a_larger_bound_keeps_at_least_as_much(rows: Any, size: int, one: float, other: float, cut: float) -> None:
    narrow = choose_thresholds(*columns(rows, size), min(one, other), cut)
    wide = choose_thresholds(*columns(rows, size), max(one, other), cut)
    assert narrow[0] <= wide[0] and wide[1] <= narrow[1]


@given(ROWS.filter(bool), BOUNDS)
def test_the_bound_holds_for_a_row_that_was_left_out(rows: Any, bound: float) -> None:
    """Each row in turn is the new one: of the rows of a class at most this rate would be an error, which is exact."""
    num_errors = [0, 0]
    for index, (score, flawed) in enumerate(rows):
        others = rows[:index] + rows[index + 1 :]
        thresholds = choose_thresholds(*columns(others), bound)
        num_errors[flawed] += sum(errors([(score, flawed)], *thresholds))
    num_flawed = sum(flawed for _, flawed in rows)
    assert num_errors[True] <= bound * num_flawed and num_errors[False] <= bound * (len(rows) - num_flawed)


@given(st.lists(st.tuples(SCORES, SCORES, SCORES), min_size=1, max_size=15), BOUNDS)
def test_the_bound_holds_for_a_problem_that_was_left_out(
    problems: list[tuple[float | None, ...]], bound: float
) -> None:
    """Each problem in turn, with three flawed rows, is the new one."""
    num_errors = 0
    for index, scores in enumerate(problems):
        others = [(score, True) for other in problems[:index] + problems[index + 1 :] for score in other]
        thresholds = choose_thresholds(*columns(others, 3), bound)
        num_errors += errors([(score, True) for score in scores], *thresholds)[0]
    assert num_errors <= bound * 3 * len(problems)


def test_a_score_outside_of_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        choose_thresholds([1.5], [True], [0], 0.1)


# --- the command -------------------------------------------------------------------------------------------------


def files(folder: Path, num: int = 400, **changed: Any) -> dict[str, Path]:
    """Write labelled rows, a cheap judge that is unsure of a third of them, and a strong judge without error."""
    rng, rows, cheap, strong = random.Random(0), [], [], []
    for index in range(num):
        flawed = rng.random() < 0.5
        unsure = rng.random() < 1 / 3
        rate = rng.random() if unsure else rng.choice((0.9, 1.0) if flawed else (0.0, 0.1))
        id = f"r-{index}"
        rows.append(
            {
                "id": id,
                "problem": f"{index}+1",
                "steps": ["a", "b"],
                "label": 0 if flawed else -1,
                "final_answer_correct": True,
            }
        )
        cheap.append(
            {
                "id": id,
                "error_step": 0 if rate > 0.5 else -1,
                "flag_rate": rate,
                "critique_tokens": 10,
                "all_tokens": 40,
            }
        )
        strong.append({"id": id, "error_step": 0 if flawed else -1, "critique_tokens": 100})
    paths = {name: folder / f"{name}.jsonl" for name in ("data", "cheap", "strong")}
    for path, written in zip(paths.values(), (rows, cheap, strong), strict=True):
        write_jsonl(path, [row | changed.get(path.stem, {}) for row in written])
    return paths


def found(folder: Path, max_error: float = 0.02, with_strong: bool = True, **options: Any) -> CascadeChoice:
    paths = files(folder)
    return choose(
        CascadeSettings(
            data=(str(paths["data"]),),
            cheap=paths["cheap"],
            strong=paths["strong"] if with_strong else None,
            max_error=max_error,
            **options,
        )
    )


def test_the_chosen_cascade_is_nearly_as_good_for_less(tmp_path: Path) -> None:
    choice = found(tmp_path, 0.05)
    point, cheap, strong = (choice.points[name] for name in ("bound 0.05", CHEAP, STRONG))
    assert (choice.num_chosen, choice.num_measured) == (200, 200)
    assert strong.f1 and cheap.f1 and point.f1 and point.difference
    assert cheap.f1.value < point.f1.value <= strong.f1.value == 1
    assert point.difference.value == pytest.approx(point.f1.value - 1) and strong.difference is None
    assert (cheap.strong_rate.value, strong.strong_rate.value) == (0, 1) and 0 < point.strong_rate.value < 0.5
    assert (cheap.cheap_tokens, cheap.strong_tokens, strong.cheap_tokens, strong.strong_tokens) == (40, 0, 0, 100)
    assert point.cheap_tokens == 40 and point.strong_tokens == pytest.approx(100 * point.strong_rate.value)
    low, high = point.cleared.interval
    assert point.cleared.value <= 0.05 + (high - low)
    rates = [choice.points[f"bound {bound:g}"].strong_rate.value for bound in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)]
    assert rates == sorted(rates, reverse=True)


def test_probabilities_of_the_verdict_take_the_place_of_the_rate_of_votes(tmp_path: Path) -> None:
    by_rate, paths = found(tmp_path, 0.05), files(tmp_path)
    settings = CascadeSettings(data=(str(paths["data"]),), cheap=paths["cheap"], max_error=0.05)
    rows = list(read_jsonl(paths["cheap"]))
    write_jsonl(paths["cheap"], [row | {"flag_rate": 0.5} for row in rows])
    assert choose(settings).points["bound 0.05"].strong_rate.value == 1, "all rows have the same rate"
    write_jsonl(paths["cheap"], [row | {"flag_rate": 0.5, "flag_probability": row["flag_rate"]} for row in rows])
    assert choose(settings).thresholds == by_rate.thresholds != (0.5, 0.5)
    some = [row if index % 2 else row | {"flag_probability": row["flag_rate"]} for index, row in enumerate(rows)]
    write_jsonl(paths["cheap"], some)
    strong_rate = choose(settings).points["bound 0.05"].strong_rate.value
    assert strong_rate is not None and strong_rate > 0.45, "rows without a probability go to the strong judge"


def test_the_last_line_is_toml_with_the_exact_thresholds(tmp_path: Path) -> None:
    choice = found(tmp_path)
    assert tuple(tomllib.loads(toml_line(choice))["thresholds"]) == choice.thresholds
    assert choice.thresholds == choice.points["bound 0.02"].thresholds


def test_unknown_tokens_are_no_zeros(tmp_path: Path) -> None:
    paths = files(tmp_path, strong={"critique_tokens": None})
    choice = choose(CascadeSettings(data=(str(paths["data"]),), cheap=paths["cheap"], strong=paths["strong"]))
    *_, cheap, strong = (list(column.cells) for column in as_table(choice).columns)
    assert set(strong) == {"-"} and "40.0" in cheap
    assert "tokens of the strong judge: not known" in notes(choice)[-1]
    known = found(tmp_path)
    assert "100.0" in list(as_table(known).columns[-1].cells) and "not known" not in " ".join(notes(known))


def test_the_note_on_intervals_is_that_of_the_rows(tmp_path: Path) -> None:
    choice = found(tmp_path)
    assert "95%; Wilson's for rates, bootstrap over rows" in notes(choice)[1]
    assert "95%; over problems for rates, bootstrap over the 9 problems" in notes(replace(choice, num_problems=9))[1]


def test_thresholds_need_no_answers_of_the_strong_judge(tmp_path: Path) -> None:
    choice, both = found(tmp_path, with_strong=False), found(tmp_path)
    assert choice.thresholds == both.thresholds
    assert choice.points["bound 0.02"].f1 is None and STRONG not in choice.points
    assert choice.points["bound 0.02"].strong_rate == both.points["bound 0.02"].strong_rate
    assert as_json(choice)["points"]["bound 0.02"]["cleared"]["value"] is not None


def test_a_bound_that_needs_more_rows_is_said(tmp_path: Path) -> None:
    choice = found(tmp_path, 0.001)
    assert choice.thresholds == (0.0, 1.0) and choice.points["bound 0.001"].strong_rate.value == 1
    assert "a bound below 0.0" in notes(choice)[-1] and "needs more rows" in notes(choice)[-1]


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "a bound of 0": ({"max_error": 0.0}, {}, ConfigError, "fapo cascade: max_error: should be greater than 0"),
    "no data": ({"data": ()}, {}, ConfigError, "--data is missing"),
    "a missing file": ({"cheap": Path("none.jsonl")}, {}, DataError, "none.jsonl: no such file"),
    "a rate of votes above 1": ({}, {"cheap": {"flag_rate": 3}}, DataError, "flag_rate is 3, must be a number from 0"),
    "a probability below 0": (
        {},
        {"cheap": {"flag_probability": -0.1}},
        DataError,
        "flag_probability is -0.1, must be a number from 0",
    ),
    "scores that are no probabilities": (
        {},
        {"cheap": {"error_step": None, "scores": [-2.0, 5.0]}},
        DataError,
        "cheap.jsonl: has step scores outside of 0 to 1",
    ),
    "one class": ({}, {"data": {"label": -1}}, DataError, "each half of the problems needs flawed and correct ones"),
}


@pytest.mark.parametrize(("options", "changed", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(
    options: dict[str, Any], changed: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    paths = files(tmp_path, **changed)
    with pytest.raises(error, match=message):
        choose(CascadeSettings(**{"data": (str(paths["data"]),), "cheap": paths["cheap"]} | options))


def test_step_scores_outside_of_0_to_1_are_refused(tmp_path: Path) -> None:
    paths = files(tmp_path)
    write_jsonl(paths["cheap"], [{"id": f"r-{i}", "scores": [-2.0, 5.0]} for i in range(400)])
    with pytest.raises(DataError, match="has step scores outside of 0 to 1; make probabilities of them"):
        choose(CascadeSettings(data=(str(paths["data"]),), cheap=paths["cheap"]))


def test_the_command_prints_the_table_and_the_line(tmp_path: Path, monkeypatch, capsys) -> None:
    paths = files(tmp_path)
    given = ("cascade", "--data", paths["data"], "--cheap", paths["cheap"], "--strong", paths["strong"])
    assert fapo(monkeypatch, *given, "--max-error", "0.05") == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1].startswith("thresholds = [") and "**bound 0.05**" in "".join(lines)
    assert sum(line.startswith("| ") for line in lines) == 9  # head, 6 bounds, 2 judges alone
    assert fapo(monkeypatch, *given, "--max-error", "0.05", "--json") == 0
    assert '"max_error": 0.05' in capsys.readouterr().out
