"""Measure what `fapo serve` adds to the time of a slow judge: 2 000 requests, 256 at once.

python -m benchmarks.reward_server [--requests 2000] [--at-once 256] [--workers 1]

The judge answers on 127.0.0.1 from a separate process (measuring/slow_judge.py) with log-normal latencies that depend
on the prompt alone, and it has a slot for each request. So the judge's own time is known for every request, and the
rest is overhead: of the service, which also checks the answer, and of the client. For comparison the same solutions are
judged by `GenRM` in the process of the client, without a service and without an answer check.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from benchmarks.judging import prompts, rollouts
from benchmarks.measuring.slow_judge import latency, slow_judge
from benchmarks.measuring.turns import ROOT, machine
from fapo.inference.client import ChatClient
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.types import Rollout

Ask = Callable[[Rollout], Awaitable[bool]]
"""Function that asks about one rollout and returns whether there was an answer."""


async def measure(ask: Ask, judged: Sequence[Rollout], at_once: int) -> tuple[list[float], float]:
    """Return the overhead of each request in seconds, and the seconds of all of them."""
    slots = asyncio.Semaphore(at_once)
    own = [latency(messages[-1]["content"]) for messages in prompts(judged)]
    overhead = [0.0] * len(judged)

    async def one(index: int) -> None:
        async with slots:
            start = time.perf_counter()
            assert await ask(judged[index]), f"no answer to request {index}"
            overhead[index] = time.perf_counter() - start - own[index]

    start = time.perf_counter()
    await asyncio.gather(*(one(index) for index in range(len(judged))))
    return overhead, time.perf_counter() - start


async def through_service(url: str, judged: Sequence[Rollout], at_once: int) -> tuple[list[float], float]:
    """Measure requests to a service, one rollout each."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:

        async def ask(rollout: Rollout) -> bool:
            problem = rollout.problem
            body = {"prompt": problem.text, "response": rollout.response, "label": problem.reference}
            async with session.post(f"{url}/slime", json=body) as answer:
                return answer.status == 200 and isinstance(await answer.json(), float)

        return await measure(ask, judged, at_once)


async def in_this_process(urls: list[str], judged: Sequence[Rollout], at_once: int) -> tuple[list[float], float]:
    """Measure judgements by a GenRM in this process, one rollout each."""
    async with contextlib.aclosing(ChatClient(urls, "genrm", concurrency=at_once, max_tokens=4096)) as client:
        judge = GenRM(load_template("locate"), client)

        async def ask(rollout: Rollout) -> bool:
            return (await judge([rollout]))[0].status == "ok"

        return await measure(ask, judged, at_once)


def report(name: str, overhead: Sequence[float], seconds: float) -> None:
    """Print one side."""
    cuts = statistics.quantiles(overhead, n=100)
    print(f"{name:24s} overhead p50 {1e3 * cuts[49]:7.1f} ms, p99 {1e3 * cuts[98]:7.1f} ms, all {seconds:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    judged = rollouts(given.requests)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with slow_judge(1, 2 * given.at_once) as urls:
        command = [sys.executable, "-m", "fapo.cli", "serve", "--judge", urls[0], "--model", "genrm"]
        command += ["--max-tokens", "4096", "--concurrency", str(given.at_once), "--port", str(port)]
        command += ["--workers", str(given.workers)]
        service = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            asyncio.run(ready(f"http://127.0.0.1:{port}/health"))
            warm = judged[: given.at_once // 8]
            asyncio.run(through_service(f"http://127.0.0.1:{port}", warm, given.at_once))  # starts the answer workers
            rest = judged[len(warm) :]
            report("fapo serve", *asyncio.run(through_service(f"http://127.0.0.1:{port}", rest, given.at_once)))
            report("GenRM in the client", *asyncio.run(in_this_process(urls, rest, given.at_once)))
        finally:
            service.terminate()
            service.wait(60)
    own = [latency(messages[-1]["content"]) for messages in prompts(rest)]
    cuts = statistics.quantiles(own, n=100)
    p50, p99 = 1e3 * cuts[49], 1e3 * cuts[98]
    print(f"{'the judge itself':24s}      p50 {p50:7.1f} ms, p99 {p99:7.1f} ms")
    print(f"{len(rest)} requests, {given.at_once} at once, {given.workers} server processes")
    print(machine("fapo", "fastapi", "uvicorn", "aiohttp"))


async def ready(url: str, seconds: float = 60) -> None:
    """Return when the service answers."""
    deadline = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    main()
