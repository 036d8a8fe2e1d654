"""Paths of a config before its run goes to Ray, where processes have other working directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from fapo.config.reader import load
from fapo.data.jsonl import write_jsonl
from fapo.data.problems import built_in_prompts
from fapo.errors import FapoError
from fapo.judge.template import built_in_templates
from fapo.verl.train import prepare, with_absolute_paths
from tests.support.paths import ROOT

CONFIGS = ROOT / "src/fapo/data/miniature/configs"
RELATIVE = ("data.prompt", "judge.template", "judge.canaries", "judge.cache", "judge.model", "model.path", "output")


@pytest.mark.parametrize("suffix", [".txt", ".tmpl", ""])
def test_paths_of_a_policy_run_are_absolute(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("policy", "judge"):
        Path(folder).mkdir()
    prompt = Path(f"prompt{suffix}")
    prompt.write_text("{{problem}} {{#steps}}{{index}} {{step}}{{/steps}}")
    write_jsonl(Path("canaries.jsonl"), [])
    values = (prompt.name, prompt.name, "canaries.jsonl", "cache.sqlite", "judge", "policy", "out")
    config = with_absolute_paths(
        load(CONFIGS / "policy.toml", [f'{key}="{value}"' for key, value in zip(RELATIVE, values, strict=True)])
    )
    for key, value in zip(RELATIVE, values, strict=True):
        table, _, name = key.rpartition(".")
        found = getattr(getattr(config, table) if table else config, name)
        assert found == str(tmp_path / value), key


@pytest.mark.parametrize("name", built_in_prompts())
def test_a_built_in_prompt_wins_over_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert with_absolute_paths(load(CONFIGS / "policy.toml", [f"data.prompt={name}"])).data.prompt == name


def test_the_template_of_a_genrm_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompt.md").write_text("{{problem}} {{#steps}}{{index}} {{step}}{{/steps}}")
    config = with_absolute_paths(load(CONFIGS / "genrm.toml", ["genrm.template=prompt.md"]))
    assert config.genrm
    assert config.genrm.template == str(tmp_path / "prompt.md")


@pytest.mark.parametrize("name", [*built_in_templates(), "miniature:critic-test", "owner/name"])
def test_names_stay_as_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A built-in template wins over a file of the same name, as it does when it is loaded."""
    monkeypatch.chdir(tmp_path)
    Path("compact").touch()
    built_in = name in built_in_templates()
    config = load(CONFIGS / "policy.toml", [f'judge.{"template" if built_in else "canaries"}="{name}"'])
    judge = with_absolute_paths(config).judge
    assert judge
    assert name == (judge.template if built_in else judge.canaries)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        ("policy", "judge.template=absent.md", "no prompt template 'absent.md'"),
        ("policy", "judge.canaries=absent.jsonl", "absent.jsonl: neither a file nor"),
        ("genrm", "genrm.template=yes_no", "genrm_step needs the step"),
        ("policy", "reward.kind=step_ratio judge.template=yes_no", "step_ratio needs the step"),
    ],
)
def test_what_reward_workers_could_not_load_is_refused_before_the_start(
    base: str, change: str, message: str, tmp_path: Path
) -> None:
    config = load(CONFIGS / f"{base}.toml", [*change.split(), f'output="{tmp_path}"'])
    with pytest.raises(FapoError, match=message):
        prepare(config)
    assert not list(tmp_path.iterdir())
