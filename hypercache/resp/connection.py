"""The connection family: PING ECHO HELLO AUTH SELECT QUIT RESET."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from hypercache.errors import CommandError
from hypercache.limits import STORE_NAME_MAX_BYTES
from hypercache.resp.arguments import is_integer, parse_int
from hypercache.resp.clients import check_name
from hypercache.resp.replies import OK, PONG, array, bulk, error, integer, mapping, simple
from hypercache.resp.table import command

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.resp.session import Session

_GROUP = "connection"


@command("ping", arity=-1, flags="fast", group=_GROUP, summary="Returns the server's liveliness response.")
def ping(session: Session, args: list[bytes]) -> bytes:
    """Answer PONG, or the argument."""
    if len(args) > 2:
        raise CommandError("ERR wrong number of arguments for 'ping' command")
    return bulk(args[1]) if len(args) == 2 else PONG


@command("echo", arity=2, flags="fast", group=_GROUP, summary="Returns the given string.")
def echo(session: Session, args: list[bytes]) -> bytes:
    """Answer the argument."""
    return bulk(args[1])


@command(
    "auth", arity=-2, flags="noscript loading stale fast no_auth allow_busy", group=_GROUP, summary="Authenticates the connection."
)
def auth(session: Session, args: list[bytes]) -> bytes:
    """Check a password: ``AUTH [username] password``."""
    if len(args) > 3:
        raise CommandError("ERR syntax error")
    if len(args) == 2 and not session.server.password:
        raise CommandError(
            "ERR AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    authenticate(session, args[1] if len(args) == 3 else b"default", args[-1])
    return OK


def authenticate(session: Session, user: bytes, password: bytes) -> None:
    """Authenticate a session.

    Raises:
        CommandError: user and password do not fit.
    """
    expected = session.server.password
    if user != b"default" or (expected and not hmac.compare_digest(expected, password)):
        raise CommandError("WRONGPASS invalid username-password pair or user is disabled.")
    session.authenticated = True


@command(
    "hello",
    arity=-1,
    flags="noscript loading stale fast no_auth",
    group=_GROUP,
    since="6.0.0",
    summary="Handshakes with the server.",
)
def hello(session: Session, args: list[bytes]) -> bytes:
    """Choose the protocol version: ``HELLO [2|3 [AUTH user password] [SETNAME name]]``."""
    version = session.resp
    credentials: tuple[bytes, bytes] | None = None
    name: bytes | None = None
    if len(args) > 1:
        version = parse_int(args[1], "Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    at = 2
    while at < len(args):
        option = args[at].upper()
        left = len(args) - 1 - at
        if option == b"AUTH" and left >= 2:
            credentials = (args[at + 1], args[at + 2])
            at += 3
        elif option == b"SETNAME" and left >= 1:
            name = args[at + 1]
            check_name(name)
            at += 2
        else:
            shown = args[at].decode("utf-8", "surrogateescape")
            raise CommandError(f"ERR Syntax error in HELLO option '{shown}'")
    if credentials is not None:
        authenticate(session, *credentials)
    if not session.authenticated:
        raise CommandError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
            "option can be used to authenticate the client and select the RESP protocol version at the same time"
        )
    if name is not None:
        session.name = name
    session.resp = version
    return mapping(
        version,
        [
            (bulk(b"server"), bulk(b"redis")),
            (bulk(b"version"), bulk(session.server.redis_version.encode())),
            (bulk(b"proto"), integer(version)),
            (bulk(b"id"), integer(session.client_id)),
            (bulk(b"mode"), bulk(b"standalone")),
            (bulk(b"role"), bulk(b"master")),
            (bulk(b"modules"), array([])),
        ],
    )


@command("select", arity=2, flags="loading stale fast", group=_GROUP, summary="Changes the selected database.")
def select(session: Session, args: list[bytes]) -> bytes | None:
    """Choose a store by its number or its name."""
    stores = session.server.stores
    if stores is None or is_integer(args[1]):
        store = session.keyspace.by_index(parse_int(args[1]))
        if store is None:
            raise CommandError("ERR DB index is out of range")
        session.store = store
        return OK
    if len(args[1]) > STORE_NAME_MAX_BYTES:
        raise CommandError("ERR no such store")
    name = args[1].decode("utf-8", "replace")
    if _choose(session, name):
        return OK

    def level(done: Callable[[bytes], None]) -> None:
        # Another node may have made it, and this one not heard of that yet.
        stores.find(name, lambda failed: done(failed or (OK if _choose(session, name) else error(f"ERR no such store '{name}'"))))

    session.later = level
    return None


def _choose(session: Session, name: str) -> bool:
    store = session.keyspace.named(name)
    if store is None:
        return False
    session.store = store
    return True


@command("quit", arity=-1, flags="noscript loading stale fast no_auth allow_busy", group=_GROUP, summary="Closes the connection.")
def quit_(session: Session, args: list[bytes]) -> bytes:
    """Close the connection after the reply."""
    session.closing = True
    return OK


@command(
    "reset",
    arity=1,
    flags="noscript loading stale fast no_auth allow_busy",
    group=_GROUP,
    since="6.2.0",
    summary="Resets the connection.",
)
def reset(session: Session, args: list[bytes]) -> bytes:
    """Return to the state of a new connection."""
    session.reset()
    return simple(b"RESET")
