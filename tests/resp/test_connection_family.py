"""HELLO, AUTH, RESET."""

from __future__ import annotations

import pytest

from tests.resp.exchange import EngineClient

WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


def test_hello_alone_tells_about_the_server_and_changes_nothing() -> None:
    client = EngineClient()
    assert client.run("hello").startswith(b"*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
    assert client.run("hello", 3).startswith(b"%7\r\n")
    assert client.run("hello").startswith(b"%7\r\n")
    assert client.run("hello", 2).startswith(b"*14\r\n")


def test_hello_authenticates_names_and_switches_in_one_step() -> None:
    client = EngineClient(password=b"secret")
    assert client.run("hello", 3).startswith(b"-NOAUTH HELLO must be called with the client already authenticated")
    assert client.session.resp == 2
    assert client.run("hello", 3, "auth", "default", "secret", "setname", "me").startswith(b"%7\r\n")
    assert client.run("client", "getname") == b"$2\r\nme\r\n"


@pytest.mark.parametrize("credentials", [("default", "wrong"), ("nobody", "secret"), ("default", "")])
def test_a_refused_hello_changes_nothing(credentials: tuple[str, str]) -> None:
    client = EngineClient(password=b"secret")
    assert client.run("hello", 3, "auth", *credentials, "setname", "me") == WRONGPASS
    assert (client.session.resp, client.session.name, client.session.authenticated) == (2, b"", False)


@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        (("secret",), True),
        (("default", "secret"), True),
        (("wrong",), False),
        (("",), False),
        (("secre",), False),
        (("nobody", "secret"), False),
    ],
)
def test_auth_takes_the_password_of_the_default_user_alone(args: tuple[str, ...], allowed: bool) -> None:
    client = EngineClient(password=b"secret")
    assert client.run("auth", *args) == (b"+OK\r\n" if allowed else WRONGPASS)
    assert (client.run("get", "a") == b"$-1\r\n") is allowed


def test_a_failed_auth_leaves_an_authenticated_connection_so() -> None:
    client = EngineClient(password=b"secret")
    client.run("auth", "secret")
    assert client.run("auth", "wrong") == WRONGPASS
    assert client.run("get", "a") == b"$-1\r\n"


def test_without_a_password_auth_is_an_error_unless_a_user_is_named() -> None:
    client = EngineClient()
    assert client.run("auth", "x").startswith(b"-ERR AUTH <password> called without any password configured")
    assert client.run("auth", "default", "x") == b"+OK\r\n"


def test_reset_returns_to_the_state_of_a_new_connection() -> None:
    client = EngineClient()
    for args in (("hello", 3, "setname", "me"), ("select", 5), ("client", "no-touch", "on"), ("client", "reply", "off")):
        client.run(*args)
    assert client.run("reset") == b"+RESET\r\n"
    session = client.session
    assert (session.resp, session.name, session.no_touch, session.store.name) == (2, b"", False, "default")


def test_a_password_set_at_run_time_binds_new_connections() -> None:
    client = EngineClient()
    client.server.password = b"secret"
    assert client.run("ping") == b"+PONG\r\n"
    client.connect()
    assert client.run("ping") == b"-NOAUTH Authentication required.\r\n"
