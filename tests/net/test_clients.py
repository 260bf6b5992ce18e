"""The RESP door over real sockets, and over memory where a clock must be advanced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from hypercache.limits import OUTPUT_PIECE_BYTES
from hypercache.net.clients import ClientFactory
from tests.net.door import FULL, bulk, client_factory, request
from tests.net.sockets import Doors, Remote, turns, until, write_certificate

if TYPE_CHECKING:
    from pathlib import Path

    from hypercache.net.lean import LeanReactor

PLACE = "tcp:0:interface=127.0.0.1"
MIB = 1 << 20
old_certificates = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL (X509|PKey) objects:DeprecationWarning")


class Wire(StringTransport):
    """A transport of memory that counts its writes, fills up when told to, and ends as a connection does."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []
        self.full = False
        self.aborted = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        self.writes.append(len(data))
        super().write(data)
        if self.full and self.producer is not None:
            self.producer.pauseProducing()

    def drain(self) -> None:
        """Take one piece off a full transport."""
        assert self.producer is not None
        self.producer.resumeProducing()

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


def connected(factory: ClientFactory) -> tuple[Any, Wire]:
    client: Any = factory.buildProtocol(None)
    wire = Wire()
    client.makeConnection(wire)
    return client, wire


def store_of(factory: ClientFactory) -> Any:
    return factory.server.keyspace.by_index(0)


@pytest.mark.parametrize("place", [PLACE, "tcp6:0:interface=\\:\\:1"])
@pytest_twisted.ensureDeferred
async def test_commands_are_served_over_ipv4_and_ipv6(doors: Doors, lean: LeanReactor, place: str) -> None:
    factory = client_factory()
    port = await doors.listen(place, factory, lean)
    remote = await doors.dial(port)
    remote.transport.write(request(b"SET", b"k", b"v") + request(b"GET", b"k"))
    assert await remote.take(12) == b"+OK\r\n$1\r\nv\r\n"
    (client,) = factory
    assert client.transport.getTcpNoDelay()
    assert client.transport.getTcpKeepAlive()


def test_a_pipeline_is_answered_in_one_write() -> None:
    client, wire = connected(client_factory(Clock()))
    client.dataReceived(request(b"PING") * 500)
    assert wire.value() == b"+PONG\r\n" * 500
    assert len(wire.writes) == 1


def test_a_command_that_comes_by_single_bytes_is_run_once_whole() -> None:
    client, wire = connected(client_factory(Clock()))
    for byte in request(b"SET", b"k", b"v"):
        assert wire.value() == b""
        client.dataReceived(bytes([byte]))
    assert wire.value() == b"+OK\r\n"


@pytest_twisted.ensureDeferred
async def test_64_mib_go_both_ways_and_others_are_served_meanwhile(doors: Doors, lean: LeanReactor) -> None:
    factory = client_factory()
    port = await doors.listen(PLACE, factory, lean)
    big, other = await doors.dial(port), await doors.dial(port)
    value = bytes(range(256)) * (256 * 1024)
    big.transport.write(request(b"SET", b"big", value))
    other.transport.write(request(b"PING"))
    assert await other.take(7) == b"+PONG\r\n"
    assert await big.take(5) == b"+OK\r\n"
    assert store_of(factory).get(b"big") == value
    big.transport.write(request(b"GET", b"big"))
    other.transport.write(request(b"PING"))
    assert await other.take(7) == b"+PONG\r\n"
    assert await big.take(len(bulk(value))) == bulk(value)
    assert factory.cut == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_never_reads_is_paused_then_cut(doors: Doors, lean: LeanReactor) -> None:
    factory = client_factory(output_pause=MIB, output_max=64 * MIB, output_stall=0.3)
    store_of(factory).put(b"k", bytes(100_000))
    port = await doors.listen(PLACE, factory, lean)
    mute, other = await doors.dial(port), await doors.dial(port)
    mute.transport.pauseProducing()
    mute.transport.write(request(b"GET", b"k") * 100)
    near = next(iter(factory))
    await until(lambda: near.describe()["events"] == "")
    assert MIB < int(near.describe()["omem"]) <= 10 * MIB
    mute.transport.write(request(b"GET", b"k") * 100)
    await until(lambda: factory.cut)
    other.transport.write(request(b"PING"))
    assert await other.take(7) == b"+PONG\r\n"
    await until(lambda: len(factory) == 1)


def test_a_client_over_the_limit_of_replies_is_cut_at_once() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds, output_pause=10 * MIB, output_max=2 * MIB)
    store_of(factory).put(b"k", bytes(MIB))
    client, wire = connected(factory)
    wire.full = True
    for _ in range(2):
        client.dataReceived(request(b"GET", b"k"))
    assert not wire.aborted
    client.dataReceived(request(b"GET", b"k"))
    assert wire.aborted
    assert factory.cut == 1
    assert client.describe()["omem"] == 0


def test_one_large_reply_may_exceed_the_limit() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds, output_pause=MIB, output_max=2 * MIB)
    value = bytes(3 * MIB)
    store_of(factory).put(b"k", value)
    client, wire = connected(factory)
    wire.full = True
    client.dataReceived(request(b"GET", b"k"))
    while client.describe()["omem"]:
        wire.drain()
    assert wire.value() == bulk(value)
    assert max(wire.writes) <= OUTPUT_PIECE_BYTES
    assert not wire.aborted


def test_a_client_is_not_read_from_while_too_much_waits_and_is_again_afterwards() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds, output_pause=MIB)
    store_of(factory).put(b"k", bytes(2 * MIB))
    client, wire = connected(factory)
    wire.full = True
    client.dataReceived(request(b"GET", b"k"))
    assert wire.producerState == "paused"
    while client.describe()["omem"] > MIB:
        wire.drain()
    assert wire.producerState == "producing"


def test_a_slow_reader_that_makes_progress_is_not_cut_and_one_that_stops_is() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds, output_stall=60.0)
    store_of(factory).put(b"k", bytes(4 * MIB))
    client, wire = connected(factory)
    wire.full = True
    client.dataReceived(request(b"GET", b"k"))
    for _ in range(5):
        clock.advance(50)
        wire.drain()
    assert not wire.aborted
    clock.advance(61)
    assert wire.aborted
    assert factory.cut == 1


@pytest_twisted.ensureDeferred
async def test_a_reader_of_a_few_bytes_at_a_time_is_not_cut(doors: Doors, lean: LeanReactor) -> None:
    # Slower than what the kernel reports as room: only its own count shows that anything is read.
    factory = client_factory(output_stall=0.4)
    store_of(factory).put(b"k", bytes(16 * MIB))
    remote = await doors.dial(await doors.listen(PLACE, factory, lean))
    remote.transport.pauseProducing()
    remote.transport.bufferSize = 16 * 1024
    remote.transport.write(request(b"GET", b"k"))
    near = next(iter(factory))
    await until(lambda: near.describe()["omem"])
    end = time.monotonic() + 1.6
    while time.monotonic() < end:
        remote.transport.doRead()
        await turns(10)
    assert factory.cut == 0
    await until(lambda: factory.cut)


@pytest.mark.parametrize("blocked", [False, True])
def test_quit_closes_after_all_replies(blocked: bool) -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds)
    store_of(factory).put(b"k", bytes(MIB))
    client, wire = connected(factory)
    wire.full = blocked
    client.dataReceived(request(b"GET", b"k") + request(b"QUIT") + request(b"PING"))
    for _ in range(10 if blocked else 0):
        if wire.disconnecting:
            break
        wire.drain()
    assert wire.disconnecting
    assert wire.producer is None
    assert wire.value() == bulk(bytes(MIB)) + b"+OK\r\n"


@pytest_twisted.ensureDeferred
async def test_quit_behind_a_large_reply_ends_the_connection_of_a_slow_reader(doors: Doors, lean: LeanReactor) -> None:
    factory = client_factory()
    value = bytes(8 * MIB)
    store_of(factory).put(b"k", value)
    remote = await doors.dial(await doors.listen(PLACE, factory, lean))
    remote.transport.pauseProducing()
    remote.transport.write(request(b"GET", b"k") + request(b"QUIT"))
    await until(lambda: len(factory) and next(iter(factory)).session.closing)
    await turns(5)
    remote.transport.resumeProducing()
    await until(lambda: remote.lost)
    assert bytes(remote.data) == bulk(value) + b"+OK\r\n"
    await until(lambda: not len(factory))


@old_certificates
@pytest_twisted.ensureDeferred
async def test_tls_clients_are_served_and_quit(doors: Doors, lean: LeanReactor, tmp_path: Path) -> None:
    pem = write_certificate(tmp_path)
    factory = client_factory()
    value = bytes(4 * MIB)
    store_of(factory).put(b"k", value)
    port = await doors.listen(f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}", factory, lean)
    trust = ssl.optionsForClientTLS("localhost", ssl.Certificate.loadPEM(pem.read_bytes()))
    remote = Remote()
    await connectProtocol(wrapClientTLS(trust, HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port)), remote)
    remote.transport.write(request(b"GET", b"k") + request(b"QUIT"))
    await until(lambda: remote.lost)
    assert bytes(remote.data) == bulk(value) + b"+OK\r\n"
    await until(lambda: not len(factory))


def test_a_closing_client_that_does_not_read_its_last_replies_is_cut() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds, output_stall=60.0)
    client, wire = connected(factory)
    client.dataReceived(request(b"QUIT"))
    assert wire.disconnecting
    clock.advance(61)
    assert wire.aborted


@pytest_twisted.ensureDeferred
async def test_clients_over_the_maximum_are_told_and_closed(doors: Doors, lean: LeanReactor) -> None:
    factory = client_factory(max_clients=2)
    port = await doors.listen(PLACE, factory, lean)
    first, second = await doors.dial(port), await doors.dial(port)
    await until(lambda: len(factory) == 2)
    extra = await doors.dial(port)
    await until(lambda: extra.lost)
    assert bytes(extra.data) == FULL
    assert (factory.accepted, factory.rejected) == (3, 1)
    second.transport.loseConnection()
    await until(lambda: len(factory) == 1)
    late = await doors.dial(port)
    late.transport.write(request(b"PING"))
    assert await late.take(7) == b"+PONG\r\n"
    first.transport.write(request(b"PING"))
    assert await first.take(7) == b"+PONG\r\n"


def test_a_refused_client_that_stays_is_aborted() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds, max_clients=0, output_stall=60.0)
    client, wire = connected(factory)
    client.dataReceived(request(b"SET", b"k", b"v"))
    assert wire.value() == FULL
    assert store_of(factory).get(b"k") is None
    clock.advance(61)
    assert wire.aborted


def test_an_idle_client_is_closed_after_the_timeout_and_a_busy_one_is_not() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds, idle_timeout=10.0)
    factory.doStart()
    _, idle = connected(factory)
    client, busy = connected(factory)
    for _ in range(12):
        clock.advance(1)
        client.dataReceived(request(b"PING"))
    assert idle.disconnecting
    assert not busy.disconnecting
    factory.doStop()


def test_a_half_written_command_is_held_within_the_limit_only() -> None:
    factory = client_factory(Clock(), query_buffer=10_000)
    held, wire = connected(factory)
    held.dataReceived(b"*2\r\n$4\r\nECHO\r\n$20000\r\n" + bytes(5_000))
    assert held.describe()["qbuf"] >= 5_000
    assert not wire.disconnecting
    held.dataReceived(bytes(6_000))
    assert wire.value().startswith(b"-ERR Protocol error")
    assert wire.disconnecting


def test_a_protocol_error_is_told_after_the_replies_before_it_and_closes() -> None:
    client, wire = connected(client_factory(Clock()))
    client.dataReceived(request(b"PING") + b"*1\r\n!\r\n")
    assert wire.value() == b"+PONG\r\n-ERR Protocol error: expected '$', got '!'\r\n"
    assert wire.disconnecting


def test_a_killed_client_ends_at_once() -> None:
    factory = client_factory(Clock())
    killer, wire = connected(factory)
    victim, other = connected(factory)
    killer.dataReceived(request(b"CLIENT", b"KILL", b"ID", b"%d" % victim.session.client_id))
    assert wire.value() == b":1\r\n"
    assert other.aborted


def test_at_shutdown_replies_go_out_and_everybody_is_closed() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds)
    store_of(factory).put(b"k", bytes(MIB))
    client, slow = connected(factory)
    other, idle = connected(factory)
    slow.full = True
    client.dataReceived(request(b"GET", b"k"))
    drained: Deferred[None] = Deferred()
    factory.drain(lambda: drained.callback(None))
    assert idle.disconnecting
    assert not slow.disconnecting
    while not slow.disconnecting:
        slow.drain()
    assert slow.value() == bulk(bytes(MIB))
    client.connectionLost(None)
    assert not drained.called
    other.connectionLost(None)
    assert drained.called


def test_paused_clients_go_on_when_the_pause_ends_or_is_lifted() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds)
    admin, _ = connected(factory)
    client, wire = connected(factory)
    for lift in (False, True):
        wire.clear()
        admin.dataReceived(request(b"CLIENT", b"PAUSE", b"1000", b"WRITE"))
        client.dataReceived(request(b"PING") + request(b"SET", b"k", b"v") + request(b"GET", b"k"))
        assert wire.value() == b"+PONG\r\n"
        assert wire.producerState == "paused"
        for _ in range(10):
            clock.advance(0.02)
        assert wire.value() == b"+PONG\r\n"
        if lift:
            admin.dataReceived(request(b"CLIENT", b"UNPAUSE"))
            clock.advance(0.02)
        else:
            for _ in range(50):
                clock.advance(0.02)
        assert wire.value() == b"+PONG\r\n+OK\r\n$1\r\nv\r\n"
        assert wire.producerState == "producing"


def test_a_pause_that_becomes_one_of_writes_lets_reads_go() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds)
    admin, _ = connected(factory)
    client, wire = connected(factory)
    admin.dataReceived(request(b"CLIENT", b"PAUSE", b"10000", b"ALL"))
    client.dataReceived(request(b"GET", b"k"))
    assert wire.value() == b""
    factory.server.pause_writes_only = True
    clock.advance(0.02)
    assert wire.value() == b"$-1\r\n"


def test_waiting_out_a_pause_runs_no_command_again_and_again() -> None:
    clock = Clock()
    factory = client_factory(clock, clock.seconds)
    admin, _ = connected(factory)
    fed: list[bytes] = []
    clients = [connected(factory)[0] for _ in range(100)]
    admin.dataReceived(request(b"CLIENT", b"PAUSE", b"10000"))
    for client in clients:
        client.dataReceived(request(b"SET", b"k", b"v"))
        engine = client._engine

        class Watched:
            stalled = True

            def feed(self, data: bytes, now_ms: int, engine: Any = engine) -> bytes:
                fed.append(data)
                return bytes(engine.feed(data, now_ms))

        client._engine = Watched()
    for _ in range(100):
        clock.advance(0.02)
    assert not fed


@pytest_twisted.ensureDeferred
async def test_2000_idle_connections_cost_next_to_nothing(doors: Doors, lean: LeanReactor) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    factory = client_factory()
    port = await doors.listen(PLACE, factory, lean)
    remotes = [await doors.dial(port) for _ in range(2000)]
    await until(lambda: len(factory) == 2000)
    started = time.process_time()
    await turns(100)
    assert time.process_time() - started < 0.5
    remotes[0].transport.write(request(b"PING") * 100)
    assert await remotes[0].take(700) == b"+PONG\r\n" * 100
    for remote in remotes:
        remote.transport.abortConnection()
    await until(lambda: not len(factory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not lean.getWriters()
    assert lean.getReaders() == [port]


def test_the_counters_count() -> None:
    factory = client_factory(Clock())
    client, _ = connected(factory)
    client.dataReceived(request(b"PING"))
    assert (factory.accepted, factory.bytes_in, factory.bytes_out) == (1, len(request(b"PING")), 7)
    factory.reset_counters()
    assert (factory.accepted, factory.bytes_in, factory.bytes_out) == (0, 0, 0)
