"""Links to peers: what is answered, in which order, in how many writes (wire.md, section 2)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from hypercache.config import TracingSettings
from hypercache.errors import LinkLostError
from hypercache.limits import LINK_LINGER_SECONDS, PEER_OUTPUT_MAX_BYTES, PEER_OUTPUT_PAUSE_BYTES, PENDING_ANSWERS_MAX_COUNT
from hypercache.net.peer import PeerContext, PeerLink, ReceiveBudget
from hypercache.tracing import Tracer
from hypercache.wire import Capability, Extension, encode_extended
from hypercache.wire.events import Extended
from hypercache.wire.extension import Trace, request_head
from hypercache.wire.header import HEADER, MAGIC_NUMBER, frame
from hypercache.wire.messages import (
    GenericError,
    HashRingQuery,
    HashRingUpdate,
    Heartbeat,
    HeartbeatResponse,
    Hello,
    HelloReply,
    KeepAlive,
    ReplicateData,
    VoteRequest,
)
from tests.net.peers import DONE, MAX_FRAME, Handler, RemotePeer, Terms, beat, linked, noise, peer_factory, write
from tests.net.sockets import Doors, until, write_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hypercache.net.lean import LeanReactor

PLACE = "tcp:0:interface=127.0.0.1"
BAD_CHECKSUM = beat(1)[:-1] + b"\1"
old_certificates = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL (X509|PKey) objects:DeprecationWarning")


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


GONE = Failure(ConnectionLost())


class Producer:
    """Who sends, and notes whether it may."""

    def __init__(self, told: list[bool]) -> None:
        self._told = told

    def pauseProducing(self) -> None:
        self._told.append(False)

    def resumeProducing(self) -> None:
        self._told.append(True)


def collect(answers: list[Any]) -> Any:
    """Return a sink that keeps the answers."""
    return lambda number, answer: answers.append(answer)


def hello(cls: type[Hello | HelloReply] = Hello) -> Hello | HelloReply:
    return cls(1, 2, 0, 7, 1, 0, 1, 0, bytes(32), 1 << 20, 0, "", "n", "", "")


def extend(link: PeerLink) -> None:
    """Take Hello for exchanged."""
    link.establish(Capability.STAMPS | Capability.MULTIPLEXING, None, MAX_FRAME)


def codes(events: list[Any]) -> list[int]:
    return [event.error_code if isinstance(event, GenericError) else 0 for event in events]


# Over real sockets


@pytest.mark.parametrize("place", [PLACE, "tcp6:0:interface=\\:\\:1"])
@pytest_twisted.ensureDeferred
async def test_5000_frames_in_one_write_are_each_answered_over_ipv4_and_ipv6(doors: Doors, lean: LeanReactor, place: str) -> None:
    port = await doors.listen(place, peer_factory(), lean)
    host = port.getHost()
    remote = await doors.connect(f"tcp:host={host.host.replace(':', chr(92) + ':')}:port={host.port}", RemotePeer())
    remote.transport.write(b"".join(beat(number) for number in range(5000)))
    await until(lambda: len(remote.events) == 5000)
    assert remote.events == [HeartbeatResponse(number, 0) for number in range(5000)]
    assert remote.reads < 50


@pytest_twisted.ensureDeferred
async def test_64_mib_frames_go_both_ways(doors: Doors, lean: LeanReactor) -> None:
    value = bytes(range(256)) * (256 * 1024 - 1)
    factory = peer_factory(Handler(0x20, lambda context, message: ReplicateData(1, 0, "", b"back", message.value)))
    port = await doors.listen(PLACE, factory, lean)
    remote = await doors.connect(f"tcp:host=127.0.0.1:port={port.getHost().port}", RemotePeer())
    remote.transport.write(write(value))
    await until(lambda: remote.events)
    assert remote.events == [ReplicateData(1, 0, "", b"back", value)]
    assert factory.budget.held == 0


@old_certificates
@pytest_twisted.ensureDeferred
async def test_over_tls_garbage_closes_the_link(doors: Doors, lean: LeanReactor, tmp_path: Path) -> None:
    pem = write_certificate(tmp_path)
    factory = peer_factory()
    port = await doors.listen(f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}", factory, lean)
    trust = ssl.optionsForClientTLS("localhost", ssl.Certificate.loadPEM(pem.read_bytes()))
    remote = RemotePeer()
    await connectProtocol(wrapClientTLS(trust, HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port)), remote)
    remote.transport.write(beat(1))
    await until(lambda: remote.events == [HeartbeatResponse(1, 0)])
    remote.transport.write(noise(20) + beat(2))
    await until(lambda: remote.lost)
    assert remote.events == [HeartbeatResponse(1, 0)]
    await until(lambda: not factory.links)


@pytest_twisted.ensureDeferred
async def test_a_link_that_is_closed_while_its_peer_does_not_read_ends_when_it_does(doors: Doors, lean: LeanReactor) -> None:
    factory = peer_factory()
    port = await doors.listen(PLACE, factory, lean)
    remote = await doors.connect(f"tcp:host=127.0.0.1:port={port.getHost().port}", RemotePeer())
    await until(lambda: factory.links)
    (link,) = factory.links
    assert link.transport.getTcpNoDelay()
    assert link.transport.getTcpKeepAlive()
    remote.transport.pauseProducing()
    link.send(ReplicateData(1, 0, "", b"k", bytes(8 << 20)))
    await until(lambda: not link.writable)
    link.lose("enough")
    remote.transport.resumeProducing()
    await until(lambda: remote.lost)
    assert len(remote.events) == 1
    await until(lambda: not factory.links)


@old_certificates
@pytest_twisted.ensureDeferred
async def test_a_tls_link_that_is_not_read_from_closes_too(doors: Doors, lean: LeanReactor, tmp_path: Path) -> None:
    pem = write_certificate(tmp_path)
    later: Deferred[Any] = Deferred()
    factory = peer_factory(Handler(0x32, lambda c, m: later))
    port = await doors.listen(f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}", factory, lean)
    trust = ssl.optionsForClientTLS("localhost", ssl.Certificate.loadPEM(pem.read_bytes()))
    remote = RemotePeer()
    await connectProtocol(wrapClientTLS(trust, HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port)), remote)
    remote.transport.write(beat(1) + frame(1, 0x20, b"short"))
    await until(lambda: any(link.ending for link in factory.links))
    later.callback(HeartbeatResponse(1, 0))
    await until(lambda: remote.lost)
    assert codes(remote.events) == [0, 7]
    await until(lambda: not factory.links, LINK_LINGER_SECONDS / 2)


# Answers


def test_all_answers_of_one_read_leave_in_one_write() -> None:
    link, wire = linked(peer_factory(clock=Clock()))
    link.dataReceived(b"".join(beat(n) + write(b"v") for n in range(50)))
    assert len(wire.writes) == 1
    assert len(wire.events()) == 100


def test_single_bytes_are_answered_as_one_read_is() -> None:
    link, wire = linked(peer_factory(clock=Clock()))
    for byte in beat(1) + noise(30) + write(b"v"):
        link.dataReceived(bytes([byte]))
    assert wire.events() == [HeartbeatResponse(1, 0), DONE]


def test_messages_sent_outside_of_a_read_leave_in_one_write_a_turn() -> None:
    clock = Clock()
    link, wire = linked(peer_factory(clock=clock))
    link.become_base()
    for number in range(10):
        link.send(Heartbeat(1, number, 3))
    link.ask_run(0x20, 0x21, 1, [write(b"a"), write(b"b")], lambda number, answer: None)
    assert not wire.writes
    clock.advance(0)
    assert len(wire.writes) == 1
    assert len(wire.events()) == 12


def test_answers_leave_in_the_order_of_their_requests_across_handlers() -> None:
    first: Deferred[Any] = Deferred()
    third: Deferred[Any] = Deferred()
    waits = [first, None, third]
    clock = Clock()
    factory = peer_factory(Handler(0x32, lambda c, m: waits[m.timestamp] or HeartbeatResponse(m.timestamp, 0)), clock=clock)
    link, wire = linked(factory)
    link.dataReceived(beat(0) + beat(1) + write(b"v") + frame(1, 0x99, b"") + beat(2) + write(b"w"))
    third.callback(HeartbeatResponse(2, 0))
    clock.advance(0)
    assert not wire.writes
    first.callback(HeartbeatResponse(0, 0))
    clock.advance(0)
    events = wire.events()
    assert [getattr(event, "timestamp", None) for event in events] == [0, 1, None, None, 2, None]
    assert codes(events) == [0, 0, 0, 1, 0, 0]


def test_an_answer_whose_bytes_are_kept_waits_for_its_turn_too() -> None:
    later: Deferred[Any] = Deferred()
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: later), clock=clock))
    link.dataReceived(write(b"v") + beat(1) + write(b"v"))
    assert wire.events() == [DONE]
    later.callback(HeartbeatResponse(1, 0))
    clock.advance(0)
    assert wire.events() == [HeartbeatResponse(1, 0), DONE]


def test_a_request_without_an_answer_holds_up_nobody() -> None:
    later: Deferred[Any] = Deferred()
    answers = [None, later, HeartbeatResponse(2, 0)]
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: answers[m.timestamp]), clock=clock))
    link.dataReceived(beat(0) + beat(1) + beat(2))
    later.callback(None)
    clock.advance(0)
    assert wire.events() == [HeartbeatResponse(2, 0)]


def test_errors_about_frames_leave_at_once_and_take_no_turn() -> None:
    later: Deferred[Any] = Deferred()
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: later), clock=clock))
    too_large = HEADER.pack(MAGIC_NUMBER, 1, 0x32, 1 << 31, 0)
    link.dataReceived(beat(0) + frame(7, 0x32, b"x") + BAD_CHECKSUM + too_large)
    link.dataReceived(write(b"v"))
    assert codes(wire.events()) == [2, 3, 4]
    later.callback(HeartbeatResponse(0, 0))
    clock.advance(0)
    assert wire.events() == [HeartbeatResponse(0, 0), DONE]


def test_errors_carry_their_numbers() -> None:
    link, wire = linked(peer_factory(clock=Clock()))
    link.dataReceived(frame(1, 0x99, b"") + frame(7, 0x32, b"x") + HEADER.pack(MAGIC_NUMBER, 1, 0x32, 70_000, 0))
    assert [(event.error_code, event.extra_data) for event in wire.events()] == [(1, 0x99), (2, 2), (4, 65536)]  # type: ignore[union-attr]


def test_reading_pauses_while_too_many_answers_are_not_ready() -> None:
    waits: list[Deferred[Any]] = []

    def handle(context: PeerContext, message: Heartbeat) -> Deferred[Any]:
        waits.append(Deferred())
        return waits[-1]

    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, handle), clock=clock))
    link.dataReceived(b"".join(beat(n) for n in range(PENDING_ANSWERS_MAX_COUNT - 1)))
    assert wire.producerState == "producing"
    link.dataReceived(beat(0))
    assert wire.producerState == "paused"
    for place, each in enumerate(waits):
        each.callback(HeartbeatResponse(place, 0))
    assert wire.producerState == "producing"
    clock.advance(0)
    assert [event.timestamp for event in wire.events()] == list(range(PENDING_ANSWERS_MAX_COUNT))  # type: ignore[union-attr]


# Handlers


def test_a_type_without_a_handler_and_a_type_nobody_declared_are_unknown() -> None:
    link, wire = linked(peer_factory(clock=Clock()))
    link.dataReceived(HashRingQuery(1).encode_frame() + frame(1, 0xEE, b"x"))
    assert [(event.error_code, event.extra_data) for event in wire.events()] == [(1, 0x41), (1, 0xEE)]  # type: ignore[union-attr]


def test_where_peers_must_authenticate_a_stranger_reaches_only_handlers_that_do_not_ask_for_that() -> None:
    reached: list[Any] = []
    clock = Clock()

    def serve(context: PeerContext, message: Heartbeat) -> HeartbeatResponse:
        reached.append(message)
        return HeartbeatResponse(message.timestamp, 0)

    public = Handler(0x32, serve)
    private = Handler(0x20, lambda c, m: reached.append(m), requires_auth=True)
    factory = peer_factory(public, private, clock=clock, terms=Terms(required=True))
    link, wire = linked(factory)
    link.dataReceived(beat(1))
    assert wire.events() == [HeartbeatResponse(1, 0)]
    link.dataReceived(write(b"v") + beat(2))
    assert codes(wire.events()) == [5]
    assert wire.disconnecting
    assert len(reached) == 1
    assert factory.metrics.auth_failures == 1


def test_a_stranger_that_was_served_says_hello_too_late() -> None:
    factory = peer_factory(clock=Clock(), terms=Terms(required=True))
    link, wire = linked(factory)
    link.dataReceived(beat(1) + hello().encode_frame())
    assert codes(wire.events()) == [0, 1]
    factory.clock.pump([1] * 5)
    assert wire.disconnecting


def test_raft_is_for_members_only() -> None:
    reached: list[Any] = []
    factory = peer_factory(Handler(0x10, lambda c, m: reached.append(m)), clock=Clock())
    link, wire = linked(factory)
    link.dataReceived(VoteRequest(1, 2, 3, 4).encode_frame())
    assert codes(wire.events()) == [5]
    assert not reached
    link.member = True
    link.dataReceived(VoteRequest(1, 2, 3, 4).encode_frame())
    assert len(reached) == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_failing_handler_is_an_internal_error_that_tells_nothing(late: bool, logged: list[dict[str, Any]]) -> None:
    waits: list[Deferred[Any]] = []

    def handle(context: PeerContext, message: Heartbeat) -> Any:
        if not late:
            raise RuntimeError("the secret cause")
        waits.append(Deferred())
        return waits[-1]

    clock = Clock()
    factory = peer_factory(Handler(0x32, handle), clock=clock)
    link, wire = linked(factory)
    link.dataReceived(beat(1) + write(b"v"))
    for each in waits:
        each.errback(RuntimeError("the secret cause"))
    clock.advance(0)
    error, done = wire.events()
    assert isinstance(error, GenericError)
    assert error.error_code == 7
    assert "secret" not in error.message
    assert done == DONE
    reference = error.message.rpartition(" ")[2]
    assert any(event.get("reference") == reference and "secret" in str(event["log_failure"]) for event in logged)
    assert factory.metrics.get_stats()["Heartbeat_errors"] == 1
    link.dataReceived(write(b"w"))
    assert wire.events() == [DONE]


def test_an_answer_that_cannot_be_encoded_is_an_internal_error() -> None:
    later: Deferred[Any] = Deferred()
    bad = HeartbeatResponse(1 << 70, 0)
    answers = [bad, later]
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: answers[m.timestamp]), clock=clock))
    link.dataReceived(beat(0) + beat(1) + write(b"v"))
    later.callback(bad)
    clock.advance(0)
    assert codes(wire.events()) == [7, 7, 0]


def answers_of(wire: Any) -> list[Any]:
    """Return the answers that an extended peer was sent, with the numbers of their exchanges."""
    return [(event.extension.exchange, event.message) for event in wire.events() if isinstance(event, Extended)]


def test_an_answer_to_an_extended_peer_that_cannot_be_encoded_is_an_internal_error_too() -> None:
    later: Deferred[Any] = Deferred()
    bad = HeartbeatResponse(1 << 70, 0)
    answers = [bad, later, HeartbeatResponse(2, 0)]
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: answers[m.timestamp]), clock=clock))
    extend(link)
    link.dataReceived(b"".join(encode_extended(Heartbeat(1, number, 3), Extension(number)) for number in range(3)))
    later.callback(bad)
    clock.advance(0)
    told = dict(answers_of(wire))
    assert told[2] == HeartbeatResponse(2, 0)
    assert [told[number].error_code for number in (0, 1)] == [7, 7]
    assert not wire.disconnecting
    assert not link.answers_pending


def test_answers_that_are_sent_again_are_counted_under_their_own_type() -> None:
    done, other = HeartbeatResponse(1, 0), DONE
    answers = [done, done, done, other, other]
    factory = peer_factory(Handler(0x32, lambda c, m: answers[m.timestamp]), clock=Clock())
    link, _ = linked(factory)
    extend(link)
    link.dataReceived(b"".join(encode_extended(Heartbeat(1, number, 3), Extension(number)) for number in range(5)))
    assert (factory.metrics.meter(0x33).sent, factory.metrics.meter(0x21).sent) == (3, 2)


@pytest.mark.parametrize(("over", "code"), [(0, 0), (1, 4)])
def test_an_answer_is_held_with_its_extension_against_what_the_peer_takes(over: int, code: int) -> None:
    answer = ReplicateData(1, 0, "", b"k", bytes(500))
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: answer), clock=Clock()))
    head = len(request_head(1))
    link.establish(Capability.STAMPS, None, head + len(answer.encode_payload()) - over)
    link.dataReceived(encode_extended(Heartbeat(1, 1, 3), Extension(1)))
    ((_, told),) = answers_of(wire)
    assert getattr(told, "error_code", 0) == code


def test_an_answer_that_one_link_takes_is_held_against_the_bound_of_another() -> None:
    answer = ReplicateData(1, 0, "", b"k", bytes(500))
    factory = peer_factory(Handler(0x32, lambda c, m: answer), clock=Clock())
    for longest, code in ((MAX_FRAME, 0), (100, 4)):
        link, wire = linked(factory)
        link.establish(Capability.STAMPS, None, longest)
        link.dataReceived(encode_extended(Heartbeat(1, 1, 3), Extension(1)))
        ((_, told),) = answers_of(wire)
        assert getattr(told, "error_code", 0) == code


def test_the_context_tells_who_and_what() -> None:
    seen: list[PeerContext] = []
    link, _ = linked(peer_factory(Handler(0x32, lambda context, message: seen.append(context)), clock=Clock()))
    link.node_id, link.member = 9, True
    link.dataReceived(beat(1))
    other, _ = linked(link.factory)
    extend(other)
    other.dataReceived(encode_extended(Heartbeat(1, 2, 3), Extension(stamp=(5 << 64) + 6)))
    plain, extended = seen
    assert (plain.link, plain.member, plain.node_id, plain.stamp, plain.extension) == (link, True, 9, 0, None)
    assert extended.stamp == (5 << 64) + 6


def test_a_handler_may_close_the_link_and_nothing_behind_is_handled() -> None:
    seen: list[int] = []

    def handle(context: PeerContext, message: Heartbeat) -> HeartbeatResponse:
        seen.append(message.timestamp)
        if message.timestamp == 2:
            context.link.lose("enough")
        return HeartbeatResponse(message.timestamp, 0)

    link, wire = linked(peer_factory(Handler(0x32, handle), clock=Clock()))
    link.dataReceived(beat(1) + beat(2) + beat(3))
    assert seen == [1, 2]
    assert wire.disconnecting
    assert HeartbeatResponse(1, 0) in wire.events()
    link.dataReceived(beat(4))
    assert seen == [1, 2]


# Faults


def test_service_goes_on_after_a_kibibyte_of_garbage() -> None:
    factory = peer_factory(clock=Clock())
    link, wire = linked(factory)
    link.dataReceived(noise(1024) + beat(1))
    assert wire.events() == [HeartbeatResponse(1, 0)]
    assert factory.metrics.garbage_bytes == 1024


def test_after_hello_garbage_closes_the_link() -> None:
    link, wire = linked(peer_factory(clock=Clock()))
    extend(link)
    link.dataReceived(beat(1) + noise(10) + beat(2))
    assert wire.events() == [HeartbeatResponse(1, 0)]
    assert wire.disconnecting


@pytest.mark.parametrize(("extended", "code"), [(False, 7), (True, 0x0100)])
def test_a_malformed_message_is_an_error_by_its_reader_and_closes(extended: bool, code: int) -> None:
    link, wire = linked(peer_factory(clock=Clock()))
    if extended:
        extend(link)
    link.dataReceived(frame(1, 0x20, b"short") + beat(1))
    (event,) = wire.events()
    error = event.message if isinstance(event, Extended) else event
    assert isinstance(error, GenericError)
    assert error.error_code == code
    assert "malformed" in error.message
    assert wire.disconnecting
    assert wire.producer is None


def test_a_malformed_message_closes_only_when_the_answers_before_it_are_out() -> None:
    later: Deferred[Any] = Deferred()
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: later), clock=clock))
    link.dataReceived(beat(1) + frame(1, 0x20, b"short") + beat(2))
    assert not wire.disconnecting
    assert wire.producerState == "paused"
    later.callback(HeartbeatResponse(1, 0))
    assert codes(wire.events()) == [0, 7]
    assert wire.disconnecting


def test_a_link_that_must_close_waits_for_no_answer_for_ever() -> None:
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: Deferred()), clock=clock))
    link.dataReceived(beat(1) + frame(1, 0x20, b"short"))
    clock.advance(LINK_LINGER_SECONDS + 1)
    assert wire.disconnecting


def test_an_error_is_never_answered() -> None:
    sound = GenericError(1, 0, "x").encode_frame()
    link, wire = linked(peer_factory(clock=Clock()))
    link.dataReceived(sound + sound[:-1] + b"y" + frame(9, 0xFF, b"z") + HEADER.pack(MAGIC_NUMBER, 1, 0xFF, 1 << 31, 0))
    link.dataReceived(beat(1))
    assert wire.events() == [HeartbeatResponse(1, 0)]


def test_an_answer_that_nobody_waits_for_is_dropped_and_counted() -> None:
    factory = peer_factory(clock=Clock())
    link, wire = linked(factory)
    link.dataReceived(
        HeartbeatResponse(1, 0).encode_frame() + DONE.encode_frame() + GenericError(7, 0, "").encode_frame() + beat(1)
    )
    assert wire.events() == [HeartbeatResponse(1, 0)]
    assert factory.metrics.unexpected_answers == 3


def test_an_answer_of_another_type_than_is_due_is_dropped_and_counted() -> None:
    factory = peer_factory(clock=Clock())
    link, _ = linked(factory)
    link.become_base()
    got: list[Any] = []
    link.ask(Heartbeat(1, 1, 3), collect(got))
    link.dataReceived(DONE.encode_frame())
    assert (got, factory.metrics.unexpected_answers) == ([], 1)
    link.dataReceived(HeartbeatResponse(1, 0).encode_frame())
    assert got == [HeartbeatResponse(1, 0)]


def test_a_keep_alive_is_not_answered() -> None:
    link, wire = linked(peer_factory(clock=Clock()))
    link.dataReceived(KeepAlive().encode_frame() * 3)
    assert not wire.writes


def test_whose_first_frame_is_not_hello_is_a_base_peer_for_good() -> None:
    link, wire = linked(peer_factory(clock=Clock(), terms=Terms()))
    link.dataReceived(KeepAlive().encode_frame() + hello().encode_frame())
    assert [type(event) for event in wire.events()] == [HelloReply]
    assert link.extended
    other, late = linked(peer_factory(clock=Clock(), terms=Terms()))
    other.dataReceived(beat(1) + hello().encode_frame())
    assert codes(late.events()) == [0, 1]
    assert not other.extended


def test_version_2_is_unknown_before_hello_and_understood_after() -> None:
    data = encode_extended(Heartbeat(1, 2, 3), Extension(7, stamp=5 << 64))
    link, wire = linked(peer_factory(clock=Clock()))
    link.dataReceived(data)
    assert codes(wire.events()) == [2]
    extend(link)
    link.dataReceived(data)
    (answer,) = wire.events()
    assert isinstance(answer, Extended)
    assert (answer.message, answer.extension) == (HeartbeatResponse(2, 0), Extension(7, reply=True))
    link.send(Heartbeat(1, 2, 3), Extension(stamp=5 << 64))
    link.factory.clock.advance(0)
    (sent,) = wire.events()
    assert isinstance(sent, Extended)


# Requests


def test_answers_go_to_who_asked_in_order_and_an_error_answers_too() -> None:
    clock = Clock()
    link, wire = linked(peer_factory(clock=clock))
    link.become_base()
    got: list[Any] = []
    beating = link.request(Heartbeat(1, 2, 3))
    beating.addCallback(got.append)
    link.ask_run(0x20, 0x21, 1, [write(b"v")] * 3, collect(got))
    ring = link.request(HashRingQuery(1))
    ring.addCallback(got.append)
    refused = GenericError(7, 0, "no")
    update = HashRingUpdate(1, ())
    answers = [HeartbeatResponse(2, 0), DONE, refused, DONE, update]
    link.dataReceived(b"".join(answer.encode_frame() for answer in answers))
    assert got == answers
    assert len(wire.writes) <= 1


def test_errors_about_damaged_frames_answer_no_request() -> None:
    link, _ = linked(peer_factory(clock=Clock()))
    link.become_base()
    got: list[Any] = []
    link.ask(Heartbeat(1, 1, 3), collect(got))
    link.dataReceived(b"".join(GenericError(code, 0, "").encode_frame() for code in (2, 3, 4)))
    assert not got
    link.dataReceived(HeartbeatResponse(1, 0).encode_frame())
    assert got == [HeartbeatResponse(1, 0)]


def test_who_takes_an_answer_badly_spoils_none_behind_it(logged: list[dict[str, Any]]) -> None:
    link, _ = linked(peer_factory(clock=Clock()))
    link.become_base()
    got: list[Any] = []

    def bad(number: int, answer: Any) -> None:
        raise RuntimeError("a fault in the sink")

    link.ask(Heartbeat(1, 1, 3), bad)
    link.ask(Heartbeat(1, 2, 3), collect(got))
    link.dataReceived(HeartbeatResponse(1, 0).encode_frame() + HeartbeatResponse(2, 0).encode_frame())
    assert got == [HeartbeatResponse(2, 0)]
    assert any("log_failure" in event for event in logged)


def test_a_ring_that_nobody_asked_for_goes_to_its_handler() -> None:
    seen: list[Any] = []
    link, _ = linked(peer_factory(Handler(0x40, lambda c, m: seen.append(m)), clock=Clock()))
    link.dataReceived(HashRingUpdate(1, ()).encode_frame())
    assert seen == [HashRingUpdate(1, ())]


def test_the_loss_of_a_link_fails_what_waits() -> None:
    clock = Clock()
    factory = peer_factory(clock=clock)
    link, wire = linked(factory)
    link.become_base()
    got: list[Any] = []
    asked = link.request(Heartbeat(1, 2, 3))
    asked.addErrback(lambda failure: got.append(failure.check(LinkLostError)))
    link.ask_run(0x20, 0x21, 5, [write(b"v")] * 2, lambda number, error: got.append((number, type(error))))
    link.when_lost().addCallback(got.append)
    link.connectionLost(GONE)
    assert got == [LinkLostError, (5, LinkLostError), (6, LinkLostError), None]
    assert not factory.links
    assert not link.writable
    late: list[Any] = []
    link.request(Heartbeat(1, 2, 3)).addErrback(lambda failure: late.append(failure.check(LinkLostError)))
    link.when_lost().addCallback(late.append)
    assert late == [LinkLostError, None]
    link.send(Heartbeat(1, 2, 3))
    clock.advance(10)
    assert not wire.writes


def test_an_answer_that_is_ready_after_the_loss_goes_nowhere() -> None:
    later: Deferred[Any] = Deferred()
    clock = Clock()
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: later), clock=clock))
    link.dataReceived(beat(1))
    link.connectionLost(GONE)
    later.callback(HeartbeatResponse(1, 0))
    clock.advance(1)
    assert not wire.writes


# Time and memory


def test_an_unfinished_frame_has_ten_seconds_and_one_a_mebibyte() -> None:
    clock = Clock()
    start = HEADER.pack(MAGIC_NUMBER, 1, 0x20, 8 << 20, 0)
    for data, late in ((beat(1)[:20], 10), (start, 18), (start[:7], 10)):
        link, wire = linked(peer_factory(clock=clock))
        link.dataReceived(data)
        clock.pump([1] * late)
        assert not wire.disconnecting, late
        clock.pump([1] * 2)
        assert wire.disconnecting, late


def test_the_time_of_a_frame_counts_from_its_header() -> None:
    clock = Clock()
    link, wire = linked(peer_factory(clock=clock))
    start = HEADER.pack(MAGIC_NUMBER, 1, 0x20, 8 << 20, 0)
    link.dataReceived(start[:7])
    clock.pump([1] * 8)
    link.dataReceived(start[7:])
    clock.pump([1] * 17)
    assert not wire.disconnecting
    clock.pump([1] * 3)
    assert wire.disconnecting


def test_a_steady_stream_whose_reads_all_end_within_a_frame_is_never_late() -> None:
    clock = Clock()
    link, wire = linked(peer_factory(clock=clock))
    data = beat(1)
    link.dataReceived(data[:20])
    for _ in range(60):
        clock.advance(1)
        link.dataReceived(data[20:] + data[:20])
    assert not wire.disconnecting
    assert len(wire.events()) == 60


def test_unfinished_frames_of_all_links_share_a_budget() -> None:
    budget = ReceiveBudget(100_000)
    factory = peer_factory(clock=Clock(), budget=budget)
    start = HEADER.pack(MAGIC_NUMBER, 1, 0x20, 1 << 20, 0)
    one, first = linked(factory)
    two, second = linked(factory)
    one.dataReceived(start + bytes(60_000))
    assert budget.held == 60_014
    two.dataReceived(start + bytes(60_000))
    assert second.disconnecting
    assert not first.disconnecting
    assert budget.held == 60_014
    one.connectionLost(GONE)
    two.connectionLost(GONE)
    assert budget.held == 0


def test_a_finished_frame_gives_its_share_back() -> None:
    factory = peer_factory(clock=Clock())
    link, wire = linked(factory)
    data = write(bytes(50_000))
    link.dataReceived(data[:40_000])
    assert factory.budget.held == 40_000
    link.dataReceived(data[40_000:])
    assert factory.budget.held == 0
    assert wire.events() == [DONE]


def test_nothing_is_written_to_a_full_transport_until_it_has_room() -> None:
    clock = Clock()
    link, wire = linked(peer_factory(clock=clock))
    told: list[bool] = []
    link.register_producer(Producer(told))
    wire.full = True
    link.dataReceived(beat(1))
    assert not link.writable
    link.dataReceived(beat(2) + beat(3))
    link.send(Heartbeat(1, 4, 3))
    clock.advance(0)
    assert len(wire.writes) == 1
    wire.drain()
    assert told == [False, True]
    assert len(wire.writes) == 2
    assert [event.timestamp for event in wire.events()] == [1, 2, 3, 4]  # type: ignore[union-attr]


def test_a_peer_that_does_not_read_is_not_read_from_and_then_cut() -> None:
    clock = Clock()
    big = ReplicateData(1, 0, "", b"k", bytes(PEER_OUTPUT_PAUSE_BYTES))
    link, wire = linked(peer_factory(Handler(0x32, lambda c, m: big), clock=clock))
    wire.full = True
    link.dataReceived(beat(1))
    link.dataReceived(beat(2))
    assert wire.producerState == "paused"
    wire.drain()
    assert wire.producerState == "producing"
    wire.writes.clear()
    wire.full = True
    link.dataReceived(beat(3))
    for _ in range(PEER_OUTPUT_MAX_BYTES // PEER_OUTPUT_PAUSE_BYTES):
        assert not wire.aborted
        link.dataReceived(beat(4))
    assert wire.aborted


def test_a_link_that_is_closed_but_not_read_is_aborted_in_the_end() -> None:
    clock = Clock()
    link, wire = linked(peer_factory(clock=clock))
    link.lose("enough")
    assert wire.disconnecting
    clock.advance(LINK_LINGER_SECONDS + 1)
    assert wire.aborted


def test_links_that_are_gone_leave_no_timer_behind() -> None:
    clock = Clock()
    link, _ = linked(peer_factory(clock=clock))
    link.lose("enough")
    link.connectionLost(GONE)
    assert not clock.getDelayedCalls()


def test_a_factory_that_does_not_accept_takes_no_connection() -> None:
    factory = peer_factory(clock=Clock())
    factory.accepting = False
    assert factory.buildProtocol(None) is None


# Traces


def test_a_request_that_has_passed_this_node_already_is_refused_and_the_link_stays(logged: list[dict[str, Any]]) -> None:
    factory = peer_factory(clock=Clock())
    factory.tracer = Tracer(TracingSettings(), rng=random.Random(1), wall=lambda: 0.0, node_id=5)
    link, wire = linked(factory)
    extend(link)
    for number, path in ((1, (4, 5)), (2, (4,))):
        trace = Trace(bytes([number]) * 16, bytes(16), 1, path)
        link.dataReceived(encode_extended(Heartbeat(1, number, 3), Extension(number, trace=trace)))
    refused, answered = wire.events()
    assert isinstance(refused, Extended)
    assert isinstance(answered, Extended)
    assert (refused.extension.exchange, refused.message.error_code) == (1, 0x0100)  # type: ignore[attr-defined]
    assert (answered.extension.exchange, answered.message) == (2, HeartbeatResponse(2, 0))
    assert not wire.disconnecting


def test_what_a_failing_handler_says_and_logs_carries_the_request_id(logged: list[dict[str, Any]]) -> None:
    def handle(context: PeerContext, message: Heartbeat) -> HeartbeatResponse:
        raise RuntimeError("broken")

    link, wire = linked(peer_factory(Handler(0x32, handle), clock=Clock()))
    extend(link)
    link.dataReceived(encode_extended(Heartbeat(1, 1, 3), Extension(1, trace=Trace(b"\7" * 16, bytes(16), 1, (4,)))))
    (refused,) = wire.events()
    assert isinstance(refused, Extended)
    assert isinstance(refused.message, GenericError)
    assert "[trace 0707" in refused.message.message
    assert any(event.get("request_id") == "07" * 16 for event in logged if "log_failure" in event)
