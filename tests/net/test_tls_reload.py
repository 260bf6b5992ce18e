"""Certificates that change while the port serves: new connections see the new ones, open ones stay, broken files hurt nobody."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from hypercache.auth.handshake import CertificateIdentity
from hypercache.limits import TLS_CHECK_SECONDS
from hypercache.net.file_watch import FileWatch
from hypercache.net.tls import PortTLS, peer_identity
from tests.certificates import CLUSTER, Files, TestAuthority
from tests.net.sockets import Doors, until
from tests.net.tls_remotes import PLACE, Nears, context, dial_with, logged

if TYPE_CHECKING:
    from pathlib import Path

    from hypercache.net.lean import LeanReactor

TOOK = "cluster_tls: took new certificates: CN=node 1, until "


class Reloading:
    """A port whose certificates are node 1's, and a clock that is advanced."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.authority = TestAuthority(directory)
        self.files = self.authority.node(1, name="own")
        self.tls = PortTLS(self.files.settings(), "cluster_tls", clock=self.clock, dials=True)
        self.tls.start()
        self.nears = Nears()
        self.port: Any = None

    async def listen(self, doors: Doors, lean: LeanReactor) -> None:
        self.port = await doors.listen(PLACE, self.tls.server(self.nears), lean)

    def look(self, count: int = 2) -> list[str]:
        """Let the port look at its files so often; return what it logs."""
        with logged("certificate") as lines:
            for _ in range(count):
                self.clock.advance(TLS_CHECK_SECONDS)
        return lines

    async def serial(self, doors: Doors, trusted: Files | None = None) -> int:
        """Return the number of the certificate that a new connection is shown, once that has been served."""
        remote = await dial_with(doors, self.port, context(trusted or self.files, self.authority.node(2)))
        remote.transport.write(b"x")
        await remote.take(1)
        number: int = remote.transport.getPeerCertificate().get_serial_number()
        return number


@pytest.fixture
def reloading(tmp_path: Path) -> Reloading:
    return Reloading(tmp_path)


@pytest_twisted.ensureDeferred
async def test_new_connections_see_the_new_certificate_and_the_old_ones_stay_open(
    doors: Doors, lean: LeanReactor, reloading: Reloading
) -> None:
    await reloading.listen(doors, lean)
    old = await dial_with(doors, reloading.port, context(reloading.files, reloading.authority.node(2)))
    old.transport.write(b"before")
    await old.take(6)
    first = old.transport.getPeerCertificate().get_serial_number()
    reloading.authority.node(1, name="own")
    (line,) = reloading.look()
    assert line.startswith(TOOK)
    assert reloading.tls.reloads == 1
    second = await reloading.serial(doors)
    assert second != first
    old.transport.write(b"after")
    assert await old.take(5) == b"after"
    assert reloading.look(5) == []
    assert await reloading.serial(doors) == second


@pytest_twisted.ensureDeferred
async def test_who_dials_shows_the_new_certificate(doors: Doors, lean: LeanReactor, reloading: Reloading) -> None:
    await reloading.listen(doors, lean)
    factory = reloading.tls.client(Nears(), "127.0.0.1")
    serials = []
    for _ in range(2):
        await doors.connect(f"tcp:host=127.0.0.1:port={reloading.port.getHost().port}", factory.buildProtocol(None))
        await until(lambda: len(reloading.tls.handshakes) == 0 and reloading.nears.made)
        near = reloading.nears.made.pop()
        await until(near.transport.getPeerCertificate)
        serials.append(near.transport.getPeerCertificate().get_serial_number())
        reloading.authority.node(1, name="own")
        reloading.look()
    assert serials[0] != serials[1]


BROKEN = {
    "no certificate": (lambda files: files.certificate.write_bytes(b"nothing"), "holds no certificate in PEM"),
    "no key": (lambda files: files.key.write_bytes(b"nothing"), "holds no private key in PEM"),
    "gone": (lambda files: files.certificate.unlink(), "cannot be read: No such file or directory"),
    "no authority": (lambda files: files.ca.write_bytes(b""), "holds no certificate in PEM"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest_twisted.ensureDeferred
async def test_broken_files_are_reported_once_and_the_old_certificates_stay_until_they_are_mended(
    doors: Doors, lean: LeanReactor, reloading: Reloading, tmp_path: Path, fault: str
) -> None:
    await reloading.listen(doors, lean)
    before = await reloading.serial(doors)
    break_them, text = BROKEN[fault]
    authority = reloading.files.ca.read_bytes()
    trusted = Files(reloading.files.certificate, reloading.files.key, tmp_path / "kept.pem")
    trusted.ca.write_bytes(authority)
    break_them(reloading.files)
    (line,) = reloading.look(6)
    assert line.startswith("new certificates are not taken, the old ones stay in use: cluster_tls.")
    assert text in line
    assert await reloading.serial(doors, trusted) == before
    reloading.files.ca.write_bytes(authority)
    reloading.authority.node(1, name="own")
    (line,) = reloading.look(4)
    assert line.startswith(TOOK)
    assert await reloading.serial(doors, trusted) != before


def test_another_fault_is_another_line(reloading: Reloading) -> None:
    reloading.files.certificate.write_bytes(b"nothing")
    assert len(reloading.look(4)) == 1
    reloading.files.certificate.unlink()
    assert len(reloading.look(4)) == 1


def test_a_fault_that_passes_without_a_change_of_the_files_is_noticed(reloading: Reloading) -> None:
    reloading.authority.node(1, name="own")
    key = reloading.files.key.read_bytes()
    reloading.files.key.write_bytes(b"x" * len(key))
    moment = reloading.files.key.stat().st_mtime_ns
    assert len(reloading.look(4)) == 1
    reloading.files.key.write_bytes(key)
    os.utime(reloading.files.key, ns=(moment, moment))
    (line,) = reloading.look(1)
    assert line.startswith(TOOK)


def test_a_certificate_of_another_node_is_not_taken(reloading: Reloading) -> None:
    reloading.authority.node(9, name="own")
    (line,) = reloading.look(4)
    assert line.endswith(
        f"names node 9 of cluster {CLUSTER}, and this is node 1 of cluster {CLUSTER}; give the node a certificate of its own"
    )
    assert reloading.tls.identity == CertificateIdentity(CLUSTER, 1)


async def gets_in(doors: Doors, reloading: Reloading, shown: Files, trusted: Files) -> bool:
    """Say whether a peer that shows a certificate is served."""
    remote = await dial_with(doors, reloading.port, context(trusted, shown))
    remote.transport.write(b"x")
    await until(lambda: remote.lost or remote.data)
    return bool(remote.data)


@pytest_twisted.ensureDeferred
async def test_a_new_authority_decides_about_new_connections_and_both_may_stand_in_one_file(
    doors: Doors, lean: LeanReactor, reloading: Reloading, tmp_path: Path
) -> None:
    await reloading.listen(doors, lean)
    other = TestAuthority(tmp_path / "other", "other")
    first, second = reloading.authority.ca.read_bytes(), other.ca.read_bytes()
    trusted = Files(reloading.files.certificate, reloading.files.key, tmp_path / "trusted.pem")
    trusted.ca.write_bytes(first)
    theirs, ours = other.node(2), reloading.authority.node(2)
    open_one = await dial_with(doors, reloading.port, context(trusted, ours))
    open_one.transport.write(b"x")
    await open_one.take(1)
    for trusts, in_first, in_second in ((first + second, True, True), (second, False, True), (first, True, False)):
        reloading.files.ca.write_bytes(trusts)
        assert len(reloading.look()) == 1
        assert await gets_in(doors, reloading, ours, trusted) is in_first
        assert await gets_in(doors, reloading, theirs, trusted) is in_second
    open_one.transport.write(b"y")
    assert await open_one.take(1) == b"y"
    assert peer_identity(open_one.transport) == CertificateIdentity(CLUSTER, 1)


def test_after_stop_nothing_is_looked_at(reloading: Reloading) -> None:
    reloading.tls.stop()
    reloading.authority.node(1, name="own")
    assert reloading.look(5) == []
    assert not reloading.clock.getDelayedCalls()
    reloading.tls.start()
    assert len(reloading.look()) == 1


class Watched:
    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.paths = [directory / "a", directory / "b"]
        for path in self.paths:
            path.write_bytes(b"1")
        self.calls = 0
        self.takes = True
        watch = FileWatch(map(str, self.paths), clock=self.clock, interval=1.0, changed=self.changed)
        watch.start()

    def changed(self) -> bool:
        self.calls += 1
        return self.takes

    def look(self, count: int = 1) -> int:
        for _ in range(count):
            self.clock.advance(1.0)
        return self.calls


def test_files_that_stay_as_they_are_call_nobody(tmp_path: Path) -> None:
    assert Watched(tmp_path).look(10) == 0


def test_files_are_left_alone_while_they_change_and_taken_once_when_they_rest(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for size in range(2, 6):
        watched.paths[size % 2].write_bytes(b"x" * size)
        assert watched.look() == 0
    assert watched.look() == 1
    assert watched.look(5) == 1


def test_what_was_not_taken_is_offered_again_at_each_look(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.takes = False
    watched.paths[0].write_bytes(b"22")
    assert watched.look(4) == 3
    watched.takes = True
    assert watched.look(4) == 4


def test_a_link_that_points_elsewhere_is_a_change_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    other = tmp_path / "other"
    other.write_bytes(b"2")
    status = watched.paths[0].stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    watched.paths[0].unlink()
    watched.paths[0].symlink_to(other)
    assert watched.look(3) == 1
