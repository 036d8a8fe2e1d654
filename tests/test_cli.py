from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import fapo

from fapo import cli

ROOT = Path(__file__).parents[1]
POLICY = ROOT / "src/fapo/miniature/configs/policy.toml"
COMMANDS = ["train", "data", "plan", "judge", "bench", "eval", "critic", "report", "demo", "miniature"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The command line in this process; its exit code."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return fapo(monkeypatch, *arguments)


def test_help_lists_the_commands_and_imports_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "fapo.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(f"• {name} " in done.stdout for name in COMMANDS)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "fapo" in imported
    assert not imported & {"torch", "transformers", "trl", "accelerate", "datasets", "matplotlib"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: fapo {command}")


def test_a_mistake_of_the_users_has_an_exit_code_of_its_own() -> None:
    command = [sys.executable, "-m", "fapo.cli", "train", "nonsense.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fapo: nonsense.toml: no such file; give the path of a TOML file\n"


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
    "missing model": ([POLICY, "model.path=./nonsense"], "model.path: cannot load './nonsense'"),
    "missing judge": ([POLICY, "judge.kind=local", "judge.model=./nonsense"], "judge.model: cannot load './nonsense'"),
    "unknown template": ([POLICY, "judge.kind=local", "judge.template=nonsense"], "no prompt template 'nonsense'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_one_clear_line(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (config, *given), message = MISTAKES[name]
    few = ["data.limit=8", "validation.limit=8", "judge.kind=oracle", *given]
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


def test_an_unknown_command_is_told(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "nonsense") == 2
    assert "nonsense" in capsys.readouterr().err


CONFIGS = sorted([*ROOT.glob("configs/*.toml"), *POLICY.parent.glob("*.toml")])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_dry_run_prints_the_arguments_for_trl_as_json(config: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    before = set(ROOT.iterdir())
    assert run(monkeypatch, "train", config, "--dry-run", f"output={tmp_path}", "optim.learning_rate=3e-5") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["learning_rate"] == 3e-5
    assert found["output_dir"].startswith(str(tmp_path))
    assert (found["loss_type"], found["scale_rewards"], found["beta"]) == ("dapo", "group", 0.0)
    assert found["epsilon_high"] >= found["epsilon"]
    assert found["num_generations"] >= 2
    assert list(tmp_path.iterdir()) == []
    assert set(ROOT.iterdir()) == before


@pytest.mark.parametrize("name", ["ValueError", "FileNotFoundError", "KeyError"])
def test_only_the_users_mistakes_lose_their_traceback(name: str, monkeypatch, capsys) -> None:
    error = {
        "ValueError": ValueError("told"),
        "FileNotFoundError": FileNotFoundError("told"),
        "KeyError": KeyError("x"),
    }

    def fail(*_, **__):
        raise error[name]

    monkeypatch.setattr(cli.app, "cli", fail)
    if name == "KeyError":
        with pytest.raises(KeyError):
            run(monkeypatch)
    else:
        assert run(monkeypatch) == 2
        assert capsys.readouterr().err == "fapo: told\n"


def test_control_c_has_the_exit_code_of_shells(monkeypatch, capsys) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app, "cli", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert run(monkeypatch) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "--resume" in capsys.readouterr().err


def test_who_reads_no_further_ends_a_command_quietly(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    row = {"id": "a-1", "problem": "Q", "steps": ["x"], "label": 0, "final_answer_correct": True}
    data.write_text(json.dumps(row))
    command = [sys.executable, "-m", "fapo.cli", "bench", "process", "--data", data, "--judge", "flag-all", "--json"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.returncode == 1
    assert "Error" not in done.stderr and "Traceback" not in done.stderr
