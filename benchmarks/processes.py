"""Starting, pinning and watching the processes that are measured."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER_CORE = 0
CLIENT_CORE = min(1, (os.cpu_count() or 1) - 1)
_READY = re.compile(r"ready: resp \S+:(\d+), cluster \S+?(?::(\d+))?,")


class Server:
    """A running server: its port for clients, and for a node also the one for peers."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, cluster_port: int = 0) -> None:
        self.name = name
        self.port = port
        self.cluster_port = cluster_port
        self._process = psutil.Process(process.pid)

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """Return the process' resident memory."""
        return int(self._process.memory_info().rss)


def pinned(core: int, command: list[str]) -> list[str]:
    """Return a command that runs on one core."""
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command


@contextlib.contextmanager
def redis_server() -> Iterator[Server]:
    """Run a redis-server without persistence."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _running(pinned(SERVER_CORE, command), Path("/dev/null")) as process:
        wait_for(lambda: answers(port), "redis-server")
        yield Server("redis-server", process, port)


@contextlib.contextmanager
def node(*options: str) -> Iterator[Server]:
    """Run a HyperCache node."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "-n", "--pidfile=", "hypercache", "node", "--resp", "0", "--listen", "0", "--admin", "off"]
        with _running(pinned(SERVER_CORE, [*command, "--data-dir", f"{directory}/data", *options]), log) as process:
            wait_for(lambda: _READY.search(log.read_text()), "the node")
            match = _READY.search(log.read_text())
            assert match
            yield Server("hypercache", process, int(match[1]), int(match[2] or 0))


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Say whether somebody listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for(condition: object, what: str) -> None:
    """Wait until a condition is true; end the run where that takes too long."""
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not start")
        time.sleep(0.02)
