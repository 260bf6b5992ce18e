"""HYPERCACHE.STORE: the stores that the cluster defines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.limits import STORE_NAME_MAX_BYTES
from hypercache.resp.arguments import INT64_MAX, SYNTAX_ERROR, parse_int
from hypercache.resp.definitions import StoreRequest
from hypercache.resp.replies import array, bulk, help_lines, integer, mapping, text
from hypercache.resp.table import command

if TYPE_CHECKING:
    from hypercache.resp.contracts import NamedStores
    from hypercache.resp.definitions import StoreFacts
    from hypercache.resp.session import Session

_GROUP: Final = "server"
_ADMIN: Final = "admin noscript loading stale"
_TEXTS: Final = {b"LEVEL": "level", b"EVICTION": "eviction"}
_NUMBERS: Final = {b"REPLICAS": "replicas", b"MAXMEMORY": "maxmemory", b"TTL": "ttl_ms"}


def _stores(session: Session) -> NamedStores:
    stores = session.server.stores
    if stores is None:
        raise CommandError("ERR this node takes no part in the Raft group, which defines the stores")
    return stores


def _text(argument: bytes) -> str:
    return argument.decode("utf-8", "replace")


def _name(argument: bytes) -> str:
    if len(argument) > STORE_NAME_MAX_BYTES:
        raise CommandError(f"ERR a store's name has at most {STORE_NAME_MAX_BYTES} characters")
    return _text(argument)


def _request(args: list[bytes]) -> StoreRequest:
    """Return what ``CREATE name [option value …]`` asks for.

    Raises:
        CommandError: an option is unknown, given twice, or has no value that it can have.
    """
    values: dict[str, str | int] = {}
    if len(args) % 2 == 0:
        raise CommandError(SYNTAX_ERROR)
    for at in range(3, len(args), 2):
        option, value = args[at].upper(), args[at + 1]
        field = _TEXTS.get(option) or _NUMBERS.get(option)
        if field is None or field in values:
            raise CommandError(SYNTAX_ERROR)
        if option in _TEXTS:
            values[field] = _name(value).lower()
        else:
            number = parse_int(value)
            if not 0 <= number < INT64_MAX:
                raise CommandError("ERR value is out of range, must be positive")
            values[field] = number
    return StoreRequest(_name(args[2]), **values)  # type: ignore[arg-type]


@command("hypercache.store|create", arity=-3, flags=_ADMIN, group=_GROUP, since="7.0.0", summary="Makes a store on every member.")
def create(session: Session, args: list[bytes]) -> None:
    """Make a store: ``CREATE name [LEVEL level] [REPLICAS n] [MAXMEMORY bytes] [EVICTION policy] [TTL milliseconds]``."""
    session.later = partial(_stores(session).create, _request(args))


@command("hypercache.store|drop", arity=3, flags=_ADMIN, group=_GROUP, since="7.0.0", summary="Drops a store on every member.")
def drop(session: Session, args: list[bytes]) -> None:
    """Drop a store, and all that is in it."""
    session.later = partial(_stores(session).drop, _name(args[2]))


@command("hypercache.store|list", arity=2, flags="loading stale", group=_GROUP, since="7.0.0", summary="Lists the stores.")
def list_(session: Session, args: list[bytes]) -> bytes:
    """Answer the names of the stores that were made."""
    return array([text(facts.request.name) for facts in _stores(session).all()])


@command("hypercache.store|info", arity=3, flags="loading stale", group=_GROUP, since="7.0.0", summary="Describes a store.")
def info(session: Session, args: list[bytes]) -> bytes:
    """Answer how a store was made, and what this node holds of it."""
    name = _name(args[2])
    for facts in _stores(session).all():
        if facts.request.name == name:
            return _shown(session.resp, facts)
    raise CommandError(f"ERR no such store '{name}'")


def _shown(resp: int, facts: StoreFacts) -> bytes:
    request = facts.request
    return mapping(
        resp,
        [
            (bulk(b"name"), text(request.name)),
            (bulk(b"level"), text(request.level)),
            (bulk(b"replicas"), integer(request.replicas)),
            (bulk(b"maxmemory"), integer(request.maxmemory)),
            (bulk(b"eviction"), text(request.eviction)),
            (bulk(b"ttl"), integer(request.ttl_ms)),
            (bulk(b"keys"), integer(facts.keys)),
            (bulk(b"expires"), integer(facts.volatile)),
            (bulk(b"used_memory"), integer(facts.used_bytes)),
        ],
    )


@command("hypercache.store|help", arity=2, flags="loading stale", group=_GROUP, since="7.0.0", summary="Returns helpful text.")
def help_(session: Session, args: list[bytes]) -> bytes:
    """Answer the subcommands."""
    return help_lines(
        "HYPERCACHE.STORE",
        (
            "CREATE <name> [LEVEL async|quorum|raft] [REPLICAS <n>] [MAXMEMORY <bytes>] [EVICTION <policy>] [TTL <milliseconds>]",
            "    Make a store on every member.",
            "DROP <name>",
            "    Drop a store, and all that is in it.",
            "LIST",
            "    Return the names of the stores.",
            "INFO <name>",
            "    Return how a store was made, and what this node holds of it.",
        ),
    )


@command(
    "hypercache.store",
    arity=-2,
    flags=_ADMIN,
    group=_GROUP,
    since="7.0.0",
    summary="A container for commands about named stores.",
    subcommands=(create, drop, list_, info, help_),
)
def store(session: Session, args: list[bytes]) -> bytes:
    """Never runs: a subcommand does."""
    raise CommandError("ERR wrong number of arguments for 'hypercache.store' command")
