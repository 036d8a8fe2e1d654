"""Progress where there is no terminal."""

from __future__ import annotations

import pytest

from fapo.cli import progress
from fapo.cli.app import console
from fapo.cli.progress import LINE_SECONDS, Lines, bar_by_name, progress_bars


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(progress, "time", moved)
    return moved


def test_without_a_terminal_there_is_a_line_now_and_then(clock: Clock, capsys) -> None:
    assert not console.is_terminal
    with progress_bars() as bars:
        report = bar_by_name(bars)
        for done in range(100):
            report("judge", done, 100, {"failed": 2})
            clock.now += LINE_SECONDS / 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "judge: 10/100 failed 2 (30 s)"
    assert lines[-1] == "judge: 99/100 failed 2 (300 s)", "the end, too"
    assert len(lines) == 10


@pytest.mark.parametrize(("seconds", "disable"), [(LINE_SECONDS / 100, False), (LINE_SECONDS, True)])
def test_short_and_quiet_work_prints_nothing(seconds: float, disable: bool, clock: Clock, capsys) -> None:
    with Lines(disable) as bars:
        number = bars.add_task("train", total=None)
        for step in range(10):
            bars.update(number, completed=step)
            clock.now += seconds
    assert capsys.readouterr().err == ""
