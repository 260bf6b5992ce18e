"""redis-benchmark's SET and GET at several pipeline depths, against redis-server."""

from __future__ import annotations

import re
import subprocess
from statistics import median

from benchmarks.processes import CLIENT_CORE, Server, node, pinned, redis_server
from benchmarks.report import Row

WANTED = {1: 0.65, 16: 0.55, 100: 0.5}
_REQUESTS = {1: 60_000, 16: 300_000, 100: 600_000}
_RATE = re.compile(r"(SET|GET): ([\d.]+) requests per second")


def run(rounds: int, quick: bool) -> list[Row]:
    """Return a row a depth and command."""
    rows = []
    with redis_server() as redis, node() as ours:
        for depth, wanted in WANTED.items():
            requests = _REQUESTS[depth] // (10 if quick else 1)
            rates: dict[tuple[str, str], list[float]] = {}
            cpu: dict[str, list[float]] = {}
            for _ in range(rounds):
                for server in (redis, ours):
                    before = server.cpu_seconds()
                    for command, rate in _measure(server, depth, requests).items():
                        rates.setdefault((server.name, command), []).append(rate)
                    cpu.setdefault(server.name, []).append((server.cpu_seconds() - before) / (2 * requests) * 1e6)
            for command in ("SET", "GET"):
                theirs, own = (median(rates[name, command]) for name in (redis.name, ours.name))
                rows.append(Row(f"{command} -P {depth}, requests/s", own, theirs, own / theirs, wanted))
            theirs, own = median(cpu[redis.name]), median(cpu[ours.name])
            rows.append(Row(f"-P {depth}, CPU µs a request (redis/ours)", own, theirs, theirs / own if own else 0.0, None))
    return rows


def _measure(server: Server, depth: int, requests: int) -> dict[str, float]:
    command = ["redis-benchmark", "-p", str(server.port), "-t", "set,get", "-c", "50", "-r", "100000", "-d", "64"]
    command += ["-P", str(depth), "-n", str(requests), "-q"]
    output = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True).stdout
    return {name: float(rate) for name, rate in _RATE.findall(output)}
