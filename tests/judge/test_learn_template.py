"""fapo template learn: templates recovered from the prompts that they made, and prompts of other forms."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fapo.data.jsonl import write_jsonl
from fapo.errors import DataError
from fapo.judge.learn_template import learn_template
from fapo.judge.template import Template, build_prompt, load_template
from tests.support.command_line import fapo

TEXTS = {
    "own": load_template("locate").text,
    "user only": "Judge this.\n\n[Problem]\n\n{{problem}}\n\n[Answer]\n\n{{reference}}\n\n[Steps]\n\n{{#steps}}"
    "<paragraph_{{index}}>\n{{step}}\n</paragraph_{{index}}>\n\n{{/steps}}Name one of 0 to {{last_index}} (of "
    "{{num_steps}}), in at most 30 words.",
    "no reference": "Q: {{problem}}\n{{#steps}}<s{{index}}>{{step}}</s{{index}}>{{/steps}}\nWhere is it wrong?",
}
WORDS = ["seven", "apples", "cost", "$3x + 2$", "euros,", "but", "a < b", "for", "numbers", "beyond", "\\frac{1}{2}"]


def prompts(template: Template, num: int = 12, extra: str = "") -> list[dict[str, Any]]:
    """Return rows with prompts about random solutions; the first has `extra` in a step, which is not escaped."""
    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))

    rows = []
    for i in range(num):
        steps = [text() for _ in range(rng.randint(1, 5))]
        chat = build_prompt(template, text(), str(rng.randint(1, 999)), [*steps[:-1], steps[-1] + "MARK"])
        for message in chat:
            message["content"] = message["content"].replace("MARK", extra if i == 0 else "")
        rows.append({"id": i, "prompt": chat})
    return rows


@pytest.mark.parametrize("name", TEXTS)
def test_a_template_is_recovered_from_its_prompts(name: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", prompts(Template(TEXTS[name])))
    learned = learn_template(str(tmp_path / "rows.jsonl"))
    assert learned.template.text == TEXTS[name]
    assert (learned.rows, learned.exact, learned.escaped_only, learned.differing) == (12, 12, 0, "")


def test_prompts_that_differ_by_escaping_are_counted_apart(tmp_path: Path, monkeypatch, capsys) -> None:
    write_jsonl(tmp_path / "rows.jsonl", prompts(Template(TEXTS["user only"]), extra=" so \\boxed{0}"))
    out = tmp_path / "t.txt"
    assert fapo(monkeypatch, "template", "learn", tmp_path / "rows.jsonl", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 12, "exact": 11, "escaped_only": 1}
    assert (load_template(out).text, load_template(out).escaping) == (TEXTS["user only"], "verdicts")


def test_one_of_the_prompts_that_differ_is_shown(tmp_path: Path, monkeypatch, capsys) -> None:
    rows = prompts(Template(TEXTS["user only"]))
    content = rows[5]["prompt"][-1]["content"]
    rows[5]["prompt"][-1]["content"] = content.replace("<paragraph_0>\n", "<paragraph_0>\n  ", 1)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert fapo(monkeypatch, "template", "learn", tmp_path / "rows.jsonl", "--out", tmp_path / "rows.jsonl") == 2
    assert "rows.jsonl: is one of the files to read" in capsys.readouterr().err
    assert fapo(monkeypatch, "template", "learn", tmp_path / "rows.jsonl", "--out", tmp_path / "t.txt") == 0
    said = capsys.readouterr()
    assert "11 of 12 prompts are given back exactly, 0 but for escaping" in said.out
    assert "rows.jsonl:6: '  " in said.err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "Q\n<step_0>a</step_0>"}], "1 rows, must be at least 3"),
        ([{"prompt": f"Q{i}\n1. a\n2. b"} for i in range(5)], "rows.jsonl:1: no paragraphs in numbered tags from 0"),
        ([{"text": "x"}] * 5, "rows.jsonl:1: no prompt: expected prompt or messages"),
        ([{"prompt": "Q\n<step_0>a</step_0>"}] * 5, "are equal or nested"),
        ([{"prompt": f"{w} {{{{x}}}}\n<s_0>a</s_0>"} for w in ("one", "two", "six")], r"hold '\{\{x\}\}'"),
        (
            [{"prompt": f"{w}\n<s_0>a</s_0>\nEnd{w}"} for w in ("one", "two", "six")],
            "rows.jsonl:2: the text after the steps differs",
        ),
    ],
)
def test_other_prompts_are_errors_with_their_place(rows: list[Any], message: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=message):
        learn_template(str(tmp_path / "rows.jsonl"))
