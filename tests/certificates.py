"""Real certificates for tests: an authority of their own, and what it issues, as files."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import msgspec

from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.issuing import Authority, Issued, make_authority
from hypercache.config import TLSSettings

CLUSTER = 77
DAY_SECONDS = 24 * 3600.0


class Files(msgspec.Struct, frozen=True):
    """A certificate, its key, and the authority that signed it, as files."""

    certificate: Path
    key: Path
    ca: Path

    def settings(self, *, clients: str = "require", minimum: str = "1.2") -> TLSSettings:
        """Return a port's settings with these files."""
        return TLSSettings(str(self.certificate), str(self.key), str(self.ca), clients, minimum)

    def client_context(self, *, own: bool = True) -> ssl.SSLContext:
        """Return a context of the standard library that trusts the authority, and shows this certificate unless told not to."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.check_hostname = False
        if own:
            context.load_cert_chain(self.certificate, self.key)
        return context


class TestAuthority:
    """An authority whose files go to a directory.

    Args:
        directory: for the files.
        name: of the authority, and in the files' names.
        cluster: of the nodes.
    """

    __test__ = False

    def __init__(self, directory: Path, name: str = "ca", cluster: int = CLUSTER) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._name = name
        self._cluster = cluster
        issued = make_authority(name, time.time())
        self._authority = Authority(issued)
        self.ca = directory / f"{name}.pem"
        self.ca.write_bytes(issued.certificate)

    def node(
        self, node_id: int, *, start_days: float = 0.0, days: float = 30.0, cluster: int | None = None, name: str = ""
    ) -> Files:
        """Return a node's certificate.

        Args:
            node_id: the node.
            start_days: when it begins, in days from now.
            days: how long it lasts; with ``start_days`` it may have ended already.
            cluster: where it is not the authority's.
            name: of the files, where it is not made from the node; those that there are, are replaced.
        """
        identity = CertificateIdentity(self._cluster if cluster is None else cluster, node_id)
        return self.write(name or f"{self._name}-node-{node_id}", self.issue(identity, start_days, days))

    def issue(self, identity: CertificateIdentity, start_days: float = 0.0, days: float = 30.0) -> Issued:
        """Return a node's certificate without writing it."""
        return self._authority.issue_node(identity, time.time() + start_days * DAY_SECONDS, days=days)

    def client(self, name: str = "client") -> Files:
        """Return a client's certificate, which names no node."""
        return self.write(f"{self._name}-{name}", self._authority.issue_client(name, time.time()))

    def write(self, name: str, issued: Issued) -> Files:
        """Write a certificate and its key."""
        files = Files(self._directory / f"{name}.pem", self._directory / f"{name}.key", self.ca)
        files.certificate.write_bytes(issued.certificate)
        files.key.write_bytes(issued.key)
        files.key.chmod(0o600)
        return files
