"""Names in the documentation exist: links, files, commands and their options, settings, functions, tests."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

from experiments.miniature import miniature
from fapo.cli.main import import_commands, run
from fapo.config.options import ConfigFile
from fapo.config.paths import shipped_configs
from fapo.config.reader import from_dict, load
from fapo.errors import ConfigError
from fapo.judge import build_prompt, load_template
from tests.support.documents import LINK, PAGES, ROOT, anchors, blocks, commands, named, prose, spans

SOURCE = ROOT / "src/fapo"
POLICY = SOURCE / "data/miniature/configs/policy.toml"
IN_REPOSITORY = re.compile(r"^(?:src|tests|benchmarks|docs|requirements|experiments)/[\w./*+-]*$")
PACKAGES = sorted(path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__")
IN_PACKAGE = re.compile(rf"^(?:{'|'.join(PACKAGES)})/[\w./-]*$")
"""Paths below src/fapo, as docs/architecture.md writes them: `judge/genrm.py`."""
MODULE_RUN = re.compile(r"python -m ((?:benchmarks|experiments|tests)(?:\.\w+)+)")
every_page = pytest.mark.parametrize("page", PAGES, ids=named)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        if anchor:
            assert anchor in anchors(target), f"{link}: its headings are {sorted(anchors(target))}"


@every_page
def test_files_of_the_repository_exist(page: Path) -> None:
    words = {word for span in spans(page) for word in span.split()}
    words |= {word for command in commands(page) for word in command}
    missing = [word for word in words if IN_REPOSITORY.match(word) and not list(ROOT.glob(word))]
    missing += [word for word in words if IN_PACKAGE.match(word) and not (SOURCE / word).exists()]
    assert missing == []


def test_the_tree_of_the_readme_is_that_of_the_source() -> None:
    tree = re.findall(r"^ {8}([\w.]+)(/?) ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    files = sorted(path.name for path in SOURCE.glob("*.py") if path.name != "__init__.py")
    assert sorted(name for name, slash in tree if slash) == PACKAGES
    assert sorted(name for name, slash in tree if not slash) == files


@every_page
def test_modules_that_are_run_exist(page: Path) -> None:
    for module in MODULE_RUN.findall(page.read_text(encoding="utf-8")):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module


def parsed(command: list[str]) -> Any:
    """Return the arguments by name that the real command line reads, without running the command.

    Raises:
        SystemExit: If the command line does not accept the command, or prints its help.
    """
    function = FUNCTIONS.get(command[0])
    return tyro.cli(_returns_its_arguments(function), args=command[1:]) if function else run(command)


def _returns_its_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def arguments(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(inspect.signature(command).bind(*args, **kwargs).arguments)

    return arguments


FUNCTIONS = import_commands()
COMMANDS = [(named(page), " ".join(words), words) for page in PAGES for words in commands(page)]


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 50
    assert ("docs/genrm.md", "select runs/genrm", ["select", "runs/genrm"]) in COMMANDS, "inside of $(...)"
    noisy = "train miniature_genrm name=step-noise-0.0 data.label_noise=0.0"
    assert noisy in [text for page, text, _ in COMMANDS if page == "docs/genrm.md"], "variables and loops"


@pytest.mark.parametrize(("page", "text", "words"), COMMANDS, ids=[f"{page}: {text}" for page, text, _ in COMMANDS])
def test_commands_are_those_of_the_command_line(page: str, text: str, words: list[str], monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    try:
        arguments = parsed(words)
    except SystemExit as end:
        assert end.code == 0, capsys.readouterr()
        return
    if words[0] in ("train", "data", "plan") and (Path(words[1]).suffix or words[1] in shipped_configs()):
        (file,) = (given for given in arguments.values() if isinstance(given, ConfigFile))
        assert file.load()


STUDY = "python -m experiments.miniature "
STUDIES = [
    (named(page), command.partition("#")[0].removeprefix(STUDY).strip())
    for page in PAGES
    for command in [*"\n".join(blocks(page, "console")).replace("\\\n", " ").splitlines(), *spans(page)]
    if command.startswith(STUDY)
]


def test_studies_are_found() -> None:
    assert ("README.md", "comparison --worlds today --seeds 0 1 2 3 4 5 6 7") in STUDIES


@pytest.mark.parametrize(("page", "arguments"), STUDIES)
def test_studies_take_the_arguments_that_pages_give_them(page: str, arguments: str, capsys) -> None:
    try:
        tyro.cli(_returns_its_arguments(miniature), args=arguments.split())
    except SystemExit:
        pytest.fail(capsys.readouterr().out)


@pytest.mark.parametrize(
    "command", [["trian"], ["judge", "x.jsonl", "--out", "y", "--jugde", "z"], ["judge", "x.jsonl"]]
)
def test_a_wrong_command_is_found(command: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as end:
        parsed(command)
    assert end.value.code == 2


@functools.cache
def options(command: str) -> set[str]:
    """Return all options of a command."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as end:
        parsed([command, "--help"])
    assert end.value.code == 0, f"no command fapo {command}"
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", shown.getvalue()))


@every_page
def test_commands_named_in_a_sentence_exist(page: Path) -> None:
    for span in spans(page):
        if found := re.match(r"fapo ([a-z]+)\b(.*)", span):
            given = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", found[2]))
            assert given <= options(found[1]), span


TABLES = [(named(page), text) for page in PAGES for text in blocks(page, "toml")]


@pytest.mark.parametrize(("page", "text"), TABLES)
def test_settings_can_be_used(page: str, text: str) -> None:
    settings = tomllib.loads(POLICY.read_text(encoding="utf-8"))
    for table, values in tomllib.loads(text).items():
        whole = not isinstance(values, dict) or (table == "reward" and "kind" in values)
        settings[table] = values if whole else settings.get(table, {}) | values
    assert from_dict(settings, page)


TEMPLATES = [(named(page), text) for page in PAGES for text in blocks(page, "text") if "{{#steps}}" in text]


@pytest.mark.parametrize(("page", "text"), TEMPLATES, ids=[page for page, _ in TEMPLATES])
def test_templates_can_be_filled(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "template.txt").write_text(text, encoding="utf-8")
    *_, user = build_prompt(load_template(tmp_path / "template.txt"), "1+1=?", "2", ["1+1=3", "So it is 3."])
    assert all(part in user["content"] for part in ("1+1=?", "1+1=3", "So it is 3."))


SCRIPTS = [(named(page), text) for page in PAGES for text in blocks(page, "python")]


@pytest.mark.parametrize(("page", "text"), SCRIPTS)
def test_scripts_use_names_that_exist(page: str, text: str) -> None:
    tree = ast.parse(text, page)
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fapo"):
            module = importlib.import_module(node.module)
            known |= {alias.name: getattr(module, alias.name) for alias in node.names}
    assert known
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        if isinstance(call.func, ast.Name) and call.func.id in known:
            given = {word.arg: None for word in call.keywords if word.arg}
            assert inspect.signature(known[call.func.id]).bind(*call.args, **given)


@every_page
def test_names_of_the_package_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = {f"{module}.{name}" for module, name in re.findall(r"from (fapo[\w.]*) import (\w+)", text)}
    found |= set(re.findall(r"(?<![\w/.-])fapo(?:\.[A-Za-z_]\w*)+", " ".join(spans(page))))
    for dotted in found:
        folder, *names = dotted.split(".")
        place = ROOT / "src" / folder
        while names and ((place / names[0]).is_dir() or (place / f"{names[0]}.py").is_file()):
            place = place / names.pop(0)
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        assert not names or re.search(rf"\b{names[0]}\b", file.read_text(encoding="utf-8")), dotted


METRIC = re.compile(
    r"(?:(?:rollout|canary|advantage|judge|time|fapo)/)(\w+)|(\w+_(?:share|rate|ratio|interval|accuracy))"
)


@every_page
def test_metrics_exist(page: Path) -> None:
    words = set(re.findall(r"\w+", " ".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))))
    for span in spans(page):
        if found := METRIC.fullmatch(span):
            name = found[1] or found[2]
            parts = {name, name.removesuffix("_interval"), name.removeprefix("true_"), name.removeprefix("judge_")}
            assert parts & words, span


def test_records_and_protocols_of_the_architecture_exist() -> None:
    (types,) = re.findall(
        r"^ +types\.py +records: (.*)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    named_classes = set(re.findall(r"[A-Z]\w+", types))
    named_classes |= {span for span in spans(ROOT / "docs/architecture.md") if re.fullmatch(r"[A-Z][A-Za-z]+", span)}
    defined = set(re.findall(r"^class (\w+)", "\n".join(p.read_text() for p in SOURCE.rglob("*.py")), re.MULTILINE))
    assert named_classes - defined == set()


def test_the_numbers_of_the_theory_are_those_of_the_code() -> None:
    (script,) = blocks(ROOT / "docs/concepts.md", "python")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    comments = [line.partition("#")[2] for line in script.splitlines() if line.startswith("print")]
    for shown, comment in zip(done.stdout.splitlines(), comments, strict=True):
        values = [float(number) for number in re.findall(r"-?\d+\.\d+", shown)]
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d+|(?<== )\d+$", comment)]
        assert numbers == [round(value, 2) for value in values], comment


@every_page
def test_tests_named_as_evidence_exist(page: Path) -> None:
    functions = {
        path.stem: re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
        for path in ROOT.glob("tests/**/test_*.py")
    }
    file = ""
    for cell in re.split(r"[|\n]", prose(page)):
        for span in re.findall(r"`([^`]+)`", cell):
            if found := re.fullmatch(r"(test_\w+): (\w+)", span):
                file = found[1]
                assert any(found[2] in name for name in functions[file]), span
            elif file and re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)+", span):
                assert any(span in name for name in functions[file]), f"{span} in {file}"
            elif re.fullmatch(r"test_[a-z0-9_]+", span):
                assert any(span in names for names in functions.values()), span
        file = ""


@pytest.mark.slow
def test_the_reference_shows_the_error_of_a_key_of_another_kind() -> None:
    page = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    shown = re.search(r"```text\nrun\.toml:16: (.*)\n```", page)
    with pytest.raises(ConfigError) as error:
        load(POLICY, ["reward.kind=outcome", "judge=", "reward.penalty=2"])
    assert shown and str(error.value).endswith(shown[1])


def test_the_quickstart_shows_the_verdicts_of_its_judge(tmp_path: Path, monkeypatch) -> None:
    page = ROOT / "docs/quickstart.md"
    (rows,) = re.findall(r"<<'END'\n(.*?)^END", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "solutions.jsonl").write_text(rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run(next(words for words in commands(page) if words[1] == "solutions.jsonl"))
    table = [line.split(" | ") for line in prose(page).splitlines() if re.match(r"\| (correct|flawed|wrong) ", line)]
    for expected, line in zip(table, (tmp_path / "verdicts.jsonl").read_text().splitlines(), strict=True):
        found = json.loads(line)
        cells = [found["id"], *(json.dumps(found[name]) for name in ("correct", "flawed", "error_step"))]
        assert [cell.strip("| ") for cell in expected[:4]] == cells
        assert re.findall(r"`([^`]+)`", expected[4]) == found["critique"].splitlines()


FROM_SOURCE = [*ROOT.glob("src/**/*.py"), *ROOT.glob("experiments/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]


def test_pages_named_in_the_source_exist() -> None:
    files = [*FROM_SOURCE, *SOURCE.rglob("*.toml"), ROOT / "Makefile"]
    pages = {page for file in files for page in re.findall(r"docs/[\w/]+\.md", file.read_text(encoding="utf-8"))}
    assert [page for page in sorted(pages) if not (ROOT / page).is_file()] == []
