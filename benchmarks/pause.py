"""The longest pause of a node's loop while a million keys are written, evicted and expired."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time

import redis

from benchmarks.processes import CLIENT_CORE, SERVER_CORE, answers, free_port, pinned, wait_for
from benchmarks.report import Row

WANTED_MS = 20.0
_EXPIRY_SECONDS = 4
_WRITER = """
import sys, redis
client = redis.Redis(port=int(sys.argv[1]))
for start in range(0, int(sys.argv[2]), 100):
    with client.pipeline(transaction=False) as pipe:
        for number in range(start, start + 100):
            pipe.set(b"%016d" % number, bytes(100), px=1000 + number % 3000 if number % 2 else None)
        pipe.execute()
"""


def run(rounds: int, quick: bool) -> list[Row]:
    """Return the longest pause, as the node itself measures it."""
    keys = 100_000 if quick else 1_000_000
    overrides = (f"memory.maxmemory={keys * 200}", "memory.policy=lru")
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "benchmarks.watched_node", str(port), f"{directory}/data", *overrides]
        process = subprocess.Popen(pinned(SERVER_CORE, command), stdout=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: answers(port), "the node")
            subprocess.run(pinned(CLIENT_CORE, [sys.executable, "-c", _WRITER, str(port), str(keys)]), check=True)
            with redis.Redis(port=port) as client:
                time.sleep(_EXPIRY_SECONDS)
                stats = client.info("stats")
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert stats["evicted_keys"]
    assert stats["expired_keys"]
    longest = float(output.split()[0])
    return [Row("longest pause of the loop, ms (at most 20)", longest, WANTED_MS, longest / WANTED_MS, 1.0, at_most=True)]
