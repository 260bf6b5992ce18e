"""HyperCache and the example as wheels, in an environment of their own, far from the checkout."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import msgspec
import pytest
import redis

from hypercache.auth.handshake import Handshake
from hypercache.limits import HEADER_BYTES
from hypercache.wire import SCHEMA, Capability, Decoder, Extension, Message
from hypercache.wire.extension import decode_extended, encode_extension
from hypercache.wire.header import HEADER
from hypercache.wire.messages import AuthProof, AuthResult, GenericError, Hello, HelloReply, SchemaRequest, SchemaResponse
from hypercache.wire.signing import sign, verify
from hypercache_echo.messages import Echo, EchoReply
from hypercache_echo.passphrase import PassphraseProvider
from tests.conftest import NodeProcess, wait_until
from tests.plugins.conftest import EXAMPLE, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process

PASSPHRASE = "correct horse battery staple"
UNDERSTOOD = SCHEMA.extended((Echo, EchoReply))


class Environment(msgspec.Struct, frozen=True):
    """A virtual environment with both wheels.

    Attributes:
        directory: where it is.
        wheels: what was installed.
    """

    directory: Path
    wheels: tuple[Path, ...]

    @property
    def python(self) -> str:
        return str(self.directory / "bin" / "python")

    @property
    def site_packages(self) -> Path:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        return self.directory / "lib" / version / "site-packages"

    def hypercache(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run the installed command outside of the checkout."""
        command = [str(self.directory / "bin" / "hypercache"), *arguments]
        return subprocess.run(command, cwd=self.directory, env=clean_environment(), capture_output=True, timeout=60, **options)


class InstalledNode(NodeProcess):
    """A node of that environment; its directory is outside of the checkout."""

    def __init__(self, environment: Environment, directory: Path, *options: str) -> None:
        self._environment = environment
        super().__init__(directory, "--resp", "0", "--listen", "0", "--admin", "off", *options)

    def start(self) -> None:
        # The very twistd of the environment that the tests run in, which is where the dependencies are.
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [self._environment.python, twistd, "-n", "--pidfile=", "hypercache", "node"]
        command += ["--data-dir", str(self.directory / "data"), *self._options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.directory, env=clean_environment()
            )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def build_wheel(project: Path, directory: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=120)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    base = tmp_path_factory.mktemp("installed")
    wheels = (build_wheel(ROOT, base / "own"), build_wheel(EXAMPLE, base / "example"))
    environment = Environment(base / "environment", wheels)
    venv.EnvBuilder(symlinks=True).create(environment.directory)
    # What HyperCache depends on is installed where these tests run, HyperCache itself there only by a .pth file, which does not
    # count from here.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (environment.site_packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(dependencies)))
    pip = [sys.executable, "-m", "pip", "--python", environment.python, "--disable-pip-version-check", "install"]
    options = ["--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    subprocess.run([*pip, *options, *map(str, wheels)], check=True, capture_output=True, timeout=120)
    return environment


@pytest.fixture(scope="module")
def node(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledNode]:
    node = InstalledNode(environment, tmp_path_factory.mktemp("node"), "--set", "memory.policy=tmp-first")
    yield started(node)
    node.kill()


@pytest.fixture
def start(environment: Environment, tmp_path: Path) -> Iterator[Callable[..., InstalledNode]]:
    """Return a function that starts nodes which authenticate by a passphrase."""
    nodes: list[InstalledNode] = []

    def start(*options: str, passphrase: str = PASSPHRASE) -> InstalledNode:
        directory = tmp_path / f"node{len(nodes)}"
        directory.mkdir()
        (directory / "passphrase").write_text(passphrase)
        security = ["--set", "security.auth=passphrase", "--set", f"security.key_file={directory / 'passphrase'}"]
        nodes.append(InstalledNode(environment, directory, *security, *options))
        return started(nodes[-1])

    yield start
    for node in nodes:
        node.kill()


def started(node: InstalledNode) -> InstalledNode:
    node.wait_ready()
    return node


class Peer:
    """A socket that speaks to a cluster port."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)

    def send(self, frame: bytes) -> None:
        self.socket.sendall(frame)

    def read_frame(self) -> bytes:
        header = self._read(HEADER_BYTES)
        return header + self._read(HEADER.unpack(header)[3])

    def take(self) -> Any:
        """Return the next message of version 0x01."""
        (event,) = Decoder(UNDERSTOOD).feed(self.read_frame())
        return event

    def ask(self, message: Message) -> Any:
        self.send(message.encode_frame())
        return self.take()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            assert piece, f"closed after {data!r}"
            data += piece
        return data


class TrustedPeer(Peer):
    """A node that knows the passphrase: it says Hello, proves itself, and signs what it sends."""

    def __init__(self, port: int, passphrase: str = PASSPHRASE) -> None:
        super().__init__(port)
        capabilities = Capability.MULTIPLEXING | Capability.SIGNING | Capability.STAMPS
        nonce = secrets.token_bytes(32)
        hello = Hello(1, 2, capabilities, 77, 1, 0, 1, 0, nonce, 1 << 20, 0, "", "tester", "", "")
        self.send(hello.encode_frame())
        reply_frame = self.read_frame()
        reply = HelloReply.decode_payload(reply_frame[HEADER_BYTES:])
        handshake = Handshake(True, hello, hello.encode_frame(), reply, reply_frame, None, False, b"", 0.0)
        self.authentication = PassphraseProvider(passphrase.encode()).authenticate(handshake)
        self.result = self.ask(AuthProof(self.authentication.proof))
        self._sent = self._received = 0

    def ask_signed(self, message: Message, exchange: int) -> tuple[int, Extension, bytes]:
        """Send a request and return type, extension and body of what answers it; anything else that comes is passed over."""
        own, peers = self.authentication.keys
        unsigned = encode_extension(Extension(exchange, signed=True), message.encode_payload())
        self.send(sign(own, self._sent, message.TYPE, unsigned))
        self._sent += 1
        while True:
            frame = self.read_frame()
            verify(peers, self._received, frame)
            self._received += 1
            extension, body = decode_extended(frame[HEADER_BYTES:], 1 << 20)
            if extension.reply and extension.exchange == exchange:
                return frame[5], extension, body


def test_the_wheels_share_the_plugin_package_and_nothing_else(environment: Environment) -> None:
    own, example = ({name for name in ZipFile(wheel).namelist() if name.endswith(".py")} for wheel in environment.wheels)
    assert "hypercache/plugins/__init__.py" in own
    assert "twisted/plugins/hypercache_plugin.py" in own
    assert not any(name.startswith(("examples", "tests")) for name in own)
    assert {name for name in example if not name.startswith("hypercache_echo/")} == {"hypercache/plugins/hypercache_echo.py"}
    everything = [name for wheel in environment.wheels for name in ZipFile(wheel).namelist()]
    assert not [name for name in everything if "dropin.cache" in name or name.endswith(".pyc")]


def test_the_plugins_are_listed_with_their_distribution(environment: Environment) -> None:
    result = environment.hypercache("plugins", "--json")
    assert result.returncode == 0, result.stderr
    listed = json.loads(result.stdout)
    file = environment.site_packages / "hypercache" / "plugins" / "hypercache_echo.py"
    assert sorted(each["name"] for each in listed["found"]) == ["echo", "echo.reverse", "passphrase", "tally", "tmp-first"]
    origins = {(each["distribution"], each["version"], each["file"]) for each in listed["found"]}
    assert origins == {("hypercache-echo", "0.1.0", str(file))}
    assert listed["failed"] == []


def test_its_frames_are_encoded_and_inspected(environment: Environment) -> None:
    row = b'{"name": "Echo", "fields": {"delay_ms": 3, "data": "6869"}}'
    encoded = environment.hypercache("encode", input=row).stdout
    assert encoded == Echo(3, b"hi").encode_frame()
    result = environment.hypercache("inspect", "--json", input=encoded + EchoReply(7, b"hi").encode_frame())
    assert result.returncode == 0
    request, reply = map(json.loads, result.stdout.splitlines())
    assert (request["name"], request["fields"]) == ("Echo", {"delay_ms": 3, "data": "6869"})
    assert (reply["name"], reply["fields"]) == ("EchoReply", {"node_id": 7, "data": "6869"})
    assert b"Type: 0x80 (Echo)" in environment.hypercache("inspect", input=encoded).stdout


def test_a_base_peer_is_answered_in_order_by_the_handler(node: InstalledNode) -> None:
    peer = Peer(node.cluster_port)
    answer = peer.ask(Echo(0, b"hello"))
    assert isinstance(answer, EchoReply)
    assert answer.node_id
    assert answer.data == b"hello"
    peer.send(Echo(200, b"slow").encode_frame() + Echo(0, b"fast").encode_frame())
    assert [peer.take().data, peer.take().data] == [b"slow", b"fast"]
    peer.socket.close()


def test_a_peer_is_told_the_schema_with_the_messages_of_plugins(node: InstalledNode) -> None:
    peer = Peer(node.cluster_port)
    answer = peer.ask(SchemaRequest())
    assert isinstance(answer, SchemaResponse)
    told = json.loads(answer.schema)
    assert int(told["hash"], 16) == UNDERSTOOD.hash()
    assert told["messages"] == UNDERSTOOD.as_data()
    peer.socket.close()


def test_redis_clients_have_the_command_and_the_policy(node: InstalledNode) -> None:
    with redis.Redis(port=node.resp_port, socket_timeout=10) as client:
        client.set("k", "abc")
        assert client.execute_command("ECHO.REVERSE", "k") == b"cba"
        assert client.execute_command("echo.reverse", "none") is None
        assert client.execute_command("COMMAND INFO", "echo.reverse")
        with pytest.raises(redis.ResponseError, match=r"wrong number of arguments for 'echo\.reverse' command"):
            client.execute_command("ECHO.REVERSE")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "tmp-first"}


def test_keys_go_in_the_order_of_the_policy(node: InstalledNode) -> None:
    with redis.Redis(port=node.resp_port, socket_timeout=10) as client:
        client.flushall()
        client.config_set("maxmemory-samples", 64)
        for number in range(100):
            client.set(f"tmp:{number}", bytes(10_000))
            client.set(f"kept:{number}", bytes(10_000))
        client.config_set("maxmemory", "1500kb")
        for number in range(20):
            client.set(f"more:{number}", bytes(100))
        assert len(client.keys("tmp:*")) < 60
        assert len(client.keys("kept:*")) > 90
        client.config_set("maxmemory", "0")


def test_nodes_that_know_the_passphrase_link_and_replicate(start: Callable[..., InstalledNode]) -> None:
    first = start()
    second = start("--join", first.cluster)
    with redis.Redis(port=first.resp_port) as one, redis.Redis(port=second.resp_port) as two:
        one.set("k", "v")
        wait_until(lambda: two.get("k") == b"v", 20, what="a write of the first node")


def test_over_a_signed_link_the_handler_answers_and_the_layer_counts(start: Callable[..., InstalledNode]) -> None:
    node = start()
    peer = TrustedPeer(node.cluster_port)
    assert isinstance(peer.result, AuthResult)
    assert peer.result.status == 0
    assert peer.authentication.verify(peer.result.proof)
    message_type, _, body = peer.ask_signed(Echo(0, b"signed"), 5)
    assert message_type == EchoReply.TYPE
    assert EchoReply.decode_payload(body).data == b"signed"
    peer.ask_signed(Echo(1, b"late"), 6)
    peer.socket.close()
    figures = re.compile(r"the link of node 77 carried [2-9] frames out and 2 in")
    wait_until(lambda: figures.search(node.log.read_text()), what="the figures of the frame layer")


def test_whoever_does_not_know_the_passphrase_is_refused(start: Callable[..., InstalledNode]) -> None:
    node = start("--set", "security.failure_delay=0.1")
    stranger = TrustedPeer(node.cluster_port, "another passphrase, as long")
    assert isinstance(stranger.result, AuthResult)
    assert stranger.result.status == 1
    base_peer = Peer(node.cluster_port)
    answer = base_peer.ask(Echo(0, b"hello"))
    assert isinstance(answer, GenericError)
    assert answer.error_code == 0x0005
    assert "authentication" in node.log.read_text()
    for peer in (stranger, base_peer):
        peer.socket.close()


def test_a_node_without_a_passphrase_says_what_it_needs(environment: Environment, tmp_path: Path) -> None:
    node = InstalledNode(environment, tmp_path, "--set", "security.auth=passphrase")
    assert node.process.wait(30) != 0
    assert "security.auth = 'passphrase' needs security.key_file" in node.log.read_text()


def test_strict_nodes_refuse_broken_plugins_and_others_name_them(environment: Environment, tmp_path: Path) -> None:
    broken = environment.site_packages / "hypercache" / "plugins" / "broken.py"
    broken.write_text("import no_such_module\n")
    try:
        listed = environment.hypercache("plugins")
        assert listed.returncode == 1
        assert b"FAILED  broken" in listed.stdout
        assert b"No module named 'no_such_module'" in listed.stdout
        strict = InstalledNode(environment, tmp_path / "strict", "--set", "plugins.strict=true")
        assert strict.process.wait(30) != 0
        assert "No module named 'no_such_module'" in strict.log.read_text()
        lenient = InstalledNode(environment, tmp_path / "lenient")
        try:
            started(lenient)
            assert "No module named 'no_such_module'" in lenient.log.read_text()
        finally:
            lenient.kill()
        disabled = InstalledNode(environment, tmp_path / "off", "--set", "plugins.strict=true", "--set", "plugins.disabled=broken")
        try:
            started(disabled)
        finally:
            disabled.kill()
    finally:
        broken.unlink()
