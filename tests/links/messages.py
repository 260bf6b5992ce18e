"""Messages such as a plug-in brings, and the plug-in that answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from hypercache.discovery import Plugins
from hypercache.interfaces import IMessageHandler, IMessageHandlerFactory
from hypercache.wire import SCHEMA, Message
from hypercache.wire.kinds import Part, rest, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.peer import PeerContext


class Probe(Message, frozen=True, gc=False):
    """Asks for its content back: who sent it, over which link, as which of that link's."""

    TYPE: ClassVar[int] = 0x90
    ANSWER: ClassVar[int] = 0x91
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (u64("link"), u32("number"), rest("data"))
    link: int
    number: int
    data: bytes


class ProbeReply(Message, frozen=True, gc=False):
    """The content of a Probe."""

    TYPE: ClassVar[int] = 0x91
    PARTS: ClassVar[tuple[Part, ...]] = (u64("link"), u32("number"), rest("data"))
    link: int
    number: int
    data: bytes


LINKED_SCHEMA = SCHEMA.extended((Probe, ProbeReply))


def reply(message: Probe) -> ProbeReply:
    return ProbeReply(message.link, message.number, message.data)


@implementer(IMessageHandler)
class ProbeHandler:
    """Answers a Probe at once, unless the test says otherwise."""

    message_type = Probe.TYPE
    requires_auth = True

    def __init__(self) -> None:
        self.answer: Callable[[Probe], ProbeReply | Deferred[Any]] = reply

    def handle(self, context: PeerContext, message: Probe) -> ProbeReply | Deferred[Any]:
        return self.answer(message)


@implementer(IMessageHandlerFactory)
class Probes:
    """The plug-in of one node."""

    name = "probe"
    messages = (Probe, ProbeReply)

    def __init__(self) -> None:
        self.handler = ProbeHandler()

    def handlers(self, services: Any) -> list[ProbeHandler]:
        return [self.handler]


def probe_plugins(*layers: Any) -> tuple[Plugins, ProbeHandler]:
    """Return the plug-ins of a node, and the handler of its probes."""
    probes = Probes()
    plugins = Plugins(schema=LINKED_SCHEMA, messages=probes.messages, handler_factories=(probes,), layers=layers)
    return plugins, probes.handler
