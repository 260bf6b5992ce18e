"""Real nodes while leaders are killed, paused, cut off and restarted: what clients see is linearizable, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

import pytest

from hypercache.testing.histories import Outcome, encode_history
from hypercache.testing.linearizability import find_violation
from tests.chaos.clients import LOG_KEY, Connection, Load, each_of, is_write, longest_gap, lost_or_doubled
from tests.chaos.cluster import ChaosCluster, eventually
from tests.chaos.nemesis import Nemesis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hypercache.testing.histories import Operation

pytestmark = pytest.mark.process

LEADERLESS_MAX_SECONDS: Final = 3.0
STORE: Final = "bank"
SHORT: Final = {
    3: ("kill the leader", "pause the leader", "cut off the leader", "the leader hears nobody"),
    5: ("kill the leader", "nobody hears the leader", "cut the cluster in two", "storm", "restart a node"),
}


async def create(cluster: ChaosCluster, store: str) -> None:
    """Make a store of level raft, and wait until every node has it."""
    connection = Connection(cluster.nodes[0].resp_at)
    await connection.open()
    assert await connection.ask("HYPERCACHE.STORE", "CREATE", store, "LEVEL", "raft") == b"OK"
    connection.close()
    for node in cluster.nodes:
        connection = Connection(node.resp_at)
        await connection.open()

        async def has_it(connection: Connection = connection) -> bool:
            return store.encode() in await connection.ask("HYPERCACHE.STORE", "LIST")

        await eventually(has_it, 10, f"the store at node {node.number}")
        connection.close()


async def suffer(cluster: ChaosCluster, size: int, rng: random.Random, seconds: float) -> tuple[list[Operation], Nemesis, Load]:
    """Load a cluster while things go wrong, for so many seconds or once through the short list; then read all at every node."""
    await cluster.start(size)
    await create(cluster, STORE)
    load = Load([node.resp_at for node in cluster.nodes], STORE, rng, clients=2 * size + 2)
    nemesis = Nemesis(cluster, load, rng)
    load.start()
    await load.progress()
    deadline = time.monotonic() + seconds
    for fault in SHORT[size]:
        await nemesis.strike(fault)
    while time.monotonic() < deadline:
        await nemesis.strike(rng.choice(list(nemesis.faults)))
    await load.stop()
    await cluster.settled()
    await load.read_all()
    return load.history.operations(), nemesis, load


def judge(operations: Sequence[Operation], nemesis: Nemesis, load: Load, told: str) -> None:
    """Hold what was recorded to what is promised."""
    assert not load.surprises, f"{load.surprises[:5]}{told}"
    violation = find_violation(operations)
    assert violation is None, f"{violation}{told}"
    final = next(each for each in reversed(operations) if each.key == LOG_KEY)
    assert not (wrong := lost_or_doubled(operations, final.result or b"")), f"{wrong}{told}"
    for kill in nemesis.kills:
        gap = longest_gap(operations, kill, kill + LEADERLESS_MAX_SECONDS + 1)
        assert gap <= LEADERLESS_MAX_SECONDS, f"{gap:.2f} s without a write after a kill{told}"


@pytest.mark.parametrize(
    ("size", "seconds"),
    [(3, 0.0), (5, 0.0), pytest.param(3, 60.0, marks=pytest.mark.long), pytest.param(5, 60.0, marks=pytest.mark.long)],
)
def test_a_raft_store_is_linearizable_and_loses_nothing_whatever_goes_wrong(tmp_path: Path, size: int, seconds: float) -> None:
    seed = random.SystemRandom().getrandbits(32)
    rng = random.Random(seed)

    async def run() -> None:
        async with ChaosCluster(tmp_path, rng) as cluster:
            try:
                operations, nemesis, load = await suffer(cluster, size, rng, seconds)
            except BaseException as error:
                raise AssertionError(f"seed {seed}: {error!r}\n{cluster.logs()}") from error
            (tmp_path / "history").write_bytes(encode_history(operations))
            (tmp_path / "events").write_text("\n".join(nemesis.events))
            told = f"\nseed {seed}, the history is in {tmp_path}\n" + "\n".join(nemesis.events)
            judge(operations, nemesis, load, told)
            assert each_of(operations, Outcome.OK, is_write) > 200 * len(nemesis.kills), f"hardly anything was written{told}"

    asyncio.run(run())
