"""An attacker on the link: a real TCP relay that sees whole frames, and does with them what the test says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

from hypercache.wire.header import MAGIC
from tests.links.pair import BODY_AT

if TYPE_CHECKING:
    from collections.abc import Callable

TO_LISTENER = 0
TO_DIALLER = 1


class Connection:
    """One connection that goes through the relay.

    Attributes:
        frames: those that came so far, as they came, by direction.
        is_open: both halves stand.
        silent: nothing is passed on any more, in either direction, and nobody is told.
    """

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.frames: tuple[list[bytes], list[bytes]] = ([], [])
        self.is_open = True
        self.silent = False
        self.ends: list[Half | None] = [None, None]
        self._early: list[bytes] = []

    def put(self, direction: int, data: bytes) -> None:
        """Send bytes in a direction."""
        end = self.ends[direction]
        if end is None:
            self._early.append(data)
        elif self.is_open and not self.silent:
            end.transport.write(data)

    def opened(self, half: Half) -> None:
        """The far half stands."""
        self.ends[TO_LISTENER] = half
        early, self._early = self._early, []
        for data in early:
            self.put(TO_LISTENER, data)

    def came(self, direction: int, frame: bytes) -> None:
        for each in self.relay.change(self, direction, frame):
            self.put(direction, each)
        self.frames[direction].append(frame)

    def cut(self) -> None:
        """End both halves at once."""
        self.is_open = False
        for end in self.ends:
            if end is not None and end.transport is not None:
                end.transport.abortConnection()


class Half(Protocol):
    """The relay's end of one half; what it reads goes in a direction."""

    transport: Any

    def __init__(self, connection: Connection, direction: int) -> None:
        self._connection = connection
        self._direction = direction
        self._unread = b""

    def dataReceived(self, data: bytes) -> None:
        data = self._unread + data
        while len(data) >= BODY_AT and data.startswith(MAGIC):
            end = BODY_AT + int.from_bytes(data[6:10], "big")
            if len(data) < end:
                break
            self._connection.came(self._direction, data[:end])
            data = data[end:]
        self._unread = data
        if data and not MAGIC.startswith(data[:4]) and not data.startswith(MAGIC):
            # TLS, for one: passed on as it is.
            self._unread = b""
            self._connection.put(self._direction, data)

    def connectionLost(self, reason: Any = None) -> None:
        if not self._connection.silent:
            self._connection.cut()


def untouched(connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    """Pass on a frame."""
    return [frame]


class Relay:
    """Listens, and passes on what comes to another port.

    Attributes:
        target: that port.
        change: is given a connection, a direction and a frame, and returns what is sent instead.
        connections: all that there were.
    """

    def __init__(self) -> None:
        self.target = 0
        self.change: Callable[[Connection, int, bytes], list[bytes]] = untouched
        self.connections: list[Connection] = []
        self._port: Any = None

    async def start(self) -> Relay:
        self._port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(_Accepting(self))
        return self

    @property
    def port(self) -> int:
        number: int = self._port.getHost().port
        return number

    @property
    def open_connections(self) -> list[Connection]:
        return [each for each in self.connections if each.is_open]

    def accept(self) -> Half:
        """Return the near half of a new connection; the far one follows."""
        connection = Connection(self)
        self.connections.append(connection)
        near = Half(connection, TO_LISTENER)
        connection.ends[TO_DIALLER] = near
        far = Half(connection, TO_DIALLER)
        opening = connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.target), far)
        opening.addCallbacks(connection.opened, lambda failure: connection.cut())
        return near

    async def stop(self) -> None:
        await self._port.stopListening()
        for each in self.connections:
            each.cut()


class _Accepting(Factory):
    noisy = False

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def buildProtocol(self, addr: Any) -> Half:
        return self._relay.accept()
