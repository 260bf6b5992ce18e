"""All sockets of a door behind one reader of the reactor, and a first send without a detour.

A reactor calls each ready socket within a logging context, and a transport's write waits for the next turn with two system
calls of registration. At one request a read that is half of what a request costs. `LeanReactor` has an epoll of its own, whose
descriptor is a single reader of the real reactor: when it is ready, all sockets that are get their turn in one tight loop.
`LeanServer` sends at once where nothing is queued. Everything else (buffering, producers, TLS, closing) stays Twisted's.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import ServerFactory

EVENTS_PER_TURN: Final = 512
"""How many sockets are served before timers and other readers get their turn."""

_log = Logger()


class LeanServer(tcp.Server):
    """A server's side of a TCP connection whose first send is direct."""

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

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Do as `write` with all pieces at once."""
        self.write(b"".join(pieces))


class LeanPort(tcp.Port):
    """A listening port whose connections are `LeanServer`s."""

    transport = LeanServer


@implementer(IReactorFDSet, IReadDescriptor)
class LeanReactor:
    """Stands in for a reactor towards endpoints that listen; what it has no part in goes to the real one.

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
        self._epoll.close()

    def doRead(self) -> None:
        """Serve the sockets that are ready."""
        sockets: dict[int, Any] = self._sockets
        closed = self._closed
        closed.clear()
        for number, event in self._epoll.poll(0, EVENTS_PER_TURN):
            # One may have closed another, or itself, since the poll; its number may even be a new one's already.
            each = sockets.get(number)
            if each is None or (closed and number in closed):
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


def _end(each: Any, reason: Failure) -> None:
    try:
        each.connectionLost(reason)
    except Exception:  # noqa: BLE001 - what a protocol does at its end must not end the others
        _log.failure("a connection failed at its end")


def lean_reactor(reactor: Any) -> Any:
    """Return a `LeanReactor` where the platform has epoll, else the reactor itself."""
    return LeanReactor(reactor) if hasattr(select, "epoll") else reactor
