"""Who is not let in: each for its own reason, which the log says; and the port goes on serving."""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from hypercache.wire.messages import AuthResult, GenericError, Heartbeat, HelloReply, ReplicateData, ReplicateResponse
from tests.certificates import CLUSTER, Files, TestAuthority
from tests.links.messages import Probe, reply
from tests.links.nodes import DAY_SECONDS, LinkedNode, Nodes, credential, hmac, joining
from tests.links.stranger import approach
from tests.net.sockets import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IN_CLUSTER = f"cluster.id={CLUSTER}"
FAILED = "authentication with 127.0.0.1"


class Case(msgspec.Struct, frozen=True):
    """A node that is not let in.

    Attributes:
        settings: beside those that all have.
        line: what the log of the node that it dials says, or its own.
        keys: its keys, where it has others.
        behind: seconds by which its clock is behind.
        files: makes its certificate, where it has another.
    """

    line: str
    keys: tuple[Any, ...] = ()
    settings: tuple[str, ...] = ()
    behind: float = 0.0
    files: Any = None


HOUR = 3600.0
OLD = credential("old", start=-3 * DAY_SECONDS, end=-HOUR)
NEW = credential("new", start=HOUR, end=DAY_SECONDS)
BOUND = credential("sixth", node_id=6)
WITH_KEYS = {
    "another key": Case(
        "failed: its proof is wrong: another key, or the greeting was changed on the way", (credential("main", seed=2),)
    ),
    "another key, as the dialler hears": Case(
        "failed: the peer refuses this node's proof: another key, or one that is not valid there", (credential("main", seed=2),)
    ),
    "an unknown key": Case("failed: key 'other' is unknown here", (credential("other"),)),
    "an expired key": Case("failed: key 'old' expired at ", (OLD,), behind=2 * HOUR),
    "a key that is not valid yet": Case("failed: key 'new' is not valid before ", (NEW,), behind=-2 * HOUR),
    "the key of another node": Case("failed: key 'sixth' is node 6's, and node 5 uses it", (credential("sixth"),)),
    "no valid key": Case("failed: this node has no key that is valid now", (OLD,)),
    "another cluster": Case("cannot link to 127.0.0.1:{port}: it belongs to cluster 77, this node to 78", (), ("cluster.id=78",)),
    "no authentication": Case("failed: it did not authenticate in time", (), ("security.auth=none",)),
}


async def serves(nodes: Nodes, one: LinkedNode, settings: tuple[str, ...], tls: Files | None = None) -> None:
    """Have a good node link with one, and ask it something."""
    good = await nodes.start(2, *settings, joining(one), tls=tls.settings() if tls is not None else None)
    await until(lambda: good.member(one) is not None and good.has_linked(one) and one.member(good) is not None)
    question = Probe(2, 1, b"is there anybody?")
    assert await good.link_to(one).request(question) == reply(question)


async def is_refused(node: LinkedNode, one: LinkedNode, line: str, log: list[str]) -> None:
    """Wait until a line is logged; nothing of the node may have been handled, and it is no member."""
    clock: Any = reactor
    deadline = clock.seconds() + 5
    await until(lambda: any(line in each for each in log) or clock.seconds() > deadline)
    assert any(line in each for each in log), "\n".join(log)
    assert not [each for each in one.handled if each.link.node_id == node.node_id or not each.link.node_id]
    assert one.member(node) is None
    assert node.member(one) is None
    assert not [each for each in log if "Traceback" in each]


@pytest.mark.parametrize("what", WITH_KEYS)
@pytest_twisted.ensureDeferred
async def test_a_node_is_not_let_in_with(what: str, nodes: Nodes, log: list[str]) -> None:
    case = WITH_KEYS[what]
    right = hmac(nodes.directory / "keys", credential(), OLD, NEW, BOUND)
    one = await nodes.start(1, *right, IN_CLUSTER, "cluster.auth_timeout=0.5")
    wrong = hmac(nodes.directory / "wrong", *case.keys) if case.keys else right
    wall: Callable[[], float] = lambda: time.time() - case.behind  # noqa: E731
    bad = await nodes.start(5, *wrong, IN_CLUSTER, joining(one), *case.settings, wall=wall)
    await is_refused(bad, one, case.line.format(port=one.port), log)
    if FAILED in " ".join(log):
        assert one.metrics.auth_failures + bad.metrics.auth_failures
    await serves(nodes, one, (*right, IN_CLUSTER))
    assert one.member(bad) is None


@pytest_twisted.ensureDeferred
async def test_a_member_of_another_cluster_is_not_let_in(nodes: Nodes, log: list[str]) -> None:
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys, IN_CLUSTER)
    await nodes.stop(await nodes.start(5, *keys, "cluster.id=78"))
    bad = await nodes.start(5, *keys, "cluster.id=78", joining(one))
    await is_refused(bad, one, ": it belongs to cluster 78, this node to 77", log)
    await serves(nodes, one, (*keys, IN_CLUSTER))


def foreign(directory: Path) -> Files:
    return TestAuthority(directory / "foreign", "foreign").node(5)


WITH_CERTIFICATES: dict[str, Case] = {
    "the certificate of another node": Case(
        "failed: its certificate is node 6's, and it says that it is node 5", files=lambda ca, path: ca.node(6)
    ),
    "the certificate of another cluster": Case(
        "failed: its certificate is for cluster 78, not 77", files=lambda ca, path: ca.node(5, cluster=78)
    ),
    "an expired certificate": Case(
        "failed: its certificate (CN=node 5) expired at ", files=lambda ca, path: ca.node(5, start_days=-3, days=1)
    ),
    "a certificate that is not valid yet": Case(
        "failed: its certificate (CN=node 5) is not valid before ", files=lambda ca, path: ca.node(5, start_days=2)
    ),
    "the certificate of another CA": Case(
        "is from an authority (CN=foreign) that is none of those in cluster_tls.ca",
        files=lambda ca, path: msgspec.structs.replace(foreign(path), ca=ca.ca),
    ),
    "a client's certificate": Case("failed: it has no certificate that names a node", files=lambda ca, path: ca.client()),
    "another cluster": Case(": it belongs to cluster 77, this node to 78", settings=("cluster.id=78",)),
}


@pytest.mark.parametrize("what", WITH_CERTIFICATES)
@pytest_twisted.ensureDeferred
async def test_where_certificates_decide_a_node_is_not_let_in_with(what: str, nodes: Nodes, log: list[str]) -> None:
    case = WITH_CERTIFICATES[what]
    authority = TestAuthority(nodes.directory / "ca")
    settings = ("security.auth=mtls", IN_CLUSTER)
    one = await nodes.start(1, *settings, tls=authority.node(1).settings())
    files = case.files(authority, nodes.directory) if case.files is not None else authority.node(5)
    bad = await nodes.start(5, *settings, joining(one), *case.settings, tls=files.settings())
    await is_refused(bad, one, case.line, log)
    await serves(nodes, one, settings, authority.node(2))


@pytest.mark.parametrize("what", ["another node", "an expired one", "another CA"])
@pytest_twisted.ensureDeferred
async def test_a_dialler_does_not_speak_to_a_listener_with_the_certificate_of(what: str, nodes: Nodes, log: list[str]) -> None:
    authority = TestAuthority(nodes.directory / "ca")
    settings = ("security.auth=mtls", IN_CLUSTER)
    if what == "another node":
        files, line = authority.node(6), "failed: its certificate is node 6's, and it says that it is node 1"
    elif what == "an expired one":
        files, line = authority.node(1, start_days=-3, days=1), "failed: its certificate (CN=node 1) expired at "
    else:
        files = TestAuthority(nodes.directory / "foreign", "foreign").node(1)
        line = "is from an authority (CN=foreign) that is none of those in cluster_tls.ca"
    one = await nodes.start(1, *settings, tls=files.settings())
    two = await nodes.start(2, *settings, joining(one), tls=authority.node(2).settings())
    await is_refused(two, one, line, log)


def talk_tls(port: int, context: ssl.SSLContext) -> str:
    """Shake hands as a client with the standard library, and read; return the error that comes of it."""
    with socket.create_connection(("127.0.0.1", port), 10) as raw:
        try:
            with context.wrap_socket(raw) as secured:
                secured.sendall(Heartbeat(5, 1, 1).encode_frame())
                while secured.recv(1000):
                    pass
        except OSError as error:
            return str(error)
    return ""


def ancient(files: Files) -> ssl.SSLContext:
    context = files.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.parametrize("what", ["no certificate", "version 1.1"])
@pytest_twisted.ensureDeferred
async def test_tls_is_refused_with(what: str, nodes: Nodes, log: list[str]) -> None:
    authority = TestAuthority(nodes.directory / "ca")
    settings = ("security.auth=mtls", IN_CLUSTER)
    one = await nodes.start(1, *settings, tls=authority.node(1).settings())
    files = authority.node(5)
    if what == "no certificate":
        context, line = files.client_context(own=False), "failed: it shows no certificate, and must"
    else:
        context, line = ancient(files), "failed: it speaks only TLS versions older than the oldest that is allowed here"
    assert await deferToThread(talk_tls, one.port, context)
    await until(lambda: any("TLS with 127.0.0.1" in each and line in each for each in log))
    assert not one.handled
    assert one.metrics.tls_failures == 1
    await serves(nodes, one, settings, authority.node(2))


@pytest_twisted.ensureDeferred
async def test_a_node_that_allows_tls_1_3_alone_refuses_1_2(nodes: Nodes, log: list[str]) -> None:
    authority = TestAuthority(nodes.directory / "ca")
    one = await nodes.start(1, "security.auth=mtls", IN_CLUSTER, tls=authority.node(1).settings(minimum="1.3"))
    context = authority.node(5).client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await deferToThread(talk_tls, one.port, context)
    await until(lambda: any("failed: it speaks only TLS versions older than the oldest" in each for each in log))
    await serves(nodes, one, ("security.auth=mtls", IN_CLUSTER), authority.node(2))


@pytest_twisted.ensureDeferred
async def test_plain_frames_on_a_port_with_tls_and_tls_on_one_without_are_refused(nodes: Nodes, log: list[str]) -> None:
    authority = TestAuthority(nodes.directory / "ca")
    keys = hmac(nodes.directory / "keys", credential())
    secured = await nodes.start(1, *keys, IN_CLUSTER, tls=authority.node(1).settings())
    plain = await nodes.start(3, *keys, IN_CLUSTER)
    assert await deferToThread(talk_tls, plain.port, authority.node(5).client_context())
    await until(lambda: any("speaks TLS, and this port does not: it has no certificate" in each for each in log))
    await nodes.start(5, *keys, IN_CLUSTER, joining(secured))
    await until(lambda: any("it speaks plain HyperCache frames, and this port speaks TLS" in each for each in log))
    await nodes.start(6, *keys, IN_CLUSTER, joining(plain), tls=authority.node(6).settings())
    await until(lambda: any("it closed the connection during the TLS handshake; is its port one for TLS?" in each for each in log))
    assert not secured.handled
    assert not plain.handled
    await serves(nodes, secured, (*keys, IN_CLUSTER), authority.node(2))


@pytest_twisted.ensureDeferred
async def test_a_base_peer_is_refused_where_peers_must_authenticate(nodes: Nodes, log: list[str]) -> None:
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys)
    stranger = await approach(one)
    stranger.transport.write(Heartbeat(5, 1, 1).encode_frame())
    await until(lambda: stranger.lost)
    (answer,) = stranger.messages
    assert isinstance(answer, GenericError)
    assert (answer.error_code, answer.message) == (5, "authentication is required")
    assert any("is refused: it does not authenticate, and must" in each for each in log)
    assert not one.handled
    await serves(nodes, one, keys)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_refused_hears_nothing_of_the_reason(nodes: Nodes) -> None:
    keys = hmac(nodes.directory / "keys", credential(), OLD, NEW, BOUND)
    one = await nodes.start(1, *keys)
    heard = []
    for bad in (credential("main", seed=2), credential("unknown"), OLD, NEW, BOUND):
        stranger = await approach(one)
        stranger.transport.write(await stranger.greet(bad))
        await until(lambda stranger=stranger: stranger.lost)  # type: ignore[misc]
        assert [type(each) for each in stranger.events] == [HelloReply, AuthResult]
        heard.append(stranger.events[1])
    assert heard == [AuthResult(1, 5, bytes(32))] * 5
    assert one.metrics.auth_failures == 5
    stranger = await (await approach(one)).link(credential())
    assert not stranger.lost
    assert len(one.peers.links) == 1


@pytest_twisted.ensureDeferred
async def test_a_recorded_handshake_is_refused_and_what_followed_it_is_not_handled(nodes: Nodes, log: list[str]) -> None:
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys)
    first = await approach(one)
    proof = await first.greet(credential())
    write = first.frame(ReplicateData(1, 0, "", b"k", b"v"))
    first.transport.write(proof + write)
    await first.said(ReplicateResponse)
    assert len(one.handled) == 1
    again = await approach(one)
    again.transport.write(first.hello(key_id="main") + proof + write)
    await until(lambda: again.lost)
    assert any("failed: its proof is wrong" in each for each in log)
    assert len(one.handled) == 1
