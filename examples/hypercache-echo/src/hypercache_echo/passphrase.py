"""An auth provider: nodes that know one passphrase trust each other."""

from __future__ import annotations

import hashlib
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.plugin import IPlugin
from zope.interface import implementer

from hypercache.auth.identity import mismatch
from hypercache.errors import AuthenticationError, ConfigurationError
from hypercache.interfaces import IAuthentication, IAuthProvider, IAuthProviderFactory
from hypercache.wire.signing import DIALLER, KEY_BYTES, LISTENER, derive_keys, proof, verify_proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.auth.handshake import Handshake
    from hypercache.config import Settings

SHORTEST_BYTES: Final = 16
_SALT: Final = b"hypercache passphrase"


@implementer(IAuthentication)
class PassphraseAuthentication:
    """The proofs and keys of one link; they depend on both Hellos, so that no byte of those can be changed on the way.

    Args:
        key: made of the passphrase.
        handshake: both Hellos.
    """

    expires = inf

    def __init__(self, key: bytes, handshake: Handshake) -> None:
        self._session = session = derive_keys(
            key, handshake.hello.nonce, handshake.reply.nonce, handshake.hello_frame, handshake.reply_frame
        )
        own, self._peers = (DIALLER, LISTENER) if handshake.dialled else (LISTENER, DIALLER)
        self._binding = handshake.binding
        self.proof = proof(session, own, handshake.binding)
        # With these, the signing layer signs what this side sends and verifies what it receives.
        keys = (session.dialler, session.listener)
        self.keys = keys if handshake.dialled else keys[::-1]

    def verify(self, given: bytes) -> bool:
        """Say, in constant time, whether the peer's proof is right."""
        return verify_proof(self._session, self._peers, given, self._binding)


@implementer(IAuthProvider)
class PassphraseProvider:
    """The provider of one node.

    Args:
        passphrase: what all nodes know.
    """

    name = "passphrase"
    required = True
    proves = True

    def __init__(self, passphrase: bytes) -> None:
        # Slow on purpose: whoever has recorded a handshake must not try a million passphrases a second.
        self._key = hashlib.scrypt(passphrase, salt=_SALT, n=1 << 14, r=8, p=1, dklen=KEY_BYTES)

    def key_id(self) -> str:
        """Return nothing: there is one key."""
        return ""

    def authenticate(self, handshake: Handshake) -> PassphraseAuthentication:
        """Return the proofs and keys of a link; whether the peer knows the passphrase, its own proof will show.

        Raises:
            AuthenticationError: its certificate, where there is one, names another node.
        """
        refusal = mismatch(handshake)
        if refusal is not None:
            raise AuthenticationError(refusal)
        return PassphraseAuthentication(self._key, handshake)


@implementer(IPlugin, IAuthProviderFactory)
class Passphrase:
    """Makes the provider where the settings say ``security.auth = "passphrase"``."""

    name = "passphrase"

    def provider(self, settings: Settings, node_id: int, wall: Callable[[], float]) -> PassphraseProvider:
        """Return the provider of one node.

        Raises:
            ConfigurationError: there is no passphrase, or a short one.
        """
        file = settings.security.key_file
        if not file:
            raise ConfigurationError("security.auth = 'passphrase' needs security.key_file: a file with the passphrase")
        try:
            passphrase = Path(file).read_bytes().strip()
        except OSError as error:
            raise ConfigurationError(f"the passphrase cannot be read: {error}") from None
        if len(passphrase) < SHORTEST_BYTES:
            raise ConfigurationError(f"the passphrase in {file} must have {SHORTEST_BYTES} characters at least")
        return PassphraseProvider(passphrase)
