"""What tests share: real servers, real nodes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY = re.compile(r"ready: resp (\S+), cluster (\S+), admin (\S+?)(?:;|$)")
START_SECONDS = 30.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the long tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="a long run: give --long"))


def program(name: str, package: str) -> str:
    """Return a program's path; where it is missing, skip the test, in CI fail it."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian package {package})"
        if os.environ.get("HYPERCACHE_REQUIRE_SERVERS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def wait_until(condition: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> None:
    """Wait for a condition; fail at a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NodeProcess:
    """A real node."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.log = directory / "log"
        self._options = options
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "hypercache", "node"]
        command += ["--data-dir", str(self.directory / "data"), *self._options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.directory)

    def wait_ready(self) -> NodeProcess:
        deadline = time.monotonic() + START_SECONDS
        while (match := READY.search(self.log.read_text())) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the node did not get ready:\n{self.log.read_text()}")
            time.sleep(0.02)
        self.resp, self.cluster, self.admin = match.groups()
        return self

    @property
    def resp_port(self) -> int:
        return int(self.resp.rpartition(":")[2])

    @property
    def cluster_port(self) -> int:
        return int(self.cluster.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Return a function that starts nodes; they end with the test."""
    nodes: list[NodeProcess] = []

    def start(*options: str, name: str | None = None, resp: str = "0", listen: str = "0") -> NodeProcess:
        directory = tmp_path / (name or f"node{len(nodes)}")
        node = NodeProcess(directory, "--resp", resp, "--listen", listen, "--admin", "off", *options)
        nodes.append(node)
        return node.wait_ready()

    yield start
    for node in nodes:
        if node.process.poll() is None:
            node.kill()


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """Start a real redis-server; return its port."""
    server = program("redis-server", "redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    wait_until(answers, what="redis-server")
    yield port
    process.terminate()
    process.wait(10)
