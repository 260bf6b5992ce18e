"""Provider ``mtls``: a peer is the node that its certificate names; TLS has had it prove that the certificate is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.auth.identity import mismatch
from hypercache.auth.none import Unproven
from hypercache.errors import AuthenticationError
from hypercache.interfaces import IAuthProvider

if TYPE_CHECKING:
    from hypercache.auth.handshake import Handshake


@implementer(IAuthProvider)
class MutualTLSProvider:
    """Lets in nodes with a certificate of their own, signed by the CA of the cluster port.

    Args:
        cluster_id: the cluster that this node is set up for. 0: none, and a node that joins takes the cluster of whoever has a
            certificate of the CA for its own.
    """

    name = "mtls"
    required = True
    proves = False

    def __init__(self, cluster_id: int = 0) -> None:
        self._cluster_id = cluster_id

    def key_id(self) -> str:
        """Return no key's id."""
        return ""

    def authenticate(self, handshake: Handshake) -> Unproven:
        """Compare the peer's certificate with its Hello.

        Raises:
            AuthenticationError: there is no TLS or no certificate that names a node, or it names another node or cluster.
        """
        if not handshake.secure:
            raise AuthenticationError("it came without TLS, and certificates decide here (security.auth = mtls)")
        if handshake.certificate is None:
            raise AuthenticationError("it has no certificate that names a node (URI hypercache://CLUSTER/NODE)")
        refusal = mismatch(handshake, self._cluster_id)
        if refusal is not None:
            raise AuthenticationError(refusal)
        return Unproven()
