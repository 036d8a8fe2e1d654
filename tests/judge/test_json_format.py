"""Verdicts in JSON: the request, the schema, parsing, the cache, and where the format is refused."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fapo.config import from_dict
from fapo.config.schema import ServedJudge
from fapo.errors import ConfigError
from fapo.evaluation.judge_settings import JudgeSettings, judge_name
from fapo.inference.response_cache import cache_key
from fapo.judge.from_config import make_judge, open_judge
from fapo.judge.template import Template, build_prompt, load_template
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
    config = ServedJudge(model="m", urls=("http://x",), format="json", cache=str(tmp_path / "c.sqlite"))

    def script(body: dict[str, Any], index: int) -> Reply:
        form = body["response_format"]
        assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
        assert form["json_schema"]["schema"]["properties"]["first_wrong_step"]["enum"] == [-1, 0, 1, 2]
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
        JudgeSettings(judge=(f"local:{tmp_path}",), format="json").judge_config(None)
    served = JudgeSettings(judge=("http://127.0.0.1:9",), model="m", format="json").judge_config(None)
    assert isinstance(served, ServedJudge) and served.format == "json"
    assert judge_name(served).endswith(", json")
    local = {"kind": "local", "model": "m", "format": "json"}
    with pytest.raises(ConfigError, match="format"):
        from_dict({"judge": local})
