"""Measure how long a browser takes to show the page of a run with 50 000 rollouts.

python -m benchmarks.page [RUN ...] [--repeats 5] [--rows 50000]

RUN is a run folder; without one, rows as long as real ones are written. A time is that from the start of loading to the
moment when the rollouts can be filtered, in headless Chromium, which must be on the PATH with its driver.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring.turns import machine, spread
from benchmarks.scoring import write_files
from fapo.report import write_report
from tests.support.chromium import started


def seconds_to_rollouts(browser: Any, page: Path) -> float:
    """Load a page, scroll to its rollouts, and return the seconds until they are shown."""
    browser.get("about:blank")
    start = time.perf_counter()
    browser.get(page.as_uri())
    browser.execute_script("document.getElementById('browser').scrollIntoView()")
    while browser.execute_script("return document.body.dataset.ready") != "true":
        time.sleep(0.005)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders of policies")
    parser.add_argument("--repeats", type=int, default=5, help="times that the page is loaded")
    parser.add_argument("--rows", type=int, default=50_000, help="rollouts that are written where no run is given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not given.runs:
            write_files(folder / "written", given.rows)
        page = write_report(given.runs or [folder / "written/run"], folder / "page.html")
        print(machine("fapo"))
        with started(folder / "profile") as browser:
            seconds = [seconds_to_rollouts(browser, page) for _ in range(given.repeats)]
            held = browser.execute_script("return document.getElementById('held').textContent")
        print(f"{held} {page.stat().st_size / 1e6:.1f} MB, shown after {spread(seconds)} s, n = {len(seconds)}")


if __name__ == "__main__":
    main()
