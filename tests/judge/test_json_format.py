"""Verdicts in JSON: the request, the schema, parsing, the cache, and where the format is refused."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config import from_dict
from fapo.config.schema import ServedJudge
from fapo.errors import ConfigError
from fapo.evaluation.judge_settings import JudgeSettings, judge_name
from fapo.inference.response_cache import cache_key
from fapo.judge.from_config import make_judge, open_judge
from fapo.judge.template import Template, build_prompt, load_template, max_critique
from fapo.judge.verdicts import NO_JSON, OUT_OF_RANGE, parse_json
from fapo.types import Constrained, Given, Problem, Rollout, Verdict
from tests.support.chat_server import Reply, chat_server

PROBLEM = Problem("p", "What is 1+1?", "2")
STEPS = ["1+1=3", "3-1=2", "The answer is 2."]


def in_json(name: str) -> Template:
    return replace(load_template(name), format="json")


def schema_of(template: Template, steps: list[Any]) -> Any:
    prompt = build_prompt(template, PROBLEM.text, PROBLEM.reference, steps)
    assert isinstance(prompt, Constrained)
    return prompt.schema


def test_the_schema_has_the_critique_first_and_only_steps_that_can_be_wrong() -> None:
    schema = schema_of(in_json("locate"), STEPS)
    assert list(schema["properties"]) == schema["required"] == ["critique", "first_wrong_step"]
    assert schema["properties"]["first_wrong_step"] == {"type": "integer", "enum": [-1, 0, 1, 2]}
    assert schema["additionalProperties"] is False
    given = schema_of(in_json("locate"), ["call", Given("output"), "end"])
    assert given["properties"]["first_wrong_step"]["enum"] == [-1, 0, 2]
    assert schema_of(in_json("yes_no"), STEPS)["properties"]["flawed"] == {"type": "boolean"}


@pytest.mark.parametrize(
    ("max_tokens", "characters"),
    [(1, 0), (65, 0), (66, 1), (200, 68), (300, 118), (1000, 468), (4062, 1999), (4063, 1999), (4064, None)],
)
def test_the_limit_of_a_critique_leaves_room_for_the_verdict(max_tokens: int, characters: int | None) -> None:
    assert max_critique(max_tokens) == characters


def test_the_schema_limits_the_critique() -> None:
    assert schema_of(in_json("locate"), STEPS)["properties"]["critique"] == {"type": "string"}
    limited = replace(in_json("locate"), max_critique=68)
    assert schema_of(limited, STEPS)["properties"]["critique"] == {"type": "string", "maxLength": 68}


SHORT_CHARACTERS = st.sampled_from([chr(code) for code in range(32, 127)] + list("\b\f\n\r\t"))
"""Characters that JSON writes as one or two characters of ASCII."""


@given(
    max_tokens=st.integers(64, 4063),
    num_steps=st.integers(1, 1000),
    yes_no=st.booleans(),
    indent=st.sampled_from([None, 0, 1, 2, 4]),
    data=st.data(),
)
def test_every_answer_that_the_schema_allows_ends_within_the_limit_and_is_a_verdict(
    max_tokens: int, num_steps: int, yes_no: bool, indent: int | None, data: st.DataObject
) -> None:
    """No token has less than a character, so the number of characters is the greatest number of tokens."""
    template = replace(in_json("yes_no" if yes_no else "locate"), max_critique=max_critique(max_tokens))
    critique, (name, form) = schema_of(template, ["s"] * num_steps)["properties"].items()
    length = critique[1]["maxLength"]
    start = data.draw(st.text(SHORT_CHARACTERS, max_size=min(5, length)))
    text = start + data.draw(SHORT_CHARACTERS) * (length - len(start))  # a critique that repeats itself to the limit
    verdict = data.draw(st.booleans() if yes_no else st.sampled_from(form["enum"]))
    answer = json.dumps({"critique": text, name: verdict}, indent=indent)
    assert len(answer) < max_tokens, "with the token that ends the answer"
    found = template.parse(answer, num_steps)
    assert found.status == "ok"
    assert (found.flawed, found.error_step) == (
        (verdict, None) if yes_no else (verdict != -1, None if verdict == -1 else verdict)
    )


def test_the_prompt_is_the_template_and_a_sentence() -> None:
    boxed = build_prompt(load_template("locate"), PROBLEM.text, PROBLEM.reference, STEPS)
    prompt = build_prompt(in_json("locate"), PROBLEM.text, PROBLEM.reference, STEPS)
    assert prompt[:-1] == boxed[:-1]
    assert prompt[-1]["content"].startswith(boxed[-1]["content"])
    assert "Answer in JSON" in prompt[-1]["content"]


@pytest.mark.parametrize(
    ("text", "names_step", "verdict"),
    [
        ('{"critique": "c", "first_wrong_step": 1}', True, (True, 1)),
        ('{"critique": "c", "first_wrong_step": -1}', True, (False, None)),
        (' {"first_wrong_step": 0}\n', True, (True, 0)),
        ('{"critique": "c", "flawed": true}', False, (True, None)),
        ('{"critique": "c", "flawed": false}', False, (False, None)),
        ('{"critique": "c", "first_wrong_step": 3}', True, OUT_OF_RANGE),
        ('{"critique": "c", "first_wrong_step": -2}', True, OUT_OF_RANGE),
        ('{"critique": "c", "first_wrong_step": true}', True, NO_JSON),
        ('{"critique": "c", "first_wrong_step": 1.0}', True, NO_JSON),
        ('{"critique": "c", "first_wrong_step": "1"}', True, NO_JSON),
        ('{"critique": "c"}', True, NO_JSON),
        ('{"critique": "c", "flawed": 1}', False, NO_JSON),
        ('{"critique": "c", "first_wrong_step": 1}', False, NO_JSON),
        ("[1]", True, NO_JSON),
        ("\\boxed{1}", True, NO_JSON),
        ("[" * 100_000, True, NO_JSON),
        ('{"critique": "c", "first_wrong_step": 1', True, NO_JSON),
        ("", True, NO_JSON),
    ],
)
def test_parsing(text: str, names_step: bool, verdict: Any) -> None:
    found = parse_json(text, 3, names_step=names_step)
    assert found.critique == text
    if isinstance(verdict, str):
        assert (found.status, found.reason) == ("unparsable", verdict)
    else:
        assert (found.status, found.flawed, found.error_step) == ("ok", *verdict)


def test_a_served_judge_asks_for_json_and_reads_it(tmp_path: Path) -> None:
    config = ServedJudge(model="m", urls=("http://x",), format="json", max_tokens=300, cache=str(tmp_path / "c.sqlite"))

    def script(body: dict[str, Any], index: int) -> Reply:
        form = body["response_format"]
        assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
        properties = form["json_schema"]["schema"]["properties"]
        assert properties["first_wrong_step"]["enum"] == [-1, 0, 1, 2]
        assert properties["critique"]["maxLength"] == 118
        return Reply(json.dumps({"critique": "It holds.", "first_wrong_step": 1}))

    async def judged(settings: ServedJudge) -> Verdict:
        async with open_judge(settings) as judge:
            (verdict,) = await judge.judge_steps([(PROBLEM, STEPS)])
            return verdict

    with chat_server(script) as server:
        config = replace(config, urls=(server.url,))
        first, again = asyncio.run(judged(config)), asyncio.run(judged(config))
        assert len(server.requests) == 1, "the second answer comes from the cache"
        (third,) = asyncio.run(make_judge(replace(config, cache=None))([Rollout(PROBLEM, "\n\n".join(STEPS))]))
    assert (first.status, first.error_step) == ("ok", 1)
    assert first == again == third


def test_the_limit_follows_the_field_that_replaces_max_tokens() -> None:
    with chat_server(Reply(json.dumps({"critique": "It holds.", "first_wrong_step": -1}))) as server:
        limit = {"max_completion_tokens": 100}
        config = ServedJudge(model="m", urls=(server.url,), format="json", extra_body=limit)
        asyncio.run(make_judge(config)([Rollout(PROBLEM, "\n\n".join(STEPS))]))
        (request,) = server.requests
    assert request["response_format"]["json_schema"]["schema"]["properties"]["critique"]["maxLength"] == 18


def test_a_boxed_verdict_is_requested_as_before() -> None:
    with chat_server(Reply("\\boxed{1}")) as server:
        config = ServedJudge(model="m", urls=(server.url,))
        asyncio.run(make_judge(config)([Rollout(PROBLEM, "\n\n".join(STEPS))]))
        assert "response_format" not in server.requests[0]


def test_the_cache_tells_answers_of_other_forms_apart() -> None:
    messages = [{"role": "user", "content": "Q"}]
    one, other = Constrained(messages, {"a": 1}), Constrained(messages, {"a": 2})
    assert len({cache_key(chat, "m", {}, 0) for chat in (messages, one, other)}) == 3
    assert cache_key(one, "m", {}, 0) == cache_key(Constrained(messages, {"a": 1}), "m", {}, 0)


def test_only_a_server_can_enforce_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--judge: .* is loaded here, and only a server can enforce format json"):
        JudgeSettings(judge=(f"local:{tmp_path}",), format="json").judge_config()
    served = JudgeSettings(judge=("http://127.0.0.1:9",), model="m", format="json").judge_config()
    assert isinstance(served, ServedJudge) and served.format == "json"
    assert judge_name(served).endswith(", json")
    local = {"kind": "local", "model": "m", "format": "json"}
    with pytest.raises(ConfigError, match="format"):
        from_dict({"judge": local})
