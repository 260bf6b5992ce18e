"""Three nodes exchange very many messages, with all layers on and with each off."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from hypercache.wire import Extension
from hypercache.wire.messages import Heartbeat, HeartbeatResponse, ReplicateData, ReplicateResponse
from hypercache.wire.tracing import root
from tests.certificates import TestAuthority
from tests.links.messages import Probe, reply
from tests.links.nodes import CLUSTER, LinkedNode, Nodes, credential, hmac, joining, linked
from tests.net.sockets import until

if TYPE_CHECKING:
    from hypercache.net.link import PeerLink

MESSAGES = 100_000
IN_FLIGHT = 300
KINDS = 3
LONG_DATA = b"a line that occurs again and again, " * 60
DONE = ReplicateResponse(0, 0)


class Exchange:
    """What one node asks another, so much at a time.

    Args:
        link: the link.
        node_id: of who asks.
        count: how many messages, of all kinds in turn.
        traced: whether each carries a trace.

    Attributes:
        sent: by class.
        answered: how many answers were right.
        wrong: those that were not.
    """

    def __init__(self, link: PeerLink, node_id: int, count: int, *, traced: bool) -> None:
        self.sent: Counter[str] = Counter()
        self.answered = 0
        self.wrong: list[Any] = []
        self._link = link
        self._node_id = node_id
        self._left = count
        self._traced = traced
        self._rng = random.Random(node_id)
        self._asked: dict[int, Any] = {}
        self._hlc = int(time.time() * 1000) << 16
        for _ in range(min(IN_FLIGHT, count)):
            self._ask()

    @property
    def is_over(self) -> bool:
        return not self._left and not self._asked

    def _ask(self) -> None:
        self._left -= 1
        number = self._left
        message: Any
        answer: Any
        trace = root(self._rng, 1) if self._traced else None
        extension = Extension(trace=trace) if trace is not None else None
        if number % KINDS == 0:
            message, answer = Heartbeat(self._node_id, number, 1), HeartbeatResponse(number, 0)
        elif number % KINDS == 1:
            message, answer = ReplicateData(1, 0, "", b"%d:%d" % (self._node_id, number % 1000), b"v%d" % number), DONE
            extension = Extension(stamp=(self._hlc + number) << 64 | self._node_id, trace=trace)
        else:
            message = Probe(self._node_id, number, LONG_DATA if number % 10 == 0 else b"d%d" % number)
            answer = reply(message)
        self.sent[type(message).__name__] += 1
        self._asked[self._link.ask(message, self._take, timeout=60, extension=extension)] = answer

    def _take(self, number: int, answer: Any) -> None:
        if answer == self._asked.pop(number):
            self.answered += 1
        else:
            self.wrong.append(answer)
        if self._left:
            self._ask()


async def three(nodes: Nodes, *overrides: str, tls: bool = True) -> list[LinkedNode]:
    """Return three nodes that are linked."""
    settings = [*hmac(nodes.directory / "keys", credential()), f"cluster.id={CLUSTER}", "compression.codec=zstd"]
    settings += ["rate.per_second=10000000", "rate.burst=1000000", *overrides]
    authority = TestAuthority(nodes.directory / "ca") if tls else None
    made: list[LinkedNode] = []
    for node_id in (1, 2, 3):
        join = [joining(made[0])] if made else []
        certificate = authority.node(node_id).settings() if authority is not None else None
        made.append(await nodes.start(node_id, *settings, *join, tls=certificate))
    await linked(*made)
    # The full copies are over, so that what is counted is the test's alone.
    await until(lambda: all(len(node.replicator.feeds) == 2 and node.is_level for node in made))
    return made


async def exchange(made: list[LinkedNode], count: int, *, traced: bool) -> None:
    """Have all nodes ask all others, and hold what was answered and handled against what was sent."""
    pairs = [(one, other) for one in made for other in made if one is not other]
    before = [len(node.handled) for node in made]
    running = {
        (one.node_id, other.node_id): Exchange(one.link_to(other), one.node_id, count // len(pairs), traced=traced)
        for one, other in pairs
    }
    await until(lambda: all(each.is_over for each in running.values()), 60)
    assert not [wrong for each in running.values() for wrong in each.wrong]
    assert sum(each.answered for each in running.values()) == count // len(pairs) * len(pairs)
    for node, start in zip(made, before, strict=True):
        handled = Counter((each.link.node_id, type(each.message).__name__) for each in node.handled[start:])
        for (source, target), each in running.items():
            if target == node.node_id:
                # Nodes beat of themselves as well.
                assert handled[source, "Heartbeat"] >= each.sent["Heartbeat"]
                assert handled[source, "ReplicateData"] == each.sent["ReplicateData"]
                assert handled[source, "Probe"] == each.sent["Probe"]
        assert node.metrics.unexpected_answers == node.metrics.links_broken == node.metrics.rate_limited == 0
        assert node.metrics.deadlines_missed == 0


@pytest_twisted.ensureDeferred
async def test_three_nodes_exchange_100000_messages_with_every_layer_on(nodes: Nodes, log: list[str]) -> None:
    made = await three(nodes)
    for node in made:
        for link in node.membership.links():
            assert link.secure
            assert len(link.layering._stack or ()) == 3
    await exchange(made, MESSAGES, traced=True)
    assert not [line for line in log if "Traceback" in line]


OFF = {
    "signing": ("security.signing=false",),
    "compression": ("compression.codec=off",),
    "rate": ("rate.per_second=0",),
    "tracing": (),
    "all": ("security.signing=false", "compression.codec=off", "rate.per_second=0"),
}


@pytest.mark.parametrize("off", [*OFF, "tls"])
@pytest_twisted.ensureDeferred
async def test_three_nodes_exchange_messages_with_a_layer_off(nodes: Nodes, off: str, request: pytest.FixtureRequest) -> None:
    made = await three(nodes, *OFF.get(off, ()), tls=off != "tls")
    layers = {"all": 0, "tls": 3, "tracing": 3}.get(off, 2)
    for node in made:
        for link in node.membership.links():
            assert len(link.layering._stack or ()) == layers
    # A tenth suffices for what a layer that is missing may break; all of it would take minutes where the suite must not.
    count = MESSAGES if request.config.getoption("--long") else MESSAGES // 10
    await exchange(made, count, traced=off not in ("tracing", "all"))
