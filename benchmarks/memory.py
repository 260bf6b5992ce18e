"""A million keys of 16 bytes with values of 100: resident memory against redis-server's, and against what INFO says."""

from __future__ import annotations

import redis

from benchmarks.processes import Server, node, redis_server
from benchmarks.report import Row

WANTED = 2.5
_BATCH = 10_000


def run(rounds: int, quick: bool) -> list[Row]:
    """Return the ratio of memory, and of accounting."""
    keys = 100_000 if quick else 1_000_000
    with redis_server() as server:
        theirs, _ = _grown(server, keys)
    with node() as server:
        own, accounted = _grown(server, keys)
    return [
        Row("memory a key, bytes (at most 2.5)", own / keys, theirs / keys, own / theirs, WANTED, at_most=True),
        Row("memory accounted, of what really grew", accounted / keys, own / keys, accounted / own, None),
    ]


def _grown(server: Server, keys: int) -> tuple[int, int]:
    """Return by how much the process grew, and by how much it says it did."""
    with redis.Redis(port=server.port) as client:
        before, said = server.rss_bytes(), client.info("memory")["used_memory"]
        for start in range(0, keys, _BATCH):
            with client.pipeline(transaction=False) as pipe:
                for number in range(start, start + _BATCH):
                    pipe.set(b"%016d" % number, bytes(100))
                pipe.execute()
        return server.rss_bytes() - before, client.info("memory")["used_memory"] - said
