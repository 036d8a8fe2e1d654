"""A long stretch of judging while a judge has every kind of trouble: nothing lost, nothing doubled, memory flat.

python -m benchmarks.soak [--num 2000] [--faults 0.1] [--json]

Two replicas in a process of their own answer; of all tries a share goes wrong: 429, 500, a closed connection, half an
answer, broken JSON, silence until the client gives up. What the verdict must be follows from the question. After each
batch the memory and the open files of this process are looked at. In the end the cache is counted, checked and asked
for everything once more, with nobody behind it. Exits with 1 if a promise is broken. The long run: --num 100000.
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

from benchmarks.measuring.slow_judge import FAULTS, HANG, Ways, mixed_verdict, slow_judge
from benchmarks.measuring.turns import machine, memory
from fapo.data.steps import split_steps
from fapo.inference.client import ChatClient
from fapo.inference.response_cache import CachedModel, ResponseCache
from fapo.judge.genrm import GenRM
from fapo.judge.template import build_prompt, load_template
from fapo.types import Completion, Message, Problem, Rollout

BATCH = 250
"""Judgements of one call, as of a training step."""
AT_ONCE = 8
"""Calls under way at once, so that one silent request holds up its own batch only."""
WARM_UP = 0.25
"""Share of the judgements before memory counts; connections, caches and the allocator settle."""
MAX_GROWTH = 16.0
"""MiB from then to the end; a leak of 300 bytes a judgement would show in the long run."""
CONCURRENCY = 128
"""Conversations under way at once."""
NUM_REPLICAS = 2
MAX_FILES = NUM_REPLICAS * CONCURRENCY + 32
"""Open files; each replica may have so many connections, which are kept."""
TEMPLATE = load_template("compact")


@dataclass(frozen=True)
class Soaked:
    """What came out."""

    judgements: int
    """How many were asked for."""
    faults: int
    """Tries that the judge spoiled."""
    requests: int
    """All tries; more than judgements and faults together where the machine was too busy for the time-out."""
    lost: int
    """Judgements without a verdict."""
    wrong: int
    """Verdicts of another question."""
    rows: int
    """Rows of the cache."""
    doubled: int
    """Rows to a question that has one already."""
    intact: bool
    """SQLite's own check of the cache."""
    changed: int
    """Verdicts that are not the same when read from the cache again."""
    memory: Sequence[float]
    """MiB held: after the warm-up, at the end, and the most in between."""
    growth: float
    """MiB from the median of the first tenth after the warm-up to that of the last tenth."""
    files: int
    """Most open files."""
    seconds: float
    """Wall time of the judging."""

    def broken(self) -> list[str]:
        """Promises that did not hold."""
        held = {
            "every judgement has a verdict": self.lost == 0,
            "each its own": self.wrong == 0,
            "each is on record once": (self.rows, self.doubled) == (self.judgements, 0),
            "the cache is intact": self.intact and self.changed == 0,
            f"memory grows by less than {MAX_GROWTH:g} MiB": self.growth < MAX_GROWTH,
            "connections are given back": self.files < MAX_FILES,
        }
        return [promise for promise, kept in held.items() if not kept]


def rollout(number: int) -> Rollout:
    """A right solution unlike any other."""
    problem = Problem(str(number), f"What is {number} + 1?", str(number + 1))
    steps = (f"Take {number}.", f"One more is {number + 1}.", f"\\boxed{{{number + 1}}}")
    return Rollout(problem, "\n\n".join(steps))


def expected(number: int) -> int | None:
    """The error step that the judge names."""
    asked = rollout(number)
    prompt = build_prompt(TEMPLATE, asked.problem.text, asked.problem.reference, split_steps(asked.response))
    verdict = mixed_verdict(prompt[-1]["content"])
    return None if verdict == -1 else verdict


async def judge_all(genrm: GenRM, num: int) -> tuple[list[tuple[int, str]], list[tuple[int, float, int]]]:
    """Judgements that went wrong, with what; and (number done, memory, open files) after each batch."""
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
    """Open files and connections of this process; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


async def nobody(conversations: Sequence[list[Message]]) -> list[Completion]:
    """A judge that is not there."""
    return [Completion(error="not on record") for _ in conversations]


def soak(num: int, share: float, path: Path) -> Soaked:
    """Judge, then look at what there is."""
    cache = ResponseCache(path)
    ways = Ways(pace=0.1, kinds=(*FAULTS, HANG), mixed=True)
    with slow_judge(NUM_REPLICAS, CONCURRENCY, share, ways) as urls:

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
    again, _ = asyncio.run(judge_all(GenRM(TEMPLATE, CachedModel(nobody, cache, model="genrm")), num))
    cache.close()
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        questions = "SELECT count(*) FROM (SELECT DISTINCT prompt, model, settings, vote FROM answers)"
        distinct = connection.execute(questions).fetchone()[0]
        intact = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    settled = [held for done, held, _ in seen if done > WARM_UP * num]
    tenth = max(1, len(settled) // 10)
    return Soaked(
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
    parser.add_argument("--faults", type=float, default=0.1, help="share of tries that go wrong (default 0.1)")
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
