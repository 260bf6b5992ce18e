"""The handlers that plug-ins make for a node, and the schema that peers may ask for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from hypercache.config import PluginSettings, Settings
from hypercache.discovery import Plugins, plugin_handlers
from hypercache.errors import PluginError
from hypercache.handlers.schema import SchemaHandler
from hypercache.interfaces import IMessageHandler
from hypercache.net.router import Router
from hypercache.wire import SCHEMA, Message
from hypercache.wire.kinds import Part, u8
from hypercache.wire.messages import GenericError, SchemaRequest, SchemaResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Ping(Message, frozen=True):
    TYPE: ClassVar[int] = 0x90
    ANSWER: ClassVar[int] = 0x91
    PARTS: ClassVar[tuple[Part, ...]] = (u8("x"),)
    x: int


class Pong(Message, frozen=True):
    TYPE: ClassVar[int] = 0x91
    PARTS: ClassVar[tuple[Part, ...]] = (u8("x"),)
    x: int


@implementer(IMessageHandler)
class PingHandler:
    requires_auth = True

    def __init__(self, message_type: int = Ping.TYPE) -> None:
        self.message_type = message_type

    def handle(self, context: Any, message: Ping) -> Pong:
        return Pong(message.x)


class Factory:
    messages = (Ping, Pong)

    def __init__(self, name: str, make: Callable[[Any], Any]) -> None:
        self.name = name
        self.handlers = make


class FewServices(msgspec.Struct):
    settings: Settings


@pytest.fixture
def failures() -> Iterator[list[str]]:
    logged: list[str] = []

    @implementer(ILogObserver)
    def note(event: Any) -> None:
        if "log_failure" in event:
            logged.append(event["reason"])

    globalLogPublisher.addObserver(note)
    yield logged
    globalLogPublisher.removeObserver(note)


def made(*factories: Factory, strict: bool = False) -> list[Any]:
    services: Any = FewServices(Settings(plugins=PluginSettings(strict=strict)))
    return plugin_handlers(Plugins(handler_factories=factories), services)


def test_handlers_of_plugins_are_made_with_the_nodes_services_and_fit_the_router() -> None:
    given: list[Any] = []

    def make(services: Any) -> list[PingHandler]:
        given.append(services.settings)
        return [PingHandler()]

    handlers = made(Factory("ping", make))
    assert given == [Settings()]
    router = Router(SCHEMA.extended((Ping, Pong)), handlers)
    assert router.handler_for(0x90) is handlers[0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda services: 1 / 0, "the plug-in bad makes no handlers: ZeroDivisionError: division by zero"),
        (lambda services: None, "the plug-in bad makes no handlers: TypeError: "),
        (lambda services: [object()], "the plug-in bad makes no handlers: it is no IMessageHandler: "),
        (lambda services: [PingHandler(0x32)], "the type 0x32 is none of its messages'"),
        (lambda services: [PingHandler(), PingHandler()], "the type 0x90 is none of its messages', or has a handler already"),
    ],
)
def test_a_factory_that_fails_is_logged_and_others_are_used(make: Callable[[Any], Any], reason: str, failures: list[str]) -> None:
    good = PingHandler()
    assert made(Factory("bad", make), Factory("good", lambda services: [good])) == [good]
    (logged,) = failures
    assert reason in logged
    with pytest.raises(PluginError, match="the plug-in bad makes no handlers"):
        made(Factory("bad", make), strict=True)


def test_a_schema_request_is_answered_with_all_messages_plugins_included() -> None:
    schema = SCHEMA.extended((Ping, Pong))
    handler = SchemaHandler(schema)
    assert handler.requires_auth
    assert handler.message_type == SchemaRequest.TYPE
    context: Any = None
    answer = handler.handle(context, SchemaRequest())
    assert isinstance(answer, SchemaResponse)
    told = json.loads(SchemaResponse.decode_payload(answer.encode_payload()).schema)
    assert int(told["hash"], 16) == schema.hash() != SCHEMA.hash()
    assert told["messages"] == schema.as_data()
    assert {"type": 0x90, "name": "Ping", "parts": [{"kind": "u8", "name": "x"}]} in told["messages"]


def test_a_schema_that_no_frame_of_its_type_may_carry_is_refused() -> None:
    fields = {f"a_field_with_a_rather_long_name_{number:04}": int for number in range(1000)}
    wide: Any = msgspec.defstruct(
        "Wide",
        list(fields.items()),
        bases=(Message,),
        frozen=True,
        namespace={"TYPE": 0x92, "PARTS": tuple(u8(name) for name in fields), "__annotations__": {}},
    )
    context: Any = None
    answer = SchemaHandler(SCHEMA.extended((wide,))).handle(context, SchemaRequest())
    assert isinstance(answer, GenericError)
    assert (answer.error_code, answer.extra_data) == (4, 64 * 1024)


def test_which_types_are_answers_is_known_of_plugins_too() -> None:
    assert 0x91 in SCHEMA.extended((Ping, Pong)).answer_types
    assert 0x91 not in SCHEMA.answer_types
    assert 0x33 in SCHEMA.answer_types
