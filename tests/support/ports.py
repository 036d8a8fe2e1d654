"""Ports on 127.0.0.1 for servers of other processes, and addresses without a server."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a free port that no other process gets before it is used.

    The system gives ports from 32768 on to sockets that name none, and so to servers and clients of tests that run at
    the same time. This one is below them, and drawn at random.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def dead_url() -> str:
    """Return the base URL of a port on which no server runs, and which no other program will take by chance."""
    return f"http://127.0.0.1:{free_port()}/v1"
