"""A cache of model responses in a SQLite file, so that no model is asked twice for the same response.

The cache keeps the text that the model wrote; the verdict is parsed from it each time. Several processes may share a
file. The file is in WAL mode and each call of `add` is one transaction, so a killed process loses no stored response.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import KW_ONLY, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from fapo.errors import DataError
from fapo.inference.concurrency import run_all
from fapo.types import ChatModel, Completion, Constrained, Message, StepTokens, TokenChoice

APPLICATION = 0x6661706F
"""SQLite application_id of a response cache ("fapo")."""
VERSION = 3
"""SQLite user_version of a response cache; it changes with the layout of the table."""
LOCK_TIMEOUT = 60.0
"""Longest wait for another process that writes to the file, in seconds."""

SCHEMA = f"""
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    prompt TEXT NOT NULL,         -- SHA-256 of the conversation as JSON
    model TEXT NOT NULL,
    settings TEXT NOT NULL,       -- sampling settings as JSON
    vote INTEGER NOT NULL,        -- index of the response among several to the same conversation, from 0
    template TEXT NOT NULL,
    critique TEXT NOT NULL,
    num_tokens INTEGER NOT NULL,
    truncated INTEGER NOT NULL,   -- whether the length limit ended the response
    seconds REAL NOT NULL,        -- from sending to the last byte
    token_choices TEXT NOT NULL DEFAULT '',  -- some tokens with their alternatives as JSON; empty without any
    written TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE INDEX questions ON answers (prompt, model, settings, vote);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
UPGRADES = {2: "ALTER TABLE answers ADD COLUMN token_choices TEXT NOT NULL DEFAULT ''"}
"""Version -> statement that makes the next version of a file with it."""
FIND = (
    "SELECT critique, num_tokens, truncated, seconds, token_choices FROM answers "
    "WHERE prompt = ? AND model = ? AND settings = ? AND vote = ? ORDER BY id DESC LIMIT 1"
)
ADD = (
    "INSERT INTO answers "
    "(prompt, model, settings, vote, template, critique, num_tokens, truncated, seconds, token_choices) "
    "VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?)"
)
"""The text is passed as bytes, because it may contain lone surrogates, which sqlite3 rejects in a str."""
NEWEST = "SELECT max(id) FROM answers GROUP BY prompt, model, settings, vote"

MOUNTS = Path("/proc/mounts")
"""List of the file systems of this machine; Linux has one."""
LOCAL_FILE_SYSTEMS = ("apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
"""File systems of one machine; a disk of any other kind may be shared by several."""


def shared_file_system(path: str | Path) -> str:
    """Return the kind of file system of a path if several machines may share it; empty if not, or if it is unknown."""
    if not MOUNTS.exists():
        return ""
    parents = {str(parent) for parent in [Path(path).resolve(), *Path(path).resolve().parents]}
    rows = [line.split() for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    kinds = {place.encode().decode("unicode_escape"): kind for _, place, kind, *_ in rows}  # a blank stands as \\040
    kind = kinds[max(parents & kinds.keys(), key=len)]
    return "" if kind in LOCAL_FILE_SYSTEMS else kind


@dataclass(frozen=True)
class CacheKey:
    """Key of a response in the cache."""

    prompt: str
    """SHA-256 of the conversation."""
    model: str
    """Name of the model."""
    settings: str
    """Sampling settings as JSON."""
    vote: int
    """Index of the response, from 0, among several to the same conversation."""


def cache_key(conversation: list[Message], model: str, settings: Mapping[str, Any], vote: int) -> CacheKey:
    """Return the key under which a response is stored.

    Args:
        conversation: Messages that the model is given.
        model: Name of the model; models that may answer differently need different names.
        settings: All else that the response depends on, such as temperature, top_p, max_tokens and further fields of
            the request.
        vote: Index of the response among several to the same conversation, from 0.

    Returns:
        The key; the conversation stands in it as a hash.
    """
    asked: Any = [conversation, conversation.schema] if isinstance(conversation, Constrained) else conversation
    if isinstance(conversation, StepTokens):
        asked = {"tokens": conversation.tokens, "ends": conversation.ends}
    prompt = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return CacheKey(prompt, model, json.dumps(dict(settings), sort_keys=True), vote)


class ResponseCache:
    """Responses of models in a SQLite file. Threads and processes of one machine may share the file, also forked ones.

    Every method raises DataError if the file cannot be used. `read` and `write` work in a thread, so that an event loop
    does not wait for the disk or for another process.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a cache, and create it if the file does not exist.

        Args:
            path: SQLite file; missing parent folders are created.

        Raises:
            DataError: The file is damaged, is not a response cache, or has another version.
        """
        self.path = Path(path)
        self._is_open = False
        self._start_thread()
        with self._use():
            _caches.add(self)

    def find(self, key: CacheKey) -> Completion | None:
        """Return the newest response stored under a key; None if there is none."""
        with self._use():
            row = self._connection.execute(FIND, astuple(key)).fetchone()
        if row is None:
            return None
        text, num_tokens, truncated, seconds, stored = row
        choices = tuple(
            TokenChoice(token, tuple((other, logprob) for other, logprob in alternatives))
            for token, alternatives in json.loads(stored or "[]")
        )
        return Completion(
            text, num_tokens, truncated=bool(truncated), token_choices=choices, seconds=seconds, from_cache=True
        )

    async def read(self, keys: Sequence[CacheKey]) -> list[Completion | None]:
        """Return what `find` returns for each key, in order."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: [self.find(key) for key in keys])

    async def write(self, responses: Iterable[tuple[CacheKey, Completion]], template: str = "") -> None:
        """Store responses as `add` does."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.add, list(responses), template)

    def add(self, responses: Iterable[tuple[CacheKey, Completion]], template: str = "") -> None:
        """Store responses in one transaction; older responses under the same keys stay in the file.

        Args:
            responses: Responses with their keys.
            template: Name of the prompt template, for the record only.
        """
        rows = [
            (
                *astuple(key),
                template,
                response.text.encode("utf-8", "surrogatepass"),
                response.num_tokens,
                response.truncated,
                response.seconds,
                json.dumps([astuple(token) for token in response.token_choices]) if response.token_choices else "",
            )
            for key, response in responses
        ]
        with self._use(), self._transaction():
            self._connection.executemany(ADD, rows)

    def num_bytes(self) -> int:
        """Return the size of the content in bytes; the file is as large after `close`."""
        with self._use():
            return self._number("page_count") * self._number("page_size")

    def by_model(self) -> list[tuple[str, int, str, str]]:
        """Return the name of each model, the number of its responses, and the times of the first and the last (UTC)."""
        with self._use():
            return self._connection.execute(
                "SELECT model, count(*), min(written), max(written) FROM answers GROUP BY model ORDER BY model"
            ).fetchall()

    def prune(self, *, days: float | None = None, num_bytes: int | None = None) -> int:
        """Remove responses that newer ones have replaced, and old responses; then shrink the file.

        Args:
            days: Age in days; older responses are removed. None: no limit.
            num_bytes: Size in bytes; the oldest responses are removed until the file fits. None: no limit.

        Returns:
            Number of responses that are left.
        """
        with self._use():
            execute = self._connection.execute
            execute(f"DELETE FROM answers WHERE id NOT IN ({NEWEST})")
            if days is not None:
                execute("DELETE FROM answers WHERE julianday(written) < julianday('now') - ?", (days,))
            execute("VACUUM")
        while num_bytes is not None and (size := self.num_bytes()) > num_bytes and (num := len(self)):
            with self._use():
                surplus = math.ceil(num * (size - num_bytes) / size)
                execute("DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY id LIMIT ?)", (surplus,))
                execute("VACUUM")
        return len(self)

    def __len__(self) -> int:
        with self._use():
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file after open calls of `write`, and move the write-ahead log into it."""
        self._thread.shutdown()
        with self._use():
            self._connection.close()
            _caches.discard(self)

    def _start_thread(self) -> None:
        """Start the thread of `read` and `write`; a forked child has none of the threads of its parent."""
        self._thread = ThreadPoolExecutor(1, "response-cache")

    def _close_connection(self) -> None:
        """Close the connection; the next use opens another one."""
        self._is_open = False
        self._connection.close()

    def _open(self) -> None:
        """Open the file, and create it if it does not exist."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            self.path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._connection.text_factory = lambda content: content.decode("utf-8", "surrogatepass")
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise
        self._is_open = True

    def _prepare(self) -> None:
        """Create the table in a new file; check the application and version of an old one."""
        execute = self._connection.execute
        execute("PRAGMA synchronous = NORMAL")
        if execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            with self._transaction():
                if execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:  # another process may be first
                    for statement in filter(str.strip, SCHEMA.split(";\n")):
                        execute(statement)
        if self._number("application_id") != APPLICATION:
            raise DataError(f"{self.path}: a SQLite file, but no response cache; give another path")
        if self._number("user_version") in UPGRADES:
            with self._transaction():
                while upgrade := UPGRADES.get(version := self._number("user_version")):  # another may be first
                    execute(upgrade)
                    execute(f"PRAGMA user_version = {version + 1}")
        version = self._number("user_version")
        if version != VERSION:
            age = "newer" if version > VERSION else "older"
            raise DataError(
                f"{self.path}: a cache of version {version}, this fapo reads version {VERSION}; "
                f"use the {age} fapo that wrote it, or give another path and ask the model again"
            )
        self._write_ahead()

    def _number(self, name: str) -> int:
        """Return a number that SQLite keeps in the file."""
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _write_ahead(self) -> None:
        """Switch to WAL mode, which needs a moment without other connections; SQLite does not wait for it by itself."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        """Hold the lock and have a connection; turn the errors of SQLite and of the file system into a DataError."""
        try:
            with _lock:
                if not self._is_open:
                    self._open()
                yield
        except (sqlite3.OperationalError, OSError) as error:
            raise DataError(f"{self.path}: the cache cannot be used: {error}; free it or give another path") from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.path}: no response cache, or a damaged one ({error}); move it away to ask the model again, "
                f"or save what can be read: sqlite3 {self.path} .recover | sqlite3 saved.sqlite"
            ) from None


_lock = threading.Lock()
"""Held while this process uses a cache, so that it forks between two uses."""
_caches: WeakSet[ResponseCache] = WeakSet()
"""Caches of this process that are not closed."""


def _close_before_fork() -> None:
    """Close all connections: SQLite allows a forked child neither to use nor to close one of its parent."""
    _lock.acquire()
    for cache in _caches:
        cache._close_connection()


def _start_in_child() -> None:
    """Give each cache a thread of this process."""
    for cache in _caches:
        cache._start_thread()
    _lock.release()


os.register_at_fork(before=_close_before_fork, after_in_parent=_lock.release, after_in_child=_start_in_child)


@dataclass(frozen=True)
class CachedModel:
    """Chat model that returns cached responses, asks a model for the others, and stores each as it arrives.

    Equal conversations in one call are votes: each has its own index and its own response. Of calls at the same time,
    only one asks for the same vote. Failed requests are not stored, so a later call asks again.
    """

    complete: ChatModel
    """Model that writes the responses that are not in the cache."""
    cache: ResponseCache
    """Cache that is read and added to."""
    _: KW_ONLY
    model: str
    """Name of the model in the cache; models that may answer differently need different names."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All else that a response depends on: `settings` of a `ChatClient` or a `LocalModel`."""
    template: str = ""
    """Name of the prompt template, for the record only."""
    concurrency: int | None = 64
    """Number of calls of `complete` under way at once, each with one conversation; None: one call with all of them."""
    use_cache: bool = True
    """Whether stored responses are used; if not, the model is asked again and the new response replaces the old one."""
    _locks: WeakValueDictionary[tuple[int, CacheKey], asyncio.Lock] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return one completion for each conversation, in order."""
        out = [Completion()] * len(conversations)
        votes: Counter[str] = Counter()

        async def ask(batch: Sequence[int]) -> None:
            chats = [conversations[i] for i in batch]  # read in turn, since a lazy sequence may build them now
            keys = [self._key(chat, votes) for chat in chats]
            for i, response in zip(batch, await self._ask(chats, keys), strict=True):
                out[i] = response

        size = 1 if self.concurrency else len(conversations)
        batches = [range(start, min(start + size, len(out))) for start in range(0, len(out), size or 1)]
        await run_all(batches, ask, min(self.concurrency or 1, len(batches)))
        return out

    async def _ask(self, chats: Sequence[list[Message]], keys: Sequence[CacheKey]) -> list[Completion]:
        """Return the responses under some keys, from the cache or from one call of the model."""
        async with AsyncExitStack() as stack:
            for key in sorted(
                keys, key=astuple
            ):  # in one order everywhere, so that two calls cannot wait for each other
                lock = self._locks.setdefault((id(asyncio.get_running_loop()), key), asyncio.Lock())
                await stack.enter_async_context(lock)
            found: list[Completion | None] = [None] * len(keys)
            if self.use_cache:
                found = await self.cache.read(keys)
            missing = [i for i, response in enumerate(found) if response is None]
            if missing:
                start = time.perf_counter()
                responses = await self.complete([chats[i] for i in missing])
                seconds = time.perf_counter() - start
                for i, response in zip(missing, responses, strict=True):
                    found[i] = replace(response, seconds=response.seconds or seconds)
                written = [(keys[i], new) for i in missing if (new := found[i]) and not new.error]
                await self.cache.write(written, self.template)
        return [response for response in found if response]

    def _key(self, conversation: list[Message], votes: Counter[str]) -> CacheKey:
        """Return the key of the next vote on a conversation; `votes` counts them."""
        first = cache_key(conversation, self.model, self.settings, 0)
        votes[first.prompt] += 1
        return replace(first, vote=votes[first.prompt] - 1)
