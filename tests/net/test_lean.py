"""The lean reactor: Twisted's behaviour, one reader for all sockets, a direct first send."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import interfaces, reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from hypercache.net import lean as lean_module
from hypercache.net.lean import LeanReactor, lean_reactor
from tests.net.sockets import Doors, Remote, turns, until, write_certificate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Twisted itself hands its certificates to pyOpenSSL in the old form.
old_certificates = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL (X509|PKey) objects:DeprecationWarning")
BIG = bytes(range(256)) * (32 * 1024)  # 8 MiB


class Near(Protocol):
    """The server's side; what it does with a read is the test's."""

    transport: Any

    def __init__(self, on_data: Callable[[Near, bytes], None]) -> None:
        self.on_data = on_data
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.on_data(self, data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


def factory(on_data: Callable[[Near, bytes], None], made: list[Near] | None = None, cls: type[Near] = Near) -> Factory:
    class Making(Factory):
        noisy = False

        def buildProtocol(self, addr: Any) -> Near:
            near = cls(on_data)
            if made is not None:
                made.append(near)
            return near

    return Making()


def echo(near: Near, data: bytes) -> None:
    near.transport.write(data)


class Push:
    """A streaming producer that counts."""

    def __init__(self) -> None:
        self.pauses = self.resumes = self.stops = 0

    def pauseProducing(self) -> None:
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.resumes += 1

    def stopProducing(self) -> None:
        self.stops += 1


@pytest.mark.parametrize("description", ["tcp:0:interface=127.0.0.1", "tcp6:0:interface=\\:\\:1"])
@pytest_twisted.ensureDeferred
async def test_endpoint_strings_listen_over_ipv4_and_ipv6(doors: Doors, lean: LeanReactor, description: str) -> None:
    port = await doors.listen(description, factory(echo), lean)
    remote = await doors.dial(port)
    remote.transport.write(b"hello")
    assert await remote.take(5) == b"hello"
    assert lean.getReaders()
    assert not lean.getWriters()


@pytest_twisted.ensureDeferred
async def test_what_fits_the_kernel_is_sent_within_the_call(doors: Doors, lean: LeanReactor) -> None:
    queued: list[bool] = []

    def answer(near: Near, data: bytes) -> None:
        near.transport.write(b"one")
        near.transport.writeSequence([b"two", b"three"])
        queued.append(near.transport in lean.getWriters())

    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(answer), lean))
    remote.transport.write(b"x")
    assert await remote.take(11) == b"onetwothree"
    assert queued == [False]


@pytest_twisted.ensureDeferred
async def test_a_partial_send_queues_the_rest_in_order_and_pauses_and_resumes_the_producer(doors: Doors, lean: LeanReactor) -> None:
    push = Push()

    def answer(near: Near, data: bytes) -> None:
        near.transport.registerProducer(push, True)
        near.transport.write(BIG)
        near.transport.write(b"behind")

    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(answer), lean))
    remote.transport.pauseProducing()
    remote.transport.write(b"x")
    await until(lambda: push.pauses)
    assert push.resumes == 0
    remote.transport.resumeProducing()
    assert await remote.take(len(BIG) + 6) == BIG + b"behind"
    await until(lambda: push.resumes)


@pytest_twisted.ensureDeferred
async def test_a_pull_producer_is_asked_again_after_a_send_that_fitted(doors: Doors, lean: LeanReactor) -> None:
    class Pull:
        def __init__(self, transport: Any) -> None:
            self.transport = transport
            self.left = 5

        def resumeProducing(self) -> None:
            self.left -= 1
            self.transport.write(b"x")
            if not self.left:
                self.transport.unregisterProducer()

        def stopProducing(self) -> None:
            """The connection is gone."""

    def answer(near: Near, data: bytes) -> None:
        near.transport.registerProducer(Pull(near.transport), False)

    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(answer), lean))
    remote.transport.write(b"go")
    assert await remote.take(5) == b"xxxxx"


@pytest.mark.parametrize("size", [5, len(BIG)])
@pytest_twisted.ensureDeferred
async def test_losing_the_connection_after_a_write_delivers_it_first(doors: Doors, lean: LeanReactor, size: int) -> None:
    def answer(near: Near, data: bytes) -> None:
        near.transport.write(BIG[:size])
        near.transport.loseConnection()

    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(answer), lean))
    remote.transport.write(b"x")
    await until(lambda: remote.lost)
    assert bytes(remote.data) == BIG[:size]


@pytest_twisted.ensureDeferred
async def test_half_closing_is_reported_and_the_other_half_still_works(doors: Doors, lean: LeanReactor) -> None:
    @implementer(interfaces.IHalfCloseableProtocol)
    class Half(Near):
        def readConnectionLost(self) -> None:
            self.transport.write(b"after")
            self.transport.loseConnection()

        def writeConnectionLost(self) -> None:
            """This side never half-closes."""

    made: list[Near] = []
    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(echo, made, Half), lean))
    remote.transport.write(b"before")
    await remote.take(6)
    remote.transport.loseWriteConnection()
    await until(lambda: remote.lost)
    assert bytes(remote.data) == b"after"
    await until(lambda: made[0].lost)


@pytest_twisted.ensureDeferred
async def test_this_side_can_half_close_after_what_it_wrote(doors: Doors, lean: LeanReactor) -> None:
    def answer(near: Near, data: bytes) -> None:
        near.transport.write(BIG)
        near.transport.loseWriteConnection()

    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(answer), lean))
    remote.transport.write(b"x")
    await until(lambda: remote.lost)
    assert bytes(remote.data) == BIG


class Raising(Near):
    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        raise RuntimeError("a fault in connectionLost")


@pytest_twisted.ensureDeferred
async def test_a_connection_that_raises_ends_alone(doors: Doors, lean: LeanReactor) -> None:
    def answer(near: Near, data: bytes) -> None:
        if data == b"raise":
            raise RuntimeError("a fault in dataReceived")
        near.transport.write(data)

    made: list[Near] = []
    port = await doors.listen("tcp:0:interface=127.0.0.1", factory(answer, made, Raising), lean)
    good, bad, gone = await doors.dial(port), await doors.dial(port), await doors.dial(port)
    await until(lambda: len(made) == 3)
    bad.transport.write(b"raise")
    gone.transport.loseConnection()
    await until(lambda: bad.lost and made[1].lost and made[2].lost)
    good.transport.write(b"still here")
    assert await good.take(10) == b"still here"
    later = await doors.dial(port)
    later.transport.write(b"new")
    assert await later.take(3) == b"new"


@pytest_twisted.ensureDeferred
async def test_a_connection_that_another_closed_in_the_same_turn_is_not_served(doors: Doors, lean: LeanReactor) -> None:
    made: list[Near] = []
    served: list[Near] = []

    def answer(near: Near, data: bytes) -> None:
        served.append(near)
        for each in made:
            if each is not near:
                each.transport.abortConnection()

    port = await doors.listen("tcp:0:interface=127.0.0.1", factory(answer, made), lean)
    remotes = [await doors.dial(port) for _ in range(5)]
    await until(lambda: len(made) == 5)
    for remote in remotes:
        remote.transport.write(b"x")
    await until(lambda: sum(remote.lost for remote in remotes) == 4)
    assert len(served) == 1


@pytest_twisted.ensureDeferred
async def test_timers_run_while_a_connection_is_always_ready(doors: Doors, lean: LeanReactor) -> None:
    port = await doors.listen("tcp:0:interface=127.0.0.1", factory(echo), lean)
    remote = await doors.dial(port)
    remote.dataReceived = remote.transport.write
    remote.transport.write(b"x" * 1000)
    await turns(20)


class Epoll:
    """An epoll that reports what the test says."""

    closed = False

    def __init__(self, *events: tuple[int, int]) -> None:
        self.events = list(events)
        self.asked: list[tuple[float, int]] = []

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        self.asked.append((timeout, most))
        return self.events

    def register(self, number: int, mask: int) -> None:
        """Nothing is watched."""

    modify = register

    def unregister(self, number: int) -> None:
        """Nothing was watched."""


class Descriptor:
    """A socket of the test."""

    def __init__(self, number: int, on_read: Callable[[], object] = lambda: None) -> None:
        self.number = number
        self.on_read = on_read
        self.written = 0
        self.lost: list[Any] = []

    def fileno(self) -> int:
        return self.number

    def doRead(self) -> Any:
        self.on_read()

    def doWrite(self) -> Any:
        self.written += 1

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, lean: LeanReactor) -> Callable[..., Epoll]:
    def script(*events: tuple[int, int]) -> Epoll:
        epoll = Epoll(*events)
        monkeypatch.setattr(lean, "_epoll", epoll)
        return epoll

    real: Any = reactor
    real.removeReader(lean)
    return script


def test_a_turn_is_bounded_and_never_waits(lean: LeanReactor, scripted: Callable[..., Epoll]) -> None:
    epoll = scripted()
    lean.doRead()
    assert epoll.asked == [(0, lean_module.EVENTS_PER_TURN)]


def test_a_new_connection_under_the_number_of_one_that_ended_hears_nothing_of_its_end(
    lean: LeanReactor, scripted: Callable[..., Epoll]
) -> None:
    scripted((5, select.EPOLLIN), (6, select.EPOLLHUP))
    old, new = Descriptor(6), Descriptor(6)

    def replace() -> None:
        lean.removeReader(old)
        lean.addReader(new)

    lean.addReader(Descriptor(5, replace))
    lean.addReader(old)
    lean.doRead()
    assert not new.lost
    lean.doRead()
    assert new.lost


def test_what_ends_while_it_is_read_is_not_written_to(lean: LeanReactor, scripted: Callable[..., Epoll]) -> None:
    scripted((5, select.EPOLLIN | select.EPOLLOUT))

    def end() -> None:
        lean.removeReader(each)
        lean.removeWriter(each)

    each = Descriptor(5, end)
    lean.addReader(each)
    lean.addWriter(each)
    lean.doRead()
    assert not each.written


@pytest.mark.parametrize("event", [select.EPOLLHUP, select.EPOLLERR, select.EPOLLHUP | select.EPOLLERR])
def test_a_connection_that_broke_ends(lean: LeanReactor, scripted: Callable[..., Epoll], event: int) -> None:
    scripted((5, event))
    each = Descriptor(5)
    lean.addReader(each)
    lean.doRead()
    assert len(each.lost) == 1
    assert not lean.getReaders()


@old_certificates
@pytest_twisted.ensureDeferred
async def test_tls_works_over_lean_connections(doors: Doors, lean: LeanReactor, tmp_path: Path) -> None:
    pem = write_certificate(tmp_path)
    made: list[Near] = []

    def answer(near: Near, data: bytes) -> None:
        if data.endswith(b"end"):
            near.transport.loseConnection()
        else:
            near.transport.write(data)
            near.transport.writeSequence([b"big:", BIG])

    description = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    port = await doors.listen(description, factory(answer, made), lean)
    assert port in lean.getReaders()
    remote = Remote()
    trust = ssl.optionsForClientTLS("localhost", ssl.Certificate.loadPEM(pem.read_bytes()))
    endpoint = wrapClientTLS(trust, HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port))
    await connectProtocol(endpoint, remote)
    remote.transport.write(b"hello")
    assert await remote.take(9 + len(BIG)) == b"hellobig:" + BIG
    remote.transport.write(b"end")
    await until(lambda: remote.lost)


@old_certificates
@pytest_twisted.ensureDeferred
async def test_a_connection_can_turn_to_tls_later(doors: Doors, lean: LeanReactor, tmp_path: Path) -> None:
    pem = write_certificate(tmp_path)
    certificate = ssl.PrivateCertificate.loadPEM(pem.read_bytes())

    def answer(near: Near, data: bytes) -> None:
        if data == b"starttls":
            near.transport.write(b"ok")
            near.transport.startTLS(certificate.options())
        else:
            near.transport.write(data * 2)

    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(answer), lean))
    remote.transport.write(b"starttls")
    assert await remote.take(2) == b"ok"
    remote.transport.startTLS(ssl.CertificateOptions(verify=False))
    remote.transport.write(b"secret")
    assert await remote.take(12) == b"secretsecret"


@pytest_twisted.ensureDeferred
async def test_it_serves_client_endpoints_unix_ports_and_timers_as_the_reactor_does(
    doors: Doors, lean: LeanReactor, tmp_path: Path
) -> None:
    port = await doors.listen(f"unix:{tmp_path}/s", factory(echo), lean)
    remote = await doors.connect(f"unix:{port.getHost().name.decode()}", using=lean)
    remote.transport.write(b"unix")
    assert await remote.take(4) == b"unix"
    tcp = await doors.listen("tcp:0:interface=127.0.0.1", factory(echo), lean)
    over_tcp = Remote()
    await connectProtocol(HostnameEndpoint(lean, "127.0.0.1", tcp.getHost().port), over_tcp)
    over_tcp.transport.write(b"named")
    assert await over_tcp.take(5) == b"named"
    over_tcp.transport.loseConnection()
    fired: Deferred[None] = Deferred()
    lean.callLater(0, fired.callback, None)
    await fired
    assert interfaces.IReactorTime.providedBy(lean)
    assert interfaces.IReactorFDSet.providedBy(lean)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_resets_a_connection_that_is_not_read_from_is_noticed(doors: Doors, lean: LeanReactor) -> None:
    made: list[Near] = []

    def answer(near: Near, data: bytes) -> None:
        near.transport.pauseProducing()
        near.transport.write(BIG)

    remote = await doors.dial(await doors.listen("tcp:0:interface=127.0.0.1", factory(answer, made), lean))
    remote.transport.pauseProducing()
    remote.transport.write(b"x")
    await until(lambda: made[0].transport in lean.getWriters())
    remote.transport.abortConnection()
    await until(lambda: made[0].lost)
    assert made[0].transport not in lean.getWriters()


@pytest_twisted.ensureDeferred
async def test_when_the_reactor_stops_every_connection_hears_of_it(doors: Doors, lean: LeanReactor) -> None:
    made: list[Near] = []
    port = await doors.listen("tcp:0:interface=127.0.0.1", factory(echo, made, Raising), lean)
    remotes = [await doors.dial(port) for _ in range(2)]
    await until(lambda: len(made) == 2)
    await port.stopListening()
    doors.forget(port)
    real: Any = reactor
    real.removeReader(lean)
    lean.connectionLost(Failure(ConnectionError()))
    assert all(near.lost for near in made)
    await until(lambda: all(remote.lost for remote in remotes))


def test_without_epoll_the_reactor_itself_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")
    assert lean_reactor(reactor) is reactor
