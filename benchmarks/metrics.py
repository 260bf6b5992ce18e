"""What counting and timing costs: two links over loopback TCP, with the figures and with an object that keeps none.

Both links run in this process, by the reactor as in a node, and the handler does nothing: of other traffic the share is smaller.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.protocol import ClientFactory
from zope.interface import implementer

from benchmarks.report import Row
from hypercache.interfaces import IMessageHandler
from hypercache.limits import ERRORS_MAX_COUNT, MAX_FRAME_BYTES, RESYNC_MAX_BYTES
from hypercache.net.latency import Latency
from hypercache.net.lean import lean_reactor
from hypercache.net.metrics import MessageMetrics, Meter
from hypercache.net.peer import LinkSettings, PeerFactory, PeerLink
from hypercache.net.router import Router
from hypercache.wire.messages import SCHEMA, ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.wire import Message

WANTED_RATIO = 0.97
_MESSAGES = {200: 60_000, 1: 6_000}
# Each round goes back and forth between the two so often: what else the machine does meets both alike.
_SLICES = 20
_loop: Any = reactor


class _NoLatency(Latency):
    """Keeps no duration."""

    def record(self, seconds: float, count: int = 1) -> None:
        pass


class _NoMeter(Meter):
    """Counts nothing that takes a call, and times nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.round_trips = _NoLatency()

    def handled(self, count: int, seconds: float, later: int = 0) -> None:
        pass

    def took(self, seconds: float) -> None:
        pass


class _NoMetrics(MessageMetrics):
    """Has one such meter for all types."""

    _nothing = _NoMeter()

    def meter(self, message_type: int) -> Meter:
        return self._nothing


@implementer(IMessageHandler)
class _Done:
    """Answers every write by the same message."""

    message_type = ReplicateData.TYPE
    requires_auth = False
    _answer = ReplicateResponse(0, 0)

    def handle(self, context: Any, message: Message) -> Message:
        return self._answer


class _Dialling(ClientFactory):
    noisy = False

    def __init__(self, link: PeerLink) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> PeerLink:
        return self._link


class _Pair:
    """Two links, one of which asks the other."""

    def __init__(self, metrics: MessageMetrics) -> None:
        settings = LinkSettings(MAX_FRAME_BYTES, RESYNC_MAX_BYTES, ERRORS_MAX_COUNT)
        factory = PeerFactory(Router(SCHEMA, [_Done()]), metrics, settings, clock=_loop)
        self._port = lean_reactor(_loop).listenTCP(0, factory, interface="127.0.0.1")
        self._link = PeerLink(factory, dialled=True)
        _loop.connectTCP("127.0.0.1", self._port.getHost().port, _Dialling(self._link))
        _iterate(lambda: len(factory.links) == 2)
        self._factory = factory
        self._answers = 0

    def seconds(self, frames: list[bytes], repeats: int) -> float:
        """Return the CPU time of so many exchanges: requests sent together, until all are answered."""
        started = time.process_time()
        for _ in range(repeats):
            self._answers = 0
            self._link.ask_run(ReplicateData.TYPE, ReplicateResponse.TYPE, 1, frames, self._answered)
            _iterate(lambda: self._answers == len(frames))
        return time.process_time() - started

    def _answered(self, number: int, answer: object) -> None:
        self._answers += 1

    def close(self) -> None:
        self._port.stopListening()
        self._link.lose("measured")
        _iterate(lambda: not self._factory.links)


def _iterate(done: Callable[[], bool]) -> None:
    while not done():
        _loop.iterate(1)


def run(rounds: int, quick: bool) -> list[Row]:
    """Return a row for requests in runs, and one for requests one by one."""
    frame = ReplicateData(1, 0, "", b"key:%012d" % 5, bytes(66)).encode_frame()
    pairs = [_Pair(MessageMetrics(SCHEMA)), _Pair(_NoMetrics(SCHEMA))]
    rows = []
    for together, messages in _MESSAGES.items():
        repeats = messages // together // _SLICES // (10 if quick else 1)
        measured: list[list[float]] = [[], []]
        for number in range(rounds * _SLICES):
            # Who is first has the colder caches.
            for place in (0, 1) if number % 2 else (1, 0):
                seconds = pairs[place].seconds([frame] * together, repeats)
                measured[place].append(repeats * together / seconds)
        ratio = median(ours / without for ours, without in zip(*measured, strict=True))
        what = f"answered/s, {together} together, with figures and without"
        rows.append(Row(what, median(measured[0]), median(measured[1]), ratio, WANTED_RATIO))
    for pair in pairs:
        pair.close()
    return rows
