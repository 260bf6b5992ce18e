"""``hypercache certs``: certificates that a second implementation of the rules accepts, keys that nobody else can read."""

from __future__ import annotations

import datetime
import ipaddress
import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from twisted.internet.task import Clock

from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.issuing import Authority, Issued, make_authority
from hypercache.cli import main
from hypercache.config import load_settings
from hypercache.errors import ConfigurationError
from hypercache.net.tls import port_tls

DAY = datetime.timedelta(days=1)
YEAR_2030 = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC).timestamp()


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """Return a directory with an authority."""
    directory = tmp_path / "certs"
    assert run("ca", directory).exit_code == 0
    return directory


def run(command: str, directory: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["certs", command, "--dir", str(directory), *options])


def node(directory: Path, *options: str) -> Result:
    return run("node", directory, "--cluster", "77", "--node", "5", *options)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def policy(directory: Path) -> PolicyBuilder:
    return PolicyBuilder().store(Store([load(directory / "ca.pem")]))


def lifetime(certificate: x509.Certificate) -> datetime.timedelta:
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)


def test_a_nodes_certificate_is_good_for_a_server_and_for_a_client_and_names_the_node(certs: Path) -> None:
    result = node(certs)
    assert result.exit_code == 0
    made = load(certs / "node-5.pem")
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    hosts: list[x509.DNSName | x509.IPAddress] = [x509.DNSName("localhost"), *addresses]
    for host in hosts:
        assert policy(certs).build_server_verifier(host).verify(made, [])[-1] == load(certs / "ca.pem")
    verified = policy(certs).build_client_verifier().verify(made, [])
    assert verified.subjects is not None
    assert x509.UniformResourceIdentifier("hypercache://77/5") in verified.subjects
    with pytest.raises(VerificationError):
        policy(certs).build_server_verifier(x509.DNSName("elsewhere")).verify(made, [])


def test_a_nodes_hosts_are_those_given(certs: Path) -> None:
    assert node(certs, "--host", "cache5.example.org", "--host", "10.0.0.5", "--host", "*.cache.example.org").exit_code == 0
    names = load(certs / "node-5.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cache5.example.org", "*.cache.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.5")]


def test_a_clients_certificate_is_good_for_a_client_alone_and_names_no_node(certs: Path) -> None:
    assert run("client", certs, "--name", "billing app").exit_code == 0
    made = load(certs / "client-billing_app.pem")
    assert made.subject.rfc4514_string() == "CN=billing app"
    assert policy(certs).build_client_verifier().verify(made, []).chain[-1] == load(certs / "ca.pem")
    extensions = made.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.UniformResourceIdentifier
    )


def test_the_extensions_are_those_of_an_authority_and_of_those_that_it_vouches_for(certs: Path) -> None:
    node(certs)
    authority, leaf = load(certs / "ca.pem").extensions, load(certs / "node-5.pem").extensions
    assert authority.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    assert leaf.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert all(each.get_extension_for_class(x509.BasicConstraints).critical for each in (authority, leaf))
    assert authority.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    usage = leaf.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign, usage.value.crl_sign) == (
        True,
        True,
        False,
        False,
    )
    own_id = authority.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own_id
    assert leaf.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest != own_id


def test_keys_are_p_256_and_readable_by_their_owner_alone(certs: Path) -> None:
    node(certs)
    run("client", certs, "--name", "app")
    keys = sorted(certs.glob("*.key"))
    assert [path.name for path in keys] == ["ca.key", "client-app.key", "node-5.key"]
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert key.public_key() == load(path.with_suffix(".pem")).public_key()
    assert len(list(certs.iterdir())) == 6, "nothing is left beside"


def test_each_certificate_has_a_key_and_a_number_of_its_own(certs: Path) -> None:
    node(certs)
    first = load(certs / "node-5.pem")
    assert node(certs, "--force").exit_code == 0
    second = load(certs / "node-5.pem")
    assert first.serial_number != second.serial_number
    assert first.public_key() != second.public_key()


@pytest.mark.parametrize("kept", ["node-5.pem", "node-5.key"])
def test_what_is_there_stays_without_force(certs: Path, kept: str) -> None:
    node(certs)
    other = certs / ("node-5.key" if kept == "node-5.pem" else "node-5.pem")
    other.unlink()
    before = (certs / kept).read_bytes()
    result = node(certs)
    assert result.exit_code == 1
    assert result.output == f"Error: {certs / kept} is there already, and stays as it is; give --force to replace it\n"
    assert (certs / kept).read_bytes() == before
    assert not other.exists()
    assert run("ca", certs).exit_code == 1


def test_days_are_those_asked_for_and_never_more_than_the_authoritys(certs: Path) -> None:
    node(certs, "--days", "10")
    assert 9.9 * DAY < lifetime(load(certs / "node-5.pem")) <= 10 * DAY
    assert run("ca", certs, "--force", "--days", "20", "--name", "Short CA").exit_code == 0
    assert run("client", certs, "--name", "app", "--days", "300").exit_code == 0
    made, authority = load(certs / "client-app.pem"), load(certs / "ca.pem")
    assert made.not_valid_after_utc == authority.not_valid_after_utc
    assert authority.subject.rfc4514_string() == "CN=Short CA"
    assert 0.9 * DAY / 24 < datetime.datetime.now(datetime.UTC) - made.not_valid_before_utc < 1.1 * DAY / 24, "clocks differ"


def test_what_is_printed_are_settings_that_a_port_takes(certs: Path) -> None:
    output = node(certs).output
    settings = load_settings(output[output.index("[node]") :])
    assert (settings.node.id, settings.cluster.id, settings.cluster_tls.clients) == (5, 77, "require")
    tls = port_tls(settings.cluster_tls, "cluster_tls", clock=Clock(), dials=True)
    assert tls is not None
    assert tls.identity == CertificateIdentity(77, 5)
    printed = run("client", certs, "--name", "app").output
    assert tomllib.loads(printed[printed.index("[resp_tls]") :]) == {
        "resp_tls": {"ca": str(certs / "ca.pem"), "clients": "require"}
    }


def test_without_an_authority_the_next_step_is_named(tmp_path: Path) -> None:
    result = node(tmp_path)
    assert result.exit_code == 1
    assert result.output == f"Error: there is no authority in {tmp_path}; make one: hypercache certs ca --dir {tmp_path}\n"


@pytest.mark.parametrize(
    ("command", "options", "text"),
    [
        ("node", ("--cluster", "1", "--node", "1", "--host", "a..b"), "'a..b' is neither a host name nor an IP address"),
        ("client", ("--name", "../evil"), "'../evil' is no name for a certificate"),
        ("client", ("--name", ""), "'' is no name for a certificate"),
        ("client", ("--name", "x" * 65), "is no name for a certificate"),
    ],
)
def test_names_that_cannot_be_are_refused_and_nothing_is_written(
    certs: Path, command: str, options: tuple[str, ...], text: str
) -> None:
    before = sorted(certs.iterdir())
    result = run(command, certs, *options)
    assert result.exit_code == 1
    assert text in result.output
    assert sorted(certs.iterdir()) == before


@pytest.mark.parametrize("value", ["0", "-1", str(1 << 64), "x"])
def test_ids_are_those_that_nodes_and_clusters_may_have(certs: Path, value: str) -> None:
    assert run("node", certs, "--cluster", "1", "--node", value).exit_code == 2
    assert run("node", certs, "--cluster", value, "--node", "1").exit_code == 2


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = run("ca", tmp_path / "file" / "certs")
    assert result.exit_code == 1
    assert "cannot be written: Not a directory" in result.output


def test_an_authority_that_is_none_is_refused(certs: Path) -> None:
    node(certs)
    leaf = Issued((certs / "node-5.pem").read_bytes(), (certs / "node-5.key").read_bytes())
    own = Issued((certs / "ca.pem").read_bytes(), (certs / "ca.key").read_bytes())
    for issued, text in (
        (leaf, "is no authority's"),
        (Issued(own.certificate, leaf.key), "do not belong together"),
        (Issued(b"nothing", own.key), "damaged"),
        (Issued(own.certificate, b"nothing"), "damaged"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            Authority(issued)


def test_an_authority_that_has_ended_signs_no_more() -> None:
    authority = Authority(make_authority("old", YEAR_2030, days=10))
    with pytest.raises(ConfigurationError, match=r"ended at 2030-01-11; make a new authority"):
        authority.issue_client("late", YEAR_2030 + 11 * 86400)
