"""The built-in providers by their names in the configuration, and how one is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import implementer

from hypercache.auth.hmac import SharedKeyProvider
from hypercache.auth.keyfile import KeyFile
from hypercache.auth.mtls import MutualTLSProvider
from hypercache.auth.none import NoAuthProvider
from hypercache.errors import ConfigurationError
from hypercache.interfaces import IAuthProviderFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.config import Settings


class ProviderFactory(Protocol):
    """`IAuthProviderFactory` for the type checker."""

    @property
    def name(self) -> str:
        """The name in the configuration."""

    def provider(self, settings: Settings, node_id: int, wall: Callable[[], float]) -> Any:
        """Return the `IAuthProvider` of one node."""


@implementer(IAuthProviderFactory)
class NoAuthFactory:
    """Makes provider ``none``."""

    name = "none"

    def provider(self, settings: Settings, node_id: int, wall: Callable[[], float]) -> NoAuthProvider:
        """Return the provider of one node."""
        return NoAuthProvider(settings.cluster.id)


@implementer(IAuthProviderFactory)
class SharedKeyFactory:
    """Makes provider ``hmac``."""

    name = "hmac"

    def provider(self, settings: Settings, node_id: int, wall: Callable[[], float]) -> SharedKeyProvider:
        """Return the provider of one node.

        Raises:
            ConfigurationError: the key file cannot be used, or frames would go unsigned over plain TCP.
        """
        security = settings.security
        if not security.key_file:
            raise ConfigurationError("security.auth = 'hmac' needs security.key_file; make one with: hypercache keygen FILE")
        if not security.signing and not settings.cluster_tls.certificate:
            raise ConfigurationError("security.signing = false is for TLS alone: set cluster_tls.certificate, or leave signing on")
        keys = KeyFile(Path(security.key_file), wall)
        return SharedKeyProvider(
            keys.current, node_id, wall, skew=security.clock_skew, signing=security.signing, cluster_id=settings.cluster.id
        )


@implementer(IAuthProviderFactory)
class MutualTLSFactory:
    """Makes provider ``mtls``."""

    name = "mtls"

    def provider(self, settings: Settings, node_id: int, wall: Callable[[], float]) -> MutualTLSProvider:
        """Return the provider of one node.

        Raises:
            ConfigurationError: peers could not show a certificate, or nobody would vouch for it.
        """
        tls = settings.cluster_tls
        if not (tls.certificate and tls.key and tls.ca):
            raise ConfigurationError(
                "security.auth = 'mtls' needs cluster_tls.certificate, key and ca; make them with: hypercache certs"
            )
        if tls.clients == "none":
            raise ConfigurationError("security.auth = 'mtls' needs the peers' certificates; set cluster_tls.clients = \"require\"")
        return MutualTLSProvider(settings.cluster.id)


def built_in_factories() -> tuple[ProviderFactory, ...]:
    """Return the factories of the built-in providers."""
    return (NoAuthFactory(), SharedKeyFactory(), MutualTLSFactory())


def provider_named(settings: Settings, node_id: int, wall: Callable[[], float], factories: Iterable[ProviderFactory] = ()) -> Any:
    """Return the provider that ``security.auth`` names.

    Args:
        settings: the node's.
        node_id: the node.
        wall: returns Unix seconds.
        factories: those of plug-ins; the built-in ones come first.

    Raises:
        ConfigurationError: there is none of that name, or the settings do not suffice for it.
    """
    known = {each.name: each for each in (*factories, *built_in_factories())}
    name = settings.security.auth
    if name not in known:
        raise ConfigurationError(f"security.auth = {name!r} is no auth provider; known are: {', '.join(sorted(known))}")
    return known[name].provider(settings, node_id, wall)
