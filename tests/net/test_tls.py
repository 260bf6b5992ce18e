"""TLS of a port, over real sockets with real certificates: who gets in, who does not, and what the log says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from hypercache.auth.handshake import CertificateIdentity
from hypercache.errors import ConfigurationError
from hypercache.net.tls import PortTLS, channel_binding, peer_identity
from hypercache.wire.messages import HashRingQuery
from tests.certificates import CLUSTER, TestAuthority
from tests.net.peers import RemotePeer, Wire, beat, peer_factory
from tests.net.sockets import Doors, Remote, until
from tests.net.tls_remotes import OLDER_CIPHERS, PLACE, Nears, TLSRemote, context, dial, dial_with, logged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from OpenSSL import SSL

    from hypercache.net.lean import LeanReactor


def node_tls(authority: TestAuthority, node_id: int, *, clients: str = "require", minimum: str = "1.2", **times: float) -> PortTLS:
    files = authority.node(node_id, **times)  # type: ignore[arg-type]
    return PortTLS(files.settings(clients=clients, minimum=minimum), "cluster_tls", clock=reactor, dials=True)


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


async def is_served(doors: Doors, port: Any, tls: PortTLS) -> bool:
    remote = await dial(doors, port, tls)
    remote.transport.write(b"are you there?")
    return bool(await remote.take(14) == b"are you there?")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest_twisted.ensureDeferred
async def test_two_nodes_talk_and_each_knows_the_other_by_its_certificate(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, version: str
) -> None:
    files = authority.node(1)
    listener = PortTLS(files.settings(), "cluster_tls", clock=reactor)
    nears = Nears()
    port = await doors.listen(PLACE, listener.server(nears), lean)
    remote = await dial_with(doors, port, context(files, authority.node(2), version=version))
    remote.transport.write(b"hello")
    assert await remote.take(5) == b"hello"
    (near,) = nears.made
    assert near.transport.getHandle().get_protocol_version_name() == f"TLSv{version}"
    assert near.transport.getHandle().get_cipher_name().startswith({"1.2": "ECDHE-", "1.3": "TLS_"}[version])
    assert peer_identity(near.transport) == CertificateIdentity(CLUSTER, 2)
    assert peer_identity(remote.transport) == CertificateIdentity(CLUSTER, 1)
    assert listener.identity == CertificateIdentity(CLUSTER, 1)
    assert len(listener.handshakes) == 0
    near.transport.loseConnection()
    await until(lambda: remote.lost)
    assert (listener.failures, peer_identity(remote.transport), channel_binding(remote.transport)) == (0, None, b"")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest_twisted.ensureDeferred
async def test_both_ends_are_bound_to_the_same_channel_and_each_connection_to_another(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, version: str
) -> None:
    files = authority.node(1)
    nears = Nears()
    port = await doors.listen(PLACE, PortTLS(files.settings(), "cluster_tls", clock=reactor).server(nears), lean)
    far = []
    for _ in range(3):
        remote = await dial_with(doors, port, context(files, files, version=version))
        remote.transport.write(b"x")
        await remote.take(1)
        far.append(channel_binding(remote.transport))
    assert [channel_binding(near.transport) for near in nears.made] == far
    assert {len(each) for each in far} == {32}
    assert len(set(far)) == 3


@pytest_twisted.ensureDeferred
async def test_without_tls_nothing_is_bound_and_nobody_named(doors: Doors, lean: LeanReactor) -> None:
    port = await doors.listen(PLACE, Nears(), lean)
    remote = await doors.dial(port)
    for transport in (remote.transport, Wire()):
        assert channel_binding(transport) == b""
        assert peer_identity(transport) is None


def shows_nothing(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1))


def of_another_ca(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1), other.node(2))


def of_a_ca_of_the_same_name(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1), TestAuthority(authority.ca.parent / "same").node(2))


def expired(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1), authority.node(2, start_days=-9, days=2))


def not_yet_valid(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1), authority.node(2, start_days=5))


def does_not_trust(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(other.node(1), authority.node(2))


def sees_an_expired_certificate(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1), authority.node(2, start_days=-9, days=2), version="1.2")


def too_old(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1), authority.node(2), version="1.1", ciphers=OLDER_CIPHERS)


def no_cipher_in_common(authority: TestAuthority, other: TestAuthority) -> SSL.Context:
    return context(authority.node(1), authority.node(2), version="1.2", ciphers=b"ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")


REFUSALS = [
    (shows_nothing, "it shows no certificate, and must"),
    (of_another_ca, "its certificate (CN=node 2) is from an authority (CN=other) that is none of those in cluster_tls.ca"),
    (of_a_ca_of_the_same_name, "its certificate (CN=node 2) is from an authority (CN=ca) that is none of those in cluster_tls.ca"),
    (expired, "its certificate (CN=node 2) expired at "),
    (sees_an_expired_certificate, "its certificate (CN=node 2) expired at "),
    (not_yet_valid, "its certificate (CN=node 2) is not valid before "),
    (does_not_trust, "it does not know the CA of this side's certificate"),
    (too_old, "it speaks only TLS versions older than the oldest that is allowed here"),
    (no_cipher_in_common, "no cipher is known to both sides"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSALS, ids=lambda each: getattr(each, "__name__", ""))
@pytest_twisted.ensureDeferred
async def test_who_may_not_get_in_is_refused_with_one_line_and_the_port_serves_on(
    doors: Doors,
    lean: LeanReactor,
    authority: TestAuthority,
    tmp_path: Path,
    make: Callable[[TestAuthority, TestAuthority], SSL.Context],
    reason: str,
) -> None:
    listener = node_tls(authority, 1)
    nears = Nears()
    port = await doors.listen(PLACE, listener.server(nears), lean)
    with logged() as lines:
        remote = await dial_with(doors, port, make(authority, TestAuthority(tmp_path, "other")))
        host = remote.transport.getHost()
        remote.transport.write(b"let me in")
        await until(lambda: remote.lost and nears.made[0].reason)
    assert len(lines) == 1
    assert lines[0].startswith(f"cluster_tls: TLS with 127.0.0.1:{host.port} failed: {reason}")
    assert nears.made[0].reads == []
    assert (listener.failures, len(listener.handshakes)) == (1, 0)
    assert await is_served(doors, port, node_tls(authority, 3))


@pytest_twisted.ensureDeferred
async def test_minimum_1_3_refuses_1_2(doors: Doors, lean: LeanReactor, authority: TestAuthority) -> None:
    port = await doors.listen(PLACE, node_tls(authority, 1, minimum="1.3").server(Nears()), lean)
    with logged("failed") as lines:
        remote = await dial_with(doors, port, context(authority.node(1), authority.node(2), version="1.2"))
        await until(lambda: remote.lost)
    assert lines[0].endswith("it speaks only TLS versions older than the oldest that is allowed here")
    assert await is_served(doors, port, node_tls(authority, 2))


@pytest.mark.parametrize("clients", ["none", "optional"])
@pytest_twisted.ensureDeferred
async def test_where_certificates_are_not_required_a_client_without_one_is_served(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, clients: str
) -> None:
    nears = Nears()
    port = await doors.listen(PLACE, node_tls(authority, 1, clients=clients).server(nears), lean)
    remote = await dial_with(doors, port, context(authority.node(1)))
    remote.transport.write(b"x")
    await remote.take(1)
    assert peer_identity(nears.made[0].transport) is None


@pytest_twisted.ensureDeferred
async def test_where_certificates_are_optional_one_that_is_shown_must_be_good(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, tmp_path: Path
) -> None:
    nears = Nears()
    port = await doors.listen(PLACE, node_tls(authority, 1, clients="optional").server(nears), lean)
    with logged("failed") as lines:
        remote = await dial_with(doors, port, of_another_ca(authority, TestAuthority(tmp_path, "other")))
        await until(lambda: remote.lost)
    assert len(lines) == 1
    good = await dial_with(doors, port, context(authority.node(1), authority.node(2)))
    good.transport.write(b"x")
    await good.take(1)
    assert peer_identity(nears.made[1].transport) == CertificateIdentity(CLUSTER, 2)


@pytest_twisted.ensureDeferred
async def test_a_clients_certificate_names_no_node(doors: Doors, lean: LeanReactor, authority: TestAuthority) -> None:
    nears = Nears()
    port = await doors.listen(PLACE, node_tls(authority, 1).server(nears), lean)
    remote = await dial_with(doors, port, context(authority.node(1), authority.client()))
    remote.transport.write(b"x")
    await remote.take(1)
    assert nears.made[0].transport.getPeerCertificate() is not None
    assert peer_identity(nears.made[0].transport) is None


# Who dials


async def dial_fails(doors: Doors, port: Any, tls: PortTLS) -> str:
    """Return why, as the dialler sees it."""
    remote = await dial(doors, port, tls)
    await until(lambda: remote.lost)
    # A protocol that looks after its handshake counts that itself.
    assert tls.failures == 0
    return str(remote.reason.value)


@pytest_twisted.ensureDeferred
async def test_a_dialler_refuses_a_listener_whose_certificate_is_not_good(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, tmp_path: Path
) -> None:
    dialler = node_tls(authority, 2)
    foreign = node_tls(TestAuthority(tmp_path, "other"), 1, clients="none")
    port = await doors.listen(PLACE, foreign.server(Nears()), lean)
    assert await dial_fails(doors, port, dialler) == (
        "its certificate is from an authority (CN=other) that is none of those in cluster_tls.ca"
    )
    ended = node_tls(authority, 1, start_days=-9, days=2)
    port = await doors.listen(PLACE, ended.server(Nears()), lean)
    assert (await dial_fails(doors, port, dialler)).startswith("its certificate (CN=node 1) expired at ")
    client = PortTLS(authority.client().settings(), "cluster_tls", clock=reactor)
    port = await doors.listen(PLACE, client.server(Nears()), lean)
    assert await dial_fails(doors, port, dialler) == (
        "its certificate (CN=client) is not for this use: servers need serverAuth, clients clientAuth"
    )


@pytest_twisted.ensureDeferred
async def test_a_dialler_learns_that_the_port_has_no_tls(doors: Doors, lean: LeanReactor, authority: TestAuthority) -> None:
    class Babbler(Nears):
        def buildProtocol(self, addr: Any) -> Any:
            near = super().buildProtocol(addr)
            near.dataReceived = lambda data: near.transport.write(b"-ERR unknown command\r\n")  # type: ignore[method-assign]
            return near

    class Closer(Nears):
        def buildProtocol(self, addr: Any) -> Any:
            near = super().buildProtocol(addr)
            near.dataReceived = lambda data: near.transport.loseConnection()  # type: ignore[method-assign]
            return near

    dialler = node_tls(authority, 2)
    assert await dial_fails(doors, await doors.listen(PLACE, Babbler(), lean), dialler) == (
        "it answers with no TLS: its port is not one for TLS"
    )
    assert await dial_fails(doors, await doors.listen(PLACE, Closer(), lean), dialler) == (
        "it closed the connection during the TLS handshake; is its port one for TLS?"
    )


def test_a_port_that_only_listens_does_not_dial(authority: TestAuthority) -> None:
    tls = PortTLS(authority.node(1).settings(), "resp_tls", clock=Clock())
    with pytest.raises(ConfigurationError, match=r"^resp_tls: is for a port that only listens$"):
        tls.client(Nears(), "127.0.0.1")


# Plain text

PLAIN = {
    "RESP": (b"*1\r\n$4\r\nPING\r\n", "it speaks plain RESP, and this port speaks TLS"),
    "inline": (b"PING\r\n", "it speaks no TLS, and this port speaks TLS"),
    "HTTP": (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "it speaks plain HTTP, and this port speaks TLS"),
    "HyperCache": (HashRingQuery(1).encode_frame(), "it speaks plain HyperCache frames, and this port speaks TLS"),
    "garbage": (b"\x16\x04\x00" + bytes(range(200)), "it speaks no TLS, and this port speaks TLS"),
}


@pytest.mark.parametrize("what", PLAIN)
@pytest_twisted.ensureDeferred
async def test_plain_text_on_a_tls_port_is_named_in_one_line_and_closed(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, what: str
) -> None:
    data, reason = PLAIN[what]
    listener = node_tls(authority, 1)
    nears = Nears()
    port = await doors.listen(PLACE, listener.server(nears), lean)
    with logged("TLS") as lines:
        remote = await doors.dial(port)
        host = remote.transport.getHost()
        remote.transport.write(data)
        await until(lambda: remote.lost)
    assert lines == [f"cluster_tls: TLS with 127.0.0.1:{host.port} failed: {reason}"]
    assert (bytes(remote.data), nears.made[0].reads) == (b"", [])
    assert await is_served(doors, port, node_tls(authority, 2))


@pytest_twisted.ensureDeferred
async def test_a_scanner_that_sends_nothing_leaves_no_line(doors: Doors, lean: LeanReactor, authority: TestAuthority) -> None:
    listener = node_tls(authority, 1)
    nears = Nears()
    port = await doors.listen(PLACE, listener.server(nears), lean)
    with logged("TLS") as lines:
        remote = await doors.dial(port)
        await until(lambda: nears.made)
        remote.transport.loseConnection()
        await until(lambda: nears.made[0].reason)
    assert lines == []
    assert (listener.failures, len(listener.handshakes)) == (0, 0)


# The cluster's links say it themselves


@pytest.mark.parametrize(("data", "what"), [(beat(1), "plain HyperCache frames"), (PLAIN["HTTP"][0], "plain HTTP")])
@pytest_twisted.ensureDeferred
async def test_plain_text_on_the_clusters_tls_port_is_logged_once_and_counted_by_the_link(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, data: bytes, what: str
) -> None:
    listener = node_tls(authority, 1)
    peers = peer_factory()
    port = await doors.listen(PLACE, listener.server(peers), lean)
    with logged("TLS") as lines:
        remote = await doors.dial(port)
        host = remote.transport.getHost()
        remote.transport.write(data)
        await until(lambda: remote.lost and not peers.links)
    assert lines == [f"TLS with 127.0.0.1:{host.port} failed: it speaks {what}, and this port speaks TLS"]
    assert (peers.metrics.tls_failures, listener.failures) == (1, 0)
    peer = RemotePeer()
    await dial(doors, port, node_tls(authority, 2), peer)
    peer.transport.write(beat(1))
    await until(lambda: peer.events)


@pytest_twisted.ensureDeferred
async def test_a_link_without_a_certificate_is_logged_once_and_counted_by_the_link(
    doors: Doors, lean: LeanReactor, authority: TestAuthority
) -> None:
    listener = node_tls(authority, 1)
    peers = peer_factory()
    port = await doors.listen(PLACE, listener.server(peers), lean)
    with logged("TLS") as lines:
        remote = await dial_with(doors, port, context(authority.node(1)))
        await until(lambda: remote.lost and not peers.links)
    assert len(lines) == 1
    assert lines[0].endswith("failed: it shows no certificate, and must")
    assert (peers.metrics.tls_failures, listener.failures) == (1, 0)


@pytest_twisted.ensureDeferred
async def test_tls_on_the_clusters_plain_port_is_logged_once_and_closed(
    doors: Doors, lean: LeanReactor, authority: TestAuthority
) -> None:
    peers = peer_factory()
    port = await doors.listen(PLACE, peers, lean)
    with logged("speaks TLS") as lines:
        remote: Remote = TLSRemote()
        await dial(doors, port, node_tls(authority, 2), remote)
        await until(lambda: remote.lost and not peers.links)
    assert len(lines) == 1
    plain = await doors.connect(f"tcp:host=127.0.0.1:port={port.getHost().port}", RemotePeer())
    plain.transport.write(beat(1))
    await until(lambda: plain.events)
