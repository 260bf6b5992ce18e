"""ReplicateData: applied to the store that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.interfaces import IMessageHandler
from hypercache.wire.messages import ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from hypercache.net.peer import PeerContext
    from hypercache.replication.apply import Applier


@implementer(IMessageHandler)
class ReplicateHandler:
    """Applies ReplicateData.

    Args:
        applier: does it.
    """

    message_type = ReplicateData.TYPE
    requires_auth = True

    def __init__(self, applier: Applier) -> None:
        self._apply = applier.apply

    def handle(self, context: PeerContext, message: ReplicateData) -> ReplicateResponse:
        """Apply the change and say what became of it."""
        return self._apply(message, context.extension, context.now_ms, member=context.link.member)
