"""Heartbeat: answered with its own timestamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.interfaces import IMessageHandler
from hypercache.wire import Status
from hypercache.wire.messages import Heartbeat, HeartbeatResponse

if TYPE_CHECKING:
    from hypercache.net.peer import PeerContext


@implementer(IMessageHandler)
class HeartbeatHandler:
    """Answers Heartbeat."""

    message_type = Heartbeat.TYPE
    requires_auth = True

    def handle(self, context: PeerContext, message: Heartbeat) -> HeartbeatResponse:
        """Return the timestamp that came."""
        return HeartbeatResponse(message.timestamp, Status.SUCCESS)
