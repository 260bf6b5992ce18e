from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from zope.interface.verify import verifyObject

from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.keyfile import add_key
from hypercache.auth.providers import built_in_factories, provider_named
from hypercache.config import ClusterSettings, SecuritySettings, Settings, TLSSettings
from hypercache.errors import AuthenticationError, ConfigurationError
from hypercache.interfaces import IAuthProvider, IAuthProviderFactory
from tests.auth.handshakes import CLUSTER, DIALLER_ID, LISTENER_ID, NOW, handshakes, key

if TYPE_CHECKING:
    from pathlib import Path

TLS = TLSSettings(certificate="c.pem", key="k.pem", ca="ca.pem", clients="require")


def made(auth: str, tls: TLSSettings | None = None, plugins: Any = (), **security: Any) -> Any:
    settings = Settings(security=SecuritySettings(auth=auth, **security), cluster_tls=tls or TLSSettings(clients="require"))
    return provider_named(settings, DIALLER_ID, lambda: NOW, plugins)


def test_each_built_in_provider_is_made_by_its_name(tmp_path: Path) -> None:
    for factory in built_in_factories():
        assert verifyObject(IAuthProviderFactory, factory)
    add_key(tmp_path / "keys", key())
    for name in ("none", "hmac", "mtls"):
        provider = made(name, TLS, key_file=str(tmp_path / "keys"))
        assert verifyObject(IAuthProvider, provider)
        assert provider.name == name


@pytest.mark.parametrize("name", ["none", "hmac", "mtls"])
def test_the_cluster_that_the_node_is_set_up_for_is_the_one_of_its_peers_certificates(tmp_path: Path, name: str) -> None:
    add_key(tmp_path / "keys", key())
    security = SecuritySettings(auth=name, key_file=str(tmp_path / "keys"))
    settings = Settings(security=security, cluster_tls=TLS, cluster=ClusterSettings(id=CLUSTER + 1))
    nobodys: dict[str, Any] = {"cluster_id": 0}
    _, listener = handshakes(secure=True, hello=nobodys, reply=nobodys, certificate=CertificateIdentity(CLUSTER, DIALLER_ID))
    with pytest.raises(AuthenticationError, match=r"for cluster 77, not 78$"):
        provider_named(settings, LISTENER_ID, lambda: NOW).authenticate(listener)


def test_hmac_is_made_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for credential in (key("other", 6), key("own", DIALLER_ID), key("coming", DIALLER_ID, NOW + 100, NOW + 200)):
        add_key(path, credential)
    provider = made("hmac", key_file=str(path), clock_skew=100)
    assert provider.key_id() == "own"
    assert provider.authenticate(handshakes("coming")[1]).expires == NOW + 300
    with pytest.raises(AuthenticationError, match="not valid before"):
        made("hmac", key_file=str(path), clock_skew=99).authenticate(handshakes("coming")[0])
    dialler, _ = handshakes("own", secure=True)
    assert made("hmac", TLS, key_file=str(path)).authenticate(dialler).keys
    assert made("hmac", TLS, key_file=str(path), signing=False).authenticate(dialler).keys is None


@pytest.mark.parametrize(
    ("auth", "tls", "security", "told"),
    [
        ("hmac", None, {}, r"^security.auth = 'hmac' needs security.key_file; make one with: hypercache keygen FILE$"),
        ("hmac", None, {"key_file": "/none"}, r"^/none is missing; make it with: hypercache keygen /none$"),
        ("hmac", None, {"key_file": "x", "signing": False}, r"^security.signing = false is for TLS alone"),
        ("mtls", None, {}, r"needs cluster_tls.certificate, key and ca; make them with: hypercache certs$"),
        ("mtls", msgspec.structs.replace(TLS, ca=""), {}, r"needs cluster_tls.certificate, key and ca"),
        ("mtls", msgspec.structs.replace(TLS, clients="none"), {}, r"set cluster_tls.clients = \"require\"$"),
        ("htmac", None, {}, r"^security.auth = 'htmac' is no auth provider; known are: hmac, mtls, none$"),
    ],
)
def test_settings_that_do_not_suffice_are_told_with_what_to_do(
    auth: str, tls: TLSSettings | None, security: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        made(auth, tls, **security)


def test_a_plug_ins_provider_is_made_by_its_name_and_does_not_take_a_built_in_ones() -> None:
    class Plugin:
        def __init__(self, name: str) -> None:
            self.name = name

        def provider(self, settings: Settings, node_id: int, wall: Any) -> Any:
            return (self.name, settings.security.auth, node_id, wall())

    plugins = [Plugin("echo"), Plugin("none")]
    assert made("echo", plugins=plugins) == ("echo", "echo", DIALLER_ID, NOW)
    assert made("none", plugins=plugins).required is False
    with pytest.raises(ConfigurationError, match="known are: echo, hmac, mtls, none"):
        made("other", plugins=plugins)
