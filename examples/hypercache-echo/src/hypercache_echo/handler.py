"""What a node does with an Echo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater
from twisted.plugin import IPlugin
from zope.interface import implementer

from hypercache.interfaces import IMessageHandler, IMessageHandlerFactory
from hypercache_echo.messages import Echo, EchoReply

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from hypercache.net.peer import PeerContext
    from hypercache.net.services import Services


@implementer(IMessageHandler)
class EchoHandler:
    """Answers Echo.

    Args:
        services: the node's.
    """

    message_type = Echo.TYPE
    requires_auth = True

    def __init__(self, services: Services) -> None:
        self._node_id = services.node_id
        self._clock = services.clock

    def handle(self, context: PeerContext, message: Echo) -> EchoReply | Deferred[Any]:
        """Return the answer, or a Deferred that fires with it when the delay is over."""
        answer = EchoReply(self._node_id, message.data)
        if not message.delay_ms:
            return answer
        return deferLater(self._clock, message.delay_ms / 1000, lambda: answer)


@implementer(IPlugin, IMessageHandlerFactory)
class EchoHandlers:
    """Adds the messages to the schema, and makes the handler of each node."""

    name = "echo"
    messages = (Echo, EchoReply)

    def handlers(self, services: Services) -> list[EchoHandler]:
        """Return the handlers of one node."""
        return [EchoHandler(services)]
