"""Measure our judging pipeline against two simple ones: 2 000 judgements by a slow judge, also with faults.

python -m benchmarks.judging [--quick] [--rounds 3] [--judgements 2000] [--config REPLICASxSLOTS[+FAULTS] ...]

The judge answers on 127.0.0.1 from a separate process (measuring/slow_judge.py). Its latencies are log-normal, and each
replica has a number of slots; a request without a slot waits. Each side is a separate process, too. It may have as many
requests under way as there are slots, builds the same prompts, and reads the verdicts in the same way. Sides:

    fapo            GenRM with ChatClient: one client for all replicas sends each request to the least busy one
    session a call  a new aiohttp session for every call, replicas in turn, no retries
    openai gather   one openai client for each replica, in turn, behind a semaphore and asyncio.gather
"""

from __future__ import annotations

import argparse
import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.measuring.slow_judge import ideal_seconds, slow_judge
from benchmarks.measuring.turns import cost_of, in_turn, machine, print_result, ratios, run_module, spread
from fapo.data.steps import split_steps
from fapo.judge.template import build_prompt, load_template
from fapo.judge.verdicts import parse_verdict
from fapo.types import Message, Problem, Rollout

CONFIGS = ("1x256", "4x64", "4x64+0.05")
"""Configurations: replicas x slots + rate of faults."""
QUICK = ("1x64", "4x16+0.05")
OURS = "fapo"


def rollouts(num: int) -> list[Rollout]:
    """Return different solutions of twelve steps and an answer."""
    step = "We write the product as a sum, $(a+b)(a-b) = a^2 - b^2$, and put in what is known so far: {n} + {i}."
    return [
        Rollout(
            Problem(str(n), f"What is the sum of the first {n} odd numbers?", str(n * n)),
            "\n\n".join(step.format(n=n, i=i) for i in range(12)) + f"\n\nThe answer is \\boxed{{{n * n}}}.",
        )
        for n in range(1, num + 1)
    ]


def prompts(judged: Sequence[Rollout]) -> list[list[Message]]:
    """Return the prompt for each solution."""
    template = load_template("locate")
    return [build_prompt(template, r.problem.text, r.problem.reference, split_steps(r.response)) for r in judged]


def read(text: str | None, rollout: Rollout) -> bool:
    """Return whether an answer holds a verdict."""
    return text is not None and parse_verdict(text, len(split_steps(rollout.response))).status == "ok"


async def fapo(urls: list[str], judged: Sequence[Rollout], limit: int) -> int:
    from fapo.inference.client import ChatClient
    from fapo.judge.genrm import GenRM

    client = ChatClient(urls, "genrm", concurrency=limit, max_tokens=4096)
    verdicts = await GenRM(load_template("locate"), client)(judged)
    await client.aclose()
    return sum(verdict.status == "ok" for verdict in verdicts)


async def session_a_call(urls: list[str], judged: Sequence[Rollout], limit: int) -> int:
    import aiohttp

    slots = asyncio.Semaphore(limit)

    async def ask(number: int, messages: list[Message]) -> str | None:
        body = {"model": "genrm", "messages": messages, "max_tokens": 4096}
        async with slots:
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.post(f"{urls[number % len(urls)]}/chat/completions", json=body) as response,
                ):
                    return str((await response.json())["choices"][0]["message"]["content"])
            except (aiohttp.ClientError, ValueError, KeyError):
                return None

    answers = await asyncio.gather(*(ask(*pair) for pair in enumerate(prompts(judged))))
    return sum(map(read, answers, judged))


async def openai_gather(urls: list[str], judged: Sequence[Rollout], limit: int) -> int:
    import openai

    clients = [openai.AsyncOpenAI(base_url=url, api_key="none") for url in urls]
    slots = asyncio.Semaphore(limit)

    async def ask(number: int, messages: list[Message]) -> str | None:
        async with slots:
            try:
                create = clients[number % len(clients)].chat.completions.create
                answer = await create(model="genrm", messages=messages, max_tokens=4096)  # type: ignore[arg-type]
                return answer.choices[0].message.content
            except (openai.OpenAIError, ValueError, AttributeError):
                return None

    answers = await asyncio.gather(*(ask(*pair) for pair in enumerate(prompts(judged))))
    for client in clients:
        await client.close()
    return sum(map(read, answers, judged))


SIDES: dict[str, Callable[[list[str], Sequence[Rollout], int], Awaitable[int]]] = {
    OURS: fapo,
    "session a call": session_a_call,
    "openai gather": openai_gather,
}


def one_side(name: str, num: int, limit: int, urls: list[str]) -> None:
    """Judge with one side and print its cost; this is what each started process does."""
    judged = rollouts(num)
    load = {OURS: "fapo.inference.client", "session a call": "aiohttp", "openai gather": "openai"}[name]
    __import__(load)
    cost, num_verdicts = cost_of(lambda: asyncio.run(SIDES[name](urls, judged, limit)))
    print_result(cost, lost=num - num_verdicts)


def compare(config: str, num: int, num_rounds: int) -> None:
    """Compare all sides on one configuration and print a table."""
    shape, _, faults = config.partition("+")
    num_replicas, num_slots = map(int, shape.split("x"))
    in_all = num_replicas * num_slots
    floor = ideal_seconds([prompt[-1]["content"] for prompt in prompts(rollouts(num))], in_all)
    print(
        f"\n{num} judgements, {num_replicas} x {num_slots} slots, faults {float(faults or 0):.0%}, {num_rounds} rounds"
    )
    with slow_judge(num_replicas, num_slots, float(faults or 0)) as urls:

        def turn(name: str) -> dict[str, float]:
            options = ("--side", name, "--judgements", num, "--limit", in_all, "--urls", *urls)
            found = dict(run_module("benchmarks.judging", *options))
            with urllib.request.urlopen(urls[0].removesuffix("/v1") + "/done") as answer:
                done = json.load(answer)
            return found | {"bound": found["seconds"] / (done["work"] / in_all), "requests": done["requests"]}

        results = in_turn({name: lambda _, name=name: turn(name) for name in SIDES}, num_rounds)
    print(f"a client without cost, in this order and without faults: {floor:.2f} s")
    head = ("wall s", "wall / (work / slots)", "CPU s", "peak MiB", "lost", "requests")
    print(f"{'':15s}{''.join(f'{title:>26s}' for title in head)}")
    for name, rows in results.items():
        keys = ("seconds", "bound", "cpu", "peak")
        cells = [spread([row[key] for row in rows], 0 if key == "peak" else 2) for key in keys]
        counts = ["/".join(f"{row[key]:.0f}" for row in rows) for key in ("lost", "requests")]
        print(f"{name:15s}{''.join(f'{cell:>26s}' for cell in [*cells, *counts])}")
    for name in list(SIDES)[1:]:
        texts = (
            f"{title} {spread(ratios((r[key] for r in results[name]), (r[key] for r in results[OURS])))}"
            for key, title in (("seconds", "wall"), ("cpu", "CPU"), ("peak", "memory"))
        )
        print(f"{name} / fapo: {', '.join(texts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 judgements, one round, small servers")
    parser.add_argument("--rounds", type=int, help="turns of each side (default 3)")
    parser.add_argument("--judgements", type=int, help="default 2000")
    parser.add_argument("--config", nargs="+", metavar="REPLICASxSLOTS[+FAULTS]", help=f"default {' '.join(CONFIGS)}")
    for internal in ("--side", "--limit", "--urls"):
        parser.add_argument(internal, nargs="+" if internal == "--urls" else None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    num = given.judgements or (200 if given.quick else 2000)
    if given.side:
        one_side(given.side, num, int(given.limit), given.urls)
        return
    for config in given.config or (QUICK if given.quick else CONFIGS):
        compare(config, num, given.rounds or (1 if given.quick else 3))
    print(machine("fapo", "aiohttp", "openai", "httpx"))


if __name__ == "__main__":
    main()
