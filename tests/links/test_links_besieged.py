"""A node under attack by peers on real sockets: what they cost is bounded, what they hear is clear, others are served meanwhile."""

from __future__ import annotations

import contextlib
import resource
import struct
from typing import TYPE_CHECKING, Any

import lz4.frame
import msgspec
import psutil
import pytest
import pytest_twisted
import zstandard
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from hypercache.limits import KIB, MIB, STREAM_OUTBOX_MAX_COUNT, STREAM_WINDOW_COUNT
from hypercache.wire import Extension
from hypercache.wire.compression import Codec
from hypercache.wire.extension import COMPRESSED, CORRELATED, Trace
from hypercache.wire.header import HEADER, MAGIC_NUMBER
from hypercache.wire.messages import (
    AuthProof,
    AuthResult,
    GenericError,
    Goodbye,
    Heartbeat,
    HeartbeatResponse,
    ReplicateData,
    ReplicateResponse,
    StreamReset,
    WindowUpdate,
)
from tests.certificates import CLUSTER, TestAuthority
from tests.links.messages import Probe
from tests.links.nodes import LinkedNode, Nodes, credential, hmac, joining, linked
from tests.links.stranger import Stranger, approach
from tests.links.test_links_rotation import Load
from tests.net.peers import write
from tests.net.sockets import Remote, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SETTINGS = (
    f"cluster.id={CLUSTER}",
    "cluster.hello_timeout=0.5",
    "cluster.auth_timeout=0.5",
    "cluster.frame_timeout=0.5",
    "cluster.handshakes_max=100",
    "cluster.streams_max=64",
    "cluster.receive_budget=8mb",
    "compression.codec=zstd",
)
RSS_BYTES = 64 * MIB
SLOW_SECONDS = 5.0
"""What takes longer than that on a slow machine is more work than a peer may cause."""


class Siege(msgspec.Struct):
    """A node, and another one that is served by it all the time.

    Attributes:
        node: the one that is attacked.
        load: of the other.
        log: what is logged.
    """

    node: LinkedNode
    load: Load
    log: list[str]

    async def stranger(self, **fields: Any) -> Stranger:
        """Return a peer that holds the key."""
        return await (await approach(self.node, **fields)).link(credential())

    def links(self) -> int:
        """Return how many links there are beside the good one."""
        return len(self.node.peers.links) - 1

    async def ended(self, stranger: Stranger, reason: str = "") -> None:
        await until(lambda: stranger.lost)
        await until(lambda: any(reason in line for line in self.log))


@pytest_twisted.async_yield_fixture
async def siege(nodes: Nodes, log: list[str]) -> AsyncIterator[Siege]:
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys, *SETTINGS)
    two = await nodes.start(2, *keys, *SETTINGS, joining(one))
    await linked(one, two)
    made = Siege(one, Load(one, two).start(), log)
    process = psutil.Process()
    before = process.memory_info().rss
    yield made
    # Whatever the test did: the other node was answered all the time, over the one link that it had.
    await made.load.goes_on()
    await made.load.stop()
    assert not made.load.failed
    assert len(made.load.links) == 2
    assert process.memory_info().rss - before < RSS_BYTES
    assert not [line for line in log if "Traceback" in line]


async def sleep(seconds: float) -> None:
    await deferLater(reactor, seconds)


async def pushed(stranger: Stranger, data: bytes, step: int = 64 * KIB) -> None:
    """Write much, while others have their turns."""
    for at in range(0, len(data), step):
        if stranger.lost:
            return
        stranger.transport.write(data[at : at + step])
        await sleep(0)


# Frames


def bomb(codec: Codec, announced: int) -> bytes:
    zeros = bytes(48 * MIB)
    body = zstandard.ZstdCompressor().compress(zeros) if codec is Codec.ZSTD else lz4.frame.compress(zeros)
    return bytes((COMPRESSED | CORRELATED,)) + struct.pack(">I", 7) + struct.pack(">BI", codec, announced) + body


BOMBS = {
    "zstd that says what it is": (Codec.ZSTD, 48 * MIB, "exceeds the ratio of 1000"),
    "zstd that says less": (Codec.ZSTD, 2000, "is not exactly one frame of 2000 bytes"),
    "zstd that says 4 GiB": (Codec.ZSTD, (1 << 32) - 1, "exceeds the limit of"),
    "lz4 that says less": (Codec.LZ4, 2000, "is not exactly one frame of 2000 bytes"),
    "lz4 that says 4 GiB": (Codec.LZ4, (1 << 32) - 1, "exceeds the limit of"),
}


@pytest.mark.parametrize("what", BOMBS)
@pytest_twisted.ensureDeferred
async def test_a_compression_bomb_ends_its_link(siege: Siege, what: str) -> None:
    codec, announced, reason = BOMBS[what]
    stranger = await siege.stranger()
    stranger.transport.write(stranger.raw(ReplicateData.TYPE, bomb(codec, announced)))
    await siege.ended(stranger, reason)
    assert stranger.errors == [0x0100]
    assert not [each for each in siege.node.handled if each.link.node_id == 50]


@pytest.mark.parametrize("authenticated", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_length_of_4_gib_is_refused_at_its_header(siege: Siege, authenticated: bool) -> None:
    stranger = await siege.stranger() if authenticated else await approach(siege.node)
    stranger.transport.write(HEADER.pack(MAGIC_NUMBER, 2 if authenticated else 1, ReplicateData.TYPE, 0xFFFFFFFF, 0) + bytes(MIB))
    await until(lambda: stranger.errors or stranger.lost)
    assert stranger.errors[:1] == [0x0004]
    assert siege.node.peers.budget.held < MIB
    await until(lambda: stranger.lost)


@pytest.mark.parametrize("path", [tuple(range(100, 117)), (100, 101, 100)], ids=["17 hops", "a node twice"])
@pytest_twisted.ensureDeferred
async def test_a_trace_that_is_a_loop_is_refused_and_its_link_stays(siege: Siege, path: tuple[int, ...]) -> None:
    stranger = await siege.stranger()
    trace = Trace(bytes(16), bytes(16), 1, path)
    for _ in range(1000):
        stranger.send(Heartbeat(50, 1, 1), Extension(5, trace=trace))
    stranger.send(Heartbeat(50, 2, 1), Extension(6, trace=msgspec.structs.replace(trace, path=path[:1])))
    assert await stranger.said(HeartbeatResponse) == HeartbeatResponse(2, 0)
    # That is urgent, and may overtake the errors.
    await until(lambda: len(stranger.errors) >= 1000)
    assert stranger.errors == [0x0100] * 1000
    assert not stranger.lost


@pytest_twisted.ensureDeferred
async def test_nothing_of_a_forged_frame_within_a_value_is_executed(siege: Siege) -> None:
    forged = write(b"forged") * 100
    for cut in (60, 200, 1000, -1):
        stranger = await siege.stranger()
        value = stranger.frame(ReplicateData(1, 0, "", b"k", bytes(30) + forged), Extension(1))
        assert b"forged" in value
        stranger.transport.write(value[:cut])
        await until(lambda: siege.node.peers.budget.held)
        stranger.transport.loseConnection()
        await until(lambda stranger=stranger: stranger.lost)  # type: ignore[misc]
    # Its checksum damaged, the frame within comes to light, and is not looked for.
    stranger = await siege.stranger()
    damaged = bytearray(stranger.frame(ReplicateData(1, 0, "", b"k", bytes(30) + forged), Extension(1)))
    damaged[-1] ^= 1
    stranger.transport.write(bytes(damaged))
    await siege.ended(stranger)
    assert not siege.node.of(ReplicateData)


@pytest_twisted.ensureDeferred
async def test_nothing_of_a_forged_frame_within_a_value_of_a_base_peer_that_is_cut_off_is_executed(nodes: Nodes) -> None:
    one = await nodes.start(1)
    forged = write(b"forged") * 100
    value = ReplicateData(1, 0, "", b"k", bytes(30) + forged).encode_frame()
    for cut in (60, 200, 1000, len(value) - 1):
        stranger = await approach(one)
        stranger.transport.write(value[:cut])
        await until(lambda: one.peers.budget.held)
        stranger.transport.loseConnection()
        await until(lambda: not one.peers.links)
    assert not one.handled
    assert not one.peers.budget.held


@pytest.mark.parametrize("authenticated", [False, True])
@pytest_twisted.ensureDeferred
async def test_headers_within_headers_by_the_megabyte_are_bounded_work(siege: Siege, authenticated: bool) -> None:
    stranger = await siege.stranger() if authenticated else await approach(siege.node)
    clock: Any = reactor
    began = clock.seconds()
    lie = HEADER.pack(MAGIC_NUMBER, 1, Heartbeat.TYPE, 50 * KIB, 0)
    await pushed(stranger, lie * (4 * MIB // len(lie)))
    await until(lambda: stranger.lost)
    assert clock.seconds() - began < SLOW_SECONDS
    assert not siege.node.peers.budget.held


@pytest_twisted.ensureDeferred
async def test_headers_within_headers_of_a_base_peer_are_bounded_work(nodes: Nodes) -> None:
    one = await nodes.start(1)
    clock: Any = reactor
    for size in (50 * KIB, 100, 14):
        stranger = await approach(one)
        began = clock.seconds()
        lie = HEADER.pack(MAGIC_NUMBER, 1, Heartbeat.TYPE, size, 0)
        await pushed(stranger, lie * (4 * MIB // len(lie)))
        await until(lambda stranger=stranger: stranger.lost)  # type: ignore[misc]
        assert clock.seconds() - began < SLOW_SECONDS
        assert len(stranger.errors) <= 17
    assert not one.handled


@pytest_twisted.ensureDeferred
async def test_frames_that_never_become_whole_end_in_time_and_share_a_budget(siege: Siege) -> None:
    many = [await siege.stranger(node_id=60 + number) for number in range(20)]
    for each in many:
        value = each.frame(ReplicateData(1, 0, "", b"k", bytes(MIB)), Extension(1))
        each.transport.write(value[: 900 * KIB])
    await until(lambda: siege.node.peers.budget.held > 4 * MIB)
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, siege.node.peers.budget.held)
        return all(each.lost for each in many)

    await until(ended)
    assert most <= siege.node.peers.budget.limit + 64 * KIB
    assert not siege.node.peers.budget.held
    assert any("exceed the receive budget" in line for line in siege.log)
    assert any("a frame was not whole in time" in line for line in siege.log)


# Handshakes


def room_for(count: int) -> int:
    """Return how many connections, each with both ends here, the limit of open files allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    return min(count, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 300) // 2)


BATCH = 20
"""So many connections are opened at a time."""


async def half_open(node: LinkedNode, count: int, data: bytes = b"") -> list[Remote]:
    """Open very many connections, and say nothing on them, or the beginning of something."""
    made: list[Remote] = []
    while len(made) < count:
        batch = [Remote() for _ in range(min(BATCH, count - len(made)))]
        await gatherResults([connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", node.port), each) for each in batch])
        for each in batch:
            if data and not each.lost:
                each.transport.write(data)
        made += batch
    return made


@pytest.mark.parametrize("said", ["nothing", "half a Hello", "Hello"])
@pytest_twisted.ensureDeferred
async def test_of_2000_half_open_handshakes_so_many_stay_and_whoever_is_good_gets_in(siege: Siege, said: str) -> None:
    """The 100,000 of test_links_bounded need no sockets; of these there are as many as the limit of open files allows."""
    hello = Stranger(60).hello(key_id="main")
    data = {"nothing": b"", "half a Hello": hello[:40], "Hello": hello}[said]
    count = room_for(2000)
    waiting = half_open(siege.node, count, data)
    held: list[Remote] = []
    opening: Deferred[Any] = Deferred.fromCoroutine(waiting)
    opening.addCallback(held.extend)
    most = entered = 0
    while not held:
        most = max(most, siege.links())
        # Meanwhile somebody who has the key comes in; one whose handshake was dropped tries again.
        good = await approach(siege.node, node_id=70)
        with contextlib.suppress(AssertionError):
            good.transport.write(await good.greet(credential()))
            entered += (await good.said(AuthResult)).status == 0
        good.transport.abortConnection()
    assert entered
    assert most <= 100 + 2 * BATCH, "the end of those that were dropped is on its way"
    assert siege.node.metrics.handshakes_dropped >= count - 140 - siege.node.metrics.auth_failures
    await until(lambda: all(each.lost for each in held), 20)


@pytest_twisted.ensureDeferred
async def test_half_open_tls_handshakes_are_bounded_too(nodes: Nodes) -> None:
    authority = TestAuthority(nodes.directory / "ca")
    settings = (*SETTINGS, "security.auth=mtls")
    one = await nodes.start(1, *settings, tls=authority.node(1).settings())
    two = await nodes.start(2, *settings, joining(one), tls=authority.node(2).settings())
    await linked(one, two)
    load = Load(one, two).start()
    held: list[Remote] = []
    for data in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
        held += await half_open(one, 200, data)
        await until(lambda: len(one.peers.links) <= 1 + 100)
    await load.goes_on()
    three = await nodes.start(3, *settings, joining(one), tls=authority.node(3).settings())
    await until(lambda: three.has_linked(one, two))
    await until(lambda: all(each.lost for each in held))
    await load.stop()
    assert not load.failed


@pytest.mark.parametrize("said", ["nothing yet", "Hello", "the proof"])
@pytest_twisted.ensureDeferred
async def test_a_byte_at_a_time_is_too_slow(siege: Siege, said: str) -> None:
    stranger = await approach(siege.node)
    data = stranger.hello(key_id="main")
    if said == "Hello":
        data = await stranger.greet(credential())
    elif said == "the proof":
        await stranger.link(credential())
        data = stranger.frame(ReplicateData(1, 0, "", b"k", bytes(1000)), Extension(1))
    clock: Any = reactor
    began = clock.seconds()
    for byte in data:
        if stranger.lost:
            break
        stranger.transport.write(bytes((byte,)))
        await sleep(0.03)
    await until(lambda: stranger.lost)
    assert clock.seconds() - began < 2.5
    assert not [each for each in siege.node.handled if each.link.node_id == 50]


@pytest_twisted.ensureDeferred
async def test_very_many_proofs_and_greetings_at_once_are_answered_once(siege: Siege) -> None:
    for number in range(3):
        stranger = await approach(siege.node)
        if number == 0:
            stranger.transport.write(AuthProof(bytes(32)).encode_frame() * 5000)
        elif number == 1:
            stranger.transport.write(stranger.hello(key_id="main") * 2000)
        else:
            await stranger.greet(credential())
            stranger.transport.write(AuthProof(bytes(32)).encode_frame() * 5000)
        await until(lambda stranger=stranger: stranger.lost)  # type: ignore[misc]
        assert len(stranger.events) <= 2
    assert siege.node.metrics.auth_failures == 1


# Storms of one who holds the key

STORMS: dict[str, Callable[[Stranger, int], tuple[Any, Extension]]] = {
    "errors": lambda stranger, number: (GenericError(7, 0, "no"), Extension(number % 100, reply=number % 2 == 0)),
    "answers": lambda stranger, number: (ReplicateResponse(0, 0), Extension(number, reply=True)),
    "answers that are none": lambda stranger, number: (ReplicateResponse(0, 0), Extension(number)),
    "credit for no stream": lambda stranger, number: (WindowUpdate(number % 65536, 0xFFFFFFFF, 0xFFFFFFFF), Extension()),
    "ends of no stream": lambda stranger, number: (StreamReset(number % 65536, number % 5, "no"), Extension()),
    "messages of streams that it may not open": lambda stranger, number: (Heartbeat(50, 1, 1), Extension(stream=2)),
    "streams": lambda stranger, number: (Probe(1, number, b"x"), Extension(stream=(2 * number + 1) % 65536)),
}


@pytest.mark.parametrize("what", STORMS)
@pytest_twisted.ensureDeferred
async def test_a_storm_is_weathered(siege: Siege, what: str) -> None:
    stranger = await siege.stranger()
    # Answers would end streams; nobody answers.
    silent: Deferred[Any] = Deferred()
    answer = siege.node.probes.answer
    siege.node.probes.answer = lambda question: silent if question.data == b"x" else answer(question)
    count = 65_535 // 2 if what == "streams" else 20_000
    data = b"".join(stranger.frame(*STORMS[what](stranger, number)) for number in range(count))
    clock: Any = reactor
    began = clock.seconds()
    await pushed(stranger, data)
    stranger.send(Heartbeat(50, 7, 1), Extension(99))
    await until(lambda: HeartbeatResponse(7, 0) in stranger.messages)
    assert clock.seconds() - began < 2 * SLOW_SECONDS
    (link,) = [each for each in siege.node.peers.links if each.node_id == 50]
    assert len(link.streams) <= 64
    if what == "streams":
        refused = [each for each in stranger.messages if isinstance(each, StreamReset)]
        assert len(refused) == count - 64
    else:
        assert len(stranger.events) < 10
    siege.node.probes.answer = answer
    stranger.transport.abortConnection()


@pytest_twisted.ensureDeferred
async def test_a_storm_of_goodbyes_is_one_goodbye(siege: Siege) -> None:
    stranger = await siege.stranger()
    stranger.transport.write(b"".join(stranger.frame(Goodbye(0, "bye")) for _ in range(5000)))
    await siege.ended(stranger, "the peer says goodbye: bye")
    assert [each for each in stranger.messages if isinstance(each, Goodbye)] == stranger.messages
    assert len(stranger.messages) == 1


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_never_given_credit_stalls_itself_alone(siege: Siege) -> None:
    stranger = await siege.stranger()
    (link,) = [each for each in siege.node.peers.links if each.node_id == 50]
    stalled, other = link.open_stream(), link.open_stream()
    sent = 0
    while not stalled.full:
        link.send_on(stalled, ReplicateData(1, 0, "", b"k", b"v"))
        sent += 1
        await sleep(0)
    assert sent == STREAM_WINDOW_COUNT + STREAM_OUTBOX_MAX_COUNT
    link.send_on(other, ReplicateData(1, 0, "", b"other", b"v"))
    asked = link.request(Heartbeat(1, 3, 1))
    await until(lambda: any(isinstance(each, Heartbeat) for each in stranger.messages))
    await until(lambda: any(isinstance(each, ReplicateData) and each.key == b"other" for each in stranger.messages))
    assert sum(isinstance(each, ReplicateData) and each.key == b"k" for each in stranger.messages) == STREAM_WINDOW_COUNT
    asked.addErrback(lambda failure: None)
    # Credit that is more than there can be is as good as the most that there can be.
    stranger.send(WindowUpdate(stalled.stream_id, 0xFFFFFFFF, 0xFFFFFFFF))
    await until(lambda: not stalled.full)
    stranger.transport.abortConnection()
