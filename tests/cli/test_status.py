"""``hypercache status``: asked of a port that answers as a node's does, and of such as do not."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.issuing import Authority, make_authority
from hypercache.cli import main
from hypercache.control.commands import BeginPlan, CreateStore, SetMemberState
from hypercache.control.report import GroupStatus, status_report
from hypercache.control.state import MemberState
from tests.conftest import free_port
from tests.control.plane import founded, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Port:
    """A port for operators, as plain HTTP."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.status = 200
        self.body = b""
        self.asked: list[str] = []
        port = self

        class Handler(BaseHTTPRequestHandler):
            """Answers what the test set."""

            def do_GET(self) -> None:
                port.asked.append(self.path)
                self.send_response(port.status)
                self.send_header("content-length", str(len(port.body)))
                self.end_headers()
                self.wfile.write(port.body)

            def handle(self) -> None:
                """Leave it to the test whether a client that breaks off is a fault."""
                with suppress(OSError):
                    super().handle()

            def log_message(self, *args: Any, **kwargs: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def tell(self, report: dict[str, Any], status: int = 200) -> None:
        self.status, self.body = status, json.dumps(report).encode()


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Port]:
    port = Port(context)
    port.thread.start()
    try:
        yield port
    finally:
        port.server.shutdown()
        port.thread.join()
        port.server.server_close()


@pytest.fixture
def port() -> Iterator[Port]:
    with serving() as port:
        yield port


def file(directory: Path, name: str, content: bytes) -> str:
    path = directory / name
    path.write_bytes(content)
    return str(path)


def run(*options: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", "http_proxy": "http://127.0.0.1:1"}).invoke(main, ["status", *options])


def report() -> dict[str, Any]:
    plane = founded(2)
    plane.apply(node(3, name="[red]tricky[/]", address=""))
    plane.apply(SetMemberState(1, MemberState.UP))
    plane.apply(SetMemberState(2, MemberState.DOWN))
    plane.apply(CreateStore("bank", "raft", maxmemory=4096))
    plane.apply(BeginPlan("n3 [b]joined[/b]", b""))
    status = GroupStatus(
        1,
        "n1",
        role="leader",
        leader=1,
        term=9,
        commit=120,
        applied=118,
        voters=(1, 2),
        learners=(3,),
        match={2: 99},
        suspects={2: {1}},
    )
    return status_report(plane.state, status)


def test_tables_show_members_states_the_leader_and_the_stores(port: Port) -> None:
    port.tell(report())
    result = run("--admin", port.address)
    assert (result.exit_code, port.asked) == (0, ["/status"])
    lines = [line.split() for line in result.output.splitlines()]
    assert ["leader", "n1,", "term", "9"] in lines
    assert "ring version 3" in result.output
    assert "commit 120, applied 118" in result.output
    assert ["n1", "1", "up", "leader", "10.0.0.1:7379", "120", "-"] in lines
    assert ["n2", "2", "down", "voter", "10.0.0.2:7379", "99", "n1"] in lines
    assert ["[red]tricky[/]", "3", "joining", "learner", "-", "-", "-"] in lines
    assert ["bank", "raft", "all", "4096", "none", "-"] in lines
    assert "n3 [b]joined[/b]" in result.output
    assert "disk is full" not in result.output


def test_json_is_what_the_node_says(port: Port) -> None:
    port.tell(report())
    result = run("--admin", port.address, "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == report()


def test_a_cluster_without_a_leader_and_a_full_disk_are_named(port: Port) -> None:
    told = report()
    port.tell(told | {"leader": 0, "node": told["node"] | {"disk_full": True}})
    output = run("--admin", port.address).output
    assert "leader none known" in output
    assert "its disk is full" in output


def test_a_node_that_knows_no_cluster_says_so(port: Port) -> None:
    port.tell({"error": "this node belongs to no cluster yet"}, 503)
    result = run("--admin", port.address)
    assert result.exit_code == 1
    assert result.output == f"Error: {port.address} answers 503: this node belongs to no cluster yet\n"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"status": "serving"}', b"\xff"])
def test_what_is_no_port_of_a_node_is_named(port: Port, body: bytes) -> None:
    port.body = body
    result = run("--admin", port.address)
    assert result.exit_code == 1
    assert "no port for operators" in result.output


def test_where_nobody_answers_the_error_says_how_to_go_on() -> None:
    address = f"127.0.0.1:{free_port()}"
    result = run("--admin", address)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: no node answers at {address}: ")
    assert "--admin HOST:PORT, or --tls" in result.output


@pytest.mark.parametrize("options", [("--admin", "nowhere"), ("--ca", "/nonexistent/ca.pem"), ("--certificate", "/nonexistent")])
def test_options_that_cannot_be_used_are_named(options: tuple[str, str]) -> None:
    result = run(*options)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output


def test_a_port_with_tls_is_asked_under_the_authority_that_is_given(tmp_path: Path) -> None:
    made = make_authority("ca", time.time())
    authority = Authority(made)
    ca = file(tmp_path, "ca.pem", made.certificate)
    server = authority.issue_node(CertificateIdentity(7, 1), time.time(), hosts=["127.0.0.1"])
    client = authority.issue_client("ada", time.time())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file(tmp_path, "server.pem", server.certificate), file(tmp_path, "server.key", server.key))
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(context) as port:
        port.tell(report())
        shown = ("--certificate", file(tmp_path, "ada.pem", client.certificate), "--key", file(tmp_path, "ada.key", client.key))
        assert run("--admin", port.address, "--ca", ca, *shown, "--json").exit_code == 0
        for options in (("--ca", ca), ("--tls",), ()):
            result = run("--admin", port.address, *options)
            assert (result.exit_code, port.asked) == (1, ["/status"])
            assert result.output.startswith("Error: ")


def test_ids_and_addresses_are_shown_whole_however_many_suspect_a_member(port: Port) -> None:
    told = report()
    long = told["members"][0] | {
        "id": (1 << 64) - 1,
        "address": "a-host-with-a-long-name.example.com:7379",
        "suspected_by": [1, 2] * 20,
    }
    port.tell(told | {"members": [*told["members"], long]})
    output = run("--admin", port.address).output
    assert str((1 << 64) - 1) in output
    assert "a-host-with-a-long-name.example.com:7379" in output
    assert "n1, n2, n1" in output
