"""``hypercache certs``: the certificates of a cluster, from an authority of its own."""

from __future__ import annotations

import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.issuing import LOCAL_HOSTS, Authority, Issued, make_authority
from hypercache.errors import ConfigurationError, HyperCacheError
from hypercache.limits import AUTHORITY_LIFE_DAYS, CERTIFICATE_LIFE_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable

_ID: Final = click.IntRange(1, (1 << 64) - 1)
_DAYS: Final = click.IntRange(1, 100 * 366)
_CA: Final = "ca"

_NODE_SETTINGS: Final = """\
Into the TOML of node {node} (resp_tls and admin_tls take the same three files; with security.auth = "mtls" the certificate alone
decides who may link):

[node]
id = {node}
[cluster]
id = {cluster}
[cluster_tls]
certificate = {certificate}
key = {key}
ca = {ca}
"""

_CLIENT_SETTINGS: Final = """\
For a port that asks clients for certificates, into the nodes' TOML:

[resp_tls]
ca = {ca}
clients = "require"
"""


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that all commands have."""
    directory = click.option(
        "--dir",
        "directory",
        type=click.Path(file_okay=False, path_type=Path),
        default="certs",
        show_default=True,
        help="Where the files are.",
    )
    force = click.option("--force", is_flag=True, help="Replace files that are there.")
    return directory(force(command))


def _days(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--days", type=_DAYS, default=default, show_default=True, help="How long it is valid.")


@click.group()
def certs() -> None:
    """Make the certificates of a cluster: an authority first, then nodes and clients."""


@certs.command()
@_shared
@_days(AUTHORITY_LIFE_DAYS)
@click.option("--name", default="HyperCache CA", show_default=True, help="The authority's name.")
def ca(directory: Path, force: bool, days: int, name: str) -> None:
    """Make the authority that signs the others."""
    try:
        files = _write(directory, _CA, make_authority(name, time.time(), days=days), force=force)
    except HyperCacheError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{files[0]}: every node and client needs it (cluster_tls.ca, resp_tls.ca, admin_tls.ca)")
    click.echo(f"{files[1]}: whoever has it can make members of the cluster; keep it off the nodes")
    click.echo(f"Next: hypercache certs node --dir {directory} --cluster ID --node ID")


@certs.command()
@_shared
@_days(CERTIFICATE_LIFE_DAYS)
@click.option("--cluster", type=_ID, required=True, metavar="ID", help="The cluster's id (cluster.id).")
@click.option("--node", type=_ID, required=True, metavar="ID", help="The node's id (node.id).")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help=f"A name or address under which clients reach the node; repeatable. [default: {', '.join(LOCAL_HOSTS)}]",
)
def node(directory: Path, force: bool, days: int, cluster: int, node: int, hosts: tuple[str, ...]) -> None:
    """Make the certificate of a node."""
    try:
        issued = _authority(directory).issue_node(
            CertificateIdentity(cluster, node), time.time(), hosts=hosts or LOCAL_HOSTS, days=days
        )
        certificate, key = _write(directory, f"node-{node}", issued, force=force)
    except HyperCacheError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"node {node} of cluster {cluster}: {certificate}, {key}, until {_shown(issued)}\n")
    names = {"certificate": certificate, "key": key, "ca": directory / f"{_CA}.pem"}
    click.echo(_NODE_SETTINGS.format(node=node, cluster=cluster, **_quoted(names)), nl=False)


@certs.command()
@_shared
@_days(CERTIFICATE_LIFE_DAYS)
@click.option("--name", required=True, help="The client's name.")
def client(directory: Path, force: bool, days: int, name: str) -> None:
    """Make the certificate of a client."""
    try:
        issued = _authority(directory).issue_client(name, time.time(), days=days)
        certificate, key = _write(directory, f"client-{name.replace(' ', '_')}", issued, force=force)
    except HyperCacheError as error:
        raise click.ClickException(str(error)) from None
    authority = directory / f"{_CA}.pem"
    click.echo(f"client {name}: {certificate}, {key}, until {_shown(issued)}")
    click.echo(f"It connects with, for example: redis-cli --tls --cert {certificate} --key {key} --cacert {authority}\n")
    click.echo(_CLIENT_SETTINGS.format(**_quoted({"ca": authority})), nl=False)


def _authority(directory: Path) -> Authority:
    """Return the authority in a directory.

    Raises:
        ConfigurationError: there is none, or it is damaged.
    """
    try:
        issued = Issued(*((directory / f"{_CA}.{suffix}").read_bytes() for suffix in ("pem", "key")))
    except FileNotFoundError:
        raise ConfigurationError(f"there is no authority in {directory}; make one: hypercache certs ca --dir {directory}") from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be read: {error.strerror}") from None
    return Authority(issued)


def _write(directory: Path, name: str, issued: Issued, *, force: bool) -> tuple[Path, Path]:
    """Write a certificate and its key; return the files.

    Raises:
        ConfigurationError: one is there already, or cannot be written.
    """
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    taken = [path for path in (certificate, key) if path.exists()]
    if taken and not force:
        raise ConfigurationError(f"{taken[0]} is there already, and stays as it is; give --force to replace it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(key, issued.key, 0o600)
        _replace(certificate, issued.certificate, 0o644)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or directory} cannot be written: {error.strerror}") from None
    return certificate, key


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file beside and rename it: a node that reads it finds the old or the new one, whole."""
    # Made for its owner alone; it never stands open, not even for a moment.
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _shown(issued: Issued) -> str:
    return f"{datetime.fromtimestamp(issued.valid_to, UTC):%Y-%m-%d}"


def _quoted(files: dict[str, Path]) -> dict[str, str]:
    """Return paths as TOML has them; JSON's texts are TOML's as well."""
    return {name: json.dumps(str(path.resolve())) for name, path in files.items()}
