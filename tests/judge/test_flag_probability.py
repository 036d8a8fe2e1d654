"""The probability of a flaw in one critique: what is added up, servers with and without it, the cache, and cascades."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config import CascadeJudge, LocalJudge, ServedJudge
from fapo.data.jsonl import read_jsonl
from fapo.data.miniature.sets import labelled
from fapo.errors import ConfigError
from fapo.evaluation.judge_benchmarks.run import run_benchmark
from fapo.evaluation.judge_benchmarks.settings import BenchSettings
from fapo.evaluation.judge_settings import judge_name
from fapo.inference.client import NO_LOGPROBS, ChatClient
from fapo.inference.models import model_folder
from fapo.inference.token_choices import kept_tokens
from fapo.judge.cascade import Cascade
from fapo.judge.flag_probability import flag_probability
from fapo.judge.from_config import make_judge, open_judge
from fapo.judge.template import Template, load_template
from fapo.judge.verdicts import verdict_from_row, verdict_row, vote
from fapo.types import Problem, Rollout, TokenChoice, Verdict
from tests.support.chat_server import Reply, chat_server
from tests.support.logprobs import Place, logprobs, model_script, plain

STEP, YES_NO = load_template("compact"), load_template("yes_no")
JSON_STEP, JSON_YES_NO = replace(STEP, format="json"), replace(YES_NO, format="json")
ROLLOUT = Rollout(Problem("p", "1+1", "2"), "1+1=3\n3-1=2")


def probability(template: Template, text: str, *places: Place) -> float | None:
    """Return the probability of a flaw in a critique that ends with some tokens; those before are certain."""
    end = "".join(token for token, _ in places)
    assert text.endswith(end)
    all_places = [*((c, {c: 1.0}) for c in text[: len(text) - len(end)]), *places]
    tokens = [
        TokenChoice(token, tuple((other, math.log(p) if p else -9999.0) for other, p in found.items()))
        for token, found in all_places
    ]
    kept = kept_tokens([token.text for token in tokens], template.before_verdict)
    verdict = template.parse(text, 5)
    assert verdict.status == "ok"
    return flag_probability(text, [tokens[i] for i in kept], template, bool(verdict.flawed))


BRACE: Place = ("}", {"}": 1.0})
ONE: Place = ("1", {"1": 1.0})
CASES: dict[str, tuple[Template, str, list[Place], float | None]] = {
    "minus is a token": (STEP, "\\boxed{-1}", [("-", {"-": 0.7, "0": 0.2, "3": 0.1}), ONE, BRACE], 0.3),
    "a step was written": (STEP, "\\boxed{3}", [("3", {"-": 0.1, "3": 0.8, "12": 0.1}), BRACE], 0.9),
    "minus is part of the brace": (STEP, "\\boxed{-1}", [("{-", {"{-": 0.7, "{": 0.3}), ONE, BRACE], 0.3),
    "a step beside such a token": (
        STEP, "\\boxed{2}", [("{", {"{-": 0.2, "{": 0.8}), ("2", {"2": 0.9, "4": 0.1}), BRACE], 0.8,
    ),
    "minus 1 in one token": (STEP, "\\boxed{-1}", [("-1", {"-1": 0.6, "1": 0.3, "-": 0.1}), BRACE], 0.3),
    "all in one token": (STEP, "\\boxed{-1}", [("d{-1}", {"d{-1}": 0.6, "d{0}": 0.2, "d{1}.": 0.2})], 0.4),
    "a space was written": (
        STEP, "\\boxed{ -1}", [(" ", {" ": 0.5, "-": 0.3, "1": 0.2}), ("-", {"-": 0.8, "2": 0.2}), ONE, BRACE], 0.3,
    ),
    "a space was not written": (STEP, "\\boxed{-1}", [("-", {"-": 0.7, "1": 0.2, " ": 0.1}), ONE, BRACE], 0.3),
    "mathematics": (
        STEP, "\\boxed{$-1$}", [("$", {"$": 1.0}), ("-", {"-": 0.7, "0": 0.3}), ONE, ("$}", {"$}": 1.0})], 0.3,
    ),
    "the rest does not count": (STEP, "\\boxed{-1}", [("-", {"-": 0.35, "0": 0.15, "x": 0.5}), ONE, BRACE], 0.3),
    "text after the verdict": (
        STEP, "\\boxed{-1} {0}", [("-", {"-": 0.7, "0": 0.3}), ONE, BRACE, (" {0}", {" {0}": 1.0})], 0.3,
    ),
    "a quoted verdict before": (STEP, "\\boxed{0} says he.\\boxed{-1}", [("-", {"-": 0.7, "0": 0.3}), ONE, BRACE], 0.3),
    "thinking": (STEP, "\\boxed{0}</think>\\boxed{-1}", [("-", {"-": 0.7, "0": 0.3}), ONE, BRACE], 0.3),
    "no": (YES_NO, "\\boxed{no}", [("no", {"no": 0.5, "No": 0.2, "yes": 0.3}), BRACE], 0.3),
    "Yes": (YES_NO, "\\boxed{Yes}", [("Yes", {"no": 0.1, "Yes": 0.6, "YES": 0.2, " yes": 0.1}), BRACE], 0.9),
    "true": (JSON_YES_NO, '{"critique": "c", "flawed": true}', [("true", {"true": 0.6, "false": 0.4}), BRACE], 0.6),
    "false, in white space": (
        JSON_YES_NO, '{"flawed"\n: false\n}',
        [(" false", {" false": 0.7, " true": 0.3}), ("\n", {"\n": 1}), BRACE], 0.3,
    ),
    "JSON that quotes a verdict": (
        JSON_STEP, '{"critique": "he says \\"first_wrong_step\\": 3}", "first_wrong_step": -1}',
        [(" -", {" -": 0.7, " 2": 0.2, " 0": 0.1}), ONE, BRACE], 0.3,
    ),
    "a verdict that is not the last value": (
        JSON_STEP, '{"first_wrong_step": -1, "x": {"first_wrong_step": 3}}', [], None,
    ),
    "minus 0": (STEP, "\\boxed{-0}", [("-", {"-": 0.7, "0": 0.3}), ("0", {"0": 1.0}), BRACE], None),
    "no mass": (STEP, "\\boxed{-1}", [("-", {"-": 0.0}), ONE, BRACE], None),
    "certain": (STEP, "\\boxed{-1}", [], 0.0),
    "certain of a flaw": (STEP, "\\boxed{1}", [], 1.0),
}  # fmt: skip


@pytest.mark.parametrize(("template", "text", "places", "expected"), CASES.values(), ids=CASES)
def test_by_hand(template: Template, text: str, places: list[Place], expected: float | None) -> None:
    found = probability(template, text, *places)
    assert found == (None if expected is None else pytest.approx(expected))


OTHERS = {
    "of another text": [TokenChoice("{2", (("{2", 0.0),)), TokenChoice("}", (("}", 0.0),))],
    "cut off": [TokenChoice("{", (("{", 0.0),))],
    "ids for texts": [TokenChoice("token_id:7", (("token_id:7", 0.0),))],
    "none": [],
}


@pytest.mark.parametrize("tokens", OTHERS.values(), ids=OTHERS)
def test_tokens_that_are_not_those_of_the_verdict_give_none(tokens: list[TokenChoice]) -> None:
    assert flag_probability("\\boxed{-1}", tokens, STEP, False) is None


# --- however the text is split -------------------------------------------------------------------------------------

VERDICTS = ("-1", "0", "1", "4", "12")
CUTS = st.sets(st.integers(1, 12))


def split(text: str, cuts: set[int]) -> list[str]:
    ends = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


def places_of(written: str, world: Mapping[str, float], tokens: Mapping[str, Sequence[str]]) -> list[Place]:
    """Return the tokens of a text with the conditional probabilities of all tokens, in a world of some texts."""
    found, seen = [], ""
    for index, token in enumerate(tokens[written]):
        same = {text: p for text, p in world.items() if tokens[text][:index] == tokens[written][:index]}
        total, nexts = sum(same.values()), dict[str, float]()
        for text, p in same.items():
            other = tokens[text][index]
            nexts[other] = nexts.get(other, 0.0) + p / total
        found.append((token, nexts))
        seen += token
    assert seen == written
    return found


@given(
    st.lists(st.floats(0.001, 1), min_size=len(VERDICTS), max_size=len(VERDICTS)),
    st.sampled_from(["", " ", "$", "\n "]),
    CUTS,
    CUTS,
    st.sampled_from(VERDICTS[:-1]),
)
def test_it_does_not_depend_on_how_the_text_is_split(
    weights: list[float], pad: str, cuts: set[int], cuts_of_clear: set[int], written: str
) -> None:
    """Verdicts that clear may be split in another way than others, as where `{-` is a token and `{0` is not."""
    world = {f"\\boxed{{{pad}{verdict}}}": w / sum(weights) for verdict, w in zip(VERDICTS, weights, strict=True)}
    place = len("\\boxed{" + pad)
    cuts_of_clear = {cut for cut in cuts if cut < place} | {cut for cut in cuts_of_clear if cut >= place}
    tokens = {text: split(text, cuts_of_clear if text[place] == "-" else cuts) for text in world}
    text = f"\\boxed{{{pad}{written}}}"
    flags, clears = sum(p for t, p in world.items() if t[place].isdigit()), world[f"\\boxed{{{pad}-1}}"]
    found = probability(STEP, text, *places_of(text, world, tokens))
    assert found == pytest.approx(flags / (flags + clears))


@given(
    st.lists(st.tuples(st.text(alphabet="{-1 $0xyesno}", max_size=3), st.floats(-9999, 0)), max_size=8),
    st.sampled_from([(STEP, "\\boxed{-1}"), (STEP, "\\boxed{0}"), (YES_NO, "\\boxed{no}"), (YES_NO, "\\boxed{yes}")]),
)
def test_it_is_a_probability_or_none(alternatives: list[tuple[str, float]], case: tuple[Template, str]) -> None:
    template, text = case
    own = text[len("\\boxed{") : -1]
    tokens = [TokenChoice("{", (("{", -0.5), *alternatives)), TokenChoice(own, (*alternatives, (own, -0.5)))]
    found = flag_probability(text, [*tokens, TokenChoice("}", (("}", 0.0),))], template, own not in ("-1", "no"))
    assert found is not None and 0 <= found <= 1


# --- served and in this process ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def genrm() -> Iterator[str]:
    """Return the base URL of a server with the GenRM of the miniature that answers with log probabilities."""
    with chat_server(model_script(model_folder("miniature:genrm"))) as server:
        yield server.url


LOCAL = LocalJudge(model="miniature:genrm", template="compact", max_tokens=80, logprobs=True)


def served(url: str, **settings: Any) -> ServedJudge:
    given = {"model": "m", "urls": (url,), "template": "compact", "max_tokens": 80, "logprobs": True}
    return ServedJudge(**given | settings)


def judged(config: Any, rollouts: Sequence[Rollout] = (ROLLOUT,), **options: Any) -> list[Verdict]:
    async def run() -> list[Verdict]:
        async with open_judge(config, **options) as judge:
            return await judge(rollouts)

    return asyncio.run(run())


@pytest.mark.slow
def test_a_served_judge_gives_the_probabilities_of_the_one_in_this_process(genrm: str) -> None:
    rollouts = [Rollout(row.problem, "\n".join(row.steps)) for row in labelled("miniature:critic-test", 24)]
    here, there = judged(LOCAL, rollouts), judged(served(genrm, concurrency=4), rollouts)
    assert [verdict.critique for verdict in here] == [verdict.critique for verdict in there]
    assert {verdict.flawed for verdict in here} == {True, False}
    for one, other in zip(here, there, strict=True):
        assert one.flag_probability is not None and other.flag_probability is not None
        assert (one.flag_probability > 0.5) is one.flawed
        assert one.flag_probability == pytest.approx(other.flag_probability, rel=1e-3, abs=1e-9)
    plain_rows = judged(replace(LOCAL, logprobs=False), rollouts)
    assert [replace(verdict, flag_probability=None) for verdict in here] == plain_rows


@pytest.mark.slow
def test_votes_have_the_mean_of_their_probabilities(tmp_path: Path) -> None:
    rollouts = [Rollout(row.problem, "\n".join(row.steps)) for row in labelled("miniature:critic-test", 6)]
    config = replace(LOCAL, votes=3, temperature=0.6, cache=str(tmp_path / "cache.sqlite"))
    first = judged(config, rollouts)
    assert all(v.flag_rate is not None and v.flag_probability is not None for v in first)
    assert judged(config, rollouts) == first, "from the cache"
    file = tmp_path / "bench.jsonl"
    run_benchmark(
        BenchSettings(
            benchmark="flawed-positive", data=("miniature:critic-test",), limit=6, judge=("local:miniature:genrm",),
            template=("compact",), max_tokens=80, votes=3, logprobs=True, out=file,
        )
    )  # fmt: skip
    rows = list(read_jsonl(file))
    assert rows and all(0 <= row["flag_probability"] <= 1 and 0 <= row["flag_rate"] <= 1 for row in rows)


def test_the_mean_is_over_the_votes_that_have_a_probability() -> None:
    flagged, cleared = Verdict.from_step(1), Verdict.from_step(None)
    votes = [replace(flagged, flag_probability=0.9), replace(cleared, flag_probability=0.2), cleared]
    found = vote([*votes, Verdict("unparsable", reason="no box")])
    assert (found.flag_rate, found.flag_probability) == (pytest.approx(1 / 3), pytest.approx(0.55))
    assert vote([flagged, cleared]).flag_probability is None


# --- requests, answers without it, and the cache --------------------------------------------------------------------

ANSWER = plain("ok\n\\boxed{-1}", ("-", {"-": 0.75, "0": 0.25}), ONE, BRACE)


def test_log_probabilities_are_requested_only_where_they_are_wanted() -> None:
    with chat_server(ANSWER) as server:
        (found,) = judged(served(server.url))
        (without,) = judged(served(server.url, logprobs=False))
        judged(served(server.url, extra_body={"top_logprobs": 5}))
    first, second, third = server.requests
    assert first.pop("logprobs") is True and first.pop("top_logprobs") == 20
    assert first == second and third["top_logprobs"] == 5
    assert found.flag_probability == pytest.approx(0.25, abs=1e-5) and without == replace(found, flag_probability=None)
    client = {"urls": server.url, "model": "m", "temperature": 0.0}
    assert ChatClient(**client).settings == {"temperature": 0.0}


WITHOUT = {
    "no field": None,
    "null": {"content": None},
    "NaN": json.loads('{"content": [{"token": "\\\\boxed{", "logprob": NaN}]}'),
}


@pytest.mark.parametrize("found", WITHOUT.values(), ids=WITHOUT)
def test_a_server_without_log_probabilities_is_a_failure_that_says_what_to_do(found: Any) -> None:
    with chat_server(Reply("\\boxed{-1}", logprobs=found)) as server:
        (verdict,) = judged(served(server.url))
    assert (verdict.status, verdict.reason, len(server.requests)) == ("failed", NO_LOGPROBS, 1)
    assert "unset `logprobs`" in NO_LOGPROBS


def test_a_cached_answer_has_the_same_probability(tmp_path: Path) -> None:
    odd = plain("\\boxed{-1}", ("-", {"-": 0.7, "0": 0.2, "\udce2 é": 0.1 / 3}), ONE, BRACE)
    cache = str(tmp_path / "cache.sqlite")
    with chat_server(odd) as server:
        config = served(server.url, cache=cache)
        (first,), (second,) = judged(config), judged(config)
        assert first == second and first.flag_probability == pytest.approx(2 / 9, abs=1e-5)
        assert len(server.requests) == 1
        (off,) = judged(replace(config, logprobs=False))
        assert len(server.requests) == 2 and off.flag_probability is None, "other settings, another answer"
        other = load_template("compact").file_text.replace("#kind: locate", "#kind: yes_no")
        (tmp_path / "other.txt").write_text(other, encoding="utf-8")
        (again,) = judged(replace(config, template=str(tmp_path / "other.txt")))
        assert len(server.requests) == 2 and again.status == "unparsable", "the verdict is parsed each time"


# --- cascades --------------------------------------------------------------------------------------------------------

STRONG = Reply("strong \\boxed{0}")
ANSWERS: dict[str, tuple[Reply, str]] = {
    "sure that there is none": (plain("\\boxed{-1}", ("-", {"-": 0.95, "0": 0.05}), ONE, BRACE), "cheap"),
    "not sure that there is none": (plain("\\boxed{-1}", ("-", {"-": 0.8, "0": 0.2}), ONE, BRACE), "strong"),
    "sure of one": (plain("\\boxed{1}", ("1", {"1": 0.6, "0": 0.35, "-": 0.05}), BRACE), "cheap"),
    "flags, but less likely than not": (plain("\\boxed{1}", ("1", {"1": 0.3, "-": 0.7}), BRACE), "strong"),
    "no probability of the verdict": (Reply("\\boxed{-1}", logprobs=logprobs(("other", {"other": 1.0}))), "strong"),
    "a server without them": (Reply("\\boxed{-1}"), "strong"),
    "no verdict": (plain("\\boxed{9}", ("9", {"9": 1.0}), BRACE), "strong"),
}


@pytest.mark.parametrize(("answer", "by"), ANSWERS.values(), ids=ANSWERS)
def test_a_cascade_asks_the_strong_judge_by_the_probability_of_one_critique(answer: Reply, by: str) -> None:
    with chat_server(answer) as cheap, chat_server(STRONG) as strong:
        config = CascadeJudge(cheap=served(cheap.url), strong=served(strong.url, logprobs=False), thresholds=(0.1, 0.9))
        (found,) = judged(config)
        (in_training,) = asyncio.run(make_judge(config)([ROLLOUT]))
    assert found.given_by == in_training.given_by == by
    assert len(cheap.requests) == 2 and len(strong.requests) == 2 * (by == "strong")
    assert found.critique == ("strong \\boxed{0}" if by == "strong" else answer.text)


def test_a_solution_that_is_flagged_unread_needs_no_probability() -> None:
    with chat_server(ANSWER) as cheap, chat_server(STRONG) as strong:
        config = CascadeJudge(cheap=served(cheap.url, min_words=50), strong=served(strong.url), thresholds=(0.1, 0.9))
        (found,) = judged(config)
    assert (found.given_by, found.flawed, len(cheap.requests), len(strong.requests)) == ("cheap", True, 0, 0)


@pytest.mark.parametrize("logprobs", [True, False])
def test_only_a_cheap_judge_with_log_probabilities_is_scored_by_them(logprobs: bool) -> None:
    config = CascadeJudge(cheap=replace(LOCAL, logprobs=logprobs), strong=LOCAL, thresholds=(0.1, 0.9))
    assert config.by_probability is logprobs
    cascade = make_judge(replace(config, cheap=served("http://x/v1", logprobs=logprobs), strong=served("http://x/v1")))
    assert isinstance(cascade, Cascade) and cascade.by_probability is logprobs


def test_rows_have_a_column_only_where_there_is_a_probability() -> None:
    verdict = replace(Verdict.from_step(None), flag_probability=0.25)
    assert verdict_row(verdict)["flag_probability"] == 0.25 and verdict_from_row(verdict_row(verdict)) == verdict
    assert "flag_probability" not in verdict_row(Verdict.from_step(None))


def test_the_name_of_a_judge_says_it() -> None:
    assert judge_name(LOCAL) == f"{judge_name(replace(LOCAL, logprobs=False))}, logprobs"


def test_a_process_reward_model_has_no_such_option() -> None:
    settings = BenchSettings(benchmark="process", data=("x",), judge=("prm:x",), logprobs=True)
    with pytest.raises(ConfigError, match="--logprobs does not go with this --judge"):
        settings.judge_with("locate")
