"""Keys between nodes that link, on a network of memory and a clock that is advanced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.logger import capturedLogs, formatEvent

from hypercache.auth.credentials import Keyring, NodeCredential
from hypercache.auth.hmac import SharedKeyProvider
from hypercache.layers.signing import SigningFactory
from hypercache.limits import HEADER_BYTES
from hypercache.wire.extension import SIGNED
from hypercache.wire.header import EXTENDED_VERSION
from tests.auth.handshakes import key
from tests.cluster.network import EPOCH_SECONDS, Network, Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SKEW = 20.0


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.close()


def lasting(key_id: str, begin: float, end: float, seed: int = 1) -> NodeCredential:
    """Return a key that is valid so many seconds after the network's beginning."""
    return key(key_id, valid_from=EPOCH_SECONDS + begin, valid_to=EPOCH_SECONDS + end, seed=seed)


def keyed(net: Network, number: int, keys: list[NodeCredential], join: tuple[Node, ...] = (), ahead: float = 0.0) -> Node:
    """Return a node that holds keys, as they are in the list at any time, and whose clock is ahead by so many seconds."""
    node = net.node(number, join=join, ahead=ahead)
    node.peers.layers = [SigningFactory()]
    node.membership.provider = SharedKeyProvider(lambda: Keyring(keys), node.identity.node_id, node.wall, skew=SKEW)
    return node


def frames_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield version and payload of sound frames."""
    while data:
        end = HEADER_BYTES + int.from_bytes(data[6:10], "big")
        yield data[4], data[HEADER_BYTES:end]
        data = data[end:]


def test_nodes_with_one_key_link_and_sign(net: Network) -> None:
    keys = [lasting("a", 0, 1000)]
    one = keyed(net, 1, keys)
    two = keyed(net, 2, keys, (one,))
    net.until(lambda: one.linked() and two.linked())
    (link,) = two.membership.links()
    assert link.expires == EPOCH_SECONDS + 1000
    sent: list[bytes] = []
    write = link.transport.write

    def noted(data: bytes) -> None:
        sent.append(data)
        write(data)

    link.transport.write = noted
    two.store().put(b"k", b"v")
    net.run(1)
    assert one.store().get(b"k") == b"v"
    frames = list(frames_of(b"".join(sent)))
    assert len(frames) > 2
    assert all(version == EXTENDED_VERSION and payload[0] & SIGNED for version, payload in frames)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (lasting("b", 0, 1000), "key 'b' is unknown here"),
        (lasting("a", 0, 1000, seed=2), "its proof is wrong"),
    ],
)
def test_a_wrong_key_is_refused_late_logged_and_counted_and_the_peer_hears_no_reason(
    net: Network, others: NodeCredential, told: str
) -> None:
    one = keyed(net, 1, [lasting("a", 0, 1000)])
    with capturedLogs() as events:
        two = keyed(net, 2, [others], (one,))
        net.run(0.9)
        assert not one.metrics.auth_failures
        net.run(1)
    assert one.metrics.auth_failures == two.metrics.auth_failures == 1
    assert not one.linked()
    failures = [text for text in map(formatEvent, events) if "authentication with" in text]
    assert sum(told in text for text in failures) == 1
    assert sum("refuses this node's proof" in text for text in failures) == 1


@pytest.mark.parametrize("ahead", [-SKEW + 1, 0, SKEW - 1])
def test_keys_rotate_while_nodes_write_and_no_link_is_missing_however_clocks_differ(net: Network, ahead: float) -> None:
    keys = [lasting("old", 0, 60)]
    one = keyed(net, 1, keys, ahead=ahead)
    two = keyed(net, 2, keys, (one,))
    net.until(lambda: one.linked() and two.linked())
    (first,) = two.membership.links()
    net.run(10)
    keys.append(lasting("new", 30, 1000, seed=2))
    number = 0
    while net.clock.seconds() < 105:
        one.store().put(b"a%d" % number, b"v")
        two.store().put(b"b%d" % number, b"v")
        number += 1
        net.run(0.5)
        assert one.linked()
        assert two.linked()
    net.run(1)
    assert len(one.contents()) == 2 * number
    assert one.contents() == two.contents()
    (last,) = two.membership.links()
    assert last is not first
    assert last.expires == EPOCH_SECONDS + 1000
    assert not one.metrics.auth_failures + two.metrics.auth_failures


def test_a_link_ends_with_its_key_where_none_follows(net: Network) -> None:
    keys = [lasting("only", 0, 60)]
    one = keyed(net, 1, keys)
    two = keyed(net, 2, keys, (one,))
    net.until(lambda: one.linked() and two.linked())
    net.run(79 - net.clock.seconds())
    assert one.linked()
    with capturedLogs() as events:
        net.run(10)
    assert not one.linked()
    assert any("this node has no key that is valid now" in formatEvent(event) for event in events)
