"""The lean reactor as one that connects: Twisted's behaviour, with lean connections."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import interfaces, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, TimeoutError, UserError
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from zope.interface import implementer

from hypercache.net.lean import LeanClient
from tests.net.sockets import Remote, until, write_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hypercache.net.lean import LeanReactor
    from tests.net.sockets import Doors

old_certificates = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL (X509|PKey) objects:DeprecationWarning")
BIG = bytes(range(256)) * (32 * 1024)  # 8 MiB


class Dialler:
    """A door of the real reactor, and lean connections to it."""

    def __init__(self, doors: Doors, lean: LeanReactor) -> None:
        self.doors = doors
        self.lean = lean
        self.doors_side = Remote()
        self.near: list[Any] = []

    async def listen(self, description: str = "tcp:0:interface=127.0.0.1") -> Any:
        made = self.doors_side

        class Making(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Remote:
                return made

        return await self.doors.listen(description, Making())

    async def connect(self, protocol: Any = None) -> Any:
        port = await self.listen()
        near = protocol or Remote()
        self.near.append(near)
        await connectProtocol(HostnameEndpoint(self.lean, "127.0.0.1", port.getHost().port), near)
        await until(lambda: self.doors_side.transport)
        return near


@pytest_twisted.async_yield_fixture
async def dialler(doors: Doors, lean: LeanReactor) -> AsyncIterator[Dialler]:
    made = Dialler(doors, lean)
    yield made
    for each in (made.doors_side, *made.near):
        if each.transport is not None and not each.lost:
            each.transport.abortConnection()
            await each.ended


class Failing(ClientFactory):
    """Keeps why a connection was not made."""

    noisy = False

    def __init__(self) -> None:
        self.failed: Deferred[Any] = Deferred()

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed.callback(reason.value)


@pytest_twisted.ensureDeferred
async def test_a_dialled_connection_is_lean_and_sends_within_the_call(dialler: Dialler) -> None:
    near = await dialler.connect()
    assert isinstance(near.transport, LeanClient)
    assert near.transport in dialler.lean.getReaders()
    near.transport.write(b"one")
    near.transport.writeSequence([b"two", b"three"])
    assert near.transport not in dialler.lean.getWriters()
    assert await dialler.doors_side.take(11) == b"onetwothree"
    dialler.doors_side.transport.write(b"back")
    assert await near.take(4) == b"back"
    near.transport.loseConnection()
    await until(lambda: near.lost and dialler.doors_side.lost)
    assert near.transport not in dialler.lean.getReaders()


@pytest_twisted.ensureDeferred
async def test_what_is_written_when_it_is_made_arrives(dialler: Dialler) -> None:
    class Hasty(Remote):
        def connectionMade(self) -> None:
            self.transport.write(b"at once")

    await dialler.connect(Hasty())
    assert await dialler.doors_side.take(7) == b"at once"


@pytest_twisted.ensureDeferred
async def test_a_name_and_ipv6_are_dialled_too(dialler: Dialler) -> None:
    port = await dialler.listen("tcp6:0:interface=\\:\\:1")
    near = Remote()
    await connectProtocol(HostnameEndpoint(dialler.lean, "::1", port.getHost().port), near)
    assert isinstance(near.transport, LeanClient)
    assert near.transport.getPeer().host == "::1"
    near.transport.loseConnection()
    await until(lambda: near.lost)


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_is_reported_and_leaves_nothing_behind(dialler: Dialler) -> None:
    port = await dialler.listen()
    number = port.getHost().port
    dialler.doors.forget(port)
    await port.stopListening()
    with pytest.raises(ConnectionRefusedError):
        await connectProtocol(HostnameEndpoint(dialler.lean, "127.0.0.1", number), Protocol())
    assert not dialler.lean.getReaders()
    assert not dialler.lean.getWriters()


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_not_made_in_time_is_given_up(dialler: Dialler) -> None:
    with ExitStack() as opened:
        # Nobody accepts here, and the few that the kernel lets in are in: it answers no other.
        listening = opened.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            filling = opened.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        factory = Failing()
        dialler.lean.connectTCP("127.0.0.1", listening.getsockname()[1], factory, timeout=0.05)
        assert isinstance(await factory.failed, TimeoutError)
    assert not dialler.lean.getReaders()
    assert not dialler.lean.getWriters()


@pytest_twisted.ensureDeferred
async def test_an_attempt_can_be_stopped(dialler: Dialler) -> None:
    factory = Failing()
    port = await dialler.listen()
    connector: Any = dialler.lean.connectTCP("127.0.0.1", port.getHost().port, factory)
    connector.stopConnecting()
    assert isinstance(await factory.failed, UserError)
    assert not dialler.lean.getReaders()


@pytest_twisted.ensureDeferred
async def test_a_partial_send_pauses_the_producer_and_resumes_it(dialler: Dialler) -> None:
    told: list[str] = []

    class Push:
        def pauseProducing(self) -> None:
            told.append("pause")

        def resumeProducing(self) -> None:
            told.append("resume")

        def stopProducing(self) -> None:
            """The connection is gone."""

    near = await dialler.connect()
    dialler.doors_side.transport.pauseProducing()
    near.transport.registerProducer(Push(), True)
    near.transport.write(BIG)
    near.transport.write(b"behind")
    assert near.transport in dialler.lean.getWriters()
    await until(lambda: told)
    assert set(told) == {"pause"}
    dialler.doors_side.transport.resumeProducing()
    assert await dialler.doors_side.take(len(BIG) + 6) == BIG + b"behind"
    await until(lambda: told[-1] == "resume")


@pytest_twisted.ensureDeferred
async def test_half_closing_is_reported_and_the_other_half_still_works(dialler: Dialler) -> None:
    @implementer(interfaces.IHalfCloseableProtocol)
    class Half(Remote):
        def readConnectionLost(self) -> None:
            self.transport.write(b"after")
            self.transport.loseConnection()

        def writeConnectionLost(self) -> None:
            """This side never half-closes."""

    near = await dialler.connect(Half())
    dialler.doors_side.transport.loseWriteConnection()
    assert await dialler.doors_side.take(5) == b"after"
    await until(lambda: near.lost)


@pytest_twisted.ensureDeferred
async def test_a_reset_is_noticed(dialler: Dialler) -> None:
    reasons: list[Any] = []

    class Asking(Remote):
        def connectionLost(self, reason: Any = None) -> None:
            reasons.append(reason.type)
            super().connectionLost(reason)

    near = await dialler.connect(Asking())
    # Nothing that waits to be read may make an orderly end of it.
    near.transport.write(b"unread")
    dialler.doors_side.transport.abortConnection()
    await until(lambda: near.lost)
    assert reasons == [ConnectionLost]
    assert near.transport not in dialler.lean.getReaders()


@old_certificates
@pytest.mark.parametrize("way", ["wrapped", "connectSSL"])
@pytest_twisted.ensureDeferred
async def test_tls_works_over_a_dialled_connection(dialler: Dialler, tmp_path: Path, way: str) -> None:
    pem = write_certificate(tmp_path)
    port = await dialler.listen(f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
    number = port.getHost().port
    trust = ssl.optionsForClientTLS("localhost", ssl.Certificate.loadPEM(pem.read_bytes()))
    near = Remote()
    if way == "wrapped":
        await connectProtocol(wrapClientTLS(trust, HostnameEndpoint(dialler.lean, "127.0.0.1", number)), near)
    else:
        factory: Any = ClientFactory.forProtocol(lambda: near)
        factory.noisy = False
        dialler.lean.connectSSL("127.0.0.1", number, factory, trust)
    await until(lambda: near.transport and dialler.lean.getReaders())
    near.transport.write(b"hello")
    near.transport.write(BIG)
    assert await dialler.doors_side.take(5 + len(BIG)) == b"hello" + BIG
    dialler.doors_side.transport.write(b"back")
    assert await near.take(4) == b"back"
    near.transport.loseConnection()
    await until(lambda: near.lost and dialler.doors_side.lost)
