"""CLIENT: names, lists, kills."""

from __future__ import annotations

import pytest

from tests.resp.door import Door
from tests.resp.exchange import EngineClient


def fields(line: str) -> dict[str, str]:
    return dict(field.partition("=")[::2] for field in line.split())


def listed(answer: bytes) -> list[dict[str, str]]:
    return [fields(line) for line in answer.decode().splitlines()[1:] if line]


def test_client_list_shows_what_each_connection_is_and_does() -> None:
    door = Door(2)
    one, two = door.clients
    one.run("client", "setname", "worker")
    one.run("client", "setinfo", "LIB-NAME", "redis-py")
    one.run("client", "setinfo", "lib-ver", "8.0")
    two.run("select", 3)
    door.first.now_ms += 5000
    first, second = listed(two.run("client", "list"))
    assert first["addr"] == one.address
    assert (first["id"], first["name"], first["lib-name"], first["lib-ver"]) == ("1", "worker", "redis-py", "8.0")
    assert (first["age"], first["idle"], first["cmd"]) == ("5", "5", "client|setinfo")
    assert (second["id"], second["db"], second["idle"], second["cmd"]) == ("2", "3", "0", "client|list")
    assert listed(two.run("client", "info")) == [second | {"cmd": "client|info"}]
    assert [client["id"] for client in listed(two.run("client", "list", "id", 2, 99))] == ["2"]
    assert listed(two.run("client", "list", "type", "replica")) == []


@pytest.mark.parametrize(
    ("filters", "killed"),
    [
        (("id", 2), [2]),
        (("addr", "127.0.0.1:5003"), [3]),
        (("laddr", "127.0.0.1:6379"), [2, 3]),
        (("user", "default"), [2, 3]),
        (("type", "normal", "id", 3), [3]),
        (("type", "pubsub"), []),
        (("id", 1), []),
        (("id", 2, "addr", "127.0.0.1:5003"), []),
    ],
)
def test_client_kill_closes_all_that_every_filter_takes_but_not_the_caller(
    filters: tuple[str | int, ...], killed: list[int]
) -> None:
    door = Door(3)
    assert door.clients[0].run("client", "kill", *filters) == b":%d\r\n" % len(killed)
    assert [client.session.client_id for client in door.clients if client.killed] == killed
    assert not door.clients[0].session.closing


def test_client_kill_closes_the_caller_only_after_its_answer() -> None:
    door = Door(2)
    caller = door.clients[0]
    assert caller.run("client", "kill", "id", 1, "skipme", "no") == b":1\r\n"
    assert caller.session.closing
    assert not caller.killed
    other = door.clients[1]
    assert other.run("client", "kill", other.address) == b"+OK\r\n"
    assert other.session.closing


def test_client_kill_by_an_unknown_address_is_an_error() -> None:
    assert Door(1).clients[0].run("client", "kill", "1.2.3.4:5") == b"-ERR No such client\r\n"


def test_a_pause_of_one_client_holds_the_others_back_too() -> None:
    door = Door(2)
    one, two = door.clients
    assert one.run("client", "pause", 50) == b"+OK\r\n"
    assert two.run("ping") == b""
    door.first.now_ms += 51
    assert one.run("ping") == b"+PONG\r\n"


@pytest.mark.parametrize("name", ["a b", "a\nb", "ä", "\x7f"])
def test_a_name_that_would_break_a_line_of_the_list_is_refused(name: str) -> None:
    client = EngineClient()
    assert client.run("client", "setname", name).startswith(b"-ERR Client names cannot contain spaces")
    assert client.run("client", "setinfo", "lib-name", name).startswith(b"-ERR lib-name cannot contain spaces")
    assert client.run("hello", 2, "setname", name).startswith(b"-ERR Client names cannot contain spaces")
    assert client.run("client", "getname") == b"$-1\r\n"


def test_tracking_is_refused_in_so_many_words() -> None:
    assert b"not supported" in EngineClient().run("client", "tracking", "on")
    assert EngineClient().run("client", "tracking", "off") == b"+OK\r\n"
