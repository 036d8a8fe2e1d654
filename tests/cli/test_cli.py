"""The command line: help, mistakes of the user, bugs, and exit codes."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fapo.cli import main
from fapo.cli.main import REFUSALS, commands, import_commands
from fapo.config.paths import shipped_configs
from fapo.errors import ConfigError, DataError, EngineError, JudgeDownError, JudgeError, UnscoredError
from fapo.inference.response_cache import ResponseCache
from tests.support.command_line import fapo
from tests.support.paths import ROOT, SOURCE
from tests.support.processes import imported_packages

POLICY = ROOT / "src/fapo/data/miniature/configs/policy.toml"
COMMANDS = [
    "train",
    "data",
    "plan",
    "check-judge",
    "template",
    "template",
    "judge",
    "bench",
    "cascade",
    "eval",
    "filter-problems",
    "critic",
    "critiques",
    "select",
    "report",
    "demo",
    "cache",
    "compare",
    "configs",
    "serve",
]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the command line in this process, offline, and return its exit code."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return fapo(monkeypatch, *arguments)


SLOW = {"torch", "transformers", "trl", "accelerate", "datasets", "matplotlib", "numpy", "aiohttp", "pydantic", "rich"}
"""Packages that no help may import; typeguard takes as long as tyro itself."""


@pytest.mark.parametrize("words", [["--help"], ["judge", "--help"], ["bench", "--help"], ["eval", "--help"]])
def test_help_imports_nothing_slow(words: list[str]) -> None:
    assert not imported_packages("-m", "fapo.cli", *words)[0] & (SLOW | {"typeguard"})


def test_help_lists_the_commands(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(f"• {name} " in shown for name in COMMANDS)


def test_the_commands_of_the_source_are_those_that_are_registered() -> None:
    registered = import_commands()
    assert commands().keys() == registered.keys() == set(COMMANDS)
    for name, function in registered.items():
        help = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
        assert commands()[name].summary == help


def test_a_misspelt_command_is_answered_with_the_commands(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "jugde") == 2
    shown = capsys.readouterr().err
    assert "Unrecognized options: jugde" in shown and "judge," in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: fapo {command}")


def test_a_mistake_of_the_user_exits_with_2() -> None:
    command = [sys.executable, "-m", "fapo.cli", "train", "nonsense.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "COLUMNS": "200"})
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "fapo: nonsense.toml: no such file; give the path of a TOML file, or a name of `fapo configs`\n"
    )


MISTAKES = {
    "near miss": ([POLICY.with_name("polcy.toml")], f"did you mean {POLICY}?"),
    "a folder": (["."], ".: cannot be read: Is a directory"),
    "unknown key": ([POLICY, "reward.penaltyy=1"], "reward.penaltyy: unknown key; did you mean reward.penalty?"),
    "wrong type": ([POLICY, "optim.steps=many"], "optim.steps: should be a valid integer"),
    "no override": ([POLICY, "optim.steps"], "not of the form table.key=value"),
    "reward of the other task": ([POLICY, "reward.kind=genrm_step"], "does not go with task"),
    "unknown TRL argument": ([POLICY, "trl.lerning_rate=1"], "[trl]: "),
    "unknown TRL argument, dry": ([POLICY, "trl.lerning_rate=1", "--dry-run"], "[trl]: "),
    "unknown problems": ([POLICY, "data.train=miniature:nonsense"], "no problems 'miniature:nonsense'"),
    "missing problems": ([POLICY, "data.train=nonsense.jsonl"], "nonsense.jsonl: neither a file nor"),
    "unknown miniature model": ([POLICY, "model.path=miniature:nonsense"], "no model 'miniature:nonsense'"),
    "not a model": ([POLICY, f"model.path={ROOT / 'docs'}"], "model.path: cannot load"),
    "missing model": ([POLICY, "model.path=./nonsense"], "model.path: cannot load './nonsense'"),
    "missing judge": ([POLICY, "judge.kind=local", "judge.model=./nonsense"], "judge.model: cannot load './nonsense'"),
    "unknown template": ([POLICY, "judge.kind=local", "judge.template=nonsense"], "no prompt template 'nonsense'"),
    "fewer rows than a step needs": ([POLICY, "data.limit=8"], "data.train: 8 rows are fewer than rollout.num_prompts"),
    "template without steps, dry": (
        [POLICY, "reward.kind=step_ratio", "judge.kind=local", "judge.template=yes_no", "--dry-run"],
        "reward.kind step_ratio needs the step",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_one_clear_line(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (config, *given), message = MISTAKES[name]
    few = ["data.limit=48", "validation.limit=8", "judge.kind=oracle", *given]
    code = run(monkeypatch, "train", config, *few, "--quiet")
    said = capsys.readouterr().err
    assert (code, message in said) == (2, True), said
    assert said.startswith("fapo: ")
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(("runs", "message"), [([], "no run folder given"), (["nonsense"], "nonsense")])
def test_a_report_needs_runs(runs: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "report", *runs) == 2
    assert message in capsys.readouterr().err


def test_a_page_does_not_replace_a_file_of_its_run(tmp_path: Path, monkeypatch, capsys) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("{}\n")
    assert run(monkeypatch, "report", tmp_path, "-o", metrics) == 2
    assert "metrics.jsonl: is one of the files to read" in capsys.readouterr().err
    assert metrics.read_text() == "{}\n"
    ResponseCache(tmp_path / "cache.sqlite").close()
    assert run(monkeypatch, "report", tmp_path, "-o", tmp_path / "cache.sqlite") == 2
    assert "cache.sqlite: is a response cache" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_ends_a_demo_before_its_runs(seed: int, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "demo", "--seed", seed) == 2
    assert f"seed: should be {'less' if seed > 0 else 'greater'} than" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_an_error(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "nonsense") == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_dry_run_of_imitation_prints_the_arguments_of_sft(tmp_path: Path, monkeypatch, capsys) -> None:
    config = POLICY.with_name("genrm.toml")
    assert run(monkeypatch, "train", config, "--dry-run", "--verbose", "method=sft", f"output={tmp_path}") == 0
    assert json.loads(capsys.readouterr().out)["completion_only_loss"] is True


CONFIGS = list(shipped_configs())


@pytest.mark.parametrize("config", CONFIGS)
def test_a_dry_run_prints_the_arguments_for_trl_as_json(config: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    before = set(ROOT.iterdir())
    assert (
        run(monkeypatch, "train", config, "--dry-run", "--verbose", f"output={tmp_path}", "optim.learning_rate=3e-5")
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["learning_rate"] == 3e-5
    assert found["output_dir"].startswith(str(tmp_path))
    assert (found["loss_type"], found["scale_rewards"], found["beta"]) == ("dapo", "group", 0.0)
    assert found["epsilon_high"] >= found["epsilon"]
    assert found["num_generations"] >= 2
    assert list(tmp_path.iterdir()) == []
    assert set(ROOT.iterdir()) == before


def make_load_raise(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the reader of configs raise an error."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("fapo.config.reader.load_with_places", fail)


ERRORS_OF_THE_USER = [
    ConfigError("judge.votes is 0; set it to at least 1"),
    DataError("rows.jsonl:3: no column `answer`; add it"),
    JudgeError("the judge has no labels; use another one"),
    JudgeDownError("the judge is down; start it again"),
    UnscoredError("no verdict on a rollout; set reward.on_unscored"),
    EngineError("verl has stopped; read its messages"),
]


@pytest.mark.parametrize("error", ERRORS_OF_THE_USER, ids=lambda error: type(error).__name__)
def test_an_error_of_the_user_is_its_message_alone(error: Exception, monkeypatch, capsys) -> None:
    make_load_raise(error, monkeypatch)
    assert run(monkeypatch, "train", POLICY) == 2
    assert capsys.readouterr().err == f"fapo: {error}\n"


@pytest.mark.parametrize("number", REFUSALS, ids=lambda number: errno.errorcode[number])
def test_a_refusal_of_the_system_ends_with_its_words_and_a_remedy(number: int, monkeypatch, capsys) -> None:
    error = OSError(number, os.strerror(number), "runs/a")

    make_load_raise(error, monkeypatch)
    assert run(monkeypatch, "train", POLICY) == 2
    assert capsys.readouterr().err == f"fapo: {error}; {REFUSALS[number]}\n"


BUGS = {
    "numpy": ("__import__('numpy').zeros((2, 3)) + __import__('numpy').zeros(2)", "ValueError: operands could not be"),
    "zip": ("list(zip([1], [1, 2], strict=True))", "ValueError: zip() argument 2 is longer"),
    "missing file": ("open('nothing')", "FileNotFoundError: [Errno 2]"),
    "connection": ("__import__('socket').create_connection(('127.0.0.1', 9))", "ConnectionRefusedError"),
    "device": ("raise_(OSError(5, 'Input/output error'))", "OSError: [Errno 5] Input/output error"),
    "key": ("{}['a']", "KeyError: 'a'"),
    "name of ours": ("raise_(type('JudgeDownError', (RuntimeError,), {})('x'))", "JudgeDownError: x"),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_shows_its_traceback(name: str, tmp_path: Path) -> None:
    expression, last_line = BUGS[name]
    lines = [
        "import sys, fapo.config.reader, fapo.cli.main",
        "def raise_(error): raise error",
        f"fapo.config.reader.load_with_places = lambda *_: {expression}",
        "fapo.cli.main.main()",
    ]
    command = [sys.executable, "-c", "\n".join(lines), "train", POLICY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.splitlines()[-1].startswith((last_line, f"__main__.{last_line}"))


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from fapo.cli.main import main
main()
"""
"""Program that is the command line where some packages are not installed."""


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (["train", "CONFIG"], ("torch", "transformers", "trl", "datasets", "accelerate"), "train"),
        (["train", "CONFIG", "--dry-run"], ("torch", "transformers", "trl", "datasets", "accelerate"), "train"),
        (["demo"], ("torch", "transformers", "trl", "datasets", "accelerate"), "train"),
        (["demo"], ("scipy", "jinja2"), "report"),
        (["report", "."], ("scipy", "jinja2"), "report"),
        (["serve", "--judge", "http://x/v1", "--model", "m"], ("fastapi", "uvicorn", "prometheus_client"), "serve"),
    ],
    ids=str,
)
def test_a_missing_extra_is_one_line(command: list[str], missing: tuple[str, ...], extra: str, tmp_path: Path) -> None:
    arguments = [str(POLICY) if part == "CONFIG" else part for part in command]
    program = [sys.executable, "-c", WITHOUT.format(packages=set(missing)), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "200"}
    done = subprocess.run(program, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=environment)
    assert done.returncode == 2, done.stderr[-2000:]
    assert len(done.stderr.strip().splitlines()) == 1 and f"pip install 'fapo[{extra}]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "a b.toml", "seed=1"],
            "continue from the last checkpoint with: fapo train 'a b.toml' seed=1 --resume",
        ),
        (["train", "x.toml", "--resume"], "with: fapo train x.toml --resume"),
        (["judge", "x.jsonl"], "interrupted; the same command continues: what was answered is in its cache"),
        (
            ["bench", "process", "--judge=x"],
            "interrupted; the same command continues: what was answered is in its cache",
        ),
        (["bench", "process", "--predictions", "x"], "interrupted"),
        (["plan", "fapo_7b"], "interrupted"),
    ],
)
def test_control_c_has_the_exit_code_of_shells(arguments: list[str], message: str, monkeypatch, capsys) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert run(monkeypatch, *arguments) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.endswith(f"{message}\n")


def test_a_second_control_c_right_after_the_first_ends_at_once(monkeypatch) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(main, "run", interrupted)
    monkeypatch.setattr(signal, "signal", interrupted)
    monkeypatch.setattr(os, "_exit", end)
    assert run(monkeypatch, "plan", "fapo_7b") == 130


def test_configs_and_prompts_are_listed_and_shown(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "configs") == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in f"{listed} ".replace("\n", " \n") for name in (*CONFIGS, "boxed", "locate"))
    assert "FAPO on Qwen2.5-Math-7B" in listed
    for name, file in {**shipped_configs(), "boxed": ROOT / "src/fapo/data/prompts/boxed.txt"}.items():
        assert run(monkeypatch, "configs", "show", name) == 0
        assert capsys.readouterr().out == file.read_text(encoding="utf-8")
    assert run(monkeypatch, "configs", "show", "nothing") == 2
    assert "no config or prompt 'nothing'; give one of " in capsys.readouterr().err


def bench_row(folder: Path, id: str) -> Path:
    """Write a file with one row for `fapo bench`."""
    file = folder / f"{id}.jsonl"
    file.write_text(json.dumps({"id": id, "problem": "Q", "steps": ["x"], "label": 0, "final_answer_correct": True}))
    return file


@pytest.mark.parametrize("repeated", [True, False])
def test_data_of_bench_are_several_values_or_several_options(
    repeated: bool, tmp_path: Path, monkeypatch, capsys
) -> None:
    first, second = (bench_row(tmp_path, id) for id in ("a-1", "a-2"))
    data = ["--data", first, "--data", second] if repeated else ["--data", first, second]
    assert run(monkeypatch, "bench", "process", *data, "--judge", "flag-all", "--json") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2


def test_a_reader_that_closes_the_pipe_ends_a_command_quietly(tmp_path: Path) -> None:
    arguments = ["bench", "process", "--data", bench_row(tmp_path, "a-1"), "--judge", "flag-all", "--json"]
    command = [sys.executable, "-m", "fapo.cli", *arguments]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=600)
    os.close(write)
    assert done.returncode == 1
    assert "Error" not in done.stderr and "Traceback" not in done.stderr


def test_a_terminal_without_a_character_shows_a_question_mark(tmp_path: Path) -> None:
    arguments = ["bench", "process", "--data", bench_row(tmp_path, "空-1"), "--judge", "flag-all"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "fapo.cli", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=600)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0), done.stderr
    assert b"? " in done.stdout


def test_the_size_of_a_cache_and_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from fapo.inference.response_cache import CacheKey, ResponseCache
    from fapo.types import Completion

    def said(*arguments: str | Path) -> tuple[int, str]:
        code = run(monkeypatch, "cache", *arguments)
        out, err = capsys.readouterr()
        return code, " ".join((err + out).split())

    path = tmp_path / "cache.sqlite"
    for arguments, message in (
        ([path], "no such file; give a response cache"),
        ([path, "--prune", "old"], "--prune: 'old' is neither an age nor a size; write it like 30d, 500MB or 2GB"),
    ):
        code, text = said(*arguments)
        assert code == 2 and message in text
    assert not path.exists()
    cache = ResponseCache(path)
    cache.add([(CacheKey(str(i), f"[red]{i % 2}", "{}", 0), Completion("word " * 2000)) for i in range(300)])
    cache.close()
    code, text = said(path)
    assert code == 0 and "[red]1" in text and "150" in text and "MB" in text
    code, text = said(path, "--prune", "1MB")
    kept = 300 - int(text.split()[1])
    assert code == 0 and 60 < kept < 120 and path.stat().st_size <= 10**6
    cache = ResponseCache(path)
    assert len(cache) == kept
    cache.close()


def test_the_table_of_a_cache_is_whole_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from fapo.inference.response_cache import CacheKey, ResponseCache
    from fapo.types import Completion

    name = "/models/a-genrm-with-a-long-name@b164496a9d3c"
    cache = ResponseCache(tmp_path / "cache.sqlite")
    cache.add([(CacheKey("0", name, "{}", 0), Completion("yes"))])
    cache.close()
    assert fapo(monkeypatch, "cache", tmp_path / "cache.sqlite", columns=80) == 0
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert "".join(row[0].strip() for row in rows) == name
    assert [len(cell.strip()) for cell in rows[0][2:]] == [len("2026-11-27T22:00:25Z")] * 2
