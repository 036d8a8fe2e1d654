"""The chat client against real HTTP servers: retries, load balancing, deadlines, proxies, certificates."""

from __future__ import annotations

import asyncio
import gc
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fapo.inference.client
import fapo.inference.endpoints
import fapo.inference.transport
from fapo.errors import ConfigError
from fapo.inference.client import ChatClient
from fapo.inference.endpoints import Endpoint
from fapo.inference.transport import open_session
from fapo.types import Completion
from tests.support.chat_server import ChatServer, Reply, chat_server, completion
from tests.support.ports import dead_url
from tests.support.processes import wait_for
from tests.support.proxy_server import proxy_server

HELLO = [{"role": "user", "content": "hello"}]
SLOWER = (1.0, 4.0, 16.0)
"""Times that a test takes one after the other, until the machine is fast enough for one; what it looks for is wrong
with all of them or with none."""


def client(*servers: ChatServer | str, **options: Any) -> ChatClient:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return ChatClient(urls, "tiny", **{"backoff": 0.01, "timeout": 600.0, "retries": 2} | options)


def ask(chat: ChatClient, *conversations: list[dict[str, str]]) -> list[Completion]:
    async def run() -> list[Completion]:
        try:
            return await chat(conversations or [HELLO])
        finally:
            await chat.aclose()

    return asyncio.run(run())


def test_answers_come_in_the_order_of_the_questions() -> None:
    def echo(body: dict[str, Any], index: int) -> Reply:
        text = body["messages"][-1]["content"]
        return Reply(text, delay=0.05 if text == "0" else 0.0)

    questions = [[{"role": "user", "content": str(i)}] for i in range(20)]
    with chat_server(echo) as server:
        answers = ask(client(server), *questions)
    assert [answer.text for answer in answers] == [str(i) for i in range(20)]
    assert {answer.num_tokens for answer in answers} == {1}
    assert not any(answer.error for answer in answers)


def test_no_conversations_send_no_request() -> None:
    assert asyncio.run(client(dead_url())([])) == []


def test_a_request_has_only_the_fields_that_are_set() -> None:
    with chat_server() as server:
        ask(client(server, temperature=0.6, max_tokens=9, extra_body={"top_k": 3}, api_key="secret"))
    assert server.requests == [
        {"model": "tiny", "messages": HELLO, "temperature": 0.6, "max_tokens": 9, "top_k": 3},
    ]
    assert server.api_keys == ["Bearer secret"]


def test_extra_fields_replace_and_remove_fields() -> None:
    extra = {"max_completion_tokens": 50, "temperature": None, "reasoning_effort": "low"}
    with chat_server() as server:
        ask(client(server, temperature=0.6, top_p=0.5, max_tokens=9, extra_body=extra))
    assert server.requests == [
        {"model": "tiny", "messages": HELLO, "top_p": 0.5, "max_completion_tokens": 50, "reasoning_effort": "low"},
    ]


@pytest.mark.parametrize(
    ("env", "key"),
    [
        ({"FAPO_API_KEY": "ours", "OPENAI_API_KEY": "theirs"}, "ours"),
        ({"OPENAI_API_KEY": "theirs"}, "theirs"),
        ({}, "none"),
    ],
)
def test_api_key_from_the_environment(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], key: str) -> None:
    for name in ("FAPO_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    chat = ChatClient("http://127.0.0.1:1/v1", "tiny")
    assert chat.api_key == key
    assert key == "none" or key not in repr(chat)


@pytest.mark.parametrize(
    "first",
    [
        Reply(status=429, body=b'{"error": {"message": "slow down"}}', headers={"retry-after": "0"}),
        Reply(status=408, body=b"request timeout"),
        Reply(status=500, body=b"oops"),
        Reply(status=503, body=b""),
        Reply(close=True),
        Reply(body=b"<html>not a completion</html>"),
        Reply(body=b'{"choices": ['),
        Reply(body=b"\xff\xfe"),
        Reply(body=b"[" * 100_000),
        Reply(body=b"null"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"index": 0}]}'),
        Reply(body=b'{"choices": [{"message": {"content": 7}}]}'),
        Reply(body=b'{"choices": "abc"}'),
        Reply("If step 0 were wrong: \\boxed{0}. Let me", finish_reason="abort"),
        Reply("If step 0 were wrong: \\boxed{0}. Let me", finish_reason="error"),
    ],
    ids=lambda reply: f"{reply.status}-{'close' if reply.close else (reply.body or reply.finish_reason)[:24]!r}",
)
def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_reported(first: Reply) -> None:
    with chat_server(lambda body, index: first if index == 0 else Reply("second")) as server:
        assert ask(client(server)) == [Completion("second", num_tokens=1)]
        assert len(server.requests) == 2
    with chat_server(first) as server:
        (answer,) = ask(client(server))
        assert answer.text == ""
        assert "given up after 3 tries" in answer.error
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_refused_requests_are_not_tried_again(status: int) -> None:
    with chat_server(Reply(status=status, body=b'{"error": {"message": "too long"}}')) as server:
        (answer,) = ask(client(server))
    assert f"HTTP {status}" in answer.error
    assert "too long" in answer.error
    assert len(server.requests) == 1


def test_an_error_with_status_200_is_in_the_message() -> None:
    with chat_server(Reply(body=b'{"error": {"message": "insufficient credits", "code": 402}}')) as server:
        (answer,) = ask(client(server))
    assert "the answer is not a chat completion: " in answer.error and "insufficient credits" in answer.error


def test_an_answer_that_a_filter_has_cut_off_is_a_failure() -> None:
    with chat_server(Reply("If step 0 were wrong: \\boxed{0}. Let me", finish_reason="content_filter")) as server:
        (answer,) = ask(client(server))
    assert answer.error == "a filter of the server cut off the answer"
    assert len(server.requests) == 1, "it would cut it off again"


def test_one_refused_request_does_not_affect_the_others() -> None:
    def refuse(body: dict[str, Any], index: int) -> Reply:
        bad = body["messages"][0]["content"] == "bad"
        return Reply(status=400, body=b"{}") if bad else Reply("fine")

    bad = [{"role": "user", "content": "bad"}]
    with chat_server(refuse) as server:
        answers = ask(client(server), HELLO, bad, HELLO)
    assert [bool(answer.error) for answer in answers] == [False, True, False]


def test_text_that_is_not_unicode_fails_alone() -> None:
    with chat_server() as server:
        broken, fine = ask(client(server), [{"role": "user", "content": "\ud800"}], HELLO)
    assert "UTF-8" in broken.error
    assert fine.text == "ok"


def test_missing_content_and_usage_are_an_empty_answer() -> None:
    with chat_server(Reply(body=b'{"choices": [{"message": {"role": "assistant", "content": null}}]}')) as server:
        assert ask(client(server)) == [Completion()]


@pytest.mark.parametrize("slow", [Reply(delay=600), Reply(drip=3.0)], ids=["hang", "drip"])
def test_a_slow_answer_is_given_up_in_time(slow: Reply) -> None:
    with chat_server(slow) as server:
        start = time.monotonic()
        (late,) = ask(client(server, timeout=0.4, retries=1))
        assert time.monotonic() - start < 300
    assert "no answer within 0.4 s" in late.error


def test_a_slow_answer_does_not_delay_the_others() -> None:
    """The slow one comes only when the other has been answered."""
    answered = threading.Event()

    def slow(body: dict[str, Any], index: int) -> Reply:
        return Reply("late" if body["messages"][0]["content"] == "slow" and answered.wait(600) else "ok")

    async def run(chat: ChatClient) -> list[str]:
        late = asyncio.create_task(chat([[{"role": "user", "content": "slow"}]]))
        (fine,) = await chat([HELLO])
        answered.set()
        (last,) = await late
        await chat.aclose()
        return [fine.text, last.text]

    with chat_server(slow) as server:
        assert asyncio.run(run(client(server))) == ["ok", "late"]


def test_retry_after_is_respected() -> None:
    busy = Reply(status=429, body=b"{}", headers={"retry-after": "1"})
    with chat_server(lambda body, index: busy if index == 0 else Reply()) as server:
        start = time.monotonic()
        assert ask(client(server))[0].text == "ok"
        assert time.monotonic() - start >= 1


def test_concurrency_is_bounded_over_simultaneous_calls_and_connections_are_shared() -> None:
    async def run(chat: ChatClient) -> None:
        await asyncio.gather(*(chat([HELLO] * 4) for _ in range(5)))
        await chat.aclose()

    with chat_server(Reply(delay=0.03)) as server:
        asyncio.run(run(client(server, concurrency=3)))
        assert len(server.requests) == 20
        assert server.most_under_way == 3
        assert len(server.clients) <= 3


def test_load_goes_to_the_least_busy_server() -> None:
    def wait(body: dict[str, Any], index: int) -> Reply:
        wait_for(lambda: len(fast.requests) >= 20)
        return Reply()

    with chat_server(wait) as slow, chat_server() as fast:
        ask(client(slow, fast, concurrency=4), *[HELLO] * 24)
    assert len(slow.requests) + len(fast.requests) == 24
    assert len(slow.requests) < len(fast.requests)


def test_another_server_takes_over() -> None:
    with chat_server(Reply(status=500, body=b"")) as broken, chat_server(Reply("fine")) as working:
        answers = ask(client(broken, dead_url(), working), *[HELLO] * 6)
    assert {answer.text for answer in answers} == {"fine"}
    assert len(working.requests) == 6


def test_no_server_at_all() -> None:
    (answer,) = ask(client(dead_url(), retries=1))
    assert "given up after 2 tries" in answer.error
    assert "onnection" in answer.error


@pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_event_loops_one_after_the_other_and_at_once() -> None:
    """A trainer's loop runs in a thread beside that of asyncio.run, which closes its loop each time.

    Connections of a loop that was closed without `aclose` can only be collected, with a warning.
    """
    loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    async def ask_here(num: int) -> list[str]:
        loops.add(asyncio.get_running_loop())
        return [answer.text for answer in await chat([HELLO] * num)]

    with chat_server() as server:
        chat = client(server)
        for _ in range(3):
            assert asyncio.run(ask_here(2)) == ["ok"] * 2
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        for _ in range(2):
            beside = asyncio.run_coroutine_threadsafe(ask_here(1), loop)
            assert asyncio.run(ask_here(1)) == ["ok"]
            assert beside.result(timeout=600) == ["ok"]
        asyncio.run_coroutine_threadsafe(chat.aclose(), loop).result(timeout=600)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        del loop, thread, beside
        gc.collect()
        assert len(loops) <= 1, "the client holds closed loops"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("https://host/api/v1", "https://host/api/v1"),
    ],
)
def test_base_urls(url: str, base: str) -> None:
    assert ChatClient(url, "tiny").urls == [base]


@pytest.mark.parametrize(
    "urls",
    [
        *([], "", "127.0.0.1:8000", "ftp://host", ["http://host", "host"]),
        *("http://host:port/v1", "http://host:0", "http://[::1/v1"),
    ],
)
def test_bad_urls_are_refused_with_a_hint(urls: Any) -> None:
    with pytest.raises(ConfigError, match="base URL"):
        ChatClient(urls, "tiny")


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"timeout": 0}, {"retries": -1}, {"backoff": -1.0}, {"deadline": 0}]
)
def test_bad_limits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"ChatClient: \w+: should be greater than"):
        ChatClient("http://host", "tiny", **options)


@pytest.mark.parametrize(
    ("extra", "message"), [({"n": 2, "stream": True}, "must not set n, stream"), ([1], "must be a table of fields")]
)
def test_fields_that_decide_the_form_of_the_answer_are_refused(extra: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"`extra_body` .*{message}"):
        ChatClient("http://host", "tiny", extra_body=extra)


def test_a_server_that_fails_rests_and_is_tried_again() -> None:
    def failing(body: dict[str, Any], index: int) -> Reply:
        return Reply(status=503, body=b"") if index == 0 else Reply("back")

    with chat_server(failing) as shaky, chat_server(Reply("well")) as well:
        chat = client(shaky, well, cooldown=600.0, concurrency=1)

        async def run() -> list[list[str]]:
            first = await chat([HELLO] * 6)
            seen.append(len(shaky.requests))
            chat.endpoints()[0].rests_until = time.monotonic()  # the end of its rest
            second = await chat([HELLO] * 6)
            await chat.aclose()
            return [[answer.text for answer in part] for part in (first, second)]

        seen: list[int] = []
        first, second = asyncio.run(run())
    assert first == ["well"] * 6
    assert seen == [1], "asked again while it should rest"
    assert "back" in second


def test_rests_are_doubled_and_failures_under_way_together_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fapo.inference.endpoints, "time", SimpleNamespace(monotonic=lambda: 1000.0))

    async def rests() -> list[float]:
        endpoint = Endpoint(open_session("http://127.0.0.1:1/v1", "none", 5.0))
        out = []
        for _ in range(7):
            for _ in range(5):
                endpoint.failed(1.0)
            out.append(endpoint.rests_until - 1000.0)
            endpoint.rests_until = 0.0
        await endpoint.session.close()
        return out

    assert asyncio.run(rests()) == [1, 2, 4, 8, 16, 30, 30]


def test_a_server_back_from_its_rest_gets_one_request_until_it_answers() -> None:
    with chat_server(Reply("slow", delay=0.3)) as back, chat_server(Reply("well", delay=0.02)) as well:
        chat = client(back, well, concurrency=8)

        async def run() -> None:
            endpoints = chat.endpoints()
            endpoints[0].failures = 1
            await chat([HELLO] * 8)
            await chat.aclose()

        asyncio.run(run())
    assert back.most_under_way == 1


@pytest.mark.parametrize("date", [False, True])
def test_no_request_is_sent_during_the_pause_a_server_asks_for(date: bool) -> None:
    times: list[float] = []

    def busy(body: dict[str, Any], index: int) -> Reply:
        times.append(time.monotonic())
        later = formatdate(time.time() + 2, usegmt=True) if date else "1"
        return Reply(status=429, body=b"{}", headers={"retry-after": later}) if index == 0 else Reply()

    with chat_server(busy) as server:
        ask(client(server, concurrency=1), HELLO, HELLO)
    assert len(times) == 3
    assert times[1] - times[0] >= 0.9


def test_a_pause_that_is_too_long_is_an_error() -> None:
    with chat_server(Reply(status=429, body=b"{}", headers={"retry-after": "86400"})) as server:
        (answer,) = ask(client(server))
    assert "asks for a pause of 86400 s" in answer.error
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", ["", "soon", "-3", "1.5", "٣", "Wed, 99 Foo 2026"])
def test_an_invalid_retry_after_is_no_pause(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fapo.inference.client, "MAX_RETRY_AFTER", 0.0)  # any pause is an error
    busy = Reply(status=429, body=b"{}", headers={"retry-after": value.encode().decode("latin-1")})
    with chat_server(lambda body, index: busy if index == 0 else Reply()) as server:
        assert ask(client(server))[0] == Completion("ok", num_tokens=1)


@pytest.mark.parametrize(
    ("reply", "before"),
    [(Reply(delay=600), ""), (Reply(status=500, body=b"oops"), "; before that: HTTP 500"), (Reply(drip=3.0), "")],
    ids=["hang", "fails", "drip"],
)
def test_a_judgement_has_a_deadline_for_all_its_tries(reply: Reply, before: str) -> None:
    expected = re.compile(rf"no answer within the deadline of [\d.]+ s{before}")
    with chat_server(reply) as server:
        for deadline in SLOWER:  # the first try needs its time on a busy machine
            (answer,) = ask(client(server, deadline=deadline, retries=10_000, backoff=0.1))
            if expected.match(answer.error):
                break
    assert expected.match(answer.error)


def test_time_in_the_queue_does_not_count_for_the_deadline() -> None:
    """All answers together take longer than the deadline, on any machine; one alone does not, unless it is busy."""
    for scale in SLOWER:
        with chat_server(Reply(delay=0.25 * scale)) as server:
            answers = ask(client(server, concurrency=1, deadline=2.5 * scale), *[HELLO] * 12)
        if not any(answer.error for answer in answers):
            break
    assert [answer.error for answer in answers] == [""] * 12


def test_cancelling_closes_the_connection() -> None:
    async def run(chat: ChatClient) -> None:
        task = asyncio.create_task(chat([HELLO] * 3))
        while len(server.requests) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_for, lambda: server.hang_ups == 3)
        endpoints = chat.endpoints()
        assert [endpoint.outstanding for endpoint in endpoints] == [0]
        await chat.aclose()

    with chat_server(Reply(delay=600)) as server:
        asyncio.run(run(client(server)))
        assert server.hang_ups == 3


def test_waiting_conversations_cost_little_memory() -> None:
    """Of ten thousand conversations 64 are under way; each of the others costs less than 4 kB."""

    async def run(chat: ChatClient) -> float:
        tracemalloc.start()
        task = asyncio.create_task(chat([HELLO] * 10_000))
        while len(server.requests) < 64:
            await asyncio.sleep(0.01)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await chat.aclose()
        return held / 10_000

    with chat_server(Reply(delay=600)) as server:
        assert asyncio.run(run(client(server))) < 4_000
        assert len(server.requests) == 64


def test_the_test_server_sends_chat_completions() -> None:
    assert b'"object": "chat.completion"' in completion("a b")


def test_connections_are_reused_after_answers_failures_and_cancelled_requests() -> None:
    def script(body: dict[str, Any], index: int) -> Reply:
        return {0: Reply(status=500), 1: Reply(body=b"{"), 2: Reply(delay=600)}.get(index, Reply(delay=0.05))

    async def run(chat: ChatClient) -> list[Completion]:
        first = await chat([HELLO])
        slow = asyncio.ensure_future(chat([HELLO]))
        while len(server.requests) < 3:
            await asyncio.sleep(0.01)
        slow.cancel()
        rest = [answer for _ in range(3) for answer in await chat([HELLO] * 8)]
        await chat.aclose()
        return [*first, *rest]

    with chat_server(script) as server:
        answers = asyncio.run(run(client(server, retries=1)))
        assert [bool(answer.error) for answer in answers] == [True] + [False] * 24
        assert len(server.requests) == 27
        assert len(server.clients) <= 10


@pytest.mark.parametrize("place", ["http://a..b/v1", "http://[b", "file:///etc/passwd", "/v1/chat/completions"])
def test_a_redirect_to_an_invalid_url_is_tried_again(place: str) -> None:
    with chat_server(Reply(status=307, body=b"", headers={"location": place})) as server:
        (answer,) = ask(client(server))
    assert "given up after 3 tries" in answer.error


def test_an_invalid_host_name_is_tried_again() -> None:
    (answer,) = ask(client("http://a..b/v1"))
    assert "given up after 3 tries" in answer.error


def environment(monkeypatch: pytest.MonkeyPatch, **proxies: str) -> None:
    """Set these proxies in the environment, and no others."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for spelling in (name, name.upper()):
            monkeypatch.delenv(spelling, raising=False)
    for name, address in proxies.items():
        monkeypatch.setenv(name, address)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_server() as (address, asked), chat_server(Reply("through the proxy")) as server:
        environment(monkeypatch, **{name: address.removeprefix("http://")})  # with and without a scheme
        answers = ask(client(server), [HELLO], [HELLO])
        assert [answer.text for answer in answers] == ["through the proxy"] * 2
        assert asked == [server.url.removeprefix("http://").removesuffix("/v1")] * 2
        environment(monkeypatch, **{name: address}, no_proxy="example.org,127.0.0.1")
        (answer,) = ask(client(server))
        assert (answer.text, len(asked)) == ("through the proxy", 2)


def test_answers_are_bounded_behind_a_proxy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fapo.inference.transport, "MAX_ANSWER", 1 << 16)
    with proxy_server() as (address, asked), chat_server(Reply("and so on\n" * 30_000)) as server:
        environment(monkeypatch, http_proxy=address)
        (answer,) = ask(client(server, retries=0))
    assert "the answer is longer than" in (answer.error or ""), answer.error
    assert len(asked) == 1


@pytest.mark.parametrize(
    "address", ["ftp://user:secret@127.0.0.1", "http://user:secret@proxy:port", "socks5://user:secret@127.0.0.1:1080"]
)
def test_a_proxy_that_is_not_an_address_is_an_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        r"for 127\.0\.0\.1 is not one for HTTP: write http_proxy like http://.*, or put 127\.0\.0\.1 into no_proxy"
    )
    environment(monkeypatch, http_proxy=address)
    with pytest.raises(ConfigError, match=message) as caught:
        ask(client("http://127.0.0.1:9/v1"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("ours", [False, True], ids=["the server", "we"])
def test_connections_closed_between_requests_cost_no_try(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two training steps the event loop does not run, so it does not see that connections were closed."""

    def together(body: dict[str, Any], index: int) -> Reply:
        wait_for(lambda: len(server.requests) >= (4 if index < 4 else 8))  # so that each needs its own connection
        return Reply()

    if ours:
        monkeypatch.setattr(fapo.inference.transport, "IDLE", 0.3)
    with chat_server(together) as server:
        chat, loop = client(server, retries=0), asyncio.new_event_loop()
        for _ in range(2):
            assert [answer.error for answer in loop.run_until_complete(chat([HELLO] * 4))] == [""] * 4
            if ours:
                time.sleep(0.4)  # longer than IDLE
            else:
                server.disconnect()
                wait_for(lambda: not server.connections)
        loop.run_until_complete(chat.aclose())
        loop.close()
    assert len(server.clients) == 8


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a self-signed certificate for 127.0.0.1; its key is in the file beside it."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl to make a certificate with")
    made, key = tmp_path / "server.pem", tmp_path / "server.key"
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    kind = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    command = [openssl, *kind, *names, "-keyout", key, "-out", made]
    subprocess.run(command, check=True, capture_output=True)
    return made


def test_https_needs_a_trusted_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with chat_server(tls=context) as server:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        (refused,) = ask(client(server, retries=0))
        assert "certificate verify failed" in refused.error
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(client(server))[0].text == "ok"
    assert len(server.requests) == 1


def test_a_client_that_is_not_closed_prints_nothing() -> None:
    """A training script does not close its client, and the trainer uses it from another event loop."""
    script = """
import asyncio, sys, threading
from fapo.inference.client import ChatClient
chat = ChatClient(sys.argv[1], "tiny")
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
ask = lambda: chat([[{"role": "user", "content": "hello"}]] * 4)
for _ in range(2):
    answers = asyncio.run_coroutine_threadsafe(ask(), loop).result() + asyncio.run(ask())
    assert [answer.text for answer in answers] == ["ok"] * 8
loop.call_soon_threadsafe(loop.stop)
"""
    with chat_server() as server:
        done = subprocess.run([sys.executable, "-c", script, server.url], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
