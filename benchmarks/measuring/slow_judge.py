"""A simulated judge: replicas behind OpenAI-compatible servers in a separate process, with slots, latencies and faults.

The servers are bare asyncio protocols, so that a benchmark measures the client. The latency of an answer depends on
the text of the question alone, so that every side has the same work. `GET /done` returns what was served since the
last such call, with times by time.monotonic, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import random
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heapreplace
from typing import Any

MEDIAN = 0.3
"""Median latency of an answer, in seconds."""
SIGMA = 0.8
"""Standard deviation of the logarithm of the latency: one answer in a hundred takes more than 1.9 s."""
MEAN = MEDIAN * math.exp(SIGMA**2 / 2)
"""Mean latency of an answer, in seconds."""
ROLLOUT, JUDGE, UPDATE = 42, 18, 33
"""Parts of a training step in the 7B run of the paper, in percent."""
CRITIQUE = "The step follows from the one before it, and the numbers were checked once more. " * 100
FAULTS = ("429", "500", "hang up", "half", "garbage")
"""Kinds of faults; each takes a slot and the latency of an answer."""
HANG = "hang"
"""Another kind of fault: the connection stays open and the server sends nothing."""


def latency(question: str) -> float:
    """Return the latency of the answer to a question in seconds, which is log-normal."""
    return MEDIAN * random.Random(f"latency {zlib.crc32(question.encode())}").lognormvariate(0, SIGMA)


def fault(question: str, attempt: int, rate: float, kinds: Sequence[str] = FAULTS) -> str:
    """Return the kind of fault at an attempt, counted from 1, to answer a question; "" is no fault."""
    draw = random.Random(f"fault {attempt} {zlib.crc32(question.encode())}")
    return draw.choice(kinds) if draw.random() < rate else ""


def mixed_verdict(question: str) -> int:
    """Return a verdict, -1 or 0, that depends on the text of the question alone."""
    return -(zlib.crc32(question.encode()) % 2)


def ideal_seconds(questions: Sequence[str], num_slots: int) -> float:
    """Return the wall time in seconds of a client without cost that fills each free slot at once, in this order."""
    free = [0.0] * num_slots
    end = 0.0
    for question in questions:
        done = free[0] + latency(question)
        heapreplace(free, done)
        end = max(end, done)
    return end


def completion(text: str) -> bytes:
    """Return the body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 1500, "total_tokens": 2500}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "genrm", "choices": [choice], "usage": usage}
    return json.dumps(body).encode()


ANSWERS = {verdict: completion(f"{CRITIQUE}\\boxed{{{verdict}}}") for verdict in (-1, 0)}


@dataclass(frozen=True)
class Behaviour:
    """How the simulated judge answers."""

    pace: float = 1.0
    """Factor by which latencies are multiplied."""
    kinds: Sequence[str] = FAULTS
    """Kinds of faults that occur."""
    mixed: bool = False
    """Whether the verdict is `mixed_verdict(question)`; otherwise it is always -1."""


@dataclass(eq=False)
class Replica:
    """One server. Questions without a free slot wait in order of arrival."""

    num_slots: int
    """Maximum number of answers under way."""
    fault_rate: float
    """Rate of attempts with a fault."""
    behaviour: Behaviour
    """Latencies, faults and verdicts of the answers."""
    num_free: int = 0
    """Number of free slots."""
    waiting: deque[tuple[_Connection, str]] = field(default_factory=deque)
    """Questions that wait for a slot."""
    attempts: Counter[str] = field(default_factory=Counter)
    """Number of attempts at each question, over all replicas."""
    done: dict[str, float] = field(default_factory=lambda: {"requests": 0, "work": 0.0, "faults": 0})
    """Requests, seconds of work and faults since the last `GET /done`, over all replicas."""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of the work on each answer since the last `GET /done`, over all replicas."""

    def ask(self, connection: _Connection, question: str) -> None:
        """Answer a question now, or as soon as a slot is free."""
        if self.num_free:
            self.num_free -= 1
            self._begin(connection, question)
        else:
            self.waiting.append((connection, question))

    def _begin(self, connection: _Connection, question: str) -> None:
        seconds = latency(question) * self.behaviour.pace
        self.attempts[question] += 1
        trouble = fault(question, self.attempts[question], self.fault_rate, self.behaviour.kinds)
        self.done["requests"] += 1
        self.done["work"] += seconds
        self.done["faults"] += bool(trouble)
        asyncio.get_running_loop().call_later(seconds, self._end, connection, question, trouble, time.monotonic())

    def _end(self, connection: _Connection, question: str, trouble: str, began: float) -> None:
        self.spans.append((began, time.monotonic()))
        connection.answer(ANSWERS[mixed_verdict(question) if self.behaviour.mixed else -1], trouble)
        if self.waiting:
            self._begin(*self.waiting.popleft())
        else:
            self.num_free += 1


class _Connection(asyncio.Protocol):
    """The part of HTTP/1.1 that clients use here: a head, a body of known length, one request at a time."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if len(body) < (length := int(lengths[0]) if lengths else 0):
            return
        self.data = body[length:]
        if head.startswith(b"GET /done"):
            content = json.dumps({**self.replica.done, "spans": self.replica.spans}).encode()
            self.replica.spans.clear()
            self.replica.done.update(requests=0, work=0.0, faults=0)
            self.replica.attempts.clear()
            self.send(content)
        else:
            self.replica.ask(self, json.loads(body[:length])["messages"][-1]["content"])

    def answer(self, content: bytes, trouble: str) -> None:
        """Send the answer, or the fault in its place."""
        match trouble:
            case "429" | "500":
                self.send(b'{"error": {"message": "overloaded"}}', status=trouble)
            case "garbage":
                self.send(b'{"choices": [')
            case "half":
                self.send(content[: len(content) // 2], length=len(content))
                self.transport.close()
            case "hang up":
                self.transport.close()
            case "hang":
                pass
            case _:
                self.send(content)

    def send(self, content: bytes, status: str = "200", length: int | None = None) -> None:
        head = (
            f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length or len(content)}\r\n\r\n"
        )
        if not self.transport.is_closing():
            self.transport.write(head.encode() + content)


async def _serve(num_replicas: int, num_slots: int, fault_rate: float, behaviour: Behaviour, ports: Any) -> None:
    first = Replica(num_slots, fault_rate, behaviour, num_slots)
    shared: dict[str, Any] = {"attempts": first.attempts, "done": first.done, "spans": first.spans}
    more = [Replica(num_slots, fault_rate, behaviour, num_slots, **shared) for _ in range(num_replicas - 1)]
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda replica=replica: _Connection(replica), "127.0.0.1", 0, backlog=4096)
        for replica in [first, *more]
    ]
    ports.send([server.sockets[0].getsockname()[1] for server in servers])
    gone = asyncio.Event()
    loop.add_reader(ports.fileno(), gone.set)  # the other end closes at the end of the block or when its process dies
    await gone.wait()


def _run(*arguments: Any) -> None:
    asyncio.run(_serve(*arguments))


@contextmanager
def slow_judge(
    num_replicas: int, num_slots: int, fault_rate: float = 0.0, behaviour: Behaviour = Behaviour()
) -> Iterator[list[str]]:
    """Serve until the block ends and yield the base URL of each replica."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(num_replicas, num_slots, fault_rate, behaviour, theirs), daemon=True)
    process.start()
    try:
        yield [f"http://127.0.0.1:{port}/v1" for port in ours.recv()]
    finally:
        ours.close()
        process.join()
