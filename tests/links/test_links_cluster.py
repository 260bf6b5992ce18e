"""Nodes with keys on a network of memory: what they hold becomes the same whatever an attacker does to their frames."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import ensureDeferred

from hypercache.auth.credentials import Keyring
from hypercache.auth.hmac import SharedKeyProvider
from hypercache.layers.compression import CompressionFactory
from hypercache.layers.signing import SigningFactory
from hypercache.wire.compression import Codec
from tests.auth.handshakes import key
from tests.cluster.network import EPOCH_SECONDS, Network
from tests.links.pair import flipped, frames_of
from tests.links.test_links_tampering import FORGED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hypercache.auth.credentials import NodeCredential
    from tests.cluster.network import Node, Transport

KEY = key("main", valid_from=EPOCH_SECONDS - 1000, valid_to=EPOCH_SECONDS + 1_000_000)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.close()


def keyed(net: Network, number: int, *join: Node, own: NodeCredential | None = KEY) -> Node:
    """Return a node that signs with a key, or that has none."""
    node = net.node(number, join=join)
    node.peers.layers = [SigningFactory(), CompressionFactory(Codec.ZSTD, threshold=100)]
    if own is not None:
        ring = Keyring([own])
        node.membership.provider = SharedKeyProvider(lambda: ring, node.identity.node_id, node.wall, skew=60.0)
    return node


class Tampering:
    """Changes a share of the frames, and plays a part of those that it has seen again."""

    def __init__(self, seed: int, share: float) -> None:
        self.done = 0
        self.share = share
        self._rng = random.Random(seed)
        self._seen: list[bytes] = []

    def __call__(self, transport: Transport, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        for frame in frames_of(data):
            pieces += self._changed(transport, frame)
        return pieces

    def _changed(self, transport: Transport, frame: bytes) -> list[bytes]:
        rng = self._rng
        self._seen.append(frame)
        del self._seen[:-200]
        if rng.random() >= self.share:
            return [frame]
        self.done += 1
        what = rng.randrange(8)
        if what == 0:
            return [flipped(frame, rng.randrange(8 * len(frame)))]
        if what == 1:
            return []
        if what == 2:
            return [frame, frame]
        if what == 3:
            return [rng.choice(self._seen), frame]
        if what == 4:
            return [rng.choice(list(FORGED.values())), frame]
        if what == 5:
            return [frame[: rng.randrange(1, len(frame))]]
        if what == 6:
            # To whoever sent it.
            transport.other.protocol.dataReceived(frame)
            return [frame]
        transport.end(ConnectionResetError())
        return []


def level(*nodes: Node) -> bool:
    return all(node.is_level() for node in nodes) and len({tuple(sorted(node.contents().items())) for node in nodes}) == 1


def write_for(net: Network, nodes: list[Node], seconds: float, rng: random.Random) -> None:
    for number in range(round(seconds * 20)):
        node = rng.choice(nodes)
        store = node.store()
        name = b"key%d" % rng.randrange(200)
        if rng.random() < 0.2:
            store.delete(name)
        else:
            store.put(name, b"%s=%d" % (name, number) * rng.choice((1, 50)))
        net.run(0.05)


def has_no_forgery(*nodes: Node) -> bool:
    """Whether all values are some that the test has written to that key."""
    return all(
        value.startswith(name + b"=") and name.startswith(b"key") for node in nodes for name, (value, _) in node.contents().items()
    )


def converges(net: Network, seed: int, seconds: float, share: float) -> None:
    first = keyed(net, 1)
    nodes = [first, keyed(net, 2, first), keyed(net, 3, first)]
    net.until(lambda: all(len(node.linked()) == 2 for node in nodes))
    tampering = Tampering(seed, share)
    net.change = tampering
    write_for(net, nodes, seconds, random.Random(seed))
    assert tampering.done > seconds
    assert has_no_forgery(*nodes)
    net.change = lambda transport, data: [data]
    net.until(lambda: all(len(node.linked()) == 2 for node in nodes), 60)
    net.until(lambda: level(*nodes), 60)
    assert has_no_forgery(*nodes)


def test_nodes_with_keys_link_and_level(net: Network) -> None:
    one = keyed(net, 1)
    two = keyed(net, 2, one)
    net.until(lambda: one.linked() and two.linked())
    assert all(link.decoder.only_version == 2 for node in (one, two) for link in node.membership.links())
    one.store().put(b"k", b"v")
    net.until(lambda: level(one, two))


def test_a_node_without_the_key_never_becomes_a_member(net: Network) -> None:
    one = keyed(net, 1)

    two = keyed(net, 2, one, own=key("main", valid_from=KEY.valid_from, valid_to=KEY.valid_to, seed=2))
    three = keyed(net, 3, one, own=None)
    net.run(20)
    assert not one.linked()
    assert not two.linked()
    assert not three.linked()
    assert not one.membership.members
    assert one.metrics.auth_failures > 2


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_three_nodes_converge_after_attacks_on_a_share_of_their_frames(net: Network, share: float) -> None:
    converges(net, 1, 15, share)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 16))
def test_three_nodes_converge_after_long_attacks(net: Network, seed: int) -> None:
    converges(net, seed, 200, 0.02)


def test_a_dialler_that_is_led_back_to_its_own_port_links_with_nobody_there(net: Network) -> None:
    """Whoever passes its Hello to its own port has it prove to itself that it holds the key, but it knows itself."""
    one = keyed(net, 1)
    two = keyed(net, 2, one)
    net.until(lambda: one.linked() and two.linked())
    net.listeners[one.address] = net.listeners[two.address]
    handled = two.metrics.meter(0x30).received
    outcome: list[Any] = []
    ensureDeferred(two.dialer.open(one.address, 0, base_peer=False)).addBoth(outcome.append)
    net.run(5)
    assert outcome[0].getErrorMessage() == "this is the node itself"
    assert two.linked() == {one.identity.node_id}
    assert two.metrics.meter(0x30).received == handled
