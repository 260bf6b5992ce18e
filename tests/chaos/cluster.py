"""Real nodes with relays between them, that can be killed, paused, restarted and cut off."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.request import urlopen

import psutil

from tests.chaos.wires import Wires, owner_of
from tests.conftest import READY, NodeProcess, free_port

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

READY_SECONDS: Final = 30.0
STATUS_SECONDS: Final = 2.0
LOG_LINES_COUNT: Final = 25
SETTINGS: Final = ("cluster.reconnect_max=0.5", "cluster.connect_timeout=1")
"""Nodes find each other again soon after a cut."""


async def eventually(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.05) -> Any:
    """Wait until a condition, which may be a coroutine function, holds; return what it returned.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        await asyncio.sleep(every)


class ChaosNode(NodeProcess):
    """A node with fixed ports, whose log of each start is kept.

    Attributes:
        number: its number in the cluster, from 0.
        resp_at: its port for clients.
        starts: how often it was started.
        is_paused: it was sent SIGSTOP.
    """

    def __init__(self, directory: Path, number: int, relay_port: int, *options: str) -> None:
        self.number = number
        self.resp_at, self.cluster_at, self.admin_at = free_port(), free_port(), free_port()
        self.starts = 0
        self.is_paused = False
        ports = ("--resp", str(self.resp_at), "--listen", str(self.cluster_at), "--admin", str(self.admin_at))
        names = ("--advertise", f"127.0.0.1:{relay_port}", "--name", f"n{number}")
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        super().__init__(directory, *ports, *names, *settings, *options)

    def start(self) -> None:
        self.starts += 1
        self.log = self.directory / f"log{self.starts}"
        super().start()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def is_serving(self) -> bool:
        return self.is_alive and not self.is_paused

    async def ready(self) -> ChaosNode:
        def is_ready() -> bool:
            assert self.is_alive, f"node {self.number} ended:\n{self.log.read_text()[-4000:]}"
            return READY.search(self.log.read_text()) is not None

        await eventually(is_ready, READY_SECONDS, f"the start of node {self.number}")
        return self

    async def status(self) -> dict[str, Any] | None:
        """Return what ``hypercache status --json`` prints; None where the node says nothing."""

        def ask() -> dict[str, Any] | None:
            try:
                with urlopen(f"http://127.0.0.1:{self.admin_at}/status", timeout=STATUS_SECONDS) as page:
                    report: dict[str, Any] = json.load(page)
                    return report
            except OSError:
                return None

        return await asyncio.to_thread(ask) if self.is_serving else None

    def pause(self) -> None:
        self.is_paused = True
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.is_paused = False
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it in good order."""
        self.process.terminate()
        await eventually(lambda: not self.is_alive, 20.0, f"the end of node {self.number}")

    @property
    def rss_bytes(self) -> int:
        """The memory that it takes now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def peak_bytes(self) -> int:
        """The most memory that it took since it was started."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(text.partition("VmHWM:")[2].split()[0])


class ChaosCluster:
    """Nodes that found one cluster.

    Args:
        directory: for their data and logs.
        rng: decides on jitter and loss.
        settings: of each node, ``section.key=value``.

    Attributes:
        nodes: by number.
        wires: the network between them.
    """

    def __init__(self, directory: Path, rng: random.Random, settings: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.nodes: list[ChaosNode] = []
        self.wires = Wires(
            rng, lambda port: owner_of(port, {each.number: each.process.pid for each in self.nodes if each.is_alive})
        )
        self._options = [part for setting in settings for part in ("--set", setting)]
        self._relay_ports: list[int] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for node in self.nodes:
            if node.is_alive:
                node.kill()
        await self.wires.close()

    async def add(self) -> ChaosNode:
        """Start a node more, the first to found the cluster, any other to join it."""
        number = len(self.nodes)
        relay_port = await self.wires.relay(number, lambda: self.nodes[number].cluster_at)
        self._relay_ports.append(relay_port)
        join = [part for port in self._relay_ports[:number] for part in ("--join", f"127.0.0.1:{port}")]
        node = ChaosNode(self.directory / f"node{number}", number, relay_port, *self._options, *join)
        self.nodes.append(node)
        return await node.ready()

    async def start(self, size: int) -> None:
        """Start nodes, and wait until all of them vote."""
        for _ in range(size):
            await self.add()
        await self.settled()

    async def settled(self, seconds: float = 30.0) -> None:
        """Wait until all nodes run, know each other as up, and agree on who votes and who leads."""
        await eventually(self._is_settled, seconds, "agreement on all members", 0.2)

    async def _is_settled(self) -> bool:
        reports = [await node.status() for node in self.nodes]
        told = set()
        for report in reports:
            if report is None or not report["leader"] or report["outgoing"]:
                return False
            members = tuple((each["id"], each["state"]) for each in report["members"])
            told.add((report["leader"], tuple(report["voters"]), members))
        if len(told) != 1:
            return False
        _, voters, members = told.pop()
        wanted = len(self.nodes) if len(self.nodes) % 2 else len(self.nodes) - 1
        return len(members) == len(self.nodes) and len(voters) >= wanted and all(state == "up" for _, state in members)

    async def leader(self) -> ChaosNode:
        """Return the node that leads, once there is one."""

        async def find() -> ChaosNode | None:
            found = []
            for node in self.serving:
                report = await node.status()
                if report is not None and report["node"]["role"] == "leader":
                    found.append((report["node"]["term"], node.number))
            return self.nodes[max(found)[1]] if found else None

        leader: ChaosNode = await eventually(find, 15.0, "a leader")
        return leader

    @property
    def serving(self) -> list[ChaosNode]:
        return [node for node in self.nodes if node.is_serving]

    def ways(self, some: set[int], *, to: bool = True, back: bool = True) -> list[tuple[int, int]]:
        """Return the ways between some nodes and all others: those to the others, those back from them."""
        others = [node.number for node in self.nodes if node.number not in some]
        there = [(source, target) for source in some for target in others]
        return [*(there if to else ()), *([way[::-1] for way in there] if back else ())]

    async def restart(self, node: ChaosNode) -> None:
        """Start a node again that has ended."""
        node.start()
        await node.ready()

    def logs(self) -> str:
        """Return the ends of all logs."""
        told = []
        for path in sorted(self.directory.glob("node*/log*")):
            lines = [line for line in path.read_text().splitlines() if "GET /status" not in line]
            told += [f"--- {path.parent.name} {path.name}", *lines[-LOG_LINES_COUNT:]]
        return "\n".join(told)
