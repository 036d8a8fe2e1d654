"""A cache of model responses in a SQLite file: a response that exists is not asked for again.

The cache keeps the text that the model wrote; the verdict is parsed from it each time. Several processes may share a
file. The file is in WAL mode and each response has a transaction of its own, so kill -9 loses only responses that were
not complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from fapo.errors import DataError
from fapo.inference.concurrency import run_all
from fapo.types import Complete, Completion, Message

APPLICATION = 0x6661706F
"""SQLite's application_id of our files ("fapo")."""
VERSION = 1
"""SQLite's user_version of our files; another number is another layout."""
PATIENCE = 60.0
"""Seconds to wait for another process that writes."""

SCHEMA = f"""
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    prompt TEXT NOT NULL,         -- SHA-256 of the conversation as JSON
    model TEXT NOT NULL,
    settings TEXT NOT NULL,       -- sampling settings as JSON
    vote INTEGER NOT NULL,        -- from 0: the same question asked again
    template TEXT NOT NULL,
    critique TEXT NOT NULL,
    num_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,        -- from sending to the last byte
    written TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE INDEX questions ON answers (prompt, model, settings, vote);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
FIND = (
    "SELECT critique, num_tokens, seconds FROM answers "
    "WHERE prompt = ? AND model = ? AND settings = ? AND vote = ? ORDER BY id DESC LIMIT 1"
)
ADD = (
    "INSERT INTO answers (prompt, model, settings, vote, template, critique, num_tokens, seconds) "
    "VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?)"
)
"""The critique comes as bytes: a model's output may hold lone surrogates, which sqlite3 does not take as text."""


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
        settings: Sampling settings, such as temperature, top_p and max_tokens.
        vote: Index of the response among several to the same conversation, from 0.
    """
    prompt = hashlib.sha256(json.dumps(conversation, sort_keys=True).encode()).hexdigest()
    return CacheKey(prompt, model, json.dumps(dict(settings), sort_keys=True), vote)


class ResponseCache:
    """The file. Raises DataError, with what to do, for a file that is damaged, foreign or of another version."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._connection.text_factory = lambda content: content.decode("utf-8", "surrogatepass")
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def find(self, question: CacheKey) -> Completion | None:
        """Return the newest response stored under a key; None if there is none."""
        with self._errors(), self._lock:
            row = self._connection.execute(FIND, astuple(question)).fetchone()
        return Completion(row[0], row[1], seconds=row[2]) if row else None

    def add(self, answers: Iterable[tuple[CacheKey, Completion]], template: str = "") -> None:
        """Store responses. They are on disk when this returns; older ones under the same keys are kept, too."""
        rows = [
            (
                *astuple(question),
                template,
                answer.text.encode("utf-8", "surrogatepass"),
                answer.num_tokens,
                answer.seconds,
            )
            for question, answer in answers
        ]
        with self._errors(), self._lock, self._transaction():
            self._connection.executemany(ADD, rows)

    def __len__(self) -> int:
        with self._errors(), self._lock:
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file; what the write-ahead log holds moves into it."""
        with self._errors(), self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        """Make a new file ours, or check that an old one is."""
        execute = self._connection.execute
        execute("PRAGMA synchronous = NORMAL")
        if execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            with self._transaction():
                if execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:  # another process may be first
                    for statement in filter(str.strip, SCHEMA.split(";\n")):
                        execute(statement)
        application, version = (execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if application != APPLICATION:
            raise DataError(f"{self.path}: a SQLite file, but no cache of judgements; give another path")
        if version != VERSION:
            age = "newer" if version > VERSION else "older"
            raise DataError(
                f"{self.path}: a cache of version {version}, this fapo reads version {VERSION}; "
                f"use the {age} fapo that wrote it, or give another path and ask the judge again"
            )
        self._write_ahead()

    def _write_ahead(self) -> None:
        """WAL mode; to change into it SQLite needs the file for itself for a moment and does not wait by itself."""
        deadline = time.monotonic() + PATIENCE
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
    def _errors(self) -> Iterator[None]:
        """What SQLite and the file system have to say, as a message for the user."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise DataError(f"{self.path}: the cache cannot be used: {error}; free it or give another path") from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.path}: no cache, or a damaged one ({error}); move it away to ask the judge again, "
                f"or save what can be read: sqlite3 {self.path} .recover | sqlite3 saved.sqlite"
            ) from None


@dataclass(frozen=True)
class CachedModel:
    """A `Complete` that returns cached responses, asks the model for the others, and stores each as it arrives.

    Equal conversations in one call are votes: each has its own index and its own response. Failed requests are not
    stored, so they are asked again the next time.
    """

    complete: Complete
    """Model that writes what is not in the cache."""
    cache: ResponseCache
    """Cache to read and to add to."""
    _: KW_ONLY
    model: str
    """Name of the model in the cache; models that may answer differently need different names."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings (temperature, top_p, max_tokens ...), without the addresses of servers."""
    template: str = ""
    """Name of the prompt's template, for the record only."""
    batch_size: int = 1
    """Conversations asked in one call of `complete`; a model in this process wants many, of similar length."""
    concurrency: int = 64
    """Calls of `complete` under way at once."""
    use_cache: bool = True
    """Whether to read the cache; if not, the model is asked again and the new response replaces the old one."""

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        conversations = list(conversations)
        questions = self._questions(conversations)
        found = [self.cache.find(question) if self.use_cache else None for question in questions]
        out = [answer or Completion() for answer in found]
        asked = [i for i, answer in enumerate(found) if answer is None]
        if self.batch_size > 1:
            asked.sort(key=lambda i: sum(len(message["content"]) for message in conversations[i]))
        batches = [asked[start : start + self.batch_size] for start in range(0, len(asked), self.batch_size)]

        async def ask(batch: Sequence[int]) -> None:
            start = time.perf_counter()
            answers = await self.complete([conversations[i] for i in batch])
            took = time.perf_counter() - start
            rows = [(i, replace(a, seconds=a.seconds or took)) for i, a in zip(batch, answers, strict=True)]
            self.cache.add([(questions[i], answer) for i, answer in rows if not answer.error], self.template)
            for i, answer in rows:
                out[i] = answer

        await run_all(batches, ask, min(self.concurrency, len(batches)))
        return out

    def _questions(self, conversations: Sequence[list[Message]]) -> list[CacheKey]:
        votes: Counter[str] = Counter()
        questions = []
        for conversation in conversations:
            first = cache_key(conversation, self.model, self.settings, 0)
            questions.append(replace(first, vote=votes[first.prompt]))
            votes[first.prompt] += 1
        return questions
