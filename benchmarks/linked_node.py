"""A node without clients: it answers over its links, or, told whom to join, asks.

Run as ``python -m benchmarks.linked_node DIRECTORY OVERRIDE …``.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface import implementer

from benchmarks.asking import Asking, Task, keep_in_flight, listen_to_orders, say
from benchmarks.json_values import json_values
from hypercache.cluster.copies import CopyReplicator
from hypercache.config import load_settings
from hypercache.discovery import Plugins
from hypercache.interfaces import IMessageHandler, IMessageHandlerFactory
from hypercache.limits import KIB
from hypercache.net.lean import lean_reactor
from hypercache.persist.identity import Identity
from hypercache.replication.apply import Applier
from hypercache.replication.feed import Feed
from hypercache.roles.peering import Peering
from hypercache.roles.process import tune_garbage_collection
from hypercache.store import Keyspace
from hypercache.tracing import Tracer
from hypercache.wire import SCHEMA, Message
from hypercache.wire.extension import request_head
from hypercache.wire.kinds import Part, rest
from hypercache.wire.messages import ReplicateData

if TYPE_CHECKING:
    from hypercache.config import Settings
    from hypercache.net.link import PeerLink

_CONTENT_BYTES = 100
_VALUE_BYTES = 64 * KIB
_SO_MAX_PACING_RATE = 47
_UNPACED = (1 << 64) - 1
# Of linux/tcp.h's struct tcp_info.
_INFO_BYTES = 192
_BYTES_SENT_AT = 120
_loop: Any = reactor


class Echo(Message, frozen=True, gc=False):
    """Asks for its content back."""

    TYPE: ClassVar[int] = 0x90
    ANSWER: ClassVar[int] = 0x91
    PARTS: ClassVar[tuple[Part, ...]] = (rest("data"),)
    data: bytes


class EchoReply(Message, frozen=True, gc=False):
    """The content of an Echo."""

    TYPE: ClassVar[int] = 0x91
    PARTS: ClassVar[tuple[Part, ...]] = (rest("data"),)
    data: bytes


@implementer(IMessageHandler, IMessageHandlerFactory)
class Echoing:
    """Answers Echoes, as a plug-in would."""

    name = "echo"
    message_type = Echo.TYPE
    messages = (Echo, EchoReply)
    requires_auth = True

    def handlers(self, services: Any) -> list[Echoing]:
        """Return the one handler."""
        return [self]

    def handle(self, context: Any, message: Echo) -> EchoReply:
        """Answer with what came."""
        return EchoReply(message.data)


def _peering(settings: Settings) -> Peering:
    rng = random.Random()
    identity = Identity(Path(settings.node.data_dir), rng, node_id=settings.node.id, expected_cluster=settings.cluster.id)
    keyspace = Keyspace(origin=identity.node_id, rng=rng)
    keyspace.advance(int(time.time() * 1000))
    replicator = CopyReplicator(
        keyspace,
        clock=reactor,
        wall=time.time,
        make_feed=lambda extended: Feed(extended=extended, max_frame=settings.cluster.max_frame, outbox_max=1000, window_count=500),
    )
    echoing = Echoing()
    return Peering(
        settings,
        identity,
        f"n{identity.node_id}",
        Plugins(schema=SCHEMA.extended(echoing.messages), messages=echoing.messages, handler_factories=(echoing,)),
        keyspace=keyspace,
        replicator=replicator,
        applier=Applier(keyspace),
        reactor=reactor,
        rng=rng,
        wall=time.time,
        tracer=Tracer(settings.tracing, rng=rng, wall=time.time, node_id=identity.node_id),
    )


class _Asker:
    """Asks over the one link."""

    def __init__(self, link: PeerLink) -> None:
        self._link = link
        self._content = Echo(bytes(_CONTENT_BYTES))
        rng = random.Random(1)
        self._values = [
            ReplicateData(1, 0, "", b"key:%d" % number, value) for number, value in enumerate(json_values(_VALUE_BYTES, rng))
        ]

    def ask(self, task: Task) -> Deferred[None]:
        """Do what a task says."""
        self._pace(task.bytes_per_second)
        if task.kind == "runs":
            return self._ask_in_runs(task)
        if task.kind == "values":
            numbers = iter(range(task.count))
            values = self._values
            return keep_in_flight(lambda: self._link.request(values[next(numbers) % len(values)]), task)
        return keep_in_flight(lambda: self._link.request(self._content), task)

    def _ask_in_runs(self, task: Task) -> Deferred[None]:
        """Ask as replication does: encoded by the sender, many in one call, half of what is in flight at a time."""
        done: Deferred[None] = Deferred()
        link, content = self._link, self._content
        numbers = link.factory.numbers
        unasked = task.count
        unanswered = task.count
        each = task.in_flight // 2
        room = task.in_flight

        def send() -> None:
            nonlocal room, unasked
            while room >= each and unasked:
                first = numbers.take(each)
                payloads = [request_head(number) + content.encode_payload() for number in range(first, first + each)]
                link.ask_run(Echo.TYPE, EchoReply.TYPE, first, payloads, answered)
                room -= each
                unasked -= each

        def answered(number: int, answer: Any) -> None:
            nonlocal room, unanswered
            room += 1
            unanswered -= 1
            if room == each:
                send()
            elif not unanswered:
                done.callback(None)

        send()
        send()
        return done

    def _pace(self, bytes_per_second: int) -> None:
        """Have the kernel send no faster, as a network would."""
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("Q", bytes_per_second or _UNPACED))

    def sent_bytes(self) -> int:
        """Return how much the kernel has sent, and the peer has confirmed."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        acknowledged: int = struct.unpack_from("Q", info, _BYTES_SENT_AT)[0]
        return acknowledged

    @property
    def _socket(self) -> socket.socket:
        transport: Any = self._link.transport
        found: socket.socket = transport.getHandle() if hasattr(transport.getHandle(), "setsockopt") else transport.transport.socket
        return found


def main() -> None:
    """Run until killed."""
    directory, *overrides = sys.argv[1:]
    settings = load_settings(overrides=[f"node.data_dir={directory}", *overrides])
    peering = _peering(settings)
    listening = lean_reactor(_loop).listenTCP(0, peering.port_factory, interface="127.0.0.1")
    tune_garbage_collection()

    def begin() -> None:
        peering.join(listening.getHost(), "")
        if settings.cluster.join:
            wait()
        else:
            say(f"ready {listening.getHost().port}")

    def wait() -> None:
        assert peering.membership is not None
        links = [link for link in peering.membership.links() if link.usable]
        if links:
            asker = _Asker(links[0])
            listen_to_orders(Asking(asker.ask, asker.sent_bytes), reactor)
        else:
            _loop.callLater(0.05, wait)

    _loop.callWhenRunning(begin)
    _loop.run()


if __name__ == "__main__":
    main()
