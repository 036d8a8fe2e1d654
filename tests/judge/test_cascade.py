"""A cascade of two judges: which of them gives a verdict, its tokens, and its config."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config import CascadeJudge, LocalJudge, OracleJudge, from_dict, load, to_dict
from fapo.config.reader import load_judge
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER, labelled
from fapo.errors import ConfigError
from fapo.evaluation.audit.run import audit
from fapo.evaluation.audit.settings import AuditSettings
from fapo.evaluation.judge_benchmarks.output import as_json
from fapo.evaluation.judge_benchmarks.run import run_benchmark, score
from fapo.evaluation.judge_benchmarks.settings import BenchSettings
from fapo.inference.usage import Usage, UsageMeter
from fapo.judge import make_judge
from fapo.judge.cascade import Cascade, flaw_score, is_sure
from fapo.judge.from_config import judge_of_process, step_rule
from fapo.judge.genrm import GenRM
from fapo.judge.oracle import oracle
from fapo.judge.template import load_template
from fapo.judge.verdicts import verdict_from_row, verdict_row, vote
from fapo.training.step_metrics import policy_metrics
from fapo.types import Completion, Judge, Problem, Reward, Rollout, ScoredRollout, Verdict

POLICY = BASE_FOLDER.parent / "configs/policy.toml"
ROLLOUTS = [Rollout(Problem(str(i), f"{i}+1", ""), f"step one of {i}\n\nstep two") for i in range(6)]
CLEARED, FLAGGED = Verdict.from_step(None), Verdict.from_step(1)
CASCADE: dict[str, Any] = {
    "kind": "cascade",
    "thresholds": [0.3, 0.7],
    "cheap": {"kind": "local", "model": "miniature:genrm", "template": "compact", "votes": 3, "temperature": 0.6},
    "strong": {"kind": "oracle"},
}


def fixed(verdicts: Sequence[Verdict], asked: list[str] | None = None) -> Judge:
    """Return a judge with a verdict for each of `ROLLOUTS`, which notes what it was asked."""

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        if asked is not None:
            asked.extend(rollout.problem.id for rollout in rollouts)
        return [verdicts[int(rollout.problem.id)] for rollout in rollouts]

    return judge


def config(**changed: Any) -> CascadeJudge:
    """Return the cascade of a training config, with changes of its table."""
    table = to_dict(load(POLICY)) | {"judge": CASCADE | changed}
    judge = from_dict(table).judge
    assert isinstance(judge, CascadeJudge)
    return judge


# --- which judge gives the verdict -------------------------------------------------------------------------------


def voted(num_flags: int, num: int = 4) -> Verdict:
    return vote([FLAGGED] * num_flags + [CLEARED] * (num - num_flags))


CASES = {
    "all clear": (voted(0), "cheap"),
    "one in four flags": (voted(1), "cheap"),
    "a tie": (voted(2), "strong"),
    "three in four flag": (voted(3), "cheap"),
    "all flag": (voted(4), "cheap"),
    "at the first threshold": (replace(CLEARED, flag_rate=0.3), "strong"),
    "at the second threshold": (replace(FLAGGED, flag_rate=0.7), "strong"),
    "a single critique that clears": (CLEARED, "cheap"),
    "a single critique that flags": (FLAGGED, "cheap"),
    "low scores": (Verdict("ok", True, 1, scores=(0.9, 0.2)), "cheap"),
    "high scores": (Verdict("ok", False, scores=(0.9, 0.8)), "cheap"),
    "scores between": (Verdict("ok", False, scores=(0.9, 0.6)), "strong"),
    "flagged against its own votes": (replace(FLAGGED, flag_rate=0.1), "strong"),
    "cleared against its own votes": (replace(CLEARED, flag_rate=0.9), "strong"),
    "unparsable": (Verdict("unparsable", reason="no box"), "strong"),
    "failed": (Verdict("failed", reason="no connection"), "strong"),
}


@pytest.mark.parametrize(("cheap", "by"), CASES.values(), ids=CASES)
def test_the_strong_judge_is_asked_where_the_cheap_one_is_not_sure(cheap: Verdict, by: str) -> None:
    strong = Verdict.from_step(0, "strong", 7)
    (found,) = asyncio.run(Cascade(fixed([cheap]), fixed([strong]), (0.3, 0.7))(ROLLOUTS[:1]))
    assert found.given_by == by
    expected = strong if by == "strong" else cheap
    assert (found.flawed, found.error_step, found.critique) == (expected.flawed, expected.error_step, expected.critique)


def test_the_strong_judge_gets_only_the_unsure_ones_in_one_call_and_order_is_kept() -> None:
    asked: list[str] = []
    cheap = [voted(n) for n in (0, 2, 4, 2, 0, 2)]
    strong = [Verdict.from_step(None if i % 2 else 0, f"strong {i}") for i in range(6)]
    found = asyncio.run(Cascade(fixed(cheap), fixed(strong, asked), (0.3, 0.7))(ROLLOUTS))
    assert asked == ["1", "3", "5"]
    assert [verdict.given_by for verdict in found] == ["cheap", "strong"] * 3
    assert [verdict.critique for verdict in found[1::2]] == ["strong 1", "strong 3", "strong 5"]


def test_a_failure_of_the_strong_judge_leaves_no_verdict() -> None:
    failed = Verdict("failed", reason="no connection")
    (found,) = asyncio.run(Cascade(fixed([voted(2)]), fixed([failed]), (0.3, 0.7))(ROLLOUTS[:1]))
    assert (found.status, found.flawed, found.reason) == ("failed", None, "no connection")


SINGLE = st.sampled_from([CLEARED, FLAGGED])
SCORED = st.lists(st.floats(0, 1), min_size=1, max_size=3).map(
    lambda scores: Verdict("ok", min(scores) < 0.5, scores.index(min(scores)) if min(scores) < 0.5 else None,
                           scores=tuple(scores))
)  # fmt: skip
VOTED = st.integers(1, 5).flatmap(lambda num: st.integers(0, num).map(lambda flags: voted(flags, num)))
LIMITS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(st.one_of(SINGLE, SCORED, VOTED), min_size=6, max_size=6))
def test_from_0_to_1_it_is_the_strong_judge_alone(cheap: list[Verdict]) -> None:
    strong = [Verdict.from_step(i % 3 or None, str(i)) for i in range(6)]
    found = asyncio.run(Cascade(fixed(cheap), fixed(strong), (0.0, 1.0))(ROLLOUTS))
    assert [replace(v, given_by="", all_tokens=0) for v in found] == strong


@given(st.lists(SINGLE, min_size=6, max_size=6))
def test_with_both_thresholds_at_the_cut_it_is_the_cheap_judge_alone(cheap: list[Verdict]) -> None:
    asked: list[str] = []
    found = asyncio.run(Cascade(fixed(cheap), fixed([], asked), (0.5, 0.5))(ROLLOUTS))
    assert [replace(v, given_by="") for v in found] == cheap and not asked


@given(SCORED)
def test_with_both_thresholds_at_the_cut_a_score_asks_the_strong_judge_only_there(cheap: Verdict) -> None:
    assert is_sure(cheap, (0.5, 0.5)) is (flaw_score(cheap) != 0.5)


@given(st.one_of(SINGLE, SCORED, VOTED), LIMITS, LIMITS)
def test_a_wider_range_asks_the_strong_judge_at_least_as_often(cheap: Verdict, one: Any, other: Any) -> None:
    wider = min(one[0], other[0]), max(one[1], other[1])
    assert is_sure(cheap, one) or not is_sure(cheap, wider)


# --- tokens and rows ---------------------------------------------------------------------------------------------


def genrm(answer: str, tokens: int, votes: int, usage: UsageMeter) -> GenRM:
    """Return a GenRM with a model that gives the same answer to every prompt."""

    async def complete(conversations: Sequence[Any]) -> list[Completion]:
        return [Completion(answer, tokens, prompt_tokens=100) for _ in conversations]

    return GenRM(load_template("compact"), complete, votes, usage=usage)


def test_the_tokens_of_both_judges_are_counted_together_and_apart() -> None:
    whole = UsageMeter()
    cheap, strong = UsageMeter(whole), UsageMeter(whole)
    judge = Cascade(
        genrm("\\boxed{0}", 10, 3, cheap), genrm("\\boxed{-1}", 50, 1, strong), (0.0, 1.0), whole
    )  # flagged by all votes, which is not above 1
    found = asyncio.run(judge(ROLLOUTS[:2]))
    assert [(v.num_tokens, v.all_tokens, v.flawed, v.given_by) for v in found] == [(50, 80, False, "strong")] * 2
    assert cheap.total == Usage(6, 600, 0, 60) and strong.total == Usage(2, 200, 0, 100)
    assert whole.total == judge.usage.total == cheap.total + strong.total
    assert whole.take() == judge.usage.total and whole.take() == Usage()
    kept = asyncio.run(replace(judge, thresholds=(0.0, 0.9))(ROLLOUTS[:1]))
    assert [(v.num_tokens, v.all_tokens, v.flag_rate, v.given_by) for v in kept] == [(10, 30, 1.0, "cheap")]


def test_a_copied_meter_starts_at_zero_and_still_counts_in_its_whole() -> None:
    whole = UsageMeter()
    parts = [UsageMeter(whole), UsageMeter(whole)]
    parts[0].add([Completion("x", 3)])
    copies = copy.deepcopy([whole, *parts])
    copies[1].add([Completion("x", 5)])
    assert [meter.total.completion_tokens for meter in copies] == [5, 5, 0]
    assert whole.total.completion_tokens == 3


@pytest.mark.parametrize("verdict", [*(cheap for cheap, _ in CASES.values()), replace(voted(2), given_by="strong")])
def test_a_verdict_is_the_same_after_it_was_written_and_read(verdict: Verdict) -> None:
    assert verdict_from_row(verdict_row(verdict)) == verdict


def test_rows_of_other_judges_have_no_further_columns() -> None:
    assert verdict_row(CLEARED).keys() == verdict_row(None).keys()
    assert verdict_row(voted(1)).keys() - verdict_row(None).keys() == {"flag_rate"}


def test_the_rate_of_the_strong_judge_is_a_metric() -> None:
    def scored(by: Any) -> ScoredRollout:
        return ScoredRollout(ROLLOUTS[0], True, replace(CLEARED, given_by=by), Reward(1.0))

    assert policy_metrics([scored("strong"), scored("cheap"), scored("cheap")], [None] * 3)["judge/strong_rate"] == (
        pytest.approx(1 / 3)
    )
    assert "judge/strong_rate" not in policy_metrics([scored("")], [None])


# --- config ------------------------------------------------------------------------------------------------------


def test_a_cascade_is_one_of_the_kinds_of_a_judge() -> None:
    judge = config()
    assert isinstance(judge.cheap, LocalJudge) and judge.strong == OracleJudge() and judge.thresholds == (0.3, 0.7)
    assert [end for end, _ in judge.parts] == [".cheap", ".strong"] and judge.num_requests is None
    assert step_rule(judge) == "lines"


SERVED = {"kind": "served", "urls": ["http://x/v1"], "model": "m", "template": "compact"}
MISTAKES = {
    "thresholds the wrong way round": ({"thresholds": [0.7, 0.3]}, "`thresholds` .* must rise"),
    "a threshold above 1": ({"thresholds": [0.3, 1.5]}, "judge.thresholds.1: should be less than or equal to 1"),
    "one threshold": ({"thresholds": [0.3]}, "judge.thresholds: has too few values"),
    "a cascade in a cascade": ({"strong": CASCADE}, "judge.strong.kind: should be .* not 'cascade'"),
    "the adapter of a policy": (
        {"cheap": {"kind": "adapter", "model": "base"}},
        "judge.cheap.kind: should be .* not 'adapter'",
    ),
    "a key that is misspelt": (
        {"cheap": {**CASCADE["cheap"], "votse": 3}},
        "judge.cheap.votse: unknown key; did you mean judge.votes?",
    ),
    "a key of another kind": (
        {"strong": {"kind": "oracle", "votes": 3}},
        'judge.strong.votes: `votes` does not belong to kind "oracle"; it belongs to "local" and "served"',
    ),
    "canaries of a part": (
        {"cheap": {**CASCADE["cheap"], "canaries": "miniature:critic-test"}},
        "`cheap.canaries` is a setting of the whole cascade; move it to",
    ),
    "a failure rate of a part": (
        {"strong": {**SERVED, "max_failure_rate": 0.1}},
        "`strong.max_failure_rate` is a setting of the whole cascade",
    ),
    "prices": ({"strong": {**SERVED, "prices": [1, 1, 1]}}, "`strong.prices` cannot be used"),
    "a model of the whole": ({"model": "m"}, "judge.model: `model` does not belong to kind \"cascade\""),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_the_key(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changed)


def test_judges_that_split_solutions_differently_are_refused() -> None:
    judge = config(cheap=SERVED | {"template": "locate"})
    with pytest.raises(ConfigError, match=r"judge.cheap splits solutions into paragraphs and judge.strong into lines"):
        make_judge(judge)
    genrm = GenRM(load_template("locate"), fixed([]))  # type: ignore[arg-type]  # never asked
    with pytest.raises(ConfigError, match=r"a cascade split solutions into paragraphs and lines; make both"):
        Cascade(genrm, oracle(), (0.3, 0.7))


def test_the_reward_of_trl_takes_the_rule_for_steps_from_the_judges_of_a_cascade() -> None:
    pytest.importorskip("trl")
    from fapo.trl import flawed_aware_reward

    judge = Cascade(fixed([]), oracle(), (0.3, 0.7))
    assert flawed_aware_reward(judge).scorer.steps == "lines"


def test_judges_of_one_name_at_different_servers_share_no_cache(tmp_path: Path) -> None:
    cached = SERVED | {"cache": str(tmp_path / "cache.sqlite"), "concurrency": 4}
    elsewhere = cached | {"urls": ["http://y/v1"], "concurrency": 64}
    with pytest.raises(ConfigError, match=r"judge.cheap and judge.strong are at different urls .* set `revision` of"):
        make_judge(config(cheap=cached, strong=elsewhere))
    for apart in (
        {"revision": "2"},
        {"urls": ["http://y/v1", "http://x/v1"]},
        {"model": "n"},
        {"temperature": 0.6},
        {"cache": str(tmp_path / "other.sqlite")},
        {"cache": None},
    ):
        make_judge(config(cheap=cached, strong=elsewhere | apart))


def test_each_process_gets_its_part_of_the_requests_of_both() -> None:
    judge = config(cheap=SERVED | {"concurrency": 64}, strong=SERVED | {"concurrency": 8})
    assert judge.num_requests == 64
    parts = [part.num_requests for _, part in judge_of_process(judge, 4).parts]
    assert parts == [16, 2]


def test_paths_of_both_judges_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "ask.txt").write_text("{{problem}}{{#steps}}{{step}}{{/steps}}", encoding="utf-8")
    (folder / "judge.toml").write_text(
        '[judge]\nkind = "cascade"\nthresholds = [0, 1]\n'
        '[judge.cheap]\nkind = "served"\nurls = ["http://x/v1"]\nmodel = "m"\ntemplate = "ask.txt"\n'
        '[judge.strong]\nkind = "local"\nmodel = "./model"\ncache = "strong.sqlite"\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    judge = load_judge("study/judge.toml")
    assert isinstance(judge, CascadeJudge) and isinstance(judge.strong, LocalJudge)
    assert judge.cheap.template == "study/ask.txt"
    assert judge.strong.model == "study/model"
    assert judge.strong.cache == judge.cache == "study/strong.sqlite"


# --- in the miniature --------------------------------------------------------------------------------------------


def cascade_file(folder: Path, thresholds: Sequence[float], cheap: str = "", strong: str = "") -> Path:
    """Write a cascade of the shipped GenRM, with votes, and the same one without sampling."""
    genrm = 'kind = "local"\nmodel = "miniature:genrm"\ntemplate = "compact"\nmax_tokens = 80\n'
    file = folder / "cascade.toml"
    file.write_text(
        f'[judge]\nkind = "cascade"\nthresholds = {list(thresholds)}\n'
        f"[judge.cheap]\n{cheap or genrm + 'votes = 2' + chr(10) + 'temperature = 0.6' + chr(10)}\n"
        f"[judge.strong]\n{strong or genrm}\n",
        encoding="utf-8",
    )
    return file


def bench(folder: Path, judge: str, out: str, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    settings = BenchSettings(
        benchmark="flawed-positive", data=("miniature:critic-test",), limit=24, judge=(judge,), out=folder / out,
        **options,
    )  # fmt: skip
    rows, (context,) = run_benchmark(settings)
    return as_json(score(settings, rows, context), context), list(read_jsonl(folder / out))


@pytest.mark.slow
def test_bench_with_a_cascade_equals_its_judges_at_the_ends(tmp_path: Path) -> None:
    known = {"template": ("compact",), "max_tokens": 80}
    alone, rows = bench(tmp_path, "local:miniature:genrm", "strong.jsonl", **known)
    found, by_both = bench(tmp_path, f"cascade:{cascade_file(tmp_path, (0, 1))}", "cascade.jsonl")
    numbers = ("n", "precision", "recall", "f1", "youden_j", "tp", "fp", "fn", "tn")
    assert [found[name] for name in numbers] == [alone[name] for name in numbers]
    assert [row["error_step"] for row in by_both] == [row["error_step"] for row in rows]
    assert {row["given_by"] for row in by_both} == {"strong"}
    assert found["conventions"]["cascade"] == "the strong judge was asked about 24 of 24 rows"
    cheap = 'kind = "local"\nmodel = "miniature:genrm"\ntemplate = "compact"\nmax_tokens = 80\n'
    same, by_cheap = bench(tmp_path, f"cascade:{cascade_file(tmp_path, (0.5, 0.5), cheap)}", "cheap.jsonl")
    assert [same[name] for name in numbers] == [alone[name] for name in numbers]
    unsure = [row for row in by_cheap if row["given_by"] == "strong"]
    assert all(row["status"] != "ok" for row in unsure), "only rows without a verdict are passed on"
    assert same["usage"]["requests"] == alone["usage"]["requests"] + len(unsure) or same["usage"]["from_cache"]


@pytest.mark.slow
def test_an_audit_says_which_judge_gave_each_verdict(tmp_path: Path) -> None:
    rows, file = labelled("miniature:critic-test", 8), tmp_path / "solutions.jsonl"
    write_jsonl(
        file,
        [{"problem": row.problem.text, "reference": row.problem.reference, "response": "\n".join(row.steps)}
         for row in rows],
    )  # fmt: skip
    judge = (f"cascade:{cascade_file(tmp_path, (0.3, 0.7))}",)
    counts = audit(AuditSettings(files=(str(file),), judge=judge, out=tmp_path / "out.jsonl"))
    found = list(read_jsonl(tmp_path / "out.jsonl"))
    judged = [row for row in found if row["status"] != "skipped"]
    assert judged and {row["given_by"] for row in judged} <= {"cheap", "strong"}
    assert sum(row["all_tokens"] for row in judged) == counts.usage.completion_tokens
    assert all("given_by" not in row for row in found if row["status"] == "skipped")


COMMANDS = {
    "an option of the judge": ({"votes": 3}, "--votes does not go with --judge cascade:.*: set it in that file"),
    "its template": ({"template": ("locate",)}, "--template does not go with --judge cascade:"),
}


@pytest.mark.parametrize(("options", "message"), COMMANDS.values(), ids=COMMANDS)
def test_options_of_the_judge_are_in_its_file(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        bench(tmp_path, f"cascade:{cascade_file(tmp_path, (0, 1))}", "out.jsonl", **options)


def test_an_oracle_is_for_training(tmp_path: Path) -> None:
    file = cascade_file(tmp_path, (0, 1), strong='kind = "oracle"\n')
    with pytest.raises(ConfigError, match=r'cascade.toml: judge.*: kind "oracle" is for fapo train'):
        bench(tmp_path, f"cascade:{file}", "out.jsonl")


def test_a_file_with_another_judge_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "oracle.toml"
    file.write_text('[judge]\nkind = "oracle"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r'oracle.toml: judge.kind is "oracle"; --judge cascade:FILE is for'):
        bench(tmp_path, f"cascade:{file}", "out.jsonl")
    file.write_text("[data]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no judge; add a"):
        bench(tmp_path, f"cascade:{file}", "out.jsonl")


@pytest.mark.slow
def test_an_oracle_behind_a_genrm_corrects_it() -> None:
    judge = make_judge(config(thresholds=[0.3, 0.7]))
    rows = labelled("miniature:critic-test", 16)
    found = asyncio.run(judge([Rollout(row.problem, "\n".join(row.steps)) for row in rows]))
    by_oracle = [(v, row) for v, row in zip(found, rows, strict=True) if v.given_by == "strong"]
    assert by_oracle and len(by_oracle) < len(rows)
    assert all(v.error_step == row.error_step for v, row in by_oracle)
