"""A file or folder exists only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fapo.data.files import atomic_path, check_not_overwriting, write_json
from fapo.errors import ConfigError
from fapo.inference.response_cache import ResponseCache


def write_file(path: Path, text: str) -> None:
    path.write_text(text)


def write_folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "weights").write_text(text)


def content(path: Path) -> str:
    return (path / "weights" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("name", ["out", "out.json"])
def test_a_finished_write_replaces_the_old_one(tmp_path: Path, write: Callable[[Path, str], None], name: str) -> None:
    path = tmp_path / "new" / name
    for text in ("first", "second"):
        with atomic_path(path) as draft:
            write(draft, text)
            assert not path.exists() or content(path) == "first", "nothing is visible before the end"
    assert content(path) == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_one_and_no_draft(
    tmp_path: Path, write: Callable[[Path, str], None], error: BaseException
) -> None:
    path = tmp_path / "out"
    write(path, "old")
    with pytest.raises(type(error) if isinstance(error, OSError) else error), atomic_path(path) as draft:
        write(draft, "half")
        raise error
    assert content(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_was_written_before_the_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "out"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_draft_may_have_a_given_name(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model", tmp_path / "model.tmp") as draft:
        assert draft == tmp_path / "model.tmp"
        write_folder(draft, "all")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    link, target = tmp_path / "out", tmp_path / "disk" / "real"
    link.symlink_to(target)
    for text in ("first", "second"):
        with atomic_path(link) as draft:
            assert draft.parent == target.parent, "on the disk of the target"
            write(draft, text)
        assert content(target) == text
    assert link.readlink() == target


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for use in (lambda: write_json(pipe, 1), lambda: check_not_overwriting(pipe, [])):
        with pytest.raises(ConfigError, match=r"pipe: is a device or a pipe.*give the path of a file"):
            use()
    assert pipe.is_fifo()


def test_a_response_cache_is_not_replaced(tmp_path: Path) -> None:
    cache, other = tmp_path / "a.cache.sqlite", tmp_path / "b.jsonl"
    with pytest.raises(ConfigError, match=r"a\.cache\.sqlite: is one of the files to read; give another path"):
        check_not_overwriting(tmp_path / "sub" / ".." / cache.name, [other, cache])  # neither exists yet
    ResponseCache(cache).close()
    with pytest.raises(ConfigError, match=r"a\.cache\.sqlite: is a response cache, and its responses would be lost"):
        check_not_overwriting(cache, [other])
    other.write_text("{}\n")
    check_not_overwriting(other, ["", "-", "org/b.jsonl", cache])


def test_json_without_nan(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    write_json(file, {"f1": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"f1": float("nan")})
    assert file.read_text() == '{\n "f1": 0.5\n}\n'
