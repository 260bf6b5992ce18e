"""``hypercache status``: the cluster as one of its nodes knows it."""

from __future__ import annotations

import json
import ssl
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hypercache.errors import ConfigurationError
from hypercache.limits import MIB
from hypercache.net.addresses import format_address, parse_address

_TIMEOUT_SECONDS: Final = 5.0
_ANSWER_MAX_BYTES: Final = 16 * MIB
_STATE_STYLES: Final = {"up": "green", "down": "red", "joining": "yellow", "leaving": "yellow", "rejoining": "yellow"}
_WIDEST: Final = 1000


@click.command()
@click.option("--admin", default="127.0.0.1:8379", show_default=True, metavar="HOST:PORT", help="A node's port for operators.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@click.option("--tls", is_flag=True, help="The port has TLS.")
@click.option("--ca", type=click.Path(), help="PEM file with the authorities to trust; implies --tls. [default: the system's]")
@click.option("--certificate", type=click.Path(), help="PEM file with a certificate to show; implies --tls.")
@click.option("--key", type=click.Path(), help="PEM file with its key. [default: the certificate's file]")
def status(admin: str, as_json: bool, tls: bool, ca: str | None, certificate: str | None, key: str | None) -> None:
    """Show members, their states, and who leads, as a node knows them."""
    try:
        address = format_address(*parse_address(admin))
        context = _context(ca, certificate, key) if tls or ca or certificate else None
        report = _fetch(address, context)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        show(report, Console())


def _context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"the certificates cannot be used: {error}") from None
    return context


def _fetch(address: str, context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return what a node answers.

    Raises:
        ConfigurationError: it answers nothing that would do; the text says what to do.
    """
    scheme = "http" if context is None else "https"
    # A node is asked directly, whatever proxy the environment names.
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    try:
        with opener.open(f"{scheme}://{address}/status", timeout=_TIMEOUT_SECONDS) as answer:
            body = answer.read(_ANSWER_MAX_BYTES)
    except HTTPError as error:
        with error:
            raise ConfigurationError(f"{address} answers {_reason(error)}") from None
    except (URLError, HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        hint = "" if context is not None else ", or --tls where the port has TLS"
        raise ConfigurationError(
            f"no node answers at {address}: {reason}; give the port for operators with --admin HOST:PORT{hint}"
        ) from None
    report = _decoded(body)
    if "members" not in report:
        raise ConfigurationError(f"what answers at {address} is no port for operators of a node")
    return report


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _reason(error: HTTPError) -> str:
    said = _decoded(error.read(_ANSWER_MAX_BYTES)).get("error")
    return f"{error.code}: {said}" if said else f"{error.code} {error.reason}"


def show(report: dict[str, Any], console: Console) -> None:
    """Print a report as tables.

    Args:
        report: as `hypercache.control.report.status_report` makes it.
        console: where to.
    """
    node = report["node"]
    names = {member["id"]: member["name"] or str(member["id"]) for member in report["members"]}
    leader = names.get(report["leader"], str(report["leader"])) if report["leader"] else "none known"
    console.print(f"cluster {report['cluster_id']}, ring version {report['ring_version']}", highlight=False)
    console.print(f"leader {leader}, term {node['term']}", highlight=False, markup=False)
    told = f"told by {node['name'] or node['id']}: commit {node['commit']}, applied {node['applied']}"
    console.print(told, highlight=False, markup=False)
    if node["disk_full"]:
        console.print("its disk is full: it takes no part in decisions", style="red", highlight=False)
    _show_whole(_members(report["members"], names), console)
    if report["stores"]:
        _show_whole(_stores(report["stores"]), console)
    if report["plan"] is not None:
        console.print(f"plan {report['plan']['index']} is under way: {report['plan']['reason']}", highlight=False, markup=False)


def _show_whole(table: Table, console: Console) -> None:
    """Print a table as wide as it is: an id or an address that is cut short is none."""
    console.width = max(console.width, console.measure(table, options=console.options.update(width=_WIDEST)).maximum)
    console.print(table)


def _members(members: list[dict[str, Any]], names: dict[int, str]) -> Table:
    table = Table("member", "id", "state", "role", "address", "match", "suspected by", box=None, pad_edge=False)
    for member in members:
        table.add_row(
            Text(member["name"] or "-"),
            str(member["id"]),
            Text(member["state"], _STATE_STYLES.get(member["state"], "")),
            member["role"],
            Text(member["address"] or "-"),
            "-" if member["match"] is None else str(member["match"]),
            Text(", ".join(names.get(each, str(each)) for each in member["suspected_by"]) or "-"),
        )
    return table


def _stores(stores: list[dict[str, Any]]) -> Table:
    table = Table("store", "level", "replicas", "maxmemory", "eviction", "ttl ms", box=None, pad_edge=False)
    for store in stores:
        table.add_row(
            store["name"],
            store["level"],
            str(store["replicas"] or "all"),
            str(store["maxmemory"] or "-"),
            store["eviction"],
            str(store["ttl_ms"] or "-"),
        )
    return table
