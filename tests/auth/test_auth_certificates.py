"""What certificates decide: under ``mtls`` everything, under the other providers that they may not contradict Hello."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from zope.interface.verify import verifyObject

from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.hmac import SharedKeyProvider
from hypercache.auth.identity import mismatch
from hypercache.auth.mtls import MutualTLSProvider
from hypercache.auth.none import NoAuthProvider
from hypercache.errors import AuthenticationError
from hypercache.interfaces import IAuthentication, IAuthProvider
from tests.auth.handshakes import CLUSTER, DIALLER_ID, handshakes, key, provider

RIGHT = CertificateIdentity(CLUSTER, DIALLER_ID)
HMAC = provider([key()])
PROVIDERS: list[Any] = [NoAuthProvider(), MutualTLSProvider(), HMAC]


def refusal(judge: Any, certificate: CertificateIdentity | None = RIGHT, **changes: Any) -> str:
    with pytest.raises(AuthenticationError) as caught:
        judge.authenticate(handshakes(certificate=certificate, **({"secure": True} | changes))[1])
    return str(caught.value)


@pytest.mark.parametrize("made", [NoAuthProvider(), MutualTLSProvider()])
def test_they_have_the_interfaces_of_providers_that_prove_nothing(made: Any) -> None:
    assert verifyObject(IAuthProvider, made)
    outcome = made.authenticate(handshakes(secure=True, certificate=RIGHT)[1])
    assert verifyObject(IAuthentication, outcome)
    assert (outcome.proof, outcome.keys, outcome.expires) == (b"", None, float("inf"))
    assert not outcome.verify(b"")
    assert made.key_id() == ""
    assert not made.proves


def test_only_none_lets_base_peers_in() -> None:
    assert [(each.name, each.required) for each in PROVIDERS] == [("none", False), ("mtls", True), ("hmac", True)]


@pytest.mark.parametrize("judge", PROVIDERS, ids=lambda each: each.name)
class TestUnderEveryProvider:
    def test_the_nodes_own_certificate_is_right(self, judge: Any) -> None:
        judge.authenticate(handshakes(secure=True, certificate=RIGHT)[1])

    def test_a_certificate_of_another_node_is_refused(self, judge: Any) -> None:
        assert refusal(judge, CertificateIdentity(CLUSTER, 6)) == "its certificate is node 6's, and it says that it is node 5"

    def test_a_certificate_of_another_cluster_is_refused(self, judge: Any) -> None:
        assert refusal(judge, CertificateIdentity(78, DIALLER_ID)) == "its certificate is for cluster 78, not 77"

    def test_a_listeners_certificate_is_judged_by_its_own_hello(self, judge: Any) -> None:
        dialler, _ = handshakes(secure=True)
        with pytest.raises(AuthenticationError, match=r"^its certificate is node 5's, and it says that it is node 9$"):
            judge.authenticate(msgspec.structs.replace(dialler, certificate=RIGHT))


@pytest.mark.parametrize("judge", [NoAuthProvider(), HMAC], ids=lambda each: each.name)
@pytest.mark.parametrize("secure", [False, True])
def test_where_certificates_do_not_decide_a_peer_needs_none(judge: Any, secure: bool) -> None:
    judge.authenticate(handshakes(secure=secure)[1])


def test_under_mtls_a_peer_needs_tls_and_a_certificate_that_names_a_node() -> None:
    assert refusal(MutualTLSProvider(), secure=False) == "it came without TLS, and certificates decide here (security.auth = mtls)"
    assert refusal(MutualTLSProvider(), None) == "it has no certificate that names a node (URI hypercache://CLUSTER/NODE)"


@pytest.mark.parametrize(
    ("peers", "own", "set_up_for", "certificates", "right"),
    [
        (77, 77, 0, 77, True),
        (77, 77, 77, 77, True),
        (0, 77, 0, 77, True),
        (0, 77, 0, 78, False),
        (77, 0, 0, 77, True),
        (77, 0, 0, 78, False),
        (77, 0, 78, 77, False),
        (0, 0, 77, 77, True),
        (0, 0, 78, 77, False),
        # Nobody is a member of anything.
        (0, 0, 0, 77, True),
        # A certificate for no cluster is right for none.
        (77, 77, 0, 0, False),
    ],
)
def test_the_certificates_cluster_is_each_cluster_that_is_known(
    peers: int, own: int, set_up_for: int, certificates: int, right: bool
) -> None:
    _, listener = handshakes(
        secure=True,
        hello={"cluster_id": peers},
        reply={"cluster_id": own},
        certificate=CertificateIdentity(certificates, DIALLER_ID),
    )
    assert (mismatch(listener, set_up_for) is None) is right
    for judge in (
        NoAuthProvider(set_up_for),
        MutualTLSProvider(set_up_for),
        SharedKeyProvider(HMAC._keys, 9, HMAC._wall, skew=1, cluster_id=set_up_for),
    ):
        if right:
            judge.authenticate(listener)
        else:
            with pytest.raises(AuthenticationError, match=f"^its certificate is for cluster {certificates}, not 7[78]$"):
                judge.authenticate(listener)
