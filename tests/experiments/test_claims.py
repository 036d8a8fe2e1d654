"""The claims of a study: margins and verdicts from runs with known numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.paper.claims import Claim, check_claims
from fapo.report import Run


def run(kind: str, seed: int, series: dict[str, list[float]], flawed: list[float] | None = None) -> Run:
    """A run with a validation every ten steps, and the flawed advantage at every step where given."""
    num = len(next(iter(series.values())))
    rows: list[dict[str, Any]] = [
        {"step": 10 * i, "kind": "validation", **{key: values[i] for key, values in series.items()}} for i in range(num)
    ]
    for i, value in enumerate(flawed or []):
        rho = 0.5 + 0.1 * i
        rows.append(
            {"step": i, "kind": "train", "advantage/flawed": value, "rollout/flawed_rho": rho, "rollout/rho": 3 * rho}
        )
    return Run(f"{kind}-{seed}", Path("."), {"seed": seed, "reward": {"kind": kind}}, tuple(rows))


def policy(kind: str, seed: int, fp: list[float], easy: list[float], hard: list[float], length: float = 20.0) -> Run:
    series = {"validation/true_fp_ratio": fp, "validation/accuracy": easy, "harder/accuracy": hard}
    return run(kind, seed, {**series, "validation/length": [length] * len(fp)})


def judge(kind: str, seed: int, f1: list[float], location: list[float]) -> Run:
    return run(kind, seed, {"test/f1": f1, "test/location": location})


def by_letter(runs: list[Run]) -> dict[str, Any]:
    return {claim.text: claim for claim in check_claims(runs)}


def test_margins_of_the_policy_claims() -> None:
    base = policy("outcome", 0, [0.30, 0.40, 0.41, 0.42], [0.5, 0.7, 0.7, 0.7], [0.2, 0.2, 0.2, 0.2])
    fapo = policy("fapo", 0, [0.30, 0.12, 0.10, 0.08], [0.5, 0.8, 0.8, 0.8], [0.2, 0.6, 0.6, 0.6], 20.5)
    claims = list(check_claims([base, fapo]))
    margins = {claim.text[0] + str(i): claim.margins[0] for i, claim in enumerate(claims)}
    expected = {"a0": 0.11, "b1": 0.05, "c2": 0.1, "c3": 0.4, "c4": 0.3, "d5": 0.5}
    assert margins == pytest.approx(expected)
    assert {claim.status for claim in claims} == {"one seed: met"}


def test_margins_of_the_judge_claims() -> None:
    runs = [judge("genrm_step", 0, [0.7, 0.9], [0.9, 0.95]), judge("genrm_outcome", 0, [0.7, 0.92], [0.9, 0.85])]
    claims = check_claims(runs)
    assert [claim.margins for claim in claims] == [
        pytest.approx((0.2,)),
        pytest.approx((-0.02,)),
        pytest.approx((0.1,)),
    ]
    assert [claim.status for claim in claims] == ["one seed: met", "one seed: not met", "one seed: met"]


@pytest.mark.parametrize(
    ("margins", "status"),
    [
        ((0.4,), "one seed: met"),
        ((-0.4,), "one seed: not met"),
        ((0.10, 0.11, 0.12), "holds"),
        ((0.01, 0.01, 0.40), "too noisy to say"),  # all met, but the interval of the mean holds 0
        ((0.4, 0.5, -0.01), "too noisy to say"),  # one seed against
        ((-0.10, -0.11, -0.12), "does not hold"),
        ((-0.01, -0.01, -0.40), "too noisy to say"),
        ((0.1, 0.1), "holds"),
        ((0.005, 0.009), "too noisy to say"),  # two seeds that agree this well mean little
        ((0.0, 0.0), "too noisy to say"),
    ],
)
def test_a_verdict_needs_seeds_that_agree_and_a_margin_outside_its_noise(
    margins: tuple[float, ...], status: str
) -> None:
    assert Claim("", "", margins).status == status


def test_seeds_are_paired_and_disagreement_is_noise() -> None:
    runs = [
        policy("outcome", 0, [0.3, 0.4], [0.5, 0.7], [0.2, 0.2]),
        policy("outcome", 1, [0.3, 0.2], [0.5, 0.9], [0.2, 0.2]),
        policy("fapo", 1, [0.3, 0.1], [0.5, 0.8], [0.2, 0.3]),
    ]
    claims = by_letter(runs)
    first = claims["a. the baseline's true FP ratio stays at or above its start"]
    assert first.margins == pytest.approx((0.1, -0.1)) and first.status == "too noisy to say"
    assert first.spread == "+0.000 ± 0.141"
    assert claims["c. FAPO's accuracy is higher than the baseline's"].margins == pytest.approx((-0.1,))


def test_the_shift_is_where_the_flawed_advantage_turns() -> None:
    flawed = [0.5 - 0.1 * i for i in range(20)]  # crosses zero at step 5, where rho is 1
    (claim,) = check_claims([run("fapo", 0, {"x": [0.0]}, flawed)])
    assert claim.text.startswith("f.") and claim.margins == pytest.approx((0.5,), abs=0.02)
    assert claim.measured.endswith("rho of the whole batch there: 3.00")


def test_only_runs_with_the_penalty_of_the_paper_count_for_claims() -> None:
    negative = run("fapo", 0, {"x": [0.0]}, [0.5 - 0.1 * i for i in range(20)])
    config = {"seed": 0, "reward": {"kind": "fapo", "penalty": 2.0}}
    assert check_claims([Run("negative", Path("."), config, negative.rows)]) == []


def test_runs_without_measurements_claim_nothing() -> None:
    assert check_claims([run("fapo", 0, {"x": [0.0]}), run("outcome", 0, {"x": [0.0]})]) == []
