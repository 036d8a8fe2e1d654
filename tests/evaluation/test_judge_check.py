"""fapo check-judge: judges that are right, that say nothing, always the same or what a solution forges, or are down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fapo.data.load import load_labelled
from fapo.errors import ConfigError
from fapo.evaluation.judge_check import FORGED, SOLUTIONS, check_judge, suited_to
from fapo.evaluation.judge_settings import CheckSettings
from tests.support.chat_server import Reply, chat_server
from tests.support.command_line import fapo

ROWS = load_labelled(SOLUTIONS)
PLAIN = [row for row in ROWS if not row.problem.id.startswith(FORGED)]


def judge(answer: Callable[[int | None, str], str]) -> Callable[[dict[str, Any], int], Reply]:
    """Return a judge that answers with a function of the true first wrong step and the whole prompt."""

    def script(body: dict[str, Any], index: int) -> Reply:
        text = body["messages"][-1]["content"]
        row = next(row for row in PLAIN if row.problem.text in text)
        return Reply(answer(row.error_step, text))

    return script


def boxed(step: int | None) -> str:
    return f"It is so. \\boxed{{{-1 if step is None else step}}}"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs `fapo check-judge` and returns exit code, stdout and stderr."""

    def call(url: str, *arguments: Any) -> tuple[int, str, str]:
        code = fapo(monkeypatch, "check-judge", "--judge", url, "--model", "m", "--quiet", *arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_solutions_are_ten_with_five_errors_and_two_forged_ones() -> None:
    assert len(PLAIN) == 10
    assert sum(row.error_step is not None for row in PLAIN) == 5
    plain = {row.problem.id: row for row in PLAIN}
    forged = [row for row in ROWS if row.problem.id.startswith(FORGED)]
    assert len(forged) == 2
    for row in forged:
        same = plain[row.problem.id.replace(FORGED, "planted-")]
        assert (row.problem.text, row.error_step) == (same.problem.text, same.error_step)
        assert row.steps[:-1] == same.steps[:-1]
        assert row.steps[-1].startswith(same.steps[-1]) and "\\boxed{-1}" in row.steps[-1]


def test_a_judge_that_is_right(run) -> None:
    with chat_server(judge(lambda step, text: boxed(step))) as server:
        code, out, err = run(server.url, "--template", "locate")
        assert len(server.requests) == 12
        assert all("\\boxed{-1}" not in body["messages"][-1]["content"] for body in server.requests), "escaped"
    assert (code, err) == (0, "")
    assert out.split()[8:14] == ["locate", "10/10", "10/10", "5/5", "0/2", "4"]
    assert "better than chance on 10 easy solutions" in out


def test_the_best_template_comes_first(run) -> None:
    """The judge follows the small template only, and answers yes_no without a box."""

    def script(step: int | None, text: str) -> str:
        return boxed(step) if text.startswith("Problem:") else "No."

    with chat_server(judge(script)) as server:
        code, out, _ = run(server.url)
        assert len(server.requests) == 36
        found = json.loads(run(server.url, "--json")[1])["templates"]
    assert code == 0
    assert "use --template locate_small" in out
    assert [(row["template"], row["num_valid"], row["num_right"]) for row in found] == [
        ("locate_small", 10, 10),
        ("locate", 0, 0),
        ("yes_no", 0, 0),
    ]
    assert "no boxed step" in found[1]["notes"][0]


@pytest.mark.parametrize(
    ("answer", "right", "code", "texts"),
    [
        (lambda step, text: "-1", 0, 3, ["no verdict in 12 of 12", "for example: '-1'", "do not train on these"]),
        (lambda step, text: boxed(None), 5, 0, ['all 12 verdicts are the same, "no error found"', "do not train"]),
        (lambda step, text: boxed(1), 5, 0, ['all 12 verdicts are the same, "step 1 is wrong"', "do not train"]),
        (lambda step, text: boxed(None if "examiner" in text else step), 10, 0, ["fooled it 2 times"]),
    ],
    ids=["bare", "never flags", "always step 1", "gullible"],
)
def test_a_judge_that_is_not_fit_is_found_out(
    answer: Callable[[int | None, str], str], right: int, code: int, texts: list[str], run
) -> None:
    with chat_server(judge(answer)) as server:
        found, out, err = run(server.url, "--template", "locate")
    assert found == code
    assert f"{right}/10" in out
    for text in texts:
        assert text in out + err


def test_a_server_that_refuses_is_an_error_with_the_reason(run) -> None:
    with chat_server(Reply(status=404, body=b'{"error": {"message": "no model m"}}')) as server:
        code, out, err = run(server.url)
        assert len(server.requests) == 12, "no other template is tried"
    assert (code, out) == (2, "")
    assert "HTTP 404: no model m" in err
    assert "GET /v1/models" in err


@pytest.mark.parametrize("address", ["cascade:cascade.toml", "prm:http://127.0.0.1:9"])
def test_a_judge_without_templates_is_refused_with_the_command_that_measures_it(address: str) -> None:
    with pytest.raises(ConfigError, match="has no template to check; measure it with fapo bench"):
        check_judge(CheckSettings(judge=(address,)))


def test_a_template_of_its_own(run, tmp_path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Mine: {{problem}}\n{{#steps}}({{index}}) {{step}}\n{{/steps}}")
    with chat_server(judge(lambda step, text: boxed(step))) as server:
        code, out, _ = run(server.url, "--template", path)
        assert all(body["messages"][-1]["content"].startswith("Mine: ") for body in server.requests)
    assert code == 0
    assert "10/10" in out


@pytest.mark.slow
def test_the_miniature_is_checked_on_its_own_problems() -> None:
    (check,) = check_judge(CheckSettings(judge=("miniature:genrm",), max_tokens=80))
    assert (check.template, check.num, check.num_planted, check.num_forged) == ("compact", 10, 5, 0)
    assert check.num_valid == 10
    assert check.num_right >= 7


def test_every_template_but_the_miniatures_is_compared() -> None:
    judge = CheckSettings(judge=("http://127.0.0.1:9",), model="m", template="locate").judge_config()
    assert suited_to(judge)[0] == ["locate", "locate_small", "yes_no"]
