"""What goes wrong in a cluster of real nodes, one thing after the other."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from tests.chaos.wires import BLOCKED, Weather

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from tests.chaos.clients import Load
    from tests.chaos.cluster import ChaosCluster

STORM: Final = Weather(delay=0.01, jitter=0.04, stall_share=0.05, break_share=0.003)
CALM_SECONDS: Final = 0.5


class Nemesis:
    """Does harm to a cluster, and repairs it.

    Args:
        cluster: that.
        load: tells when it serves again.
        rng: chooses whom and how long.

    Attributes:
        events: what it did, with its times.
        kills: when it killed a leader, on the monotonic clock.
    """

    def __init__(self, cluster: ChaosCluster, load: Load, rng: random.Random) -> None:
        self.events: list[str] = []
        self.kills: list[float] = []
        self._cluster = cluster
        self._load = load
        self._rng = rng
        self._began = time.monotonic()
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill the leader": self._kill_leader,
            "pause the leader": self._pause_leader,
            "cut off the leader": lambda: self._cut_leader(to=True, back=True),
            "the leader hears nobody": lambda: self._cut_leader(to=False, back=True),
            "nobody hears the leader": lambda: self._cut_leader(to=True, back=False),
            "cut the cluster in two": self._cut_in_two,
            "storm": self._storm,
            "restart a node": self._restart,
            "kill all nodes": self._kill_all,
        }

    async def strike(self, fault: str) -> None:
        """Let something go wrong, repair it, and wait until writes succeed again."""
        self.note(fault)
        await self.faults[fault]()
        await self._load.progress()
        self.note("served again")
        await asyncio.sleep(CALM_SECONDS)

    def note(self, event: str) -> None:
        self.events.append(f"{time.monotonic():.3f} ({time.monotonic() - self._began:.2f} s): {event}")

    async def _kill_leader(self) -> None:
        leader = await self._cluster.leader()
        self.kills.append(time.monotonic())
        leader.kill()
        self.note(f"killed node {leader.number}")
        await asyncio.sleep(3.0)
        await self._cluster.restart(leader)

    async def _pause_leader(self) -> None:
        leader = await self._cluster.leader()
        leader.pause()
        self.note(f"paused node {leader.number}")
        await asyncio.sleep(self._rng.uniform(1.5, 3.0))
        leader.go_on()

    async def _cut_leader(self, *, to: bool, back: bool) -> None:
        leader = await self._cluster.leader()
        await self._cut({leader.number}, to=to, back=back)

    async def _cut_in_two(self) -> None:
        numbers = [node.number for node in self._cluster.nodes]
        await self._cut(set(self._rng.sample(numbers, len(numbers) // 2)), to=True, back=True)

    async def _cut(self, some: set[int], *, to: bool, back: bool) -> None:
        self._cluster.wires.set(self._cluster.ways(some, to=to, back=back), BLOCKED)
        self.note(f"cut off {sorted(some)}")
        await asyncio.sleep(self._rng.uniform(2.0, 3.0))
        self._cluster.wires.heal()

    async def _storm(self) -> None:
        numbers = [node.number for node in self._cluster.nodes]
        self._cluster.wires.set([(one, other) for one in numbers for other in numbers], STORM)
        await asyncio.sleep(2.5)
        self._cluster.wires.heal()

    async def _restart(self) -> None:
        node = self._rng.choice(self._cluster.nodes)
        await node.stop()
        self.note(f"stopped node {node.number}")
        await self._cluster.restart(node)

    async def _kill_all(self) -> None:
        for node in self._cluster.nodes:
            node.kill()
        await asyncio.gather(*(self._cluster.restart(node) for node in self._cluster.nodes))
