"""The response cache: no stored response is asked for again, and none is lost when a process is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.errors import DataError
from fapo.inference.client import ChatClient
from fapo.inference.response_cache import LOCK_TIMEOUT, VERSION, CachedModel, CacheKey, ResponseCache
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.types import Completion, Message, Problem, Rollout, TokenChoice
from tests.support.chat_server import Reply, chat_server

QUESTION = CacheKey("hash", "model", "{}", 0)
RIGHT = Rollout(Problem("p", "What is 1+1?", "2"), "1+1=2\n\\boxed{2}")


def chat(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


class Model:
    """Model that answers with the question and the number of the answer; it fails if the question contains "fail"."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.num = 0

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        texts = [conversation[-1]["content"] for conversation in conversations]
        self.calls.append(texts)
        out = []
        for text in texts:
            self.num += 1
            out.append(Completion(error="broken") if "fail" in text else Completion(f"{text} #{self.num}", 3))
        return out

    @property
    def asked(self) -> list[str]:
        return [text for call in self.calls for text in call]


@pytest.fixture
def cache(tmp_path: Path):
    opened = ResponseCache(tmp_path / "cache.sqlite")
    yield opened
    opened.close()


def ask(complete: Any, *texts: str) -> list[Completion]:
    return asyncio.run(complete([chat(text) for text in texts]))


def cached(cache: ResponseCache, **options: Any) -> CachedModel:
    return CachedModel(Model(), cache, **{"model": "m", "settings": {"temperature": 0.0}} | options)


def test_cached_responses_are_not_asked_for_again(cache: ResponseCache) -> None:
    complete = cached(cache)
    first = ask(complete, "a", "b")
    assert ask(complete, "b", "c", "a") == [first[1], Completion("c #3", 3), first[0]]
    assert complete.complete.asked == ["a", "b", "c"]
    assert len(cache) == 3


def test_a_later_run_reads_the_responses_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.sqlite"
    for _ in range(2):
        cache = ResponseCache(path)
        complete = cached(cache)
        assert ask(complete, "a")[0].text == "a #1"
        cache.close()
    assert complete.complete.asked == []


OTHERS = {
    "model": {"model": "another"},
    "temperature": {"settings": {"temperature": 0.6}},
    "one setting more": {"settings": {"temperature": 0.0, "top_p": 1.0}},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_or_sampling_has_another_key(name: str, cache: ResponseCache) -> None:
    ask(cached(cache), "a")
    other = cached(cache, **OTHERS[name])
    ask(other, "a")
    assert other.complete.asked == ["a"]


def test_order_of_settings_and_name_of_the_template_do_not_matter(cache: ResponseCache) -> None:
    ask(cached(cache, settings={"a": 1, "b": 2}, template="locate"), "a")
    same = cached(cache, settings={"b": 2, "a": 1}, template="my.txt")
    ask(same, "a")
    assert same.complete.asked == []


def test_failures_are_asked_again(cache: ResponseCache) -> None:
    complete = cached(cache)
    assert [answer.error for answer in ask(complete, "a", "fail")] == ["", "broken"]
    ask(complete, "a", "fail")
    assert complete.complete.asked == ["a", "fail", "fail"]
    assert len(cache) == 1


def test_without_the_cache_the_model_is_asked_and_the_new_response_counts(cache: ResponseCache) -> None:
    ask(cached(cache), "a")
    again = cached(cache, use_cache=False)
    ask(again, "b", "a")
    assert again.complete.asked == ["b", "a"]
    assert ask(cached(cache), "a")[0].text == "a #2"
    assert len(cache) == 3, "the old response stays in the file"


def test_votes_are_different_samples_and_each_is_known(cache: ResponseCache) -> None:
    complete = cached(cache)
    votes = ask(complete, "a", "a", "a")
    assert len({vote.text for vote in votes}) == 3
    assert ask(complete, "a", "a") == votes[:2]
    assert complete.complete.asked == ["a"] * 3
    more = ask(complete, "a", "a", "a", "a", "a")
    assert more[:3] == votes
    assert len({vote.text for vote in more}) == 5
    assert complete.complete.asked == ["a"] * 5


def test_judging_with_votes_through_a_server(cache: ResponseCache) -> None:
    replies = ["\\boxed{-1}", "\\boxed{0}", "\\boxed{0}"]
    with chat_server(lambda body, index: Reply(replies[index])) as server:
        verdicts = []
        for _ in range(2):

            async def run() -> None:
                client = ChatClient(server.url, "m", temperature=0.6, concurrency=1)
                judge = GenRM(load_template("compact"), CachedModel(client, cache, model="m"), votes=3)
                verdicts.extend(await judge([RIGHT, RIGHT]))
                await client.aclose()

            asyncio.run(run())
        assert len(server.requests) == 3
    assert [verdict.error_step for verdict in verdicts] == [0, 0, 0, 0]


def test_the_row_of_a_response(cache: ResponseCache, tmp_path: Path) -> None:
    with chat_server(Reply("two words", delay=0.05)) as server:

        async def run() -> None:
            client = ChatClient(server.url, "m")
            settings = {"temperature": 0.6, "max_tokens": 9}
            await CachedModel(client, cache, model="m", settings=settings, template="locate")([chat("a")])
            await client.aclose()

        asyncio.run(run())
    with sqlite3.connect(cache.path) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = connection.execute("SELECT * FROM answers")
    connection.close()
    assert (row["model"], row["template"], row["vote"]) == ("m", "locate", 0)
    assert row["settings"] == '{"max_tokens": 9, "temperature": 0.6}'
    assert (row["critique"], row["num_tokens"], len(row["prompt"])) == ("two words", 2, 64)
    assert 0.05 <= row["seconds"] < 600


def test_each_response_is_stored_when_it_arrives(cache: ResponseCache) -> None:
    async def slow(conversations: Sequence[list[Message]]) -> list[Completion]:
        await asyncio.sleep(600 if conversations[0][0]["content"] == "slow" else 0)
        return [Completion("done")]

    async def run() -> None:
        complete = CachedModel(slow, cache, model="m")
        task = asyncio.create_task(complete([chat("slow"), *[chat(str(i)) for i in range(20)]]))
        while len(cache) < 20 and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert len(cache) == 20


def test_a_model_in_this_process_is_asked_in_one_call_about_all_that_is_missing(cache: ResponseCache) -> None:
    complete = cached(cache, concurrency=None)
    ask(complete, "a", "b")
    answers = ask(complete, "ccc", "a", "bb", "ccc", "b")
    assert complete.complete.calls == [["a", "b"], ["ccc", "bb", "ccc"]]
    assert [answer.text.split()[0] for answer in answers] == ["ccc", "a", "bb", "ccc", "b"]
    assert ask(complete) == []


def test_calls_at_the_same_time_ask_once_for_a_vote_also_where_one_is_cancelled(cache: ResponseCache) -> None:
    asked: list[str] = []
    cancelled = asyncio.Event()

    async def slow(conversations: Sequence[list[Message]]) -> list[Completion]:
        num = len(asked)
        asked.extend(chat[0]["content"] for chat in conversations)
        await cancelled.wait()
        return [Completion(f"answer {num + i}") for i in range(len(conversations))]

    async def run(complete: CachedModel) -> list[list[Completion]]:
        nonlocal cancelled
        cancelled = asyncio.Event()
        hasty = asyncio.create_task(complete([chat("a"), chat("b")]))
        rest = asyncio.gather(complete([chat("a")]), complete([chat("b"), chat("a"), chat("b")]))
        while len(asked) < (3 if complete.concurrency else 2):  # with single requests, also the second vote on b
            await asyncio.sleep(0.01)
        hasty.cancel()
        cancelled.set()
        return await rest

    for concurrency in (None, 8):
        asked.clear()
        complete = CachedModel(slow, cache, model=f"m {concurrency}", concurrency=concurrency)
        for _ in range(2):  # a lock belongs to one event loop
            (one,), (b, same, other_b) = asyncio.run(run(complete))
            assert one == same and b != other_b
        assert sorted(asked) == ["a", "a", "b", "b", "b"], "what the cancelled call began is asked again"


def test_a_cache_that_another_process_has_locked_does_not_stop_the_event_loop(cache: ResponseCache) -> None:
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def run() -> Completion:
        task = asyncio.create_task(cached(cache)([chat("a")]))
        start = time.monotonic()
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert time.monotonic() - start < LOCK_TIMEOUT / 2 and not task.done()
        other.execute("COMMIT")
        return (await task)[0]

    assert asyncio.run(run()).text == "a #1"
    other.close()
    assert len(cache) == 1


def test_the_settings_of_a_client_are_all_fields_that_it_sends() -> None:
    with chat_server() as server:
        client = ChatClient(server.url, "m", temperature=0.6, max_tokens=7, extra_body={"top_k": 5, "top_p": 0.5})

        async def run() -> None:
            async with contextlib.aclosing(client):
                await client([chat("a")])

        asyncio.run(run())
        (body,) = server.requests
    assert client.settings == {"temperature": 0.6, "max_tokens": 7, "top_k": 5, "top_p": 0.5}
    assert body == {"model": "m", "messages": chat("a"), **client.settings}


def test_concurrency_is_bounded(cache: ResponseCache) -> None:
    under_way, most = 0, 0

    async def slow(conversations: Sequence[list[Message]]) -> list[Completion]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return [Completion("done")]

    ask(CachedModel(slow, cache, model="m", concurrency=3), *map(str, range(12)))
    assert most == 3


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory):
    opened = ResponseCache(tmp_path_factory.mktemp("any") / "cache.sqlite")
    yield opened
    opened.close()


@given(text=st.text(st.characters(exclude_categories=())), num_tokens=st.integers(0, 10**6), truncated=st.booleans())
def test_any_text_comes_back_as_it_was(long_lived: ResponseCache, text: str, num_tokens: int, truncated: bool) -> None:
    response = Completion(text, num_tokens, truncated=truncated)
    long_lived.add([(QUESTION, response)])
    assert long_lived.find(QUESTION) == response


# --- size -------------------------------------------------------------------------------------------------------------


def age(path: Path, days: int, where: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE answers SET written = datetime('now', '-{days} days') WHERE {where}")
    connection.close()


def test_pruning_removes_what_is_old_or_was_replaced(cache: ResponseCache) -> None:
    keys = [CacheKey(str(i), "m", "{}", 0) for i in range(4)]
    cache.add([(key, Completion("old")) for key in keys])
    cache.add([(keys[3], Completion("new"))])
    age(cache.path, 31, "prompt = '0'")
    age(cache.path, 29, "prompt = '1'")
    assert cache.prune(days=30) == 3
    assert [found and found.text for found in map(cache.find, keys)] == [None, "old", "old", "new"]
    ((model, num, first, last),) = cache.by_model()
    assert (model, num) == ("m", 3) and first < last
    assert cache.prune() == 3, "nothing else is removed"
    assert cache.prune(days=0.5) == 2


def test_pruning_to_a_size_keeps_the_newest_and_shrinks_the_file(cache: ResponseCache) -> None:
    keys = [CacheKey(f"{i:064}", "m", "{}", 0) for i in range(500)]
    for i, key in enumerate(keys):
        cache.add([(key, Completion("word " * (100 + i)))])
    before = cache.num_bytes()
    num = cache.prune(num_bytes=before // 3)
    assert 0.7 * before / 3 < cache.num_bytes() <= before / 3
    assert [i for i, key in enumerate(keys) if cache.find(key)] == list(range(500 - num, 500))
    assert cache.prune(num_bytes=0) == 0
    cache.close()
    assert cache.path.stat().st_size < 50_000
    cache.__init__(cache.path)  # type: ignore[misc]  # for the fixture, which closes it


# --- damage -----------------------------------------------------------------------------------------------------------


def filled(path: Path) -> Path:
    cache = ResponseCache(path)
    cache.add([(CacheKey(str(i), "m", "{}", 0), Completion("word " * 200)) for i in range(300)])
    cache.close()
    return path


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "text":
        path.write_text("this is no database\n" * 100)
    elif kind == "header":
        path.write_bytes(b"\xff" * 100 + content[100:])
    elif kind == "pages":
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    elif kind == "cut off":
        path.write_bytes(content[: len(content) // 3])
    else:
        with sqlite3.connect(path) as connection:
            connection.execute(kind)
        connection.close()


DAMAGE = {
    "text": "no response cache, or a damaged one .*move it away to ask the model again",
    "header": "no response cache, or a damaged one .*move it away",
    "pages": "no response cache, or a damaged one .*move it away",
    "cut off": "no response cache, or a damaged one .*move it away",
    f"PRAGMA user_version = {VERSION + 1}": f"version {VERSION + 1}, this fapo reads version {VERSION}; use the newer",
    "PRAGMA user_version = 1": f"version 1, this fapo reads version {VERSION}; use the older",
    "PRAGMA application_id = 7": "a SQLite file, but no response cache; give another path",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_that_cannot_be_used_is_an_error(kind: str, tmp_path: Path) -> None:
    path = filled(tmp_path / "cache.sqlite")
    damage(path, kind)
    before = path.read_bytes()
    with pytest.raises(DataError, match=DAMAGE[kind]) as caught:
        cache = ResponseCache(path)
        for i in range(300):
            cache.find(CacheKey(str(i), "m", "{}", 0))
    assert str(caught.value).startswith(str(path))
    assert path.read_bytes() == before, "the file is not changed"


VERSION_2 = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    prompt TEXT NOT NULL,
    model TEXT NOT NULL,
    settings TEXT NOT NULL,
    vote INTEGER NOT NULL,
    template TEXT NOT NULL,
    critique TEXT NOT NULL,
    num_tokens INTEGER NOT NULL,
    truncated INTEGER NOT NULL,
    seconds REAL NOT NULL,
    written TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE INDEX questions ON answers (prompt, model, settings, vote);
PRAGMA application_id = 0x6661706F;
PRAGMA user_version = 2;
"""
"""Layout of a file before it had tokens with their alternatives."""
ADD_2 = (
    "INSERT INTO answers (prompt, model, settings, vote, template, critique, num_tokens, truncated, seconds) "
    "VALUES (?, 'model', '{}', 0, 'locate', 'words', 2, 0, 0.5)"
)


def test_a_file_of_version_2_is_upgraded_and_keeps_its_responses(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript(VERSION_2)
        old.execute(ADD_2, ("hash",))
        with contextlib.closing(ResponseCache(path)) as cache:
            assert cache.find(QUESTION) == Completion("words", 2)
            found = Completion("new", 1, token_choices=(TokenChoice("{", (("{", -0.1), ("\udce2", -9999.0))),))
            cache.add([(QUESTION, found)])
            assert cache.find(QUESTION) == found
            old.execute(ADD_2, ("other",))
            assert cache.find(CacheKey("other", "model", "{}", 0)) == Completion("words", 2), "by an older fapo"
    with contextlib.closing(ResponseCache(path)) as cache:
        assert cache.find(QUESTION) == found and len(cache) == 3


def test_processes_upgrade_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_2)
    with ThreadPoolExecutor(8) as threads:
        caches = list(threads.map(ResponseCache, [path] * 8))
    for cache in caches:
        cache.add([(QUESTION, Completion("words"))])
        cache.close()
    assert len(ResponseCache(path)) == 8


@pytest.mark.parametrize("path", [".", "cache.sqlite/below"])
def test_a_path_that_cannot_be_used_is_an_error(path: str, tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").touch()
    with pytest.raises(DataError, match=r"cache cannot be used: .*give another path"):
        ResponseCache(tmp_path / path)


# --- processes --------------------------------------------------------------------------------------------------------


def forked(run: Callable[[], bool]) -> int:
    """Run a function in a forked child, and return the child's process id. Its status is 0 if the result is true."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # ends a child that hangs
        try:
            os._exit(0 if run() else 1)
        finally:
            os._exit(2)
    return pid


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_and_its_parent_share_the_responses(cache: ResponseCache) -> None:
    complete = cached(cache)
    ask(complete, "a")
    pid = forked(lambda: [answer.text for answer in ask(complete, "a", "b")] == ["a #1", "b #2"])
    assert status(pid) == 0
    assert [answer.text for answer in ask(complete, "a", "b", "c")] == ["a #1", "b #2", "c #2"]
    assert complete.complete.asked == ["a", "c"], "the child has asked for b"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_response_is_lost_by_forks_while_threads_use_the_cache(cache: ResponseCache) -> None:
    def write(name: str, num: int) -> bool:
        for i in range(num):
            key = CacheKey(f"{name}-{i}", "m", "{}", 0)
            cache.add([(key, Completion(name))])
            assert cache.find(key) == Completion(name)
        return True

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(write, f"thread {n}", 100) for n in range(3)]
        pids = [forked(lambda: write(f"child {os.getpid()}", 10)) for _ in range(8)]
        assert [status(pid) for pid in pids] == [0] * 8
        assert all(writer.result() for writer in writers)
    assert len(cache) == 3 * 100 + 8 * 10
    with contextlib.closing(sqlite3.connect(cache.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


WRITER = """
import sys
from fapo.inference.response_cache import ResponseCache, CacheKey
from fapo.types import Completion
path, name, num = sys.argv[1], sys.argv[2], int(sys.argv[3])
cache = ResponseCache(path)
for i in range(num):
    cache.add([(CacheKey(f"{name}-{i}", "m", "{}", 0), Completion("word " * 100))])
    print(i, flush=True)
"""


def writer(path: Path, name: str, num: int) -> subprocess.Popen[str]:
    source = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-c", WRITER, str(path), name, str(num)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source})


def test_two_processes_share_a_new_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    writers = [writer(path, name, 150) for name in ("a", "b")]
    for process in writers:
        assert process.communicate(timeout=600)[0].split() == [str(i) for i in range(150)]
        assert process.returncode == 0
    cache = ResponseCache(path)
    assert len(cache) == 300
    assert all(cache.find(CacheKey(f"{name}-{i}", "m", "{}", 0)) for name in "ab" for i in range(150))
    cache.close()


def test_a_killed_process_loses_no_stored_response(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    process = writer(path, "a", 10**6)
    assert process.stdout
    for line in process.stdout:
        if int(line) == 50:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()  # including its buffer, which communicate() would skip
    assert process.wait(600) == -signal.SIGKILL
    last = int(rest[-1]) if rest else 50
    cache = ResponseCache(path)
    assert last + 1 <= len(cache) <= last + 2
    assert all(cache.find(CacheKey(f"a-{i}", "m", "{}", 0)) for i in range(last + 1))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    cache.close()
