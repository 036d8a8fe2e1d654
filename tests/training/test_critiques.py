"""Critiques for a GenRM to imitate: those that agree with the label of their solution are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fapo.config.sampling import Requests, Sampling
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.problems import read_labelled
from fapo.errors import ConfigError, DataError, JudgeDownError
from fapo.training.critic_data.critiques import write_critiques
from fapo.training.critic_data.settings import CritiquesSettings
from tests.support.chat_server import Reply, chat_server

Row = dict[str, Any]


def labelled_row(index: int, label: int, num_steps: int = 3, **more: Any) -> Row:
    steps = [f"{index}+{k}={index + k}" for k in range(num_steps)]
    row = {"id": f"s{index}", "problem": f"start {index}", "reference": "1", "steps": steps, "label": label}
    return row | more


def critiques_config(out: Path, data: Path, url: str, **changed: Any) -> CritiquesSettings:
    settings: Row = {"samples": 3, "template": "compact", "requests": Requests(concurrency=1, timeout=600.0)}
    return CritiquesSettings(data=str(data), judge=(url,), model="m", out=out, **settings | changed)


def test_critiques_that_name_the_label_are_kept(tmp_path: Path) -> None:
    data = tmp_path / "critic.jsonl"
    write_jsonl(data, [labelled_row(0, -1), labelled_row(1, 2), labelled_row(2, 0), labelled_row(3, 1)])
    answers = {
        "start 0": ["fine \\boxed{-1}", "good \\boxed{-1}", "fine \\boxed{-1}"],
        "start 1": ["step 2 \\boxed{2}", "step 1 \\boxed{1}", "no box"],
        "start 2": ["\\boxed{1}", "\\boxed{-1}", "\\boxed{7}"],
        "start 3": ["\\boxed{1}", "\\boxed{0}", "also \\boxed{1}"],
    }

    def script(body: Row, index: int) -> Reply:
        asked = body["messages"][-1]["content"]
        return Reply(next(said for start, said in answers.items() if start in asked)[index // 4])

    out = tmp_path / "sft.jsonl"
    with chat_server(script) as server:
        kept = write_critiques(critiques_config(out, data, server.url))
        assert len(server.requests) == 12
        again = write_critiques(critiques_config(out, data, server.url))
        assert (again, len(server.requests)) == (kept, 12), "no request is sent twice"
    assert (kept.critiques, kept.failed, kept.unparsable, kept.matching) == (12, 0, 2, 6)
    assert (kept.kept, kept.kept_flawed, kept.covered) == (5, 3, 3)
    found = read_labelled(out)
    assert [(s.problem.id, s.problem.text, s.error_step, s.critique) for s in found] == [
        ("s0-0", "start 0", None, "fine \\boxed{-1}"),
        ("s0-1", "start 0", None, "good \\boxed{-1}"),
        ("s1-0", "start 1", 2, "step 2 \\boxed{2}"),
        ("s3-0", "start 3", 1, "\\boxed{1}"),
        ("s3-1", "start 3", 1, "also \\boxed{1}"),
    ]
    assert len(list(read_jsonl(tmp_path / "sft.work" / "critiques.jsonl"))) == 12


def test_critiques_do_not_overwrite_the_solutions(tmp_path: Path) -> None:
    data = tmp_path / "critic.jsonl"
    write_jsonl(data, [labelled_row(0, -1)])
    with pytest.raises(ConfigError, match=r"critic\.jsonl: is one of the files to read"):
        write_critiques(critiques_config(data, data, "http://x"))
    assert len(read_labelled(data)) == 1


def test_noisy_labels_choose_other_critiques(tmp_path: Path) -> None:
    data, out = tmp_path / "critic.jsonl", tmp_path / "sft.jsonl"
    write_jsonl(data, [labelled_row(i, -1) for i in range(20)])
    with chat_server(Reply("\\boxed{-1}")) as server:
        kept = write_critiques(critiques_config(out, data, server.url, samples=1, label_noise=0.2))
    assert (kept.solutions, kept.kept, kept.covered) == (20, 16, 16)


def test_failed_critiques_are_requested_again(tmp_path: Path) -> None:
    data, out = tmp_path / "critic.jsonl", tmp_path / "sft.jsonl"
    write_jsonl(data, [labelled_row(i, -1) for i in range(10)])
    with (
        chat_server(Reply("nothing here", status=400)) as server,
        pytest.raises(JudgeDownError, match="8 of the last 8 requests failed"),
    ):
        write_critiques(critiques_config(out, data, server.url, samples=1))
    assert not out.exists()
    with chat_server(lambda _, index: Reply("\\boxed{-1}", status=400 if index < 4 else 200)) as server:
        kept = write_critiques(critiques_config(out, data, server.url, samples=1))
        assert (kept.critiques, kept.failed, kept.kept) == (6, 4, 6)
        kept = write_critiques(critiques_config(out, data, server.url, samples=1))
        assert (kept.critiques, kept.failed, len(server.requests)) == (10, 0, 14)


BAD = [
    ({"samples": 0}, "fapo critiques: samples: should be greater than or equal to 1, not 0"),
    ({"sampling": Sampling(temperature=0.0)}, "temperature must be above 0"),
    ({"template": "yes_no"}, "asks yes or no"),
    ({"label_noise": 2.0}, "label_noise: should be less than or equal to 1, not 2"),
    ({"out": "x.parquet"}, r"must end in \.jsonl"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_settings_of_critiques_that_cannot_work(changed: Row, message: str, tmp_path: Path) -> None:
    data = tmp_path / "critic.jsonl"
    write_jsonl(data, [labelled_row(0, -1)])
    out = tmp_path / changed.pop("out", "sft.jsonl")
    with pytest.raises(ConfigError, match=message):
        write_critiques(critiques_config(out, data, "http://127.0.0.1:9", **changed))


@pytest.mark.parametrize(("critique", "message"), [(3, "critique is a int"), (["x"], "critique is a list")])
def test_a_critique_is_a_text(critique: Any, message: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [labelled_row(0, -1, critique=critique)])
    with pytest.raises(DataError, match=rf"x\.jsonl:1: {message}, must be a text"):
        read_labelled(tmp_path / "x.jsonl")
