"""The TLS of one connection: one piece a read, one write an answer, and handshakes that never finish."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from hypercache.limits import REPORTS_MAX_COUNT, REPORTS_SECONDS, TLS_HANDSHAKE_SECONDS, TLS_WRITE_BYTES
from hypercache.net.tls import PortTLS
from tests.certificates import TestAuthority
from tests.net.peers import peer_factory
from tests.net.sockets import Doors, Remote, until
from tests.net.tls_remotes import PLACE, Near, Nears, One, context, dial, dial_with, logged

if TYPE_CHECKING:
    from pathlib import Path

    from hypercache.net.lean import LeanReactor
    from tests.certificates import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return TestAuthority(tmp_path).node(1)


class Sink(StringTransport):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def take(self) -> bytes:
        taken = b"".join(self.writes)
        self.writes.clear()
        return taken


class Quiet(Near):
    """Reads, and says nothing."""

    def dataReceived(self, data: bytes) -> None:
        self.reads.append(data)


class Pair:
    """Both ends in memory: what goes between them goes when the test says so."""

    def __init__(self, files: Files, near: Near) -> None:
        tls = PortTLS(files.settings(), "cluster_tls", clock=Clock(), dials=True)
        self.near, self.far = near, Quiet()
        self.near_end = tls.server(One(near)).buildProtocol(None)
        self.far_end = tls.client(One(self.far), "localhost").buildProtocol(None)
        self.near_wire, self.far_wire = Sink(), Sink()
        self.far_end.makeConnection(self.far_wire)
        self.near_end.makeConnection(self.near_wire)

    def shake_hands(self) -> Pair:
        while (forth := self.far_wire.take()) or self.near_wire.writes:
            if forth:
                self.near_end.dataReceived(forth)
            if back := self.near_wire.take():
                self.far_end.dataReceived(back)
        return self


def test_the_records_of_one_read_arrive_as_one_piece_and_are_answered_with_one_write(files: Files) -> None:
    pair = Pair(files, Near()).shake_hands()
    for _ in range(10):
        pair.far.transport.write(b"0123456789" * 1000)
    pair.near_end.dataReceived(pair.far_wire.take())
    assert pair.near.reads == [b"0123456789" * 10_000]
    assert len(pair.near_wire.writes) == 1
    pair.far_end.dataReceived(pair.near_wire.take())
    assert pair.far.reads == pair.near.reads


def test_a_record_in_pieces_arrives_when_it_is_whole(files: Files) -> None:
    pair = Pair(files, Near()).shake_hands()
    pair.far.transport.writeSequence([b"ab", b"cd"])
    for byte in pair.far_wire.take():
        pair.near_end.dataReceived(bytes([byte]))
    assert pair.near.reads == [b"abcd"]


def test_a_long_write_leaves_in_steps_that_bound_its_memory(files: Files) -> None:
    pair = Pair(files, Near()).shake_hands()
    value = hashlib.sha256(b"seed").digest() * (4 * TLS_WRITE_BYTES // 32) + b"tail"
    pair.near.transport.write(value)
    assert len(pair.near_wire.writes) == 5
    assert max(map(len, pair.near_wire.writes)) < TLS_WRITE_BYTES * 1.01
    pair.far_end.dataReceived(pair.near_wire.take())
    assert b"".join(pair.far.reads) == value


def test_what_is_written_before_the_handshake_leaves_behind_it_in_order(files: Files) -> None:
    pair = Pair(files, Near())
    value = bytes(range(256)) * 256
    pair.near.transport.write(b"first")
    pair.near.transport.write(value)
    pair.near.transport.write(b"last")
    pair.shake_hands()
    assert b"".join(pair.far.reads) == b"first" + value + b"last"


def test_data_behind_the_end_of_the_handshake_in_one_read_is_not_lost_nor_is_the_listeners_own_part_held_back(files: Files) -> None:
    pair = Pair(files, Quiet())
    pair.near_end.dataReceived(pair.far_wire.take())
    pair.far_end.dataReceived(pair.near_wire.take())
    pair.far.transport.write(b"early")
    pair.near_end.dataReceived(pair.far_wire.take())
    assert pair.near.reads == [b"early"]
    assert pair.near_wire.writes, "the tickets of TLS 1.3 have left"


def test_nothing_is_handed_over_after_an_abort(files: Files) -> None:
    class Aborting(Near):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.abortConnection()

    pair = Pair(files, Aborting()).shake_hands()
    pair.far.transport.write(b"one")
    pair.near_end.dataReceived(pair.far_wire.take())
    pair.far.transport.write(b"two")
    pair.near_end.dataReceived(pair.far_wire.take())
    assert pair.near.reads == [b"one"]


def test_a_record_that_was_changed_on_the_way_ends_the_connection_behind_what_was_sound(files: Files) -> None:
    pair = Pair(files, Near()).shake_hands()
    pair.far.transport.write(b"sound")
    sound = pair.far_wire.take()
    pair.far.transport.write(b"changed")
    changed = bytearray(pair.far_wire.take())
    changed[-1] ^= 1
    address = IPv4Address("TCP", "192.0.2.1", 9)
    pair.near_wire.peerAddr = address
    with logged() as lines:
        pair.near_end.dataReceived(sound + bytes(changed))
        assert pair.near_wire.disconnecting
        pair.near_end.connectionLost(Exception("unused"))
    assert pair.near.reads == [b"sound"]
    assert lines == ["cluster_tls: TLS with 192.0.2.1:9 failed: a record was changed on the way"]


@pytest_twisted.ensureDeferred
async def test_megabytes_go_both_ways_over_lean_connections(doors: Doors, lean: LeanReactor, files: Files) -> None:
    tls = PortTLS(files.settings(), "cluster_tls", clock=reactor, dials=True)
    port = await doors.listen(PLACE, tls.server(Nears()), lean)
    remote = await dial(doors, port, tls)
    value = hashlib.sha256(b"seed").digest() * (1 << 18)
    remote.transport.write(value)
    assert await remote.take(len(value)) == value


@pytest_twisted.ensureDeferred
async def test_how_much_is_read_at_once_is_the_sockets_own(doors: Doors, lean: LeanReactor, files: Files) -> None:
    tls = PortTLS(files.settings(), "cluster_tls", clock=reactor, dials=True)
    nears = Nears()
    port = await doors.listen(PLACE, tls.server(nears), lean)
    remote = await dial(doors, port, tls)
    remote.transport.write(b"x")
    await remote.take(1)
    (near,) = nears.made
    near.transport.bufferSize = 4096
    assert near.transport.transport.bufferSize == near.transport.bufferSize == 4096
    remote.transport.write(bytes(100_000))
    await remote.take(100_000)
    # A record is handed over when its last piece has come.
    assert 4096 < max(map(len, near.reads)) <= 4096 + (1 << 14)


# Handshakes that do not finish


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_takes_too_long_ends_with_one_line(doors: Doors, lean: LeanReactor, files: Files) -> None:
    clock = Clock()
    tls = PortTLS(files.settings(), "resp_tls", clock=clock)
    port = await doors.listen(PLACE, tls.server(Nears()), lean)
    silent, slow = await doors.dial(port), await doors.dial(port)
    # The first bytes of a ClientHello, and no more.
    slow.transport.write(b"\x16\x03\x01\x02\x00\x01\x00")
    await until(lambda: len(tls.handshakes) == 2)
    clock.advance(TLS_HANDSHAKE_SECONDS - 0.1)
    assert len(tls.handshakes) == 2
    with logged("did not finish") as lines:
        clock.advance(0.1)
        await until(lambda: silent.lost and slow.lost)
    ends = [line.partition(" failed: ")[2] for line in lines]
    assert ends == [f"it did not finish its TLS handshake within {TLS_HANDSHAKE_SECONDS:g} s"] * 2
    assert tls.failures == 2
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_finishes_is_left_alone(doors: Doors, lean: LeanReactor, files: Files) -> None:
    clock = Clock()
    tls = PortTLS(files.settings(), "resp_tls", clock=clock)
    port = await doors.listen(PLACE, tls.server(Nears()), lean)
    remote = await dial_with(doors, port, context(files, files))
    remote.transport.write(b"x")
    await remote.take(1)
    assert not clock.getDelayedCalls()
    clock.advance(10 * TLS_HANDSHAKE_SECONDS)
    remote.transport.write(b"y")
    assert await remote.take(1) == b"y"


@pytest_twisted.ensureDeferred
async def test_of_too_many_handshakes_the_oldest_ends_and_others_are_served(doors: Doors, lean: LeanReactor, files: Files) -> None:
    tls = PortTLS(files.settings(), "resp_tls", clock=reactor, handshakes_max=10)
    port = await doors.listen(PLACE, tls.server(Nears()), lean)
    halves: list[Remote] = []
    with logged("shake hands") as lines:
        for _ in range(30):
            halves.append(await doors.dial(port))
            await until(lambda: len(tls.handshakes) + tls.handshakes.dropped == len(halves))
        remote = await dial_with(doors, port, context(files, files))
        remote.transport.write(b"x")
        await remote.take(1)
        await until(lambda: sum(half.lost for half in halves) == 21)
    assert [half.lost for half in halves] == [True] * 21 + [False] * 9
    assert (tls.handshakes.dropped, len(tls.handshakes), len(lines)) == (21, 9, 21)
    assert lines[0].endswith("more than 10 connections shake hands, and it is the oldest")


@pytest_twisted.ensureDeferred
async def test_the_clusters_links_bound_their_handshakes_themselves(doors: Doors, lean: LeanReactor, files: Files) -> None:
    tls = PortTLS(files.settings(), "cluster_tls", clock=reactor)
    peers = peer_factory()
    port = await doors.listen(PLACE, tls.server(peers), lean)
    await doors.dial(port)
    await until(lambda: peers.links)
    assert len(tls.handshakes) == 0


def test_of_a_flood_of_failures_the_log_has_the_beginning_and_the_count_all(files: Files) -> None:
    clock = Clock()
    tls = PortTLS(files.settings(), "resp_tls", clock=clock)
    factory: Any = tls.server(Nears())
    address = IPv4Address("TCP", "192.0.2.1", 9)

    def flood() -> list[str]:
        with logged("TLS") as lines:
            for _ in range(1000):
                factory.report(address, "it is at fault")
        return lines

    lines = flood()
    assert lines[0] == "resp_tls: TLS with 192.0.2.1:9 failed: it is at fault"
    assert len(lines) == REPORTS_MAX_COUNT + 1
    assert lines[-1].startswith(f"more than {REPORTS_MAX_COUNT} TLS failures at resp_tls within ")
    assert flood() == []
    clock.advance(REPORTS_SECONDS)
    assert len(flood()) == REPORTS_MAX_COUNT + 1
    assert tls.failures == 3000
