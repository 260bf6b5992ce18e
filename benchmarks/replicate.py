"""ReplicateData of 100 bytes applied and acknowledged a second, beside redis-server's SET at -P 64."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import time
from statistics import median

from benchmarks.processes import CLIENT_CORE, node, pinned, redis_server
from benchmarks.report import Row
from hypercache.limits import HEADER_BYTES
from hypercache.wire.messages import ReplicateData, ReplicateResponse

WANTED_PER_SECOND = 300_000
_WINDOW = 20_000
_ANSWER_BYTES = HEADER_BYTES + len(ReplicateResponse(0, 0).encode_payload())


def run(rounds: int, quick: bool) -> list[Row]:
    """Return the one row."""
    messages = 40_000 if quick else 400_000
    rng = random.Random(1)
    frames = [ReplicateData(1, 0, "", b"key:%012d" % rng.randrange(100_000), bytes(66)).encode_frame() for _ in range(_WINDOW)]
    own, theirs = [], []
    mask = os.sched_getaffinity(0)
    with redis_server() as redis, node() as ours:
        for _ in range(rounds):
            os.sched_setaffinity(0, {CLIENT_CORE})
            own.append(_applied_per_second(ours.cluster_port, b"".join(frames), messages // _WINDOW))
            os.sched_setaffinity(0, mask)
            theirs.append(_redis_sets_per_second(redis.port, messages))
    return [
        Row("ReplicateData applied and acknowledged/s", median(own), median(theirs), median(own) / median(theirs), None),
        Row("… of the 300,000 a second that are wanted", median(own), WANTED_PER_SECOND, median(own) / WANTED_PER_SECOND, 1.0),
    ]


def _applied_per_second(port: int, batch: bytes, batches: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setblocking(False)
        started = time.perf_counter()
        for _ in range(batches):
            unsent = memoryview(batch)
            missing = _WINDOW * _ANSWER_BYTES
            while missing:
                if unsent:
                    try:
                        unsent = unsent[peer.send(unsent[: 1 << 18]) :]
                    except BlockingIOError:
                        time.sleep(0.0002)
                try:
                    missing -= len(peer.recv(1 << 18))
                except BlockingIOError:
                    if not unsent:
                        time.sleep(0.0002)
        return batches * _WINDOW / (time.perf_counter() - started)


def _redis_sets_per_second(port: int, requests: int) -> float:
    command = ["redis-benchmark", "-p", str(port), "-t", "set", "-c", "1", "-r", "100000", "-d", "66", "-P", "64"]
    output = subprocess.run(
        pinned(CLIENT_CORE, [*command, "-n", str(requests), "-q"]), capture_output=True, text=True, check=True
    ).stdout
    match = re.search(r"SET: ([\d.]+) requests per second", output)
    assert match
    return float(match[1])
