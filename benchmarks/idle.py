"""Idle connections: what one costs, and that others are served."""

from __future__ import annotations

import resource
import socket

import redis

from benchmarks.processes import node
from benchmarks.report import Row


def run(rounds: int, quick: bool) -> list[Row]:
    """Return the memory a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(500 if quick else 10_000, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    with node("--set", "resp.max_clients=20000") as server:
        before = server.rss_bytes()
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
        with redis.Redis(port=server.port) as client:
            while client.info("clients")["connected_clients"] < count + 1:
                pass
            assert client.set("k", "v")
        each = (server.rss_bytes() - before) / count
        for connection in held:
            connection.close()
    return [Row(f"{count} idle connections, bytes each", each, 0.0, 0.0, None)]
