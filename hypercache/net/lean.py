"""All TCP connections of a node behind one reader of the reactor, and a first send without a detour.

A reactor calls each ready socket within a logging context, and a transport's write waits for the next turn with two system
calls of registration. At one request a read that is half of what a request costs. `LeanReactor` has an epoll of its own, whose
descriptor is a single reader of the real reactor: when it is ready, all sockets that are get their turn in one tight loop.
`LeanServer` and `LeanClient` send at once where nothing is queued. What is put off for no time while they are served, and what
other threads hand over, runs at the end of that same turn: each hop would cost a turn of the real reactor and its system calls.
Everything else (buffering, producers, TLS, closing) stays Twisted's.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import tcp
from twisted.internet.base import DelayedCall
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IConnector, IDelayedCall, IListeningPort
    from twisted.internet.protocol import ClientFactory, ServerFactory

EVENTS_PER_TURN: Final = 512
"""How many sockets are served before timers and other readers get their turn."""
ROUNDS_PER_TURN: Final = 4
"""How often what is put off by what was put off runs within one turn, before it has to wait for the next."""

_log = Logger()


class _DirectSend(tcp.Connection):
    """A TCP connection whose first send is direct."""

    def write(self, data: bytes) -> None:
        """Send at once where nothing is queued, queue what the kernel does not take."""
        queued = self.dataBuffer or self._tempDataBuffer or self.TLS
        # A pull producer is asked for more when the queue has emptied, so it must pass through the queue.
        direct = self.producer is None or self.streamingProducer
        if data and self.connected and direct and not queued and not self.disconnecting and not self._writeDisconnected:
            try:
                sent = self.socket.send(data)
            except OSError:
                # The ordinary path meets the same error and knows what to do about it.
                sent = 0
            if sent == len(data):
                return
            if sent:
                data = data[sent:]
        super().write(data)

    def doRead(self) -> ConnectionDone | ConnectionLost | None:  # type: ignore[override]
        """Read what is there, once; return why the connection ends, if it does."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Do as `write` with all pieces at once."""
        self.write(b"".join(pieces))


class LeanServer(_DirectSend, tcp.Server):
    """A server's side of a TCP connection whose first send is direct."""


class LeanClient(_DirectSend, tcp.Client):
    """A client's side of one."""


class LeanPort(tcp.Port):
    """A listening port whose connections are `LeanServer`s."""

    transport = LeanServer


class _LeanConnector(tcp.Connector):
    """Makes a `LeanClient`."""

    def _makeTransport(self) -> LeanClient:
        return LeanClient(self.host, self.port, self.bindAddress, self, self.reactor)


@implementer(IReactorFDSet, IReadDescriptor)
class LeanReactor:
    """Stands in for a reactor; what it has no part in goes to the real one.

    Args:
        reactor: the real reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._masks: dict[int, int] = {}
        self._sockets: dict[int, Any] = {}
        self._numbers: dict[Any, int] = {}
        # Numbers that were given up during this turn.
        self._closed: set[int] = set()
        self._serving = False
        # What is to run before the turn ends.
        self._put_off: list[DelayedCall] = []
        # What other threads want run; whoever finds the loop not woken wakes it.
        self._handed_over: deque[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()
        self._woken = False
        self._closing = threading.Lock()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._waker, select.EPOLLIN)
        # Endpoints choose their ways by what a reactor provides.
        directlyProvides(self, providedBy(reactor))
        reactor.addReader(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Listen as the real reactor does, with lean connections."""
        listening = LeanPort(port, factory, max(backlog, 511), interface, self)
        listening.startListening()
        return listening

    def listenSSL(
        self,
        port: int,
        factory: ServerFactory,
        contextFactory: Any,  # noqa: N803 - IReactorSSL's name
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        """Listen as the real reactor does, with TLS over lean connections."""
        wrapped: Any = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self.listenTCP(port, wrapped, backlog, interface)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: Any = None,  # noqa: N803 - IReactorTCP's name
    ) -> IConnector:
        """Connect as the real reactor does, with a lean connection."""
        connector = _LeanConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def connectSSL(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        contextFactory: Any,  # noqa: N803 - IReactorSSL's name
        timeout: float = 30,
        bindAddress: Any = None,  # noqa: N803 - IReactorSSL's name
    ) -> IConnector:
        """Connect as the real reactor does, with TLS over a lean connection."""
        wrapped: Any = TLSMemoryBIOFactory(contextFactory, True, factory)
        return self.connectTCP(host, port, wrapped, timeout, bindAddress)

    # IReactorTime, IReactorFromThreads

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> IDelayedCall:  # noqa: A002
        """Call later; what waits for no time is called at the end of the turn, where there is one."""
        if delay or not self._serving:
            later: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kw)
            return later
        seconds = self._reactor.seconds
        call = DelayedCall(seconds(), callable, args, kw, _nothing, self._rearm, seconds)
        self._put_off.append(call)
        return call

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kw: object) -> None:  # noqa: A002
        """Have the loop call something soon; for other threads."""
        if self._epoll.closed:
            self._reactor.callFromThread(callable, *args, **kw)
            return
        self._handed_over.append((callable, args, kw))
        if not self._woken:
            self._woken = True
            with self._closing:
                # Else the number may be that of another file by now.
                if not self._epoll.closed:
                    os.eventfd_write(self._waker, 1)

    # IReactorFDSet

    def addReader(self, reader: Any) -> None:
        """Watch a socket for input."""
        self._watch(reader, select.EPOLLIN)

    def addWriter(self, writer: Any) -> None:
        """Watch a socket for room to write."""
        self._watch(writer, select.EPOLLOUT)

    def removeReader(self, reader: Any) -> None:
        """Watch a socket for input no more."""
        self._unwatch(reader, select.EPOLLIN)

    def removeWriter(self, writer: Any) -> None:
        """Watch a socket for room to write no more."""
        self._unwatch(writer, select.EPOLLOUT)

    def removeAll(self) -> list[Any]:
        """Forget all sockets and return them."""
        sockets = list(self._numbers)
        for each in sockets:
            self._unwatch(each, select.EPOLLIN | select.EPOLLOUT)
        return sockets

    def getReaders(self) -> list[Any]:
        """Return what is watched for input."""
        return [each for each, number in self._numbers.items() if self._masks[number] & select.EPOLLIN]

    def getWriters(self) -> list[Any]:
        """Return what is watched for room to write."""
        return [each for each, number in self._numbers.items() if self._masks[number] & select.EPOLLOUT]

    # IReadDescriptor, towards the real reactor

    def fileno(self) -> int:
        """Return the epoll's descriptor."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Return the name in log lines."""
        return "LeanReactor"

    def connectionLost(self, reason: Failure) -> None:
        """Close everything: the real reactor stops."""
        for each in self.removeAll():
            _end(each, reason)
        with self._closing:
            self._epoll.close()
            os.close(self._waker)
        while self._handed_over:
            function, args, kw = self._handed_over.popleft()
            self._reactor.callFromThread(function, *args, **kw)

    def doRead(self) -> None:
        """Serve the sockets that are ready, then run what was put off meanwhile."""
        self._serving = True
        self._serve()
        for _ in range(ROUNDS_PER_TURN):
            calls = self._put_off
            if not calls:
                break
            self._put_off = []
            for call in calls:
                self._run(call)
        self._serving = False
        if self._put_off:
            calls, self._put_off = self._put_off, []
            for call in calls:
                self._rearm(call)

    def _serve(self) -> None:
        sockets: dict[int, Any] = self._sockets
        closed = self._closed
        closed.clear()
        for number, event in self._epoll.poll(0, EVENTS_PER_TURN):
            # One may have closed another, or itself, since the poll; its number may even be a new one's already.
            each = sockets.get(number)
            if each is None or (closed and number in closed):
                if number == self._waker:
                    self._take_over()
                continue
            why: Any = None
            reading = False
            try:
                if event & select.EPOLLIN:
                    why = each.doRead()
                    reading = bool(why)
                if not why and event & select.EPOLLOUT and number not in closed:
                    why = each.doWrite()
                if not why and event & (select.EPOLLHUP | select.EPOLLERR) and not event & select.EPOLLIN:
                    why = ConnectionLost()
            except Exception as error:  # noqa: BLE001 - one connection's fault must not end the others
                _log.failure("a connection failed")
                why = error
            if why:
                self._disconnect(each, why, reading=reading)

    def _disconnect(self, each: Any, why: Exception, *, reading: bool) -> None:
        self.removeReader(each)
        reason = Failure(why)
        # The far side has closed its half; after a write the same means that this side is done.
        if reading and isinstance(why, ConnectionDone) and IHalfCloseableDescriptor.providedBy(each):
            try:
                each.readConnectionLost(reason)
            except Exception as error:  # noqa: BLE001 - see above
                _log.failure("a connection failed")
                reason = Failure(error)
            else:
                return
        self.removeWriter(each)
        _end(each, reason)

    def _take_over(self) -> None:
        """Call what other threads handed over until now."""
        # In this order: who hands something over behind the reading wakes the loop again, and its waking is not read away.
        os.eventfd_read(self._waker)
        self._woken = False
        handed_over = self._handed_over
        for _ in range(len(handed_over)):
            function, args, kw = handed_over.popleft()
            try:
                function(*args, **kw)
            except Exception:  # noqa: BLE001 - one thread's fault must not end the others
                _log.failure("what a thread handed over failed")

    def _run(self, call: DelayedCall) -> None:
        if call.cancelled or call.called:
            return
        if call.delayed_time > 0:
            call.activate_delay()
            self._rearm(call)
            return
        call.called = 1
        try:
            call.func(*call.args, **call.kw)
        except Exception:  # noqa: BLE001 - one call's fault must not end the others
            _log.failure("what was put off failed")

    def _rearm(self, call: DelayedCall) -> None:
        """Have the real reactor see to a call of a turn that was given another time, or for which the turn was too short."""
        self._reactor.callLater(max(0.0, call.time - self._reactor.seconds()), self._run, call)

    def _watch(self, each: Any, bit: int) -> None:
        number = each.fileno()
        mask = self._masks.get(number)
        if mask is None:
            self._epoll.register(number, bit)
            self._masks[number] = bit
            self._sockets[number] = each
            self._numbers[each] = number
        elif not mask & bit:
            self._masks[number] = mask | bit
            self._epoll.modify(number, mask | bit)

    def _unwatch(self, each: Any, bit: int) -> None:
        # By the socket, not by its descriptor: a closed one has none any more.
        number = self._numbers.get(each)
        if number is None:
            return
        mask = self._masks[number] & ~bit
        if mask == self._masks[number]:
            return
        if mask:
            self._masks[number] = mask
            self._epoll.modify(number, mask)
            return
        del self._masks[number], self._sockets[number], self._numbers[each]
        self._closed.add(number)
        if each.fileno() == number:
            self._epoll.unregister(number)


def _nothing(call: DelayedCall) -> None:
    """A call that was cancelled is passed over."""


def _end(each: Any, reason: Failure) -> None:
    try:
        each.connectionLost(reason)
    except Exception:  # noqa: BLE001 - what a protocol does at its end must not end the others
        _log.failure("a connection failed at its end")


def lean_reactor(reactor: Any) -> Any:
    """Return a `LeanReactor` where the platform has epoll, else the reactor itself."""
    return LeanReactor(reactor) if hasattr(select, "epoll") else reactor
