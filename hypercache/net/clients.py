"""The RESP door: connections, their engines, back-pressure and limits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hypercache.limits import (
    CLIENTS_MAX_COUNT,
    OUTPUT_BUFFER_MAX_BYTES,
    OUTPUT_BUFFER_PAUSE_BYTES,
    OUTPUT_STALL_SECONDS,
    QUERY_BUFFER_MAX_BYTES,
    READ_CHUNK_BYTES,
    VALUE_MAX_BYTES,
)
from hypercache.net.replies import Replies
from hypercache.resp import CommandTable, Engine, RequestParser, ServerContext, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.interfaces import IAddress
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
        output_max: unsent replies, in bytes, at which it is cut; a single reply may exceed it.
        output_stall: seconds for which a client may read nothing of what waits before it is cut.
    """

    max_clients: int = CLIENTS_MAX_COUNT
    idle_timeout: float = 0.0
    value_max: int = VALUE_MAX_BYTES
    query_buffer: int = QUERY_BUFFER_MAX_BYTES
    output_pause: int = OUTPUT_BUFFER_PAUSE_BYTES
    output_max: int = OUTPUT_BUFFER_MAX_BYTES
    output_stall: float = OUTPUT_STALL_SECONDS


class ClientProtocol(Protocol):
    """One client's connection."""

    transport: Any
    _replies: Replies

    def __init__(self, factory: ClientFactory, number: int) -> None:
        self.factory = factory
        self.session = Session(number, factory.server.keyspace, factory.server, int(factory.wall() * 1000))
        limits = factory.limits
        parser = RequestParser(value_max_bytes=limits.value_max, buffer_max_bytes=limits.query_buffer)
        self._parser = parser
        self._engine = Engine(self.session, factory.table, parser, self._ready)
        self._reading = True
        self._served = False
        self._finishing = False
        self._killed = False
        self._refusal: Any = None
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
            # One that does not even finish its TLS handshake would stay.
            self._refusal = factory.clock.callLater(factory.limits.output_stall, transport.abortConnection)
            return
        self._addresses = (_shown(transport.getPeer()), _shown(transport.getHost()))
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        # What one client may have run at a time, when each of its commands evicts: a few milliseconds.
        transport.bufferSize = READ_CHUNK_BYTES
        self._replies = Replies(transport, clock=factory.clock, limits=factory.limits, on_room=self._go_on, on_cut=self._cut)
        factory.clients[self.session.client_id] = self
        self._served = True

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget everything."""
        if self._served:
            self._served = False
            self._replies.drop()
            self.factory.forget(self)
        elif self._refusal is not None and self._refusal.active():
            self._refusal.cancel()

    def dataReceived(self, data: bytes) -> None:
        """Run what was read and write all replies at once."""
        if not self._served or self.session.closing or self._finishing:
            return
        self.factory.bytes_in += len(data)
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        factory = self.factory
        replies = self._engine.feed(data, int(factory.wall() * 1000))
        if replies:
            factory.bytes_out += len(replies)
            self._replies.write(replies)
        factory.after_feed()
        if self.session.closing:
            self._close()
        elif self._engine.stalled:
            self._wait()
        elif self._replies.waiting_bytes and self._replies.crowded:
            self._stop_reading()

    def _wait(self) -> None:
        """Have the commands that wait go on when they can."""
        if not self._engine.waiting:
            self._stop_reading()
            if not self._replies.blocked:
                self.factory.hold_back(self)
        elif self._engine.behind:
            # Whoever waits for its replies before it sends more costs the reactor nothing.
            self._stop_reading()

    def _ready(self) -> None:
        """Go on with the replies that came."""
        if not self._served or self.session.closing:
            return
        if self._finishing:
            self._feed(b"")
            self.session.closing = True
        self._go_on()

    def _close(self) -> None:
        """Close once everything went out."""
        if self._killed:
            return
        if not self._replies:
            # TLS ends when the client's word of that is read.
            self._start_reading()
        else:
            self._stop_reading()
        self._replies.close()

    def go_on(self) -> None:
        """Run commands that were held back."""
        if self._served and not self.session.closing:
            self._go_on()

    def _go_on(self) -> None:
        """Go on after a piece of the replies went out."""
        if self.session.closing:
            self._close()
            return
        if self._engine.stalled and not self._replies.blocked:
            self._feed(b"")
        if not (self._reading or self._engine.stalled or self.session.closing or self._replies.crowded):
            self._start_reading()

    def _cut(self, reason: str) -> None:
        self.factory.cut += 1
        _log.warn("cutting client {address}: {reason}", address=self._addresses[0], reason=reason)
        self.kill()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def _start_reading(self) -> None:
        if not self._reading:
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
            "oll": len(self._replies),
            "omem": self._replies.waiting_bytes,
            "tot-mem": self._parser.buffered_bytes + self._replies.waiting_bytes,
            "events": "r" if self._reading else "",
        }

    def kill(self) -> None:
        """Close the connection at once."""
        self.session.closing = self._killed = True
        self._replies.drop()
        self.transport.abortConnection()

    def finish(self) -> None:
        """Close the connection when all replies went out: the node shuts down, or no command came for too long."""
        if self._engine.waiting:
            self._finishing = True
            self._engine.finish()
            return
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
        # With the pause that they saw.
        self._held_back: dict[ClientProtocol, tuple[int, bool]] = {}
        self._retry: Any = None
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
        self._check_drained()

    def forget(self, client: ClientProtocol) -> None:
        """Take note that a connection is gone."""
        self.clients.pop(client.session.client_id, None)
        self._held_back.pop(client, None)
        self._check_drained()

    def hold_back(self, client: ClientProtocol) -> None:
        """Have a client go on later: CLIENT PAUSE, or the size of its replies, holds its commands back."""
        self._held_back[client] = self._pause()
        if self._retry is None or not self._retry.active():
            self._retry = self.clock.callLater(_PAUSE_POLL_SECONDS, self._let_go)

    def _pause(self) -> tuple[int, bool]:
        return self.server.pause_until_ms, self.server.pause_writes_only

    def _let_go(self) -> None:
        """Let those go on for whom something may have changed: ten thousand that are paused cost nothing."""
        pause = self._pause()
        lasts = pause[0] > self.wall() * 1000
        for client, seen in list(self._held_back.items()):
            if not (lasts and seen == pause):
                del self._held_back[client]
                client.go_on()
        if self._held_back and not self._retry.active():
            self._retry = self.clock.callLater(_PAUSE_POLL_SECONDS, self._let_go)

    def _check_drained(self) -> None:
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
