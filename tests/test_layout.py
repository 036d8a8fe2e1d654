"""Rules about the source text itself: which way imports go, who may import torch, what must not appear at all."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fapo"

LAYERS = [
    {"fapo", "types", "errors"},
    {
        "columns",
        "files",
        "parquet",
        "steps",
        "final_answer",
        "choices",
        "rewards",
        "metrics",
        "quality",
        "intervals",
        "config",
    },
    {"answer_workers"},
    {"answers"},
    {"data", "solutions", "connections", "client", "response_cache", "local", "workers"},
    {"judge"},
    {"run_reader", "runs", "scoring", "measure", "credit", "selection"},
    {
        *("canaries", "miniature", "trl", "models", "judges", "judge_options", "tally", "audit", "benchmarks"),
        *("evaluation", "critic", "examples", "ahead", "load"),
    },
    {"overlap"},
    {"zero_advantage"},
    {"trainer"},
    {"train_trl", "train_sft", "train_verl", "verl", "report", "planner", "planner_output"},
    {"cli"},
]
"""A module imports from its own layer or an earlier one, and never in a circle."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

TORCH = {"torch", "transformers", "trl", "accelerate", "vllm", "verl", "ray"}
MAY_IMPORT_TORCH = {
    "local",
    "overlap",
    "trainer",
    "zero_advantage",
    "train_trl",
    "train_sft",
    "train_verl",
    "trl",
    "verl",
    "miniature",
}
MINIATURE_WITHOUT_TORCH = {"miniature", "miniature.world", "miniature.critiques", "miniature.oracle"}

PURE_IMPORTS = {
    *("__future__", "collections", "collections.abc", "dataclasses", "enum", "fractions", "functools", "itertools"),
    *("math", "statistics", "typing", "numpy", "numpy.typing", "scipy", "scipy.stats", "fapo.types", "fapo.metrics"),
}
UNSAFE_IMPORTS = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}


def name_of(path: Path) -> str:
    """Name of a module below fapo: "judge", "miniature.world"; a package has the name of its folder."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "fapo"


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))
PYTHON_FILES = [*sorted(SOURCE.rglob("*.py")), *TEST_FILES, *sorted((ROOT / "benchmarks").rglob("*.py"))]


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names of all a module imports, inside functions too; `from a import b` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative import; write `from fapo.x import y`"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """The modules of fapo that a module of fapo imports."""
    below = {imported.removeprefix("fapo.") for imported in imports(MODULES[name]) if imported.startswith("fapo.")}
    return (below & MODULES.keys()) - {name}


def is_module(name: str) -> bool:
    """Whether a dotted name is a module, not something inside one."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def called_names(tree: ast.AST) -> set[str]:
    """Names called as plain functions: f(...), not x.f(...)."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {func.id for func in calls if isinstance(func, ast.Name)}


def rank(name: str) -> int:
    return RANK[name.partition(".")[0]]


def test_every_module_has_its_layer() -> None:
    assert {name.partition(".")[0] for name in MODULES} <= RANK.keys(), "give the new module its place in LAYERS"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    assert [imported for imported in own_imports(name) if rank(imported) > rank(name)] == []


def test_imports_have_no_circle() -> None:
    try:
        order = list(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")
    assert set(order) == MODULES.keys()


def test_report_reads_files_only() -> None:
    above = LAYERS[0] | LAYERS[1] | {"data", "judge", "run_reader", "report"}
    for name in MODULES:
        imported = {other.partition(".")[0] for other in own_imports(name)}
        if name.partition(".")[0] == "report":
            assert imported <= above, name
        elif name != "cli":
            assert "report" not in imported, name


@pytest.mark.parametrize("name", MODULES)
def test_only_engines_and_local_models_import_torch(name: str) -> None:
    allowed = name.partition(".")[0] in MAY_IMPORT_TORCH and name not in MINIATURE_WITHOUT_TORCH
    found = {imported.partition(".")[0] for imported in imports(MODULES[name])} & TORCH
    assert allowed or not found


@pytest.mark.parametrize("name", sorted({"rewards", "metrics", "quality", "intervals"} & MODULES.keys()))
def test_the_mathematics_is_pure(name: str) -> None:
    tree = MODULES[name]
    modules = {imported for imported in imports(tree) if is_module(imported)}
    assert modules <= PURE_IMPORTS
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    assert not called_names(tree) & {"open", "print", "input"}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_run_or_unpickled(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not called_names(tree) & {"eval", "exec"}
    assert not {imported.partition(".")[0] for imported in imports(tree)} & UNSAFE_IMPORTS


def asserts(tree: ast.AST, helpers: Mapping[str, ast.AST]) -> bool:
    """Whether a test checks something: assert, pytest.raises and the like, or a helper of its file that does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"raises", "warns", "fail"} or called.startswith("assert_"):
                return True
            rest = {name: helper for name, helper in helpers.items() if name != called}
            if called in helpers and asserts(helpers[called], rest):
                return True
    return False


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_every_test_asserts(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    helpers = {function.name: function for function in functions if not function.name.startswith("test_")}
    tests = [function for function in functions if function.name.startswith("test_")]
    assert [test.name for test in tests if not asserts(test, helpers)] == []


@pytest.mark.skipif("cli" not in MODULES, reason="no command line yet")
@pytest.mark.parametrize("arguments", [["-c", "import fapo.cli"], ["-m", "fapo.cli", "--help"]], ids=" ".join)
def test_the_command_line_starts_without_torch(arguments: list[str]) -> None:
    run = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "fapo" in imported
    assert not imported & TORCH
