"""Judge for a long time with a judge that has every kind of fault, and check that nothing is lost and memory is flat.

python -m benchmarks.soak [--num 2000] [--faults 0.1] [--json]

Two replicas answer from a separate process. Some attempts fail with 429, 500, a closed connection, half an answer,
broken JSON, or silence until the time-out. The expected verdict follows from the question. After each batch, the
memory and the open files of this process are recorded. At the end, the rows of the cache are counted and checked, and
all verdicts are read from it again without a judge. The exit code is 1 if a promise is broken. For the long run:
--num 100000.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring.slow_judge import FAULTS, HANG, Behaviour, mixed_verdict, slow_judge
from benchmarks.measuring.turns import machine, memory
from fapo.data.steps import split_steps
from fapo.inference.client import ChatClient
from fapo.inference.response_cache import CachedModel, ResponseCache
from fapo.judge.genrm import GenRM
from fapo.judge.template import build_prompt, load_template
from fapo.types import Completion, Message, Problem, Rollout

BATCH = 250
"""Judgements of one call, as many as in a training step."""
AT_ONCE = 8
"""Number of calls under way at once, so that a silent request delays only its own batch."""
WARM_UP = 0.25
"""Fraction of the judgements after which memory counts; before, connections, caches and the allocator settle."""
MAX_GROWTH = 16.0
"""Limit for the growth of memory from then to the end, in MiB; the long run shows a leak of 300 bytes a judgement."""
CONCURRENCY = 128
"""Maximum number of conversations under way at once."""
NUM_REPLICAS = 2
MAX_FILES = NUM_REPLICAS * CONCURRENCY + 32
"""Limit for open files: each replica may keep CONCURRENCY connections."""
TEMPLATE = load_template("compact")


@dataclass(frozen=True)
class SoakResult:
    """Result of a soak test."""

    judgements: int
    """Number of judgements."""
    faults: int
    """Attempts that failed by a fault of the judge."""
    requests: int
    """All attempts; more than judgements and faults together if the machine was too busy for the time-out."""
    lost: int
    """Number of judgements without a verdict."""
    wrong: int
    """Number of verdicts that belong to another question."""
    rows: int
    """Number of rows in the cache."""
    doubled: int
    """Number of rows for a question that has another row."""
    intact: bool
    """Whether the cache passes the integrity check of SQLite."""
    changed: int
    """Number of verdicts that differ when they are read from the cache again."""
    memory: Sequence[float]
    """Memory in MiB: after the warm-up, at the end, and the maximum."""
    growth: float
    """Growth of memory in MiB, from the median of the first tenth after the warm-up to that of the last tenth."""
    files: int
    """Maximum number of open files."""
    seconds: float
    """Wall time of the judging in seconds."""

    def broken(self) -> list[str]:
        """Return the promises that did not hold."""
        held = {
            "every judgement has a verdict": self.lost == 0,
            "each verdict belongs to its question": self.wrong == 0,
            "the cache has each verdict once": (self.rows, self.doubled) == (self.judgements, 0),
            "the cache is intact": self.intact and self.changed == 0,
            f"memory grows by less than {MAX_GROWTH:g} MiB": self.growth < MAX_GROWTH,
            "connections are closed": self.files < MAX_FILES,
        }
        return [promise for promise, kept in held.items() if not kept]


def rollout(number: int) -> Rollout:
    """Return a correct solution that differs from all others."""
    problem = Problem(str(number), f"What is {number} + 1?", str(number + 1))
    steps = (f"Take {number}.", f"One more is {number + 1}.", f"\\boxed{{{number + 1}}}")
    return Rollout(problem, "\n\n".join(steps))


def expected(number: int) -> int | None:
    """Return the error step that the judge names for a solution."""
    judged = rollout(number)
    prompt = build_prompt(TEMPLATE, judged.problem.text, judged.problem.reference, split_steps(judged.response))
    verdict = mixed_verdict(prompt[-1]["content"])
    return None if verdict == -1 else verdict


async def judge_all(genrm: GenRM, num: int) -> tuple[list[tuple[int, str]], list[tuple[int, float, int]]]:
    """Return (number, reason) of failed judgements, and (number done, memory, open files) after each batch."""
    starts: Iterator[int] = iter(range(0, num, BATCH))
    bad: list[tuple[int, str]] = []
    seen: list[tuple[int, float, int]] = []
    done = 0

    async def work() -> None:
        nonlocal done
        for start in starts:
            numbers = range(start, min(start + BATCH, num))
            for number, verdict in zip(numbers, await genrm([rollout(n) for n in numbers]), strict=True):
                if verdict.status != "ok":
                    bad.append((number, f"{verdict.status}: {verdict.reason}"))
                elif verdict.error_step != expected(number):
                    bad.append((number, "wrong"))
            done += len(numbers)
            seen.append((done, memory(), num_open_files()))
            if sys.stderr.isatty():
                print(f"{done} judged, {seen[-1][1]:.1f} MiB", end="\r", file=sys.stderr)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return bad, seen


def num_open_files() -> int:
    """Return the number of open files and connections of this process; 0 on systems without /proc."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


async def no_judge(conversations: Sequence[list[Message]]) -> list[Completion]:
    """Fail for each conversation, as a judge that is not there."""
    return [Completion(error="not in the cache") for _ in conversations]


def soak(num: int, fault_rate: float, path: Path) -> SoakResult:
    """Judge `num` solutions with a cache at `path`, and count what went wrong."""
    cache = ResponseCache(path)
    behaviour = Behaviour(pace=0.1, kinds=(*FAULTS, HANG), mixed=True)
    with slow_judge(NUM_REPLICAS, CONCURRENCY, fault_rate, behaviour) as urls:

        async def judging() -> tuple[list[tuple[int, str]], list[tuple[int, float, int]]]:
            client = ChatClient(
                urls, "genrm", concurrency=CONCURRENCY, timeout=5.0, retries=50, backoff=0.05, cooldown=0.05
            )
            found = await judge_all(GenRM(TEMPLATE, CachedModel(client, cache, model="genrm")), num)
            await client.aclose()
            return found

        start = time.perf_counter()
        bad, seen = asyncio.run(judging())
        seconds = time.perf_counter() - start
        with urllib.request.urlopen(urls[0].removesuffix("/v1") + "/done") as answer:
            served = json.load(answer)
    again, _ = asyncio.run(judge_all(GenRM(TEMPLATE, CachedModel(no_judge, cache, model="genrm")), num))
    cache.close()
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        questions = "SELECT count(*) FROM (SELECT DISTINCT prompt, model, settings, vote FROM answers)"
        distinct = connection.execute(questions).fetchone()[0]
        intact = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    settled = [held for done, held, _ in seen if done > WARM_UP * num]
    tenth = max(1, len(settled) // 10)
    return SoakResult(
        judgements=num,
        faults=served["faults"],
        requests=served["requests"],
        lost=sum(what != "wrong" for _, what in bad),
        wrong=sum(what == "wrong" for _, what in bad),
        rows=rows,
        doubled=rows - distinct,
        intact=intact,
        changed=len({number for number, _ in again} - {number for number, _ in bad}),
        memory=(settled[0], settled[-1], max(settled)),
        growth=statistics.median(settled[-tenth:]) - statistics.median(settled[:tenth]),
        files=max(files for *_, files in seen),
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=2000, help="judgements (default 2000)")
    parser.add_argument("--faults", type=float, default=0.1, help="rate of attempts that fail (default 0.1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(given.num, given.faults, Path(folder) / "cache.sqlite")
    broken = found.broken()
    if given.json:
        print(json.dumps(asdict(found) | {"broken": broken}))
    else:
        for name, value in asdict(found).items():
            shown = [f"{v:.1f}" if isinstance(v, float) else str(v) for v in (value if name == "memory" else [value])]
            print(f"{name:>10}  {', '.join(shown)}")
        for promise in broken:
            print(f"BROKEN: {promise}")
        print(machine("aiohttp", "openai"))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
