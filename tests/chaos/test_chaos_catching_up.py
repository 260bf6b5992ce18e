"""Real nodes that have nothing, or that are far behind, get level by a snapshot under load, with bounded memory on both sides."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from hypercache.testing.linearizability import find_violation
from tests.chaos.clients import Connection, Load
from tests.chaos.cluster import ChaosCluster, eventually
from tests.chaos.test_chaos_cluster import STORE, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.chaos.cluster import ChaosNode

pytestmark = pytest.mark.process

KEEP_COUNT: Final = 20
SETTINGS: Final = ("raft.snapshot_after=1mb", "raft.segment=256kb", f"raft.keep={KEEP_COUNT}")
"""Little of the log is kept, so that who is behind needs a snapshot."""

VALUE_BYTES: Final = 64
MIB: Final = 1 << 20
LEADER_GROWTH_MAX_BYTES: Final = 64 * MIB
"""What a leader may need more while it sends a snapshot, however large that is."""


class Size(msgspec.Struct, frozen=True):
    """How much is written before a node gets level.

    Attributes:
        entries: the log grows by at least so many.
        keys: the store holds so many then.
        pipeline: commands that a writer sends at once.
        writers: connections.
        seconds: how long that and getting level may take.
    """

    entries: int
    keys: int
    pipeline: int
    writers: int
    seconds: float


SMALL: Final = pytest.param(Size(200, 20_000, 100, 4, 60), id="20000 keys")
MANY_KEYS: Final = pytest.param(Size(2000, 1_000_000, 100, 6, 900), id="a million keys", marks=pytest.mark.long)
MANY_ENTRIES: Final = pytest.param(Size(1_000_000, 200_000, 1, 6, 3600), id="a million entries", marks=pytest.mark.long)


class Filling:
    """Writes keys through all nodes that serve, until the log has grown enough."""

    def __init__(self, cluster: ChaosCluster, size: Size) -> None:
        self._cluster = cluster
        self._size = size
        self._numbers = itertools.count()
        self._written = 0
        self._is_enough = False

    async def run(self) -> None:
        size = self._size
        ports = [node.resp_at for node in self._cluster.serving]
        writers = [asyncio.ensure_future(self._write(ports[at % len(ports)])) for at in range(size.writers)]
        leader = await self._cluster.leader()
        first = await committed(leader)

        async def is_enough() -> bool:
            if any(writer.done() for writer in writers):
                await asyncio.gather(*writers)
            return self._written >= size.keys and await committed(leader) >= first + size.entries

        await eventually(is_enough, size.seconds, f"{size.entries} entries more", 0.2)
        self._is_enough = True
        await asyncio.gather(*writers)

    async def _write(self, port: int) -> None:
        connection = Connection(port, STORE)
        await connection.open()
        while not self._is_enough:
            numbers = itertools.islice(self._numbers, self._size.pipeline)
            commands = [("SET", key_of(number % self._size.keys), b"v" * VALUE_BYTES) for number in numbers]
            replies = await connection.ask_many(commands)
            assert all(reply == b"OK" for reply in replies), replies
            self._written += len(commands)
        connection.close()


def key_of(number: int) -> bytes:
    return b"key:%09d" % number


async def committed(node: ChaosNode) -> int:
    """Return the commit index that a node knows."""
    report = await eventually(node.status, 10, f"a status of node {node.number}")
    return int(report["node"]["commit"])


async def watched(nodes: list[ChaosNode], work: Awaitable[Any]) -> list[int]:
    """Do work; return by how many bytes each node's memory grew at most meanwhile."""
    before = [node.rss_bytes for node in nodes]
    most = list(before)
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=0.05)
        most = [max(latest, node.rss_bytes) if node.is_alive else latest for latest, node in zip(most, nodes, strict=True)]
    await task
    return [latest - first for latest, first in zip(most, before, strict=True)]


async def level(cluster: ChaosCluster, node: ChaosNode, seconds: float) -> None:
    """Wait until a node has applied all that the leader has committed now."""
    commit = await committed(await cluster.leader())

    async def is_level() -> bool:
        report = await node.status()
        return report is not None and report["node"]["applied"] >= commit

    await eventually(is_level, seconds, f"node {node.number} at entry {commit}", 0.1)


async def holds(node: ChaosNode, count: int) -> None:
    """See that a node itself holds so many keys, and answers them."""
    connection = Connection(node.resp_at, STORE)
    await connection.open()
    facts = await connection.ask("HYPERCACHE.STORE", "INFO", STORE)
    assert int(facts[facts.index(b"keys") + 1]) >= count
    assert await connection.ask("DBSIZE") >= count
    for number in (0, count // 2, count - 1):
        assert await connection.ask("GET", key_of(number)) == b"v" * VALUE_BYTES
    connection.close()


def snapshot_index(node: ChaosNode) -> int:
    """Return up to which entry the newest snapshot on a node's disk stands for the log."""
    names = [path.name for path in (node.directory / "data" / "raft").glob("snapshot-*.hc")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def in_cluster(tmp_path: Path, test: Callable[[ChaosCluster, random.Random], Awaitable[None]]) -> None:
    seed = random.SystemRandom().getrandbits(32)
    rng = random.Random(seed)

    async def run() -> None:
        async with ChaosCluster(tmp_path, rng, SETTINGS) as cluster:
            try:
                await cluster.start(3)
                await create(cluster, STORE)
                await test(cluster, rng)
            except BaseException as error:
                raise AssertionError(f"seed {seed}: {error!r}\n{cluster.logs()}") from error

    asyncio.run(run())


def node_memory_max(count: int) -> int:
    """Return what a node may take that gets level: Python, so many small keys, a few pieces of a snapshot."""
    return 128 * MIB + 400 * count


@pytest.mark.parametrize("size", [SMALL, MANY_KEYS])
def test_an_empty_node_joins_under_load_and_gets_level_by_a_snapshot(tmp_path: Path, size: Size) -> None:
    async def test(cluster: ChaosCluster, rng: random.Random) -> None:
        await Filling(cluster, size).run()
        leader = await cluster.leader()
        assert snapshot_index(leader) > KEEP_COUNT, "the leader has the whole log yet"
        load = Load([node.resp_at for node in cluster.nodes], STORE, rng)
        load.start()
        await load.progress()

        async def join() -> None:
            await level(cluster, await cluster.add(), size.seconds)

        grown = await watched([leader], join())
        node = cluster.nodes[-1]
        report = await node.status()
        assert report is not None
        assert report["node"]["id"] in report["learners"] + report["voters"]
        await judge(cluster, load, node, size)
        assert grown[0] < LEADER_GROWTH_MAX_BYTES, f"the leader grew by {grown[0] // MIB} MiB"

    in_cluster(tmp_path, test)


@pytest.mark.parametrize("size", [SMALL, MANY_ENTRIES])
def test_a_node_far_behind_gets_level_by_a_snapshot(tmp_path: Path, size: Size) -> None:
    async def test(cluster: ChaosCluster, rng: random.Random) -> None:
        leader = await cluster.leader()
        behind = next(node for node in cluster.nodes if node is not leader)
        last = await committed(leader)
        behind.kill()
        await Filling(cluster, size).run()
        leader = await cluster.leader()
        assert snapshot_index(leader) > last + KEEP_COUNT, "the leader has all entries yet that the other lacks"
        load = Load([node.resp_at for node in cluster.serving], STORE, rng)
        load.start()
        await load.progress()

        async def come_back() -> None:
            await cluster.restart(behind)
            await level(cluster, behind, size.seconds)

        grown = await watched([leader], come_back())
        await judge(cluster, load, behind, size)
        assert grown[0] < LEADER_GROWTH_MAX_BYTES, f"the leader grew by {grown[0] // MIB} MiB"

    in_cluster(tmp_path, test)


async def judge(cluster: ChaosCluster, load: Load, node: ChaosNode, size: Size) -> None:
    """Hold a node that got level, and what clients saw meanwhile, to what is promised."""
    await load.progress()
    await load.stop()
    load.ports = [each.resp_at for each in cluster.nodes]
    await load.read_all()
    assert find_violation(load.history.operations()) is None
    assert not load.surprises
    await holds(node, size.keys)
    assert node.peak_bytes < node_memory_max(size.keys), f"the node took {node.peak_bytes // MIB} MiB"
