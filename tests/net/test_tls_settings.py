"""What the settings and files of a port may be, and what the operator is told where they may not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key
from twisted.internet.task import Clock

from hypercache.config import TLSSettings
from hypercache.errors import ConfigurationError
from hypercache.limits import TLS_FILE_MAX_BYTES
from hypercache.net.tls import PortTLS, port_tls
from tests.certificates import DAY_SECONDS, Files, TestAuthority
from tests.net.tls_remotes import logged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


@pytest.fixture
def files(authority: TestAuthority) -> Files:
    return authority.node(1)


def refusal(settings: TLSSettings, *, dials: bool = False) -> str:
    with pytest.raises(ConfigurationError) as caught:
        port_tls(settings, "resp_tls", clock=Clock(), dials=dials)
    return str(caught.value)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert port_tls(TLSSettings(clients="require"), "cluster_tls", clock=Clock(), dials=True) is None


def test_a_certificate_with_its_key_is_enough_for_a_port_that_asks_for_no_others(files: Files) -> None:
    assert port_tls(TLSSettings(str(files.certificate), str(files.key)), "resp_tls", clock=Clock()) is not None


def test_settings_that_would_leave_tls_off_by_mistake_are_refused() -> None:
    text = "resp_tls.certificate: is missing, while resp_tls.{} is set; name the certificate, or leave both out"
    assert refusal(TLSSettings(key="x")) == text.format("key")
    assert refusal(TLSSettings(ca="x")) == text.format("ca")


def test_a_certificate_needs_a_key() -> None:
    assert refusal(TLSSettings("c.pem")) == "resp_tls.key: is missing; name the file with the key of resp_tls.certificate"


@pytest.mark.parametrize("clients", ["optional", "require"])
def test_certificates_cannot_be_asked_for_without_an_authority(clients: str) -> None:
    assert refusal(TLSSettings("c.pem", "k.pem", clients=clients)).startswith(
        f"resp_tls.ca: is missing, and resp_tls.clients is '{clients}'; name the file"
    )


def test_who_dials_needs_an_authority() -> None:
    assert refusal(TLSSettings("c.pem", "k.pem"), dials=True) == (
        "resp_tls.ca: is missing; name the file with the CAs that sign the nodes' certificates"
    )


def encrypted(files: Files) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


def a_directory(files: Files) -> None:
    files.ca.unlink()
    files.ca.mkdir()


FAULTS: dict[str, tuple[Callable[[Files], object], str, str]] = {
    "certificate missing": (lambda files: files.certificate.unlink(), "certificate", "cannot be read: No such file or directory;"),
    "key missing": (lambda files: files.key.unlink(), "key", "cannot be read: No such file or directory;"),
    "ca missing": (lambda files: files.ca.unlink(), "ca", "cannot be read: No such file or directory;"),
    "a directory": (a_directory, "ca", "cannot be read: Is a directory;"),
    "certificate damaged": (lambda files: files.certificate.write_bytes(b"x"), "certificate", "holds no certificate in PEM"),
    "key damaged": (lambda files: files.key.write_bytes(b"x"), "key", "holds no private key in PEM"),
    "key for certificate": (
        lambda files: files.certificate.write_bytes(files.key.read_bytes()),
        "certificate",
        "holds no certificate",
    ),
    "certificate for key": (
        lambda files: files.key.write_bytes(files.certificate.read_bytes()),
        "key",
        "holds no private key in PEM",
    ),
    "key encrypted": (encrypted, "key", "is encrypted; keep it without a passphrase"),
    "far too long": (lambda files: files.ca.write_bytes(bytes(TLS_FILE_MAX_BYTES + 1)), "ca", "has more than 1048576 bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_will_not_do_are_named_with_their_setting(files: Files, fault: str) -> None:
    spoil, setting, text = FAULTS[fault]
    spoil(files)
    said = refusal(files.settings())
    assert said.startswith(f"resp_tls.{setting}: {getattr(files, setting)} {text}")


def test_a_key_of_another_certificate_is_refused(authority: TestAuthority, files: Files) -> None:
    files.key.write_bytes(authority.node(2).key.read_bytes())
    assert refusal(files.settings()).startswith(f"resp_tls.key: {files.key} is not the key of the first certificate in ")


def test_a_key_that_everybody_can_read_is_warned_of(files: Files) -> None:
    with logged("can read") as lines:
        port_tls(files.settings(), "resp_tls", clock=Clock())
    assert lines == []
    files.key.chmod(0o644)
    with logged("can read") as lines:
        port_tls(files.settings(), "resp_tls", clock=Clock())
    assert lines == [f"resp_tls.key: every user of this machine can read {files.key}"]


def test_a_certificate_that_ends_soon_is_warned_of_each_day(files: Files) -> None:
    clock = Clock()
    begin = time.time() + DAY_SECONDS / 2
    tls = PortTLS(files.settings(), "resp_tls", clock=clock, wall=lambda: begin + clock.seconds())
    with logged("resp_tls.certificate") as lines:
        tls.start()
        for _ in range(14):
            clock.advance(DAY_SECONDS)
    assert lines == []
    with logged("resp_tls.certificate") as lines:
        for _ in range(20):
            clock.advance(DAY_SECONDS)
    tls.stop()
    assert not clock.getDelayedCalls()
    assert [line.split(" at ")[0] for line in lines] == [
        *["resp_tls.certificate: CN=node 1 ends"] * 14,
        *["resp_tls.certificate: CN=node 1 has ended"] * 5,
    ]
