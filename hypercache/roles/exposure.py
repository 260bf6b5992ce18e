"""Which ports may be reached from other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.errors import ConfigurationError
from hypercache.net.endpoints import endpoint_string, is_loopback

if TYPE_CHECKING:
    from hypercache.config import Settings


def check_exposure(settings: Settings) -> None:
    """Refuse to be reached from other machines without protection.

    Raises:
        ConfigurationError: the settings would do that; the text says how to go on.
    """
    if settings.security.insecure:
        return
    ways = {
        "resp": (bool(settings.resp.password or settings.resp_tls.certificate), "set resp.password or resp_tls.certificate"),
        "cluster": (
            bool(settings.security.auth != "none" or settings.cluster_tls.certificate),
            'set security.auth = "hmac" with a key file, or cluster_tls.certificate',
        ),
        "admin": (bool(settings.admin_tls.certificate), "set admin_tls.certificate"),
    }
    for section, (is_protected, way) in ways.items():
        listen = getattr(settings, section).listen
        endpoint = endpoint_string(listen, f"{section}.listen")
        if endpoint is None or is_loopback(endpoint) or is_protected:
            continue
        raise ConfigurationError(
            f"{section}.listen = {listen!r} can be reached from other machines without any protection; {way}, listen on a loopback "
            "address, or, where the network itself is trusted, set security.insecure = true"
        )
