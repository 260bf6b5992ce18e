"""The plug-ins of the example distribution, one by one."""

from __future__ import annotations

import secrets
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from hypercache.auth.handshake import CertificateIdentity, Handshake
from hypercache.config import PluginSettings, SecuritySettings, Settings
from hypercache.discovery import load_plugins
from hypercache.errors import AuthenticationError, ConfigurationError
from hypercache.interfaces import IAuthentication, IAuthProvider, IFrameLayer, IMessageHandler
from hypercache.layers.stack import LinkView, RefusedFrame, Stack
from hypercache.store import Candidate
from hypercache.wire.messages import Hello, HelloReply
from hypercache_echo.handler import EchoHandler
from hypercache_echo.messages import Echo, EchoReply
from hypercache_echo.passphrase import Passphrase, PassphraseProvider
from hypercache_echo.policy import TmpFirst
from hypercache_echo.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREETING = (1, 2, 0, 7, 1, 0, 1, 0, b"n" * 32, 1 << 20, 0, "", "name", "", "")


@pytest.fixture
def log() -> Iterator[list[Any]]:
    events: list[Any] = []

    @implementer(ILogObserver)
    def note(event: Any) -> None:
        events.append(event)

    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)


@pytest.mark.usefixtures("example")
def test_the_example_is_found_whole() -> None:
    plugins = load_plugins(PluginSettings(strict=True))
    assert {(each.name, each.interface) for each in plugins.found} == {
        ("echo", "IMessageHandlerFactory"),
        ("echo.reverse", "IRESPCommand"),
        ("passphrase", "IAuthProviderFactory"),
        ("tally", "IFrameLayerFactory"),
        ("tmp-first", "IEvictionPolicy"),
    }


def handler(clock: Clock) -> Any:
    class Services:
        node_id = 7

    services: Any = Services()
    services.clock = clock
    return EchoHandler(services)


def test_an_echo_comes_back_at_once_or_after_its_delay() -> None:
    clock = Clock()
    echo = handler(clock)
    assert verifyObject(IMessageHandler, echo)
    assert echo.handle(None, Echo(0, b"data")) == EchoReply(7, b"data")
    answers: list[EchoReply] = []
    echo.handle(None, Echo(1500, b"later")).addCallback(answers.append)
    clock.advance(1.4)
    assert answers == []
    clock.advance(0.1)
    assert answers == [EchoReply(7, b"later")]


def test_keys_with_the_prefix_go_first_and_then_the_longest_unused() -> None:
    policy = TmpFirst()
    keys = [Candidate(b"a", 5, 0, 0, 0.1), Candidate(b"tmp:a", 1, 0, 0, 0.2), Candidate(b"tmp:b", 3, 0, 0, 0.3)]
    keys.append(Candidate(b"b", 1 << 30, 0, 0, 0.4))
    assert [each.key for each in sorted(keys, key=policy.score, reverse=True)] == [b"tmp:b", b"tmp:a", b"b", b"a"]


def test_the_layer_counts_frames_in_both_directions_and_changes_none(log: list[Any]) -> None:
    link = LinkView(False, True, 9, 0, None, 1 << 20, Clock(), lambda: None, lambda: None)
    layer = Tally().layer(link)
    sent: list[Any] = []
    received: list[Any] = []
    stack = Stack([layer], write=sent.extend, handle=received.extend)
    assert verifyObject(IFrameLayer, layer)
    frames = [(0x32, b"a"), (0x33, b"b")]
    refused = RefusedFrame((0x32, b"a"), 0x0101, "too many")
    stack.send(frames)
    stack.receive([frames[0], refused, *frames])
    assert sent == frames
    assert received == [frames[0], refused, *frames]
    stack.close()
    (figures,) = [event for event in log if "carried" in str(event.get("log_format"))]
    assert (figures["node"], figures["sent"], figures["received"]) == (9, 2, 3)


def handshakes(certificate: CertificateIdentity | None = None) -> tuple[Handshake, Handshake]:
    """Return both sides' views of one link."""
    hello = Hello(*GREETING[:8], secrets.token_bytes(32), *GREETING[9:])
    reply = HelloReply(*GREETING[:8], secrets.token_bytes(32), *GREETING[9:])
    shared = (hello, hello.encode_frame(), reply, reply.encode_frame(), certificate, False, b"", 0.0)
    return Handshake(True, *shared), Handshake(False, *shared)


def test_nodes_that_know_the_passphrase_believe_each_other_and_have_keys() -> None:
    dialler_sees, listener_sees = handshakes()
    provider = PassphraseProvider(b"correct horse battery")
    assert verifyObject(IAuthProvider, provider)
    dialler, listener = provider.authenticate(dialler_sees), provider.authenticate(listener_sees)
    assert verifyObject(IAuthentication, dialler)
    assert listener.verify(dialler.proof)
    assert dialler.verify(listener.proof)
    assert dialler.keys == listener.keys[::-1]
    assert dialler.expires == inf


def test_whoever_knows_another_passphrase_or_sends_a_proof_back_is_not_believed() -> None:
    dialler_sees, listener_sees = handshakes()
    listener = PassphraseProvider(b"correct horse battery").authenticate(listener_sees)
    assert not listener.verify(PassphraseProvider(b"correct horse cattery").authenticate(dialler_sees).proof)
    assert not listener.verify(listener.proof)


def test_a_certificate_must_name_the_node() -> None:
    provider = PassphraseProvider(b"correct horse battery")
    _, listener_sees = handshakes(CertificateIdentity(1, 8))
    with pytest.raises(AuthenticationError, match="its certificate is node 8's"):
        provider.authenticate(listener_sees)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), ("short\n", "must have 16 characters"), ("", "must have 16 characters")],
)
def test_a_passphrase_that_is_no_good_is_refused(tmp_path: Path, content: str | None, complaint: str) -> None:
    file = tmp_path / "passphrase"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=complaint):
        Passphrase().provider(Settings(security=SecuritySettings(key_file=str(file))), 1, lambda: 0.0)
    with pytest.raises(ConfigurationError, match=r"needs security\.key_file"):
        Passphrase().provider(Settings(), 1, lambda: 0.0)
