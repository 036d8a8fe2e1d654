"""Training a GenRM by imitation, label noise, and the choice of a checkpoint."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.reader import from_dict
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER, CONFIG_FOLDER
from fapo.data.problems import read_labelled
from fapo.errors import ConfigError, DataError, JudgeDownError
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.judge.verdicts import parse_verdict
from fapo.training.critic_data.critiques import write_critiques
from fapo.training.critic_data.label_noise import with_label_noise
from fapo.training.critic_data.settings import CritiquesSettings
from fapo.training.select_checkpoint import candidates, choose
from fapo.types import LabelledSolution, Problem, Rollout
from tests.support.chat_server import Reply, chat_server
from tests.support.command_line import fapo

Row = dict[str, Any]
STEPS = 24


def labelled_row(index: int, label: int, num_steps: int = 3, **more: Any) -> Row:
    steps = [f"{index}+{k}={index + k}" for k in range(num_steps)]
    row = {"id": f"s{index}", "problem": f"start {index}", "reference": "1", "steps": steps, "label": label}
    return row | more


# --- label noise ------------------------------------------------------------------------------------------------------


@st.composite
def solutions(draw: st.DrawFn) -> list[LabelledSolution]:
    sizes = draw(st.lists(st.integers(1, 5), max_size=30))
    labels = [draw(st.none() | st.integers(0, size - 1)) for size in sizes]
    return [
        LabelledSolution(Problem(str(i), "p", "1"), ("x",) * size, label, True)
        for i, (size, label) in enumerate(zip(sizes, labels, strict=True))
    ]


@given(solutions(), st.floats(0, 1), st.integers(0, 3))
def test_label_noise_makes_exactly_a_share_wrong(given: list[LabelledSolution], share: float, seed: int) -> None:
    noisy = with_label_noise(given, share, seed)
    assert noisy == with_label_noise(given, share, seed)
    changed = [i for i, solution in enumerate(noisy) if solution.training_label != given[i].error_step]
    assert len(changed) == round(share * len(given))
    assert [(s.problem, s.steps, s.error_step) for s in noisy] == [(s.problem, s.steps, s.error_step) for s in given]
    assert all(s.training_label is None or 0 <= s.training_label < len(s.steps) for s in noisy)
    all_wrong = with_label_noise(given, 1.0, seed)
    assert all(noisy[i] == all_wrong[i] for i in changed), "a larger share errs on the same ones, and the same way"


def test_label_noise_misses_errors_invents_them_and_moves_them() -> None:
    given = [LabelledSolution(Problem(str(i), "p", "1"), ("x",) * 4, i % 2 or None, True) for i in range(400)]
    kinds = Counter((solution.error_step, solution.training_label) for solution in with_label_noise(given, 1.0, 0))
    assert 70 <= kinds[1, None] <= 130
    assert all(40 > kinds[1, step] > 15 for step in (0, 2, 3))
    assert all(30 < kinds[None, step] < 70 for step in range(4))


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_label_noise_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        with_label_noise([], share, 0)


# --- critiques to imitate ---------------------------------------------------------------------------------------------


def critiques_config(out: Path, data: Path, url: str, **changed: Any) -> CritiquesSettings:
    settings: Row = {"samples": 3, "template": "compact", "concurrency": 1, "timeout": 5.0}
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
        assert (again, len(server.requests)) == (kept, 12), "nothing is asked twice"
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


def test_failed_critiques_are_asked_for_again(tmp_path: Path) -> None:
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
    ({"temperature": 0.0}, "temperature must be above 0"),
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


# --- training ---------------------------------------------------------------------------------------------------------


def settings(output: Path, genrm: Path, train: Path | str, **changed: Any) -> Row:
    table: Row = {
        "name": "run",
        "task": "genrm",
        "output": str(output),
        "model": {"path": str(genrm)},
        "data": {"train": str(train), "validation": {"test": "miniature:critic-test"}},
        "rollout": {"max_tokens": 16, "num_prompts": 8, "group_size": 2},
        "method": "rl" if "reward" in changed else "sft",
        "genrm": {"template": "compact"},
        "optim": {"steps": STEPS, "learning_rate": 1e-2, "warmup_steps": 0},
        "validation": {"every": STEPS // 2, "save_every": STEPS // 2, "limit": 24, "temperature": 0.0},
    }
    for key, value in changed.items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
    return table


@pytest.fixture(scope="module")
def always_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Critiques that find no error, of the miniature's solutions: the plainest thing to imitate."""
    file = tmp_path_factory.mktemp("data") / "sft.jsonl"
    rows = list(read_jsonl(BASE_FOLDER / "critic-train.jsonl"))[:64]
    write_jsonl(file, [row | {"label": -1, "critique": "answer \\boxed{-1}"} for row in rows])
    return file


@pytest.fixture(scope="module")
def sft_run(tiny_genrm: Path, always_sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fapo.trl.sft import train

    output = tmp_path_factory.mktemp("sft")
    told: list[int] = []
    folder = train(
        from_dict(settings(output, tiny_genrm, always_sound)), progress=lambda _, step, *rest: told.append(step)
    )
    assert told == list(range(1, STEPS + 1))
    return folder


def test_a_genrm_learns_to_write_the_critiques_it_is_shown(sft_run: Path, always_sound: Path) -> None:
    from fapo.inference.transformers_model import LocalModel

    model = LocalModel.load(str(sft_run / "model"), max_tokens=16)
    (solution,) = read_labelled(always_sound, limit=1)
    judge = GenRM(load_template("compact"), model)
    (verdict,) = asyncio.run(judge([Rollout(solution.problem, "\n\n".join(solution.steps))]))
    assert verdict.critique == "answer \\boxed{-1}", "all of it, and it ends there"
    metrics = list(read_jsonl(sft_run / "metrics.jsonl"))
    losses = [row["loss"] for row in metrics if row["kind"] == "train"]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] / 4


def test_the_run_folder_is_that_of_every_run(sft_run: Path) -> None:
    assert {path.name for path in sft_run.iterdir()} == {
        *("config.json", "env.json", "metrics.jsonl", "rollouts.jsonl", "checkpoints", "model"),
    }
    metrics = [row for row in read_jsonl(sft_run / "metrics.jsonl") if row["kind"] == "validation"]
    assert [row["step"] for row in metrics] == [0, STEPS // 2, STEPS]
    assert all(
        {f"test/{name}" for name in ("f1", "precision", "recall", "location", "tokens")} <= row.keys()
        for row in metrics
    )
    rollouts = list(read_jsonl(sft_run / "rollouts.jsonl"))
    assert Counter((row["split"], row["step"]) for row in rollouts) == {
        ("test", step): 24 for step in (0, STEPS // 2, STEPS)
    }
    for row in rollouts:
        verdict = parse_verdict(row["response"], 99)
        if row["status"] == "ok":
            assert row["error_step"] == verdict.error_step
            right = row["flawed"] == (row["truth"]["error_step"] is not None)
            assert row["parts"]["outcome"] == (1 if right else -1)


def test_an_interrupted_run_ends_like_one_that_was_not(
    sft_run: Path, tiny_genrm: Path, always_sound: Path, tmp_path: Path
) -> None:
    from fapo.trl.sft import train

    def told(folder: Path) -> list[tuple[int, str, float | None]]:
        rows = read_jsonl(folder / "metrics.jsonl")
        return [(row["step"], row["kind"], row.get("loss", row.get("test/tokens"))) for row in rows]

    class Stop(Exception):
        pass

    def stop(_task: str, step: int, *_: Any) -> None:
        if step == STEPS // 2 + 2:
            raise Stop

    config = from_dict(settings(tmp_path, tiny_genrm, always_sound))
    with pytest.raises(Stop):
        train(config, progress=stop)
    folder = train(config, resume=True)
    assert [row[:2] for row in told(folder)] == [row[:2] for row in told(sft_run)]
    assert [row[2] for row in told(folder)] == pytest.approx([row[2] for row in told(sft_run)], rel=1e-4, abs=1e-6)


def test_data_without_critiques_cannot_be_imitated(tiny_genrm: Path, tmp_path: Path) -> None:
    from fapo.trl.sft import train

    with pytest.raises(ConfigError, match="has no critique; fapo critiques makes such data"):
        train(from_dict(settings(tmp_path, tiny_genrm, "miniature:critic-train", data={"limit": 8})))
    assert not (tmp_path / "run").exists()


def test_label_noise_reaches_the_reward_but_not_the_measurements(tiny_genrm: Path, tmp_path: Path) -> None:
    from fapo.trl.train import train

    changed: Row = {
        "data": {"limit": 40, "label_noise": 0.5},
        "reward": {"kind": "genrm_outcome"},
        "rollout": {"num_prompts": 40},
        "optim": {"steps": 1},
    }
    folder = train(from_dict(settings(tmp_path, tiny_genrm, "miniature:critic-train", **changed)))
    assert json.loads((folder / "config.json").read_text())["data"]["label_noise"] == 0.5
    given = read_labelled(BASE_FOLDER / "critic-train.jsonl", limit=40)
    noisy = {s.problem.id: s.training_label for s in with_label_noise(given, 0.5, 0)}
    labels = {s.problem.id: s.error_step for s in given}
    found = list(read_jsonl(folder / "rollouts.jsonl"))
    trained = [row for row in found if row["split"] == "train"]
    assert len(trained) == 80
    for row in trained:
        assert row["truth"]["error_step"] == labels[row["problem_id"]]
        right = row["status"] == "ok" and row["flawed"] == (noisy[row["problem_id"]] is not None)
        assert row["parts"]["outcome"] == (1 if right else -1)
    told_otherwise = [
        row for row in trained if (noisy[row["problem_id"]] is None) != (labels[row["problem_id"]] is None)
    ]
    assert any(row["status"] == "ok" for row in told_otherwise)
    for row in found:
        if row["split"] == "test":
            right = row["status"] == "ok" and row["flawed"] == (row["truth"]["error_step"] is not None)
            assert row["parts"]["outcome"] == (1 if right else -1), "validation has the given labels"


def test_noise_and_validation_on_the_same_rows_exclude_each_other(tiny_genrm: Path, tmp_path: Path) -> None:
    from fapo.trl.train import train

    data = {"limit": 20, "label_noise": 0.5, "validation": {"same": "miniature:critic-train"}}
    table = settings(tmp_path, tiny_genrm, "miniature:critic-train", data=data, reward={"kind": "genrm_step"})
    with pytest.raises(ConfigError, match=r"with data\.label_noise validate on other rows"):
        train(from_dict(table))


MISUSES = [
    ({}, "fapo critiques has --label-noise"),
    ({"task": "policy", "reward": {"kind": "outcome"}}, 'does nothing with task "policy"; remove it'),
]


@pytest.mark.parametrize(("changed", "message"), MISUSES)
def test_label_noise_where_it_does_nothing(changed: Row, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        table = settings(tmp_path, tmp_path, "x.jsonl", data={"label_noise": 0.1}, **changed)
        from_dict({key: value for key, value in table.items() if key != "genrm"})


# --- which checkpoint -------------------------------------------------------------------------------------------------


def run_folder(
    path: Path, validations: list[tuple[int, float | None, float]], kept: list[int], steps: int = 30
) -> Path:
    """A run with these (step, F1, tokens), in two sets that differ by .1 and 10 tokens, and these checkpoints."""
    table = settings(path, path, "x.jsonl", data={"validation": {"a": "a.jsonl", "b": "b.jsonl"}})
    table["optim"] |= {"steps": steps, "updates_per_batch": 2}
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(table))
    rows = []
    for step, f1, tokens in validations:
        numbers = {"a/f1": f1, "b/f1": None if f1 is None else f1 + 0.1, "a/tokens": tokens, "b/tokens": tokens + 10}
        rows.append({"step": step, "kind": "validation", "seconds": 1.0, **numbers})
        rows.append({"step": step, "kind": "train", "seconds": 1.0, "loss": 1.0})
    write_jsonl(path / "metrics.jsonl", rows)
    for step in kept:
        folder = path / "model" if step == steps else path / "checkpoints" / f"checkpoint-{2 * step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    return path


VALIDATIONS: list[tuple[int, float | None, float]] = [(0, 0.5, 20), (10, 0.7, 30), (20, 0.8, 60), (30, 0.8, 90)]
CHOICES = [
    ([10, 20, 30], None, 20, "of equals the earliest"),
    ([10, 20, 30], 65, 20, "5 tokens more on average than in set a"),
    ([10, 20, 30], 64, 10, "over the budget"),
    ([10, 30], None, 30, "step 20 was not kept, and step 30 is as good"),
    ([10, 30], 90, 10, "the one within the budget"),
]


@pytest.mark.parametrize(("kept", "budget", "chosen", "why"), CHOICES)
def test_the_best_checkpoint_within_the_budget(
    kept: list[int], budget: float | None, chosen: int, why: str, tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, kept)
    assert choose(candidates(run), budget).step == chosen, why


def test_the_command_prints_the_table_and_the_choice(tmp_path: Path, monkeypatch, capsys) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, [10, 30])
    assert fapo(monkeypatch, "select", run, "--max-tokens", 80) == 0
    said = capsys.readouterr()
    assert said.out == f"{run / 'checkpoints' / 'checkpoint-20'}\n"
    table = said.err.splitlines()
    marked = [line.split() for line in table if line.lstrip().startswith(">")]
    assert [cells[:3] for cells in marked] == [[">", "10", "0.750"]]
    assert sum(line.rstrip().endswith("not kept") for line in table) == 2
    assert "step 20 was better (F1 0.850), but was not kept" in " ".join(said.err.split())


def test_one_set_may_decide_alone(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, [10, 20, 30])
    (first, *_) = candidates(run, ("b",))
    assert (first.f1, first.tokens) == (0.6, 30)
    assert choose(candidates(run, ("a",)), 60).step == 20


def test_a_run_that_was_really_trained(sft_run: Path) -> None:
    chosen = choose(candidates(sft_run))
    assert chosen.step in (STEPS // 2, STEPS)
    assert chosen.folder is not None
    assert (chosen.folder / "model.safetensors").is_file()


def test_runs_without_a_choice(tmp_path: Path, monkeypatch, capsys) -> None:
    cases = [
        ([tmp_path / "nowhere"], "config.json is missing"),
        ([run_folder(tmp_path / "a", VALIDATIONS, [])], "none of the validated steps (0, 10, 20, 30) was kept"),
        ([run_folder(tmp_path / "b", [], [10])], "no validation in metrics.jsonl"),
        ([run_folder(tmp_path / "c", VALIDATIONS, [10]), "--max-tokens", 10], "the shortest critiques have 35.0"),
        ([run_folder(tmp_path / "d", VALIDATIONS, [10]), "--sets", "z"], "there are: a, b"),
    ]
    for arguments, message in cases:
        assert fapo(monkeypatch, "select", *arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split()), message


def test_from_labels_to_a_trained_genrm_by_commands(tiny_genrm: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    judge = ["--judge", f"local:{tiny_genrm}", "--template", "compact", "--max-tokens", 8]
    assert (
        fapo(monkeypatch, "critiques", "miniature:critic-train", *judge, "--limit", 40, "-n", 2, "--out", "sft.jsonl")
        == 0
    )
    assert "80 critiques of 40 solutions (0 failed)" in capsys.readouterr().out
    assert all(s.critique for s in read_labelled("sft.jsonl"))
    few = [
        "optim.steps=1",
        "rollout.num_prompts=4",
        "rollout.max_tokens=8",
        "validation.limit=4",
        f"model.path={tiny_genrm}",
    ]
    config = CONFIG_FOLDER / "genrm.toml"
    assert fapo(monkeypatch, "train", config, "method=sft", "data.train=sft.jsonl", *few, "--quiet") == 0
    assert (tmp_path / "runs" / "genrm" / "model" / "model.safetensors").is_file()
