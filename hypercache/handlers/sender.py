"""Who a message says that it is from, against whose link it came over (wire.md, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.wire import ErrorCode
from hypercache.wire.messages import GenericError

if TYPE_CHECKING:
    from hypercache.net.peer import PeerLink


def impostor(link: PeerLink, node_id: int) -> GenericError | None:
    """Return the refusal of a message in another's name, and close its link; None where the sender is who it says.

    A base peer has no Hello to be held to.
    """
    if not link.extended or link.node_id == node_id:
        return None
    link.factory.clock.callLater(0, link.lose, f"it speaks in the name of node {node_id}")
    return GenericError(ErrorCode.NOT_AUTHORIZED, 0, f"this link is node {link.node_id}'s")
