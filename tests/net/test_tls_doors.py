"""The doors for clients and operators over TLS, and what they make of those who mix up TLS and plain text."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.web.resource import Resource
from twisted.web.server import Site

from hypercache.limits import REPORTS_MAX_COUNT
from hypercache.net.plain_port import PlainPort
from hypercache.net.tls import PortTLS
from tests.certificates import Files, TestAuthority
from tests.net.door import FULL, bulk, client_factory, request
from tests.net.sockets import Doors, turns, until
from tests.net.tls_remotes import PLACE, Nears, context, dial_with, logged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.web.iweb import IRequest

    from hypercache.net.lean import LeanReactor

MIB = 1 << 20


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


@pytest.fixture
def files(authority: TestAuthority) -> Files:
    return authority.node(1)


class Health(Resource):
    isLeaf = True

    def render_GET(self, request: IRequest) -> bytes:
        return b"secure" if request.isSecure() else b"plain"


def site() -> Site:
    made = Site(Health())
    made.noisy = False
    return made


def resp_tls(files: Files, clients: str = "none") -> PortTLS:
    return PortTLS(files.settings(clients=clients), "resp_tls", clock=reactor)


def work(client: redis.Redis) -> tuple[Any, ...]:
    with client:
        pipe = client.pipeline(transaction=False)
        for number in range(1000):
            pipe.set(f"k{number}", number)
        pipe.set("large", bytes(2 * MIB))
        stored = pipe.execute()
        return all(stored), client.get("k999"), len(client.get("large") or b""), client.ping()


@pytest_twisted.ensureDeferred
async def test_redis_py_works_over_tls_with_host_names_verified_and_certificates_on_both_sides(
    doors: Doors, lean: LeanReactor, authority: TestAuthority, files: Files
) -> None:
    own = authority.client()
    factory = client_factory()
    port = await doors.listen(PLACE, resp_tls(files, "require").server(factory), lean)
    client = redis.Redis(
        "localhost",
        port.getHost().port,
        ssl=True,
        ssl_ca_certs=str(own.ca),
        ssl_certfile=str(own.certificate),
        ssl_keyfile=str(own.key),
        ssl_check_hostname=True,
        socket_timeout=10,
    )
    assert await deferToThread(work, client) == (True, b"999", 2 * MIB, True)
    once = Retry(NoBackoff(), 0)
    bare = redis.Redis("localhost", port.getHost().port, ssl=True, ssl_ca_certs=str(own.ca), socket_timeout=10, retry=once)
    with logged("resp_tls") as lines, capturedLogs() as events:
        with pytest.raises(redis.ConnectionError):
            await deferToThread(work, bare)
        # The client's thread may hear of it before the node has said why.
        await until(lambda: any("resp_tls" in formatEvent(event) for event in events))
    assert lines
    assert all(line.endswith("failed: it shows no certificate, and must") for line in lines)
    await until(lambda: not len(factory))


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_of_a_large_reply_gets_it_over_tls_and_is_closed_behind_it(
    doors: Doors, lean: LeanReactor, files: Files
) -> None:
    factory = client_factory()
    value = bytes(8 * MIB)
    port = await doors.listen(PLACE, resp_tls(files).server(factory), lean)
    remote = await dial_with(doors, port, context(files))
    remote.transport.write(request(b"SET", b"k", value))
    await remote.take(5)
    remote.transport.pauseProducing()
    remote.transport.write(request(b"GET", b"k") + request(b"QUIT"))
    await until(lambda: next(iter(factory)).session.closing)
    await turns(5)
    remote.transport.resumeProducing()
    await until(lambda: remote.lost)
    assert bytes(remote.data) == bulk(value) + b"+OK\r\n"
    await until(lambda: not len(factory))


@pytest_twisted.ensureDeferred
async def test_a_client_too_many_is_told_so_over_tls(doors: Doors, lean: LeanReactor, files: Files) -> None:
    factory = client_factory(max_clients=0)
    port = await doors.listen(PLACE, resp_tls(files).server(factory), lean)
    remote = await dial_with(doors, port, context(files))
    assert await remote.take(len(FULL)) == FULL
    await until(lambda: remote.lost)


@pytest_twisted.ensureDeferred
async def test_handshakes_that_do_not_finish_take_the_door_from_nobody(doors: Doors, lean: LeanReactor, files: Files) -> None:
    clock = Clock()
    factory = client_factory()
    tls = PortTLS(files.settings(clients="none"), "resp_tls", clock=clock, handshakes_max=50, handshake_timeout=3.0)
    port = await doors.listen(PLACE, tls.server(factory), lean)
    halves = [await doors.dial(port) for _ in range(60)]
    remote = await dial_with(doors, port, context(files))
    remote.transport.write(request(b"PING"))
    assert await remote.take(7) == b"+PONG\r\n"
    assert len(tls.handshakes) == 49
    clock.advance(3.0)
    await until(lambda: all(half.lost for half in halves))
    await until(lambda: len(factory) == 1)


@pytest_twisted.ensureDeferred
async def test_plain_resp_and_plain_http_on_tls_doors_are_named_and_closed(doors: Doors, lean: LeanReactor, files: Files) -> None:
    resp, admin = resp_tls(files), PortTLS(files.settings(clients="none"), "admin_tls", clock=reactor)
    resp_port = await doors.listen(PLACE, resp.server(client_factory()), lean)
    admin_port = await doors.listen(PLACE, admin.server(site()))
    with logged("TLS") as lines:
        for port, data in ((resp_port, request(b"PING")), (admin_port, b"GET / HTTP/1.1\r\n\r\n")):
            remote = await doors.dial(port)
            remote.transport.write(data)
            await until(lambda remote=remote: remote.lost)  # type: ignore[misc]
            assert not remote.data
    assert [line.partition(": ")[0] for line in lines] == ["resp_tls", "admin_tls"]
    assert [line.partition(" failed: ")[2] for line in lines] == [
        "it speaks plain RESP, and this port speaks TLS",
        "it speaks plain HTTP, and this port speaks TLS",
    ]


@pytest_twisted.ensureDeferred
async def test_the_admin_port_serves_https(doors: Doors, files: Files) -> None:
    admin = PortTLS(files.settings(clients="none"), "admin_tls", clock=reactor)
    port = await doors.listen(PLACE, admin.server(site()))

    def ask() -> bytes:
        trust = files.client_context(own=False)
        trust.check_hostname = True
        connection = http.client.HTTPSConnection("localhost", port.getHost().port, timeout=10, context=trust)
        try:
            answers = []
            for _ in range(2):
                connection.request("GET", "/")
                answers.append(connection.getresponse().read())
            return b" ".join(answers)
        finally:
            connection.close()

    assert await deferToThread(ask) == b"secure secure"


# TLS on plain doors

KINDS: dict[str, tuple[Callable[[], Any], bytes, bytes]] = {
    "resp": (client_factory, request(b"PING"), b"+PONG\r\n"),
    "admin": (site, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n"),
}


@pytest.mark.parametrize("section", KINDS)
@pytest_twisted.ensureDeferred
async def test_tls_on_a_plain_door_is_named_in_one_line_and_closed_and_others_are_served(
    doors: Doors, lean: LeanReactor, files: Files, section: str
) -> None:
    make, question, answer = KINDS[section]
    door = PlainPort(make(), section, reactor)
    port = await doors.listen(PLACE, door, lean)
    with logged("TLS") as lines:
        remote = await dial_with(doors, port, context(files))
        host = remote.transport.getHost()
        await until(lambda: remote.lost)
    assert lines == [
        f"{section}: 127.0.0.1:{host.port} speaks TLS, and this port does not: {section}_tls.certificate is not set",
    ]
    assert (door.refused, remote.secured, bytes(remote.data)) == (1, False, b"")
    plain = await doors.dial(port)
    for byte in question:
        plain.transport.write(bytes([byte]))
        await turns(1)
    assert await plain.take(len(answer)) == answer


@pytest_twisted.ensureDeferred
async def test_a_plain_door_gets_out_of_the_way_after_the_first_bytes(doors: Doors, lean: LeanReactor) -> None:
    nears = Nears()
    port = await doors.listen(PLACE, PlainPort(nears, "resp", reactor), lean)
    remote = await doors.dial(port)
    await until(lambda: nears.made)
    assert "dataReceived" in vars(nears.made[0])
    for data in (b"one", b"\x16\x03\x01"):
        remote.transport.write(data)
        assert await remote.take(len(data)) == data
    assert "dataReceived" not in vars(nears.made[0])


@pytest_twisted.ensureDeferred
async def test_a_door_over_a_tls_endpoint_of_twisted_is_no_plain_one(doors: Doors, lean: LeanReactor, files: Files) -> None:
    nears = Nears()
    inner = PlainPort(nears, "resp", reactor)
    port = await doors.listen(PLACE, resp_tls(files).server(inner), lean)
    remote = await dial_with(doors, port, context(files))
    remote.transport.write(b"\x16\x03 is what this protocol says first")
    await until(lambda: remote.data)
    assert inner.refused == 0


def test_a_flood_of_them_does_not_fill_the_log() -> None:
    class Wire:
        def getPeer(self) -> str:
            return "there"

        def abortConnection(self) -> None:
            """It is over."""

    door = PlainPort(Nears(), "resp", Clock())
    with logged() as lines:
        for _ in range(REPORTS_MAX_COUNT * 2):
            protocol = door.buildProtocol(None)
            protocol.makeConnection(Wire())
            protocol.dataReceived(b"\x16\x03")
    assert len(lines) == REPORTS_MAX_COUNT + 1
    assert door.refused == REPORTS_MAX_COUNT * 2
