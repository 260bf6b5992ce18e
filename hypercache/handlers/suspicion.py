"""Suspicion: what a member does not hear, told to the leader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.interfaces import IMessageHandler
from hypercache.wire.messages import Suspicion

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.peer import PeerContext


@implementer(IMessageHandler)
class SuspicionHandler:
    """Takes Suspicion from members.

    Args:
        suspected: called with the sender's id and the message; `hypercache.cluster.steward.Steward.suspected`.
    """

    message_type = Suspicion.TYPE
    requires_auth = True

    def __init__(self, suspected: Callable[[int, Suspicion], None]) -> None:
        self._suspected = suspected

    def handle(self, context: PeerContext, message: Suspicion) -> None:
        """Take note; who is no member has nothing to say."""
        if context.member:
            self._suspected(context.node_id, message)
