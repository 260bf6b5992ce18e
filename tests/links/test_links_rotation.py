"""Keys and certificates are exchanged while nodes ask each other all the time, and no request fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.keyfile import add_key
from hypercache.limits import RENEWAL_SECONDS
from hypercache.wire.messages import AuthResult
from tests.certificates import CLUSTER, TestAuthority
from tests.links.messages import Probe, reply
from tests.links.nodes import LinkedNode, Nodes, credential, hmac, joining, linked
from tests.links.stranger import approach
from tests.net.sockets import until

if TYPE_CHECKING:
    from pathlib import Path

    from hypercache.net.link import PeerLink

IN_FLIGHT = 20


class Load:
    """Has nodes ask each other all the time.

    Attributes:
        answered: how many requests were.
        failed: what came instead.
        links: all that were used.
    """

    def __init__(self, *nodes: LinkedNode) -> None:
        self.answered = 0
        self.failed: list[Any] = []
        self.links: set[PeerLink] = set()
        self._pairs = [(one, other) for one in nodes for other in nodes if one is not other]
        self._waiting = dict.fromkeys(self._pairs, 0)
        self._number = 0
        self._call = LoopingCall(self._ask)

    def start(self) -> Load:
        self._call.start(0.002)
        return self

    async def stop(self) -> None:
        self._call.stop()
        await until(lambda: not any(self._waiting.values()))

    def _ask(self) -> None:
        for pair in self._pairs:
            one, other = pair
            # One that fails at once would otherwise be asked again for ever.
            while self._waiting[pair] < IN_FLIGHT and not self.failed:
                self._number += 1
                question = Probe(one.node_id, self._number, bytes(self._number % 100))
                member = one.member(other)
                link = member.link if member is not None else None
                if link is None:
                    self.failed.append(f"node {one.node_id} has no link")
                    return
                self.links.add(link)
                self._waiting[pair] += 1
                link.request(question).addBoth(self._take, pair, question)

    def _take(self, result: Any, pair: Any, question: Probe) -> None:
        self._waiting[pair] -= 1
        if result == reply(question):
            self.answered += 1
        else:
            self.failed.append(result)

    async def goes_on(self) -> None:
        """Wait until it has been answered many times more."""
        answered = self.answered
        await until(lambda: self.failed or self.answered > answered + 10 * IN_FLIGHT)
        assert not self.failed


def slow_question(one: LinkedNode, other: LinkedNode) -> tuple[list[Any], Deferred[Any]]:
    """Ask what is answered when the test says so; return where the answer goes, and what to fire with it."""
    ready: Deferred[Any] = Deferred()
    slow = Probe(one.node_id, 1 << 31, b"slow")
    other.probes.answer = lambda question: ready if question == slow else reply(question)
    answers: list[Any] = []
    one.link_to(other).request(slow, timeout=60).addBoth(answers.append)
    return answers, ready


@pytest_twisted.ensureDeferred
async def test_keys_rotate_under_load_and_no_request_fails(nodes: Nodes) -> None:
    shift = 0.0

    def wall() -> float:
        return time.time() + shift

    old = credential("old", end=100)
    new = credential("new", start=30, end=100_000, seed=2)
    paths = [nodes.directory / "keys1", nodes.directory / "keys2"]
    settings = ("security.clock_skew=0", "cluster.id=77")
    one = await nodes.start(1, *hmac(paths[0], old), *settings, wall=wall)
    two = await nodes.start(2, *hmac(paths[1], old), *settings, joining(one), wall=wall)
    await linked(one, two)
    load = Load(one, two).start()
    await load.goes_on()
    first, its_other = two.link_to(one), one.link_to(two)
    assert first.expires == its_other.expires == int(old.valid_to)
    # One file after the other, as an operator does it: the new key begins later.
    add_key(paths[0], new)
    shift = 2.0
    await load.goes_on()
    add_key(paths[1], new)
    shift = 40.0
    await load.goes_on()
    assert two.link_to(one) is first, "a link stays while its key is valid"
    slow = [(one, two, *slow_question(one, two)), (two, one, *slow_question(two, one))]
    shift = 100 - RENEWAL_SECONDS / 2
    await until(lambda: two.link_to(one) is not first and one.link_to(two) is not its_other)
    assert two.link_to(one).expires == one.link_to(two).expires == int(new.valid_to)
    # Both wait for an answer over the old link, and get it.
    await load.goes_on()
    assert first.connected_now
    for asker, asked, answers, ready in slow:
        assert not answers
        question = Probe(asker.node_id, 1 << 31, b"slow")
        ready.callback(reply(question))
        await until(lambda answers=answers: answers)  # type: ignore[misc]
        assert answers == [reply(question)]
        assert asked.node_id
    shift = 200.0
    await load.goes_on()
    await until(lambda: not first.connected_now and not its_other.connected_now)
    await load.stop()
    assert not load.failed
    assert len(load.links) == 4
    # The old key opens no door any more.
    stranger = await approach(one)
    stranger.transport.write(await stranger.greet(old))
    assert (await stranger.said(AuthResult)).status == 1


@pytest_twisted.ensureDeferred
async def test_a_link_whose_key_ends_and_has_no_successor_ends_with_it(nodes: Nodes, log: list[str]) -> None:
    shift = 0.0

    def wall() -> float:
        return time.time() + shift

    keys = hmac(nodes.directory / "keys", credential("old", end=100))
    one = await nodes.start(1, *keys, "security.clock_skew=0", wall=wall)
    two = await nodes.start(2, *keys, "security.clock_skew=0", joining(one), wall=wall)
    await linked(one, two)
    shift = 101.0
    await until(lambda: not one.membership.links() and not two.membership.links())
    await until(lambda: any("this node has no key that is valid now" in line for line in log))
    assert any("its credentials have ended" in line for line in log)
    # The next key lets them find each other without a restart.
    add_key(nodes.directory / "keys", credential("new", end=100_000, seed=2))
    shift = 105.0
    await linked(one, two)


def put(path: Path, data: bytes) -> None:
    """Replace a file whole, as an operator does it."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.chmod(0o600)
    beside.replace(path)


async def taken(log: list[str], count: int) -> None:
    """Wait until new certificates have been taken so often."""
    await until(lambda: sum("took new certificates" in line for line in log) >= count)


def serial(link: PeerLink) -> int:
    """Return the serial number of the certificate that a link's peer has shown."""
    number: int = link.transport.getPeerCertificate().get_serial_number()
    return number


async def renew(dialler: LinkedNode, listener: LinkedNode) -> tuple[int, int]:
    """Replace the link between two nodes; return the numbers of the certificates that they have shown."""
    before = dialler.link_to(listener), listener.link_to(dialler)
    dialler.membership._joining.renew(before[0])
    await until(lambda: dialler.link_to(listener) is not before[0] and listener.link_to(dialler) is not before[1])
    await until(lambda: not any(link.connected_now for link in before))
    return serial(dialler.link_to(listener)), serial(listener.link_to(dialler))


@pytest_twisted.ensureDeferred
async def test_certificates_and_their_ca_rotate_under_load_and_no_request_fails(nodes: Nodes, log: list[str]) -> None:
    """The new CA is trusted beside the old one first; then come the certificates that it has signed, and the old one goes."""
    old, new = TestAuthority(nodes.directory / "old", "old"), TestAuthority(nodes.directory / "new", "new")
    files = []
    for node_id in (1, 2):
        own = old.node(node_id)
        ca = nodes.directory / f"ca{node_id}.pem"
        ca.write_bytes(old.ca.read_bytes())
        files.append(msgspec.structs.replace(own, ca=ca))
    settings = (*hmac(nodes.directory / "keys", credential()), f"cluster.id={CLUSTER}")
    one = await nodes.start(1, *settings, tls=files[0].settings())
    two = await nodes.start(2, *settings, joining(one), tls=files[1].settings())
    await linked(one, two)
    load = Load(one, two).start()
    await load.goes_on()
    shown = serial(two.link_to(one)), serial(one.link_to(two))
    for each in files:
        put(each.ca, old.ca.read_bytes() + new.ca.read_bytes())
    await taken(log, 2)
    assert await renew(two, one) == shown
    for node_id, each in enumerate(files, 1):
        issued = new.issue(CertificateIdentity(CLUSTER, node_id))
        put(each.key, issued.key)
        put(each.certificate, issued.certificate)
        put(each.ca, new.ca.read_bytes())
    await taken(log, 4)
    later = await renew(two, one)
    assert not {*later} & {*shown}
    await load.goes_on()
    await load.stop()
    assert not load.failed
    assert len(load.links) == 6
