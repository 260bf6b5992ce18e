"""The network between real nodes: a TCP relay in front of each, which knows who dials and does to the bytes what the test says."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

from tests.chaos.servers import settle

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

HELD_MAX_BYTES: Final = 4 << 20
"""What one direction of one connection holds back before its sender is read no more."""

STRANGER: Final = -1
"""Who dials where that cannot be told."""


class Weather(msgspec.Struct, frozen=True):
    """What becomes of the bytes from one node to another.

    Attributes:
        blocked: none arrive, nor does a connection's end, until that changes; then all do.
        delay: seconds that they take.
        jitter: up to so many more; their order stays.
        stall_share: the share of reads that take ``stall`` seconds more, as what is lost and sent again does.
        stall: seconds.
        break_share: the share of reads at which the connection breaks.
    """

    blocked: bool = False
    delay: float = 0.0
    jitter: float = 0.0
    stall_share: float = 0.0
    stall: float = 0.2
    break_share: float = 0.0


FAIR: Final = Weather()
BLOCKED: Final = Weather(blocked=True)


class Wires:
    """The relays of a cluster.

    Args:
        rng: decides on jitter and loss.
        dialler: returns the node that has a local port; `STRANGER` where none has.
    """

    def __init__(self, rng: random.Random, dialler: Callable[[int], int]) -> None:
        self.rng = rng
        self.dialler = dialler
        self.lanes: set[Lane] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()
        self._weather: dict[tuple[int, int], Weather] = {}
        self._servers: list[asyncio.Server] = []

    def between(self, source: int, target: int) -> Weather:
        """Return the weather on the way from one node to another."""
        return self._weather.get((source, target), FAIR)

    def set(self, ways: Iterable[tuple[int, int]], weather: Weather) -> None:
        """Change the weather on some ways, also of connections that there are."""
        for way in ways:
            self._weather[way] = weather
        self.changed.set()
        self.changed = asyncio.Event()
        for lane in list(self.lanes):
            lane.pump()

    def heal(self) -> None:
        """Make it fair everywhere."""
        self.set(list(self._weather), FAIR)

    async def relay(self, target: int, port_of: Callable[[], int]) -> int:
        """Start the relay in front of a node; return its port.

        Args:
            target: the node.
            port_of: returns the port that it listens on.
        """

        def accept() -> Half:
            near = Half()
            task = asyncio.ensure_future(self._connect(near, target, port_of))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return near

        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _connect(self, near: Half, target: int, port_of: Callable[[], int]) -> None:
        """Connect on to the node once the way there and back is free."""
        await near.made
        source = self.dialler(near.peer_port)
        while self.between(source, target).blocked or self.between(target, source).blocked:
            await self.changed.wait()
        there, back = Lane(self, source, target), Lane(self, target, source)
        try:
            _, far = await asyncio.get_running_loop().create_connection(Half, "127.0.0.1", port_of())
        except OSError:
            near.transport.abort()
            return
        near.lead_into(there, back)
        far.lead_into(back, there)
        self.lanes |= {there, back}

    async def close(self) -> None:
        """End all connections, and listen no more."""
        for server in self._servers:
            server.close()
        for task in list(self.tasks):
            task.cancel()
        for lane in list(self.lanes):
            lane.cut()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        await settle()


class Half(asyncio.Protocol):
    """The relay's end of one half of a connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.peer_port = 0
        self._out: Lane | None = None
        self._in: Lane | None = None
        self._early = b""
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer_port = transport.get_extra_info("peername")[1]
        self.made.set_result(None)

    def lead_into(self, out: Lane, back: Lane) -> None:
        """Say where what is read goes, and from where it is written."""
        self._out, self._in = out, back
        out.reader, back.writer = self.transport, self.transport
        if self._early:
            out.feed(self._early)
        if self._is_lost:
            out.feed(b"")
        back.pump()

    def data_received(self, data: bytes) -> None:
        if self._out is None:
            self._early += data
        else:
            self._out.feed(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._out is not None:
            self._out.feed(b"")

    def pause_writing(self) -> None:
        if self._in is not None:
            self._in.is_full = True

    def resume_writing(self) -> None:
        if self._in is not None:
            self._in.is_full = False
            self._in.pump()


class Lane:
    """One direction of a connection: what was read, and when it is due."""

    def __init__(self, wires: Wires, source: int, target: int) -> None:
        self.source, self.target = source, target
        self.reader: asyncio.Transport | None = None
        self.writer: asyncio.Transport | None = None
        self.is_full = False
        self._wires = wires
        self._queue: deque[tuple[float, bytes]] = deque()
        self.held = 0
        self._latest = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def feed(self, data: bytes) -> None:
        """Take what was read; nothing stands for the end."""
        weather, rng = self._wires.between(self.source, self.target), self._wires.rng
        if data and weather.break_share and rng.random() < weather.break_share:
            self.cut()
            return
        due = self._loop.time() + weather.delay + weather.jitter * rng.random()
        if weather.stall_share and rng.random() < weather.stall_share:
            due += weather.stall
        self._latest = max(due, self._latest)
        self._queue.append((self._latest, data))
        self.held += len(data)
        if self.held > HELD_MAX_BYTES and self.reader is not None:
            self.reader.pause_reading()
        self.pump()

    def pump(self) -> None:
        """Write what is due."""
        if self.writer is None or self.is_full or self._wires.between(self.source, self.target).blocked:
            return
        now = self._loop.time()
        while self._queue and self._queue[0][0] <= now and not self.is_full:
            data = self._queue.popleft()[1]
            if not data:
                self.writer.close()
                self._wires.lanes.discard(self)
                return
            self.held -= len(data)
            self.writer.write(data)
        if (
            self.held <= HELD_MAX_BYTES
            and self.reader is not None
            and not self.reader.is_reading()
            and not self.reader.is_closing()
        ):
            self.reader.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._queue[0][0], self.pump) if self._queue and not self.is_full else None

    def cut(self) -> None:
        """End the connection at once, both ways."""
        if self._timer is not None:
            self._timer.cancel()
        self._wires.lanes.discard(self)
        for transport in (self.reader, self.writer):
            if transport is not None:
                transport.abort()


def owner_of(port: int, processes: dict[int, int]) -> int:
    """Return the node one of whose connections has a local port.

    Args:
        port: that.
        processes: the nodes' process ids, by node.
    """
    for node, process_id in processes.items():
        try:
            connections = psutil.Process(process_id).net_connections("tcp4")
        except psutil.Error:
            continue
        if any(each.laddr and each.laddr.port == port for each in connections):
            return node
    return STRANGER
