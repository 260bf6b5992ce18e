"""Heartbeat: answered with its own timestamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.handlers.sender import impostor
from hypercache.interfaces import IMessageHandler
from hypercache.wire import Status
from hypercache.wire.messages import Heartbeat, HeartbeatResponse

if TYPE_CHECKING:
    from hypercache.net.peer import PeerContext
    from hypercache.wire.messages import GenericError


@implementer(IMessageHandler)
class HeartbeatHandler:
    """Answers Heartbeat."""

    message_type = Heartbeat.TYPE
    requires_auth = True

    def handle(self, context: PeerContext, message: Heartbeat) -> HeartbeatResponse | GenericError:
        """Return the timestamp that came."""
        return impostor(context.link, message.node_id) or HeartbeatResponse(message.timestamp, Status.SUCCESS)
