"""Real nodes as their users meet them: twistd, redis-cli, redis-py, plain sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from hypercache.wire import Decoder
from hypercache.wire.events import Event
from hypercache.wire.header import HEADER, MAGIC_NUMBER, frame
from hypercache.wire.messages import (
    GenericError,
    HashRingQuery,
    HashRingUpdate,
    Heartbeat,
    HeartbeatResponse,
    NodeJoinRequest,
    NodeJoinResponse,
    ReplicateData,
    ReplicateResponse,
)
from tests.conftest import NodeProcess, free_port, program, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process


def client_of(node: NodeProcess) -> redis.Redis:
    return redis.Redis(port=node.resp_port, socket_timeout=30)


class BasePeer:
    """A plain socket that speaks version 0x01 alone."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.decoder = Decoder()
        self.events: list[Event] = []

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, count: int) -> list[Event]:
        """Return the next events."""
        while len(self.events) < count:
            data = self.socket.recv(1 << 16)
            assert data, f"closed after {self.events}"
            self.events += self.decoder.feed(data)
        taken, self.events = self.events[:count], self.events[count:]
        return taken

    def ask(self, data: bytes) -> Event:
        self.send(data)
        return self.take(1)[0]

    def is_closed(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(1 << 16):
                pass
        return True


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path_factory.mktemp("node"), "--resp", "0", "--listen", "0", "--admin", "0").wait_ready()
    yield node
    node.kill()


@pytest.fixture
def peer(node: NodeProcess) -> Iterator[BasePeer]:
    peer = BasePeer(node.cluster_port)
    yield peer
    peer.socket.close()


def test_redis_cli_and_redis_benchmark_work(node: NodeProcess) -> None:
    cli = [program("redis-cli", "redis-tools"), "-p", str(node.resp_port)]

    def run(*args: str) -> str:
        return subprocess.run([*cli, *args], capture_output=True, text=True, check=True).stdout.strip()

    assert run("set", "a", "b") == "OK"
    assert run("-3", "get", "a") == '"b"' or run("get", "a") == "b"
    benchmark = [program("redis-benchmark", "redis-tools"), "-p", str(node.resp_port), "-n", "2000", "-P", "16", "-q"]
    result = subprocess.run([*benchmark, "-t", "ping,set,get,incr,mset"], capture_output=True, text=True, check=True, timeout=60)
    assert "GET" in result.stdout
    assert "rror" not in result.stdout + result.stderr


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works(node: NodeProcess, protocol: int) -> None:
    with redis.Redis(port=node.resp_port, protocol=protocol, decode_responses=True) as client:
        client.flushall()
        assert client.set("k", "v", ex=100, get=True) is None
        assert client.get("k") == "v"
        assert 0 < client.ttl("k") <= 100
        with client.pipeline(transaction=False) as pipe:
            for number in range(1000):
                pipe.set(f"p{number}", number)
            assert all(pipe.execute())
        assert len(list(client.scan_iter("p*", count=100))) == 1000
        assert client.config_get("maxmemory") == {"maxmemory": "0"}
        assert client.info("server")["redis_version"]
        assert client.client_list()
        assert client.memory_usage("k") > 0
        assert client.object("encoding", "k") == "embstr"


def test_64_mib_values_go_both_ways_and_others_are_served_meanwhile(node: NodeProcess) -> None:
    value = os.urandom(1 << 20) * 64
    with client_of(node) as client, client_of(node) as other:
        client.set("big", value)
        assert other.ping()
        assert client.get("big") == value
        client.delete("big")


def test_a_heartbeat_comes_back(peer: BasePeer) -> None:
    assert peer.ask(Heartbeat(5, 1755685845123456789, 3).encode_frame()) == HeartbeatResponse(1755685845123456789, 0)


def test_replicated_data_is_applied_acknowledged_and_readable(node: NodeProcess, peer: BasePeer) -> None:
    done = ReplicateResponse(0, 0)
    with client_of(node) as client:
        assert peer.ask(ReplicateData(1, 0, "", b"rk", b"rv").encode_frame()) == done
        assert client.get("rk") == b"rv"
        assert client.ttl("rk") == -1
        assert peer.ask(ReplicateData(3, 100 * 10**9, "default", b"rk", b"").encode_frame()) == done
        assert 99 <= client.ttl("rk") <= 100
        assert peer.ask(ReplicateData(3, 0, "", b"rk", b"").encode_frame()) == done
        assert client.ttl("rk") == -1
        assert peer.ask(ReplicateData(2, 0, "", b"rk", b"").encode_frame()) == done
        assert client.get("rk") is None
        answer = peer.ask(ReplicateData(9, 0, "", b"rk", b"").encode_frame())
        assert isinstance(answer, ReplicateResponse)
        assert answer.status == 1


def test_the_ring_is_told(node: NodeProcess, peer: BasePeer) -> None:
    answer = peer.ask(HashRingQuery(1).encode_frame())
    assert isinstance(answer, HashRingUpdate)
    assert [each.host for each in answer.nodes] == [node.cluster]


def test_errors_are_answered_with_their_codes(peer: BasePeer) -> None:
    beat = Heartbeat(1, 2, 3).encode_frame()
    for data, code, extra in (
        (frame(1, 0x99, b""), 1, 0x99),
        (frame(7, 0x32, b"x"), 2, 2),
        (beat[:-1] + b"\1", 3, None),
        (HEADER.pack(MAGIC_NUMBER, 1, 0x32, 1 << 31, 0), 4, 64 * 1024),
    ):
        answer = peer.ask(data)
        assert isinstance(answer, GenericError)
        assert answer.error_code == code
        assert extra is None or answer.extra_data == extra
    peer.send(GenericError(1, 0, "an error is never answered").encode_frame())
    assert peer.ask(beat) == HeartbeatResponse(2, 0)


def test_service_goes_on_after_garbage_and_by_single_bytes(peer: BasePeer) -> None:
    peer.send(b"\xaa" * 1024)
    beat = Heartbeat(1, 2, 3).encode_frame()
    assert peer.ask(beat) == HeartbeatResponse(2, 0)
    for byte in beat:
        peer.send(bytes([byte]))
    assert peer.take(1) == [HeartbeatResponse(2, 0)]


def test_5000_frames_in_one_write_are_each_answered_in_order(peer: BasePeer) -> None:
    peer.send(b"".join(Heartbeat(1, number, 3).encode_frame() for number in range(5000)))
    assert peer.take(5000) == [HeartbeatResponse(number, 0) for number in range(5000)]


def test_a_malformed_payload_is_an_error_and_the_node_lives(node: NodeProcess, peer: BasePeer) -> None:
    answer = peer.ask(frame(1, 0x20, b"short"))
    assert isinstance(answer, GenericError)
    assert answer.error_code == 7
    assert "malformed" in answer.message
    assert peer.is_closed()
    other = BasePeer(node.cluster_port)
    assert other.ask(Heartbeat(1, 2, 3).encode_frame()) == HeartbeatResponse(2, 0)
    other.socket.close()


def test_a_base_peer_that_joins_is_sent_every_write(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node()
    with client_of(node) as client:
        client.set("before", "1")
        peer = BasePeer(node.cluster_port)
        assert isinstance(peer.ask(NodeJoinRequest(77, 0, 1, 0, "").encode_frame()), NodeJoinResponse)
        received: list[ReplicateData] = []

        def has(key: bytes, operation: int) -> bool:
            while peer.events or peer.socket.recv(1, socket.MSG_PEEK):
                event = peer.take(1)[0]
                if isinstance(event, ReplicateData):
                    received.append(event)
                    peer.send(ReplicateResponse(0, 0).encode_frame())
                if received and (received[-1].key, received[-1].operation) == (key, operation):
                    return True
            return False

        assert has(b"before", 1)
        client.set("after", "2", ex=100)
        assert has(b"after", 1)
        assert 99 * 10**9 < received[-1].ttl <= 100 * 10**9
        client.expire("after", 50)
        assert has(b"after", 3)
        client.delete("after")
        assert has(b"after", 2)
        client.flushall()
        assert has(b"before", 2)
        peer.socket.close()


def test_two_nodes_hold_the_same_and_one_that_was_killed_is_level_again(start_node: Callable[..., NodeProcess]) -> None:
    first = start_node(name="first")
    with client_of(first) as one:
        one.set("before", "1", ex=1000)
        port = free_port()
        second = start_node("--join", first.cluster, name="second", listen=str(port))
        with client_of(second) as two:
            wait_until(lambda: two.get("before") == b"1", what="the full copy")
            assert 990 < two.ttl("before") <= 1000
            two.set("b", "2")
            wait_until(lambda: one.get("b") == b"2", what="a write on the second node")
            one.delete("b")
            wait_until(lambda: two.get("b") is None, what="a deletion on the first node")
            one.set("c", "3")
            one.expire("c", 500)
            wait_until(lambda: two.ttl("c") > 0, what="an expiry")
        second.kill()
        one.set("missed", "4")
        one.delete("before")
        second.start()
        second.wait_ready()
        with client_of(second) as two:
            wait_until(lambda: two.get("missed") == b"4" and two.dbsize() == one.dbsize(), what="the restarted node's copy")
            assert two.get("before") is None
            two.flushall()
            wait_until(lambda: one.dbsize() == 0, what="the flush")


def test_a_third_node_joins_any_and_is_linked_to_all(start_node: Callable[..., NodeProcess]) -> None:
    first = start_node()
    second = start_node("--join", first.cluster)
    third = start_node("--join", second.cluster)
    with client_of(first) as one, client_of(third) as three:
        wait_until(lambda: three.info("replication")["hypercache_linked_members"] == 2, what="two links")
        one.set("k", "v")
        wait_until(lambda: three.get("k") == b"v", what="a write of the first node")
        three.set("l", "w")
        wait_until(lambda: one.get("l") == b"w", what="a write of the third node")


class Relay:
    """A TCP relay whose link can be cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[socket.socket] = []
        self.open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        self.open = False
        for each in self._pairs:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._pairs = []

    def close(self) -> None:
        self.cut()
        self._listener.close()


def test_a_link_that_was_cut_heals_and_both_sides_converge(start_node: Callable[..., NodeProcess]) -> None:
    first = start_node()
    relay = Relay(first.cluster_port)
    # The first node cannot dial the second: everything goes through the relay.
    second = start_node("--join", f"127.0.0.1:{relay.port}", "--advertise", "127.0.0.1:1", "--set", "cluster.reconnect_max=0.5")
    with client_of(first) as one, client_of(second) as two:
        one.set("k", "0")
        wait_until(lambda: two.get("k") == b"0", what="the link")
        relay.cut()
        wait_until(lambda: one.info("replication")["hypercache_linked_members"] == 0, what="the cut")
        wait_until(lambda: two.info("replication")["hypercache_linked_members"] == 0, what="the cut")
        one.set("one", "1")
        two.set("two", "2")
        one.set("k", "1")
        # Two writes within one millisecond are ordered by counter and node: both sides agree, but on either.
        written = time.time()
        wait_until(lambda: time.time() > written + 0.005, what="a later millisecond")
        two.set("k", "2")
        two.set("gone", "1")
        relay.open = True
        wait_until(lambda: one.get("two") == b"2" and two.get("one") == b"1", 20, what="the healing")
        wait_until(lambda: one.get("k") == two.get("k") == b"2", what="the later write on both sides")
    relay.close()


def test_sigterm_ends_a_node_in_time_and_nothing_acknowledged_is_lost(start_node: Callable[..., NodeProcess]) -> None:
    first = start_node()
    second = start_node("--join", first.cluster)
    with client_of(first) as one, client_of(second) as two:
        one.set("linked", "1")
        wait_until(lambda: two.get("linked") == b"1", what="the link")
        with one.pipeline(transaction=False) as pipe:
            for number in range(20_000):
                pipe.set(f"k{number}", number)
            pipe.execute()
        assert first.terminate() in (0, -signal.SIGTERM)
        assert two.dbsize() == 20_001


def test_a_client_that_never_reads_does_not_harm_others(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node("--set", "resp.output_pause=1mb", "--set", "resp.output_max=8mb", "--set", "resp.output_stall=1")
    with client_of(node) as client:
        client.set("k", bytes(100_000))
        mute = socket.create_connection(("127.0.0.1", node.resp_port))
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.settimeout(5)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                mute.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
        wait_until(lambda: client.info("stats")["client_output_buffer_limit_disconnections"] == 1, what="the cut")
        assert len(client.client_list()) == 1
        mute.close()


def test_half_written_commands_and_idle_connections_are_held_and_others_served(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node()
    held = []
    for number in range(500):
        each = socket.create_connection(("127.0.0.1", node.resp_port))
        if number % 2:
            each.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhe")
        held.append(each)
    with client_of(node) as client:
        wait_until(lambda: client.info("clients")["connected_clients"] == 501, what="all connections")
        assert client.set("k", "v")
        held[1].sendall(b"llo\r\n")
        assert held[1].recv(100) == b"+OK\r\n"
        for each in held:
            each.close()
        wait_until(lambda: client.info("clients")["connected_clients"] == 1, what="their end")


@pytest.mark.long
def test_ten_thousand_idle_connections(start_node: Callable[..., NodeProcess]) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    node = start_node("--set", "resp.max_clients=10001")
    held = [socket.create_connection(("127.0.0.1", node.resp_port)) for _ in range(10_000)]
    with client_of(node) as client:
        wait_until(lambda: client.info("clients")["connected_clients"] == 10_001, 60, what="all connections")
        assert client.set("k", "v")
    for each in held:
        each.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_over_the_limit_are_refused(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node("--set", "resp.max_clients=1")
    with client_of(node) as client:
        assert client.ping()
        with socket.create_connection(("127.0.0.1", node.resp_port)) as extra:
            assert extra.recv(100) == b"-ERR max number of clients reached\r\n"
        assert client.ping()


def test_before_authentication_nothing_is_served_and_little_is_taken(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node("--set", "resp.password=secret")
    for data, said in (
        (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"-NOAUTH Authentication required.\r\n"),
        (b"*2000\r\n", b"-ERR Protocol error: unauthenticated multibulk length\r\n"),
        (b"*1\r\n$20000\r\n", b"-ERR Protocol error: unauthenticated bulk length\r\n"),
        (b"AUTH wrong\r\n", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        (b"AUTH secret\r\n*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n", b"+OK\r\n$5\r\nhello\r\n"),
    ):
        with socket.create_connection(("127.0.0.1", node.resp_port)) as client:
            client.sendall(data)
            assert client.recv(1000) == said


def test_a_pause_holds_commands_back_and_they_run_afterwards(node: NodeProcess) -> None:
    with client_of(node) as client, client_of(node) as other:
        client.set("k", "v")
        client.client_pause(300, all=False)
        started = time.monotonic()
        assert other.get("k") == b"v"
        assert time.monotonic() - started < 0.25
        assert other.set("k", "w")
        assert time.monotonic() - started > 0.2


def run_node(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "hypercache", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=30, check=False)


def test_the_plug_in_is_found_from_outside_of_the_checkout(tmp_path: Path) -> None:
    shown = run_node("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "node" in shown.stdout


def test_a_wrong_start_ends_with_one_clear_line_and_an_exit_code(tmp_path: Path) -> None:
    for options, said in (
        (("node", "--resp", "0.0.0.0:0"), "security.insecure = true"),
        (("node", "--set", "memory.maxmemry=1"), "did you mean memory.maxmemory"),
        (("node", "--data-dir", "/dev/null/x"), "cannot be used"),
        (("node", "--join", "nonsense", "--admin", "off", "--listen", "0", "--resp", "0"), "is no address"),
        (("node", "--resp", "nonsense"), "is no place to listen"),
        ((), "name a role"),
    ):
        result = run_node(*options, cwd=tmp_path)
        assert result.returncode != 0, options
        assert said in result.stdout + result.stderr, (options, result.stdout, result.stderr)
        assert "Traceback" not in result.stdout + result.stderr


def test_a_port_or_a_data_directory_in_use_is_named(node: NodeProcess, tmp_path: Path) -> None:
    taken = run_node("node", "--resp", str(node.resp_port), "--listen", "0", "--admin", "off", cwd=tmp_path)
    assert taken.returncode != 0
    assert "cannot listen on" in taken.stdout
    data = str(node.directory / "data")
    used = run_node("node", "--resp", "0", "--listen", "0", "--admin", "off", "--data-dir", data, cwd=tmp_path)
    assert used.returncode != 0
    assert "in use by another node" in used.stdout + used.stderr


def test_the_admin_port_tells_health_and_figures(node: NodeProcess) -> None:
    import json
    from urllib.request import urlopen

    with urlopen(f"http://{node.admin}/health") as answer:
        assert json.load(answer) == {"status": "serving"}
    with urlopen(f"http://{node.admin}/stats") as answer:
        stats = json.load(answer)
    assert stats["node"]["boot"] == 1
    assert any(name.endswith("_latency_ms") for name in stats["messages"]) or stats["messages"] == {}


def test_random_bytes_on_both_ports_leave_the_node_alive(node: NodeProcess) -> None:
    for port in (node.resp_port, node.cluster_port):
        for _ in range(20):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as hostile:
                hostile.sendall(os.urandom(20_000))
                hostile.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with client_of(node) as client:
        assert client.ping()
    assert node.process.poll() is None
