"""Provider ``none``: peers are who they say, unless their certificate says otherwise."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.auth.identity import mismatch
from hypercache.errors import AuthenticationError
from hypercache.interfaces import IAuthentication, IAuthProvider

if TYPE_CHECKING:
    from hypercache.auth.handshake import Handshake


@implementer(IAuthentication)
class Unproven:
    """A link without proofs, keys and an end."""

    proof = b""
    keys = None
    expires = inf

    def verify(self, proof: bytes) -> bool:
        """Take no proof for right: none is exchanged."""
        return False


@implementer(IAuthProvider)
class NoAuthProvider:
    """Lets in whoever reaches the port.

    Args:
        cluster_id: the cluster that this node is set up for; 0 for none.
    """

    name = "none"
    required = False
    proves = False

    def __init__(self, cluster_id: int = 0) -> None:
        self._cluster_id = cluster_id

    def key_id(self) -> str:
        """Return no key's id."""
        return ""

    def authenticate(self, handshake: Handshake) -> Unproven:
        """Accept the peer.

        Raises:
            AuthenticationError: its certificate names another node or cluster.
        """
        refusal = mismatch(handshake, self._cluster_id)
        if refusal is not None:
            raise AuthenticationError(refusal)
        return Unproven()
