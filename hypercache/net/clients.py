"""The RESP door: connections, their engines, back-pressure and limits."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.limits import (
    CLIENTS_MAX_COUNT,
    OUTPUT_BUFFER_MAX_BYTES,
    OUTPUT_BUFFER_PAUSE_BYTES,
    OUTPUT_STALL_SECONDS,
    QUERY_BUFFER_MAX_BYTES,
    READ_CHUNK_BYTES,
    VALUE_MAX_BYTES,
)
from hypercache.resp import CommandTable, Engine, RequestParser, ServerContext, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

_log = Logger()
_PAUSE_POLL_SECONDS = 0.02


class ClientLimits(msgspec.Struct):
    """What bounds a client; CONFIG SET may change it at run time.

    Attributes:
        max_clients: connections at once.
        idle_timeout: seconds without a command after which one is closed; 0 for never.
        value_max: the longest argument, in bytes.
        query_buffer: the most that an unfinished command may take, in bytes.
        output_pause: unsent replies, in bytes, from which on a client is not read from.
        output_max: unsent replies, in bytes, at which it is cut.
        output_stall: seconds for which a client may read nothing of what waits before it is cut.
    """

    max_clients: int = CLIENTS_MAX_COUNT
    idle_timeout: float = 0.0
    value_max: int = VALUE_MAX_BYTES
    query_buffer: int = QUERY_BUFFER_MAX_BYTES
    output_pause: int = OUTPUT_BUFFER_PAUSE_BYTES
    output_max: int = OUTPUT_BUFFER_MAX_BYTES
    output_stall: float = OUTPUT_STALL_SECONDS


@implementer(IPushProducer)
class ClientProtocol(Protocol):
    """One client's connection."""

    transport: Any

    def __init__(self, factory: ClientFactory, number: int) -> None:
        self.factory = factory
        self.session = Session(number, factory.server.keyspace, factory.server, int(factory.wall() * 1000))
        limits = factory.limits
        parser = RequestParser(value_max_bytes=limits.value_max, buffer_max_bytes=limits.query_buffer)
        self._parser = parser
        self._engine = Engine(self.session, factory.table, parser)
        # Replies that wait because the transport's own buffer is full.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._blocked = False
        self._reading = True
        self._stall: IDelayedCall | None = None
        self._retry: IDelayedCall | None = None
        self._addresses = ("?:0", "?:0")

    def connectionMade(self) -> None:
        """Begin, or refuse where there are too many."""
        transport: Any = self.transport
        factory = self.factory
        factory.accepted += 1
        if len(factory.clients) >= factory.limits.max_clients:
            factory.rejected += 1
            transport.write(b"-ERR max number of clients reached\r\n")
            transport.loseConnection()
            return
        self._addresses = (_shown(transport.getPeer()), _shown(transport.getHost()))
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        # What one client may have run at a time, when each of its commands evicts: a few milliseconds.
        transport.bufferSize = READ_CHUNK_BYTES
        transport.registerProducer(self, True)
        factory.clients[self.session.client_id] = self

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget everything."""
        self.factory.clients.pop(self.session.client_id, None)
        self._waiting.clear()
        for call in (self._stall, self._retry):
            if call is not None and call.active():
                call.cancel()
        self.factory.check_drained()

    def dataReceived(self, data: bytes) -> None:
        """Run what was read and write all replies at once."""
        factory = self.factory
        if self.session.client_id not in factory.clients or self.session.closing:
            return
        factory.bytes_in += len(data)
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        factory = self.factory
        replies = self._engine.feed(data, int(factory.wall() * 1000))
        if replies:
            factory.bytes_out += len(replies)
            self._write(replies)
        factory.after_feed()
        if self.session.closing:
            self._close()
        elif self._engine.stalled:
            self._hold_back()

    def _write(self, replies: bytes) -> None:
        """Write, or keep what the transport has no room for: the one place that does."""
        if not self._blocked:
            self.transport.write(replies)
            return
        self._waiting.append(replies)
        self._waiting_bytes += len(replies)
        limits = self.factory.limits
        if self._waiting_bytes > limits.output_max:
            self._cut(f"over {limits.output_max} bytes of replies wait for it")
        elif self._waiting_bytes > limits.output_pause:
            self._stop_reading()

    def _close(self) -> None:
        """Close once everything went out."""
        self._stop_reading()
        if not self._waiting:
            self.transport.loseConnection()

    def _hold_back(self) -> None:
        """Commands wait, for a pause to end or for replies to go out: read nothing more until then."""
        self._stop_reading()
        if self._retry is None or not self._retry.active():
            self._retry = self.factory.clock.callLater(_PAUSE_POLL_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if self._engine.stalled and not self._blocked:
            self._feed(b"")
        elif self._engine.stalled:
            self._hold_back()
        self._resume_reading()

    # IPushProducer, towards the transport

    def pauseProducing(self) -> None:
        """Hold replies back: the transport's buffer is full."""
        self._blocked = True
        if self._stall is None:
            self._stall = self.factory.clock.callLater(self.factory.limits.output_stall, self._stalled)

    def resumeProducing(self) -> None:
        """Go on: the transport's buffer is empty."""
        self._blocked = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        while self._waiting and not self._blocked:
            replies = self._waiting.popleft()
            self._waiting_bytes -= len(replies)
            self._write(replies)
        if self.session.closing:
            self._close()
        else:
            self._resume_reading()

    def stopProducing(self) -> None:
        """Nothing more can be sent."""

    def _stalled(self) -> None:
        self._stall = None
        self._cut(f"it read nothing for {self.factory.limits.output_stall:g} seconds while replies waited")

    def _cut(self, reason: str) -> None:
        self.factory.cut += 1
        _log.warn("cutting client {address}: {reason}", address=self._addresses[0], reason=reason)
        self.kill()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        wanted = not (self._engine.stalled or self.session.closing or self._waiting_bytes > self.factory.limits.output_pause)
        if wanted and not self._reading:
            self._reading = True
            self.transport.resumeProducing()

    # Client, for CLIENT LIST and CLIENT KILL

    def describe(self) -> dict[str, str | int]:
        """Return the fields of a CLIENT LIST line that the door knows."""
        socket = getattr(self.transport, "socket", None)
        return {
            "addr": self._addresses[0],
            "laddr": self._addresses[1],
            "fd": socket.fileno() if socket is not None else -1,
            "qbuf": self._parser.buffered_bytes,
            "qbuf-free": 0,
            "argv-mem": 0,
            "multi-mem": 0,
            "obl": 0,
            "oll": len(self._waiting),
            "omem": self._waiting_bytes,
            "tot-mem": self._parser.buffered_bytes + self._waiting_bytes,
            "events": "r" if self._reading else "",
        }

    def kill(self) -> None:
        """Close the connection at once."""
        self.session.closing = True
        self._waiting.clear()
        self.transport.abortConnection()

    def finish(self) -> None:
        """Close the connection when all replies went out: the node shuts down."""
        self.session.closing = True
        self._close()

    def is_idle_since(self, moment_ms: float) -> bool:
        """Say whether no command came since that moment."""
        return self.session.last_ms < moment_ms


class ClientFactory(Factory):
    """The clients of a node: `hypercache.resp.contracts.Clients` for the commands.

    Args:
        table: the commands.
        limits: what bounds a client.
        clock: the reactor, for time-outs.
        wall: returns Unix seconds.

    Attributes:
        server: what commands know of the node; set once it is wired.
        after_feed: called after each read of a client, when it was run.
        accepted, rejected, cut, bytes_in, bytes_out: counters.
    """

    noisy = False
    server: ServerContext

    def __init__(self, table: CommandTable, limits: ClientLimits, *, clock: Any, wall: Callable[[], float] = time.time) -> None:
        self.table = table
        self.limits = limits
        self.clock = clock
        self.wall = wall
        self.clients: dict[int, ClientProtocol] = {}
        self.after_feed: Callable[[], None] = _nothing
        self._numbers = 0
        self._drained: Callable[[], None] | None = None
        self.reset_counters()
        self._sweep = LoopingCall(self._close_idle)
        self._sweep.clock = clock

    def reset_counters(self) -> None:
        """Set the counters to zero."""
        self.accepted = self.rejected = self.cut = self.bytes_in = self.bytes_out = 0

    def __iter__(self) -> Iterator[ClientProtocol]:
        return iter(list(self.clients.values()))

    def __len__(self) -> int:
        return len(self.clients)

    def doStart(self) -> None:
        """Start to look for idle clients."""
        super().doStart()
        if not self._sweep.running:
            self._sweep.start(1.0, now=False)

    def doStop(self) -> None:
        """Stop that."""
        super().doStop()
        if not self.numPorts and self._sweep.running:
            self._sweep.stop()

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        """Return the protocol of a new connection."""
        self._numbers += 1
        return ClientProtocol(self, self._numbers)

    def drain(self, drained: Callable[[], None]) -> None:
        """Close every connection once its replies went out; call ``drained`` when none is left."""
        self._drained = drained
        for client in self:
            client.finish()
        self.check_drained()

    def check_drained(self) -> None:
        """Report that no connection is left, where somebody waits for that."""
        if self._drained is not None and not self.clients:
            drained, self._drained = self._drained, None
            drained()

    def _close_idle(self) -> None:
        if self.limits.idle_timeout:
            moment = (self.wall() - self.limits.idle_timeout) * 1000
            for client in self:
                if client.is_idle_since(moment):
                    client.finish()


def _nothing() -> None:
    """Do nothing after a read."""


def _shown(address: Any) -> str:
    host = getattr(address, "host", None)
    if host is None:
        return f"{getattr(address, 'name', None) or 'unix'}:0"
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
