"""How a certificate names a node: the URI SAN ``hypercache://<cluster id>/<node id>``, decimal (wire.md, section 4)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cryptography import x509

from hypercache.auth.handshake import CertificateIdentity

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SCHEME: Final = "hypercache:"
_NODE_URI: Final = re.compile(r"hypercache://([1-9][0-9]{0,19})/([1-9][0-9]{0,19})")
_ID_MAX: Final = (1 << 64) - 1


def node_uri(identity: CertificateIdentity) -> str:
    """Return how a certificate names a node."""
    return f"{_SCHEME}//{identity.cluster_id}/{identity.node_id}"


def identity_in(certificate: Certificate) -> CertificateIdentity | None:
    """Return the node that a certificate names; None where it names none, several, or one that cannot be."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.lower().startswith(_SCHEME)]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None
    # With two names it would be either node, whichever is asked for.
    match = _NODE_URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None:
        return None
    cluster_id, node_id = int(match[1]), int(match[2])
    return CertificateIdentity(cluster_id, node_id) if max(cluster_id, node_id) <= _ID_MAX else None
