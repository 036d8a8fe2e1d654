"""Rules for the source text: the direction of imports, the modules that may import torch, and forbidden calls."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import imported_packages

SOURCE = ROOT / "src" / "fapo"

FLOORS = [
    {"types", "errors"},
    {"config", "data"},
    {"inference"},
    {"judge"},
    {"rewards"},
    {"evaluation"},
    {"training"},
    {"trl", "verl", "integrations", "report"},
    {"cli"},
]
"""A package imports from itself and from the floors before its own."""
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

TORCH = {"torch", "transformers", "trl", "accelerate", "vllm", "verl", "ray"}
MAY_IMPORT_TORCH = {
    *("inference.transformers_model", "inference.decoding", "inference.pretrained", "inference.token_classifier"),
    *("trl", "verl"),
}

PURE = {
    *("judge.quality", "rewards.policy", "rewards.genrm", "rewards.advantages", "rewards.theory"),
    *("evaluation.metrics", "evaluation.intervals"),
}
"""Modules of mathematics. They may import each other and nothing that reads, writes, waits or keeps state."""
PURE_IMPORTS = {
    *("__future__", "collections", "collections.abc", "dataclasses", "enum", "fractions", "functools", "itertools"),
    *("math", "statistics", "typing", "numpy", "numpy.typing", "scipy", "scipy.stats"),
    *("fapo.types", "fapo.errors"),
    *(f"fapo.{name}" for module in PURE for name in (module, module.partition(".")[0])),
}
UNSAFE_IMPORTS = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}


def name_of(path: Path) -> str:
    """Return the name of a module below fapo, such as "judge.genrm"; a package has the name of its folder."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "fapo"


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))
PYTHON_FILES = [
    *sorted(SOURCE.rglob("*.py")),
    *(path for folder in ("tests", "benchmarks", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))),
]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the absolute names of all that a module imports, also inside functions; `from a import b`: a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative import; write `from fapo.x import y`"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Return the modules of fapo that a module of fapo imports."""
    below = {imported.removeprefix("fapo.") for imported in imports(MODULES[name]) if imported.startswith("fapo.")}
    return (below & MODULES.keys()) - {name}


def package(name: str) -> str:
    return name.partition(".")[0]


def is_module(name: str) -> bool:
    """Return whether a dotted name is a module, not something inside one."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def called_names(tree: ast.AST) -> set[str]:
    """Return the names that are called as plain functions: f(...), not x.f(...)."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {func.id for func in calls if isinstance(func, ast.Name)}


def test_the_package_has_few_entries() -> None:
    entries = {path.name for path in SOURCE.iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    assert {entry.removesuffix(".py") for entry in entries} == FLOOR.keys()
    assert len(entries) <= 14


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"fapo"}))
def test_imports_go_one_way(name: str) -> None:
    here = FLOOR[package(name)]
    others = {other for other in own_imports(name) if package(other) != package(name)}
    assert [other for other in others if FLOOR[package(other)] >= here] == []


def test_contributors_find_every_folder() -> None:
    """Recipes, and the data of the miniature, are in folders below one that is named."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE)
    found = {str(file.parent.relative_to(SOURCE)) for file in SOURCE.rglob("*.*") if "__pycache__" not in file.parts}
    below = ("config/shipped/", "data/miniature/")
    assert sorted(named) == sorted(folder for folder in found - {"."} if not folder.startswith(below))


def test_imports_have_no_circle() -> None:
    """Packages are left out: importing a module runs its package's `__init__` first, which may import its siblings."""
    packages = {name_of(path) for path in SOURCE.rglob("__init__.py")}
    modules = MODULES.keys() - packages
    try:
        order = list(TopologicalSorter({name: own_imports(name) - packages for name in modules}).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")
    assert set(order) == modules


def test_the_product_does_not_import_experiments() -> None:
    assert not [name for name in MODULES if "experiments" in {package(other) for other in imports(MODULES[name])}]


@pytest.mark.parametrize("name", MODULES)
def test_only_engines_and_local_models_import_torch(name: str) -> None:
    allowed = name in MAY_IMPORT_TORCH or package(name) in MAY_IMPORT_TORCH
    found = {package(imported) for imported in imports(MODULES[name])} & TORCH
    assert allowed or not found


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_mathematics_is_pure(name: str) -> None:
    tree = MODULES[name]
    modules = {imported for imported in imports(tree) if is_module(imported)}
    assert modules <= PURE_IMPORTS
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    assert not called_names(tree) & {"open", "print", "input"}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_is_imported(path: Path) -> None:
    own = ("fapo", "experiments", "benchmarks", "tests")
    found = [
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and package(node.module or "") in own
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.endswith("__")
    ]
    assert found == []


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_search_path_of_imports_is_not_changed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {call for call in calls if call.startswith("sys.path.")}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_run_or_unpickled(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not called_names(tree) & {"eval", "exec"}
    assert not {package(imported) for imported in imports(tree)} & UNSAFE_IMPORTS


def asserts(tree: ast.AST, helpers: Mapping[str, ast.AST]) -> bool:
    """Return whether a test checks something: assert, pytest.raises and the like, or a helper of its file that does."""
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


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_asserts(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    helpers = {function.name: function for function in functions if not function.name.startswith("test_")}
    tests = [function for function in functions if function.name.startswith("test_")]
    assert [test.name for test in tests if not asserts(test, helpers)] == []


@pytest.mark.parametrize("arguments", [["-c", "import fapo.cli.main"], ["-m", "fapo.cli", "--help"]], ids=" ".join)
def test_the_command_line_starts_without_torch(arguments: list[str]) -> None:
    assert not imported_packages(*arguments)[0] & TORCH
