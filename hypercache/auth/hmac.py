"""Provider ``hmac``: both sides prove that they hold a key, and sign with what they derive from it (wire.md, section 3).

Who picks the key: the dialler. Its Hello names a key, the listener looks that key up, and both prove that they hold it. Two kinds
of key can stand in a file beside each other:

- *Shared*, bound to no node. All members hold it. It proves that a node is a member, not which one.
- *Bound* to a node, which alone dials with it; the listener must hold the keys of all nodes that it accepts. It proves who the
  dialler is, to whoever trusts those other holders: a listener could pose as the dialler. It proves of the listener that it was
  given the dialler's key. So keys a node are for nodes that dial and are not dialled, such as proxies: each has its own key alone,
  and cannot pose as another. Where any node is to be told from any other, certificates do it (``mtls``).

A node with a valid key of its own uses that one and is not believed with a shared key, or whoever has the shared key could pose as
it. Of several keys the newest is used, and each is accepted as long as it is valid: a key rotates by standing in all files before
it begins, and the old one ends when all use the new one. Where clocks differ, keys are accepted earlier and later by the skew; a
node itself does not count on that while it has another key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from hypercache.auth.credentials import ANY_NODE, NodeCredential, instant
from hypercache.auth.identity import mismatch
from hypercache.errors import AuthenticationError
from hypercache.interfaces import IAuthentication, IAuthProvider
from hypercache.wire import Capability
from hypercache.wire.signing import DIALLER, LISTENER, SessionKeys, derive_keys, proof, verify_proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.auth.credentials import Keyring
    from hypercache.auth.handshake import Handshake

_BINDING_BYTES: Final = 32


@implementer(IAuthentication)
class SharedKeyAuthentication:
    """The proofs of one link.

    Args:
        session: the link's keys.
        dialled: whether this side opened the connection.
        binding: 32 bytes of the TLS session, empty without TLS.
        signing: whether frames are signed.
        expires: Unix seconds at which the link must be replaced.

    Attributes:
        proof: this side's.
        keys: None, or what signs and what verifies.
        expires: as above.
    """

    __slots__ = ("_binding", "_peer_role", "_session", "expires", "keys", "proof")

    def __init__(self, session: SessionKeys, *, dialled: bool, binding: bytes, signing: bool, expires: float) -> None:
        own_role, self._peer_role = (DIALLER, LISTENER) if dialled else (LISTENER, DIALLER)
        sends, receives = (session.dialler, session.listener) if dialled else (session.listener, session.dialler)
        self._session = session
        self._binding = binding
        self.proof = proof(session, own_role, binding)
        self.keys = (sends, receives) if signing else None
        self.expires = expires

    def verify(self, proof: bytes) -> bool:
        """Say, in constant time, whether the peer's proof is right."""
        return verify_proof(self._session, self._peer_role, proof, self._binding)


@implementer(IAuthProvider)
class SharedKeyProvider:
    """Lets in nodes that hold a key.

    Args:
        keys: returns the keys that are held now.
        node_id: this node.
        wall: returns Unix seconds.
        skew: seconds by which clocks may differ.
        signing: whether frames are signed over TLS too, where the peer does so; without TLS they always are.
        cluster_id: the cluster that this node is set up for, for the peers' certificates; 0 for none.
    """

    name = "hmac"
    required = True
    proves = True

    def __init__(
        self,
        keys: Callable[[], Keyring],
        node_id: int,
        wall: Callable[[], float],
        *,
        skew: float,
        signing: bool = True,
        cluster_id: int = 0,
    ) -> None:
        self._keys = keys
        self._node_id = node_id
        self._wall = wall
        self._skew = skew
        self._signing = signing
        self._cluster_id = cluster_id

    def key_id(self) -> str:
        """Return the id of the key to use now; empty where none is valid, which `authenticate` makes an error."""
        chosen = self._keys().choose(self._node_id, self._wall(), self._skew)
        return chosen.key_id if chosen is not None else ""

    def authenticate(self, handshake: Handshake) -> SharedKeyAuthentication:
        """Derive the link's keys from the one that the dialler names.

        Raises:
            AuthenticationError: the key may not be used, frames would go unsigned, or a certificate contradicts Hello.
        """
        refusal = mismatch(handshake, self._cluster_id)
        if refusal is not None:
            raise AuthenticationError(refusal)
        signing = self._signs(handshake)
        credential = self._credential(handshake)
        session = derive_keys(
            credential.key, handshake.hello.nonce, handshake.reply.nonce, handshake.hello_frame, handshake.reply_frame
        )
        return SharedKeyAuthentication(
            session,
            dialled=handshake.dialled,
            binding=handshake.binding,
            signing=signing,
            expires=self._end(credential, handshake),
        )

    def _end(self, credential: NodeCredential, handshake: Handshake) -> float:
        """Return when a link must be replaced, in Unix seconds.

        The dialler replaces it before its key ends; the listener, whose clock may be ahead, must not cut it before that.
        """
        if handshake.dialled and handshake.now < credential.valid_to:
            return credential.valid_to
        return credential.valid_to + self._skew

    def _signs(self, handshake: Handshake) -> bool:
        """Say whether the link's frames are signed: without TLS always, over TLS where both sides want it."""
        own_signs = bool(handshake.own.capabilities & Capability.SIGNING)
        peer_signs = bool(handshake.peer.capabilities & Capability.SIGNING)
        if handshake.secure:
            if len(handshake.binding) != _BINDING_BYTES:
                raise AuthenticationError("TLS gives nothing that binds the proofs to its session")
            return own_signs and peer_signs and self._signing
        if not (own_signs and peer_signs):
            raise AuthenticationError(f"{'it' if own_signs else 'this node'} does not sign frames, and there is no TLS instead")
        return True

    def _credential(self, handshake: Handshake) -> NodeCredential:
        """Return the key that the dialler names.

        Raises:
            AuthenticationError: there is none, or it is not for now or not for that node.
        """
        key_id, dialler, now, skew = handshake.hello.key_id, handshake.hello.node_id, handshake.now, self._skew
        if not key_id:
            raise AuthenticationError("this node has no key that is valid now" if handshake.dialled else "it names no key")
        keys = self._keys()
        found = keys.find(key_id)
        # Ids come from the peer: quoted, they cannot forge lines in the log.
        if found is None:
            raise AuthenticationError(f"key {key_id!r} is unknown here")
        if now < found.valid_from - skew:
            raise AuthenticationError(f"key {key_id!r} is not valid before {instant(found.valid_from)}")
        if not found.valid(now, skew):
            raise AuthenticationError(f"key {key_id!r} expired at {instant(found.valid_to)}")
        if found.node_id not in (ANY_NODE, dialler):
            raise AuthenticationError(f"key {key_id!r} is node {found.node_id}'s, and node {dialler} uses it")
        if found.node_id == ANY_NODE and keys.bound(dialler, now, skew):
            raise AuthenticationError(f"node {dialler} has a key of its own, and uses the shared key {key_id!r}")
        return found
