"""The longest time that a client waits for PING while a million keys are written, evicted and expired, on small commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import redis

from benchmarks.processes import CLIENT_CORE, node, pinned
from benchmarks.report import Row

WANTED_MS = 20.0
_WRITER = """
import sys, redis
client = redis.Redis(port=int(sys.argv[1]))
for start in range(0, int(sys.argv[2]), 100):
    with client.pipeline(transaction=False) as pipe:
        for number in range(start, start + 100):
            pipe.set(b"%016d" % number, bytes(100), px=3000 + number % 3000 if number % 2 else None)
        pipe.execute()
"""


def run(rounds: int, quick: bool) -> list[Row]:
    """Return the longest wait."""
    keys = 100_000 if quick else 1_000_000
    options = ("--set", f"memory.maxmemory={keys * 200}", "--set", "memory.policy=lru")
    # The one that measures shares the machine with the writer: what it sees is an upper bound.
    mask = os.sched_getaffinity(0)
    with node(*options) as server, redis.Redis(port=server.port) as client:
        os.sched_setaffinity(0, {CLIENT_CORE})
        os.nice(-5) if os.geteuid() == 0 else None
        writer = subprocess.Popen(pinned(CLIENT_CORE, [sys.executable, "-c", _WRITER, str(server.port), str(keys)]))
        longest = 0.0
        quiet_until = 0.0
        while not quiet_until or time.monotonic() < quiet_until:
            started = time.perf_counter()
            client.ping()
            longest = max(longest, time.perf_counter() - started)
            if not quiet_until and writer.poll() is not None:
                quiet_until = time.monotonic() + 4
        os.sched_setaffinity(0, mask)
        stats = client.info("stats")
        assert stats["evicted_keys"]
        assert stats["expired_keys"]
    return [Row("longest wait for PING, ms (at most 20)", longest * 1000, WANTED_MS, longest * 1000 / WANTED_MS, 1.0, at_most=True)]
