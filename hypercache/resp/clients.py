"""The CLIENT family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp import session as modes
from hypercache.resp.arguments import parse_int
from hypercache.resp.replies import EMPTY_ARRAY, MINUS_ONE, OK, ZERO, bulk, help_lines, integer, mapping, nil, set_of, verbatim
from hypercache.resp.table import Command, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.resp.contracts import Client
    from hypercache.resp.session import Session
    from hypercache.resp.table import CommandFunction

_HELP: Final = (
    "GETNAME",
    "    Return the name of the current connection.",
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "    * USER <username>",
    "    * SKIPME (YES|NO)",
    "    * ID <client-id>",
    "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <client-id> ...]",
    "    Return information about client connections.",
    "NO-EVICT (ON|OFF)",
    "    Accepted; no client is ever evicted here.",
    "NO-TOUCH (ON|OFF)",
    "    Whether commands of this client count as uses of a key.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Suspend all, or just write, clients for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Name the client library.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "UNPAUSE",
    "    Stop the current client pause, resuming traffic.",
)
_TYPES: Final = frozenset((b"NORMAL", b"MASTER", b"REPLICA", b"SLAVE", b"PUBSUB"))
_FLAGS: Final = "noscript loading stale"


def check_name(name: bytes) -> None:
    """Refuse a client name that would break a CLIENT LIST line.

    Raises:
        CommandError: it has spaces, line breaks or other special characters.
    """
    if any(not 0x21 <= byte <= 0x7E for byte in name):
        raise CommandError("ERR Client names cannot contain spaces, newlines or special characters.")


def _sub(name: str, arity: int, summary: str, since: str = "2.4.0") -> Callable[[CommandFunction], Command]:
    return command(f"client|{name}", arity=arity, flags=_FLAGS, group="connection", since=since, summary=summary)


def describe(client: Client) -> str:
    """Return a client's line of CLIENT LIST."""
    session = client.session
    now = session.keyspace.now_ms
    door = client.describe()
    fields: dict[str, str | int] = {
        "id": session.client_id,
        "addr": door.pop("addr"),
        "laddr": door.pop("laddr"),
        "fd": door.pop("fd"),
        "name": session.name.decode(),
        "age": (now - session.connected_ms) // 1000,
        "idle": max(0, now - session.last_ms) // 1000,
        "flags": "N",
        "db": session.keyspace.index_of(session.store),
        "sub": 0,
        "psub": 0,
        "ssub": 0,
        "multi": -1,
        **door,
        "cmd": session.last_command,
        "user": "default",
        "redir": -1,
        "resp": session.resp,
        "lib-name": session.library_name.decode(),
        "lib-ver": session.library_version.decode(),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


@_sub("id", 2, "Returns the unique client ID of the connection.", "5.0.0")
def client_id(session: Session, args: list[bytes]) -> bytes:
    """Answer the connection's number."""
    return integer(session.client_id)


@_sub("getname", 2, "Returns the name of the connection.", "2.6.9")
def client_getname(session: Session, args: list[bytes]) -> bytes:
    """Answer the connection's name."""
    return bulk(session.name) if session.name else nil(session.resp)


@_sub("setname", 3, "Sets the connection name.", "2.6.9")
def client_setname(session: Session, args: list[bytes]) -> bytes:
    """Name the connection."""
    check_name(args[2])
    session.name = args[2]
    return OK


@_sub("setinfo", 4, "Sets information specific to the client or connection.", "7.2.0")
def client_setinfo(session: Session, args: list[bytes]) -> bytes:
    """Note the client library's name or version."""
    attribute = args[2].upper()
    if any(not 0x21 <= byte <= 0x7E for byte in args[3]):
        raise CommandError(f"ERR {args[2].decode(errors='replace').lower()} cannot contain spaces, newlines or special characters.")
    if attribute == b"LIB-NAME":
        session.library_name = args[3]
    elif attribute == b"LIB-VER":
        session.library_version = args[3]
    else:
        raise CommandError(f"ERR Unrecognized option '{args[2].decode(errors='replace')}'")
    return OK


@_sub("info", 2, "Returns information about the connection.", "6.2.0")
def client_info(session: Session, args: list[bytes]) -> bytes:
    """Answer this connection's line of CLIENT LIST."""
    lines = [describe(client) for client in session.server.clients if client.session is session]
    return verbatim(session.resp, "".join(f"{line}\n" for line in lines))


@_sub("list", -2, "Lists open connections.")
def client_list(session: Session, args: list[bytes]) -> bytes:
    """Answer a line a connection."""
    chosen = list(session.server.clients)
    if len(args) > 2:
        option = args[2].upper()
        if option == b"TYPE" and len(args) == 4:
            kind = args[3].upper()
            if kind not in _TYPES:
                raise CommandError(f"ERR Unknown client type '{args[3].decode(errors='replace')}'")
            chosen = chosen if kind == b"NORMAL" else []
        elif option == b"ID" and len(args) > 3:
            wanted = {parse_int(arg, "Invalid client ID") for arg in args[3:]}
            chosen = [client for client in chosen if client.session.client_id in wanted]
        else:
            raise CommandError("ERR syntax error")
    return verbatim(session.resp, "".join(f"{describe(client)}\n" for client in chosen))


@_sub("kill", -3, "Terminates open connections.")
def client_kill(session: Session, args: list[bytes]) -> bytes:
    """Close connections: by address, or by filters."""
    if len(args) == 3:
        address = args[2].decode(errors="replace")
        matches = [client for client in session.server.clients if client.describe()["addr"] == address]
        if not matches:
            raise CommandError("ERR No such client")
        _kill(session, matches)
        return OK
    if len(args) % 2:
        raise CommandError("ERR syntax error")
    skip_me = True
    filters: list[Callable[[Client], bool]] = []
    for option, value in zip(args[2::2], args[3::2], strict=True):
        name = option.upper()
        if name == b"SKIPME":
            if value.lower() not in (b"yes", b"no"):
                raise CommandError("ERR syntax error")
            skip_me = value.lower() == b"yes"
        else:
            filters.append(_filter(name, value))
    matches = [client for client in session.server.clients if all(chosen(client) for chosen in filters)]
    if skip_me:
        matches = [client for client in matches if client.session is not session]
    _kill(session, matches)
    return integer(len(matches))


def _filter(name: bytes, value: bytes) -> Callable[[Client], bool]:
    """Return what one option of CLIENT KILL asks of a client."""
    text = value.decode(errors="replace")
    if name == b"ID":
        number = parse_int(value, "client-id should be greater than 0")
        if number < 1:
            raise CommandError("ERR client-id should be greater than 0")
        return lambda client: client.session.client_id == number
    if name in (b"ADDR", b"LADDR"):
        field = name.decode().lower()
        return lambda client: client.describe()[field] == text
    if name == b"TYPE":
        if value.upper() not in _TYPES:
            raise CommandError(f"ERR Unknown client type '{text}'")
        return lambda client: value.upper() == b"NORMAL"
    if name == b"USER":
        if value != b"default":
            raise CommandError(f"ERR No such user '{text}'")
        return lambda client: True
    raise CommandError("ERR syntax error")


def _kill(session: Session, clients: list[Client]) -> None:
    for client in clients:
        if client.session is session:
            session.closing = True
        else:
            client.kill()


@_sub("pause", -3, "Suspends commands processing.", "3.0.0")
def client_pause(session: Session, args: list[bytes]) -> bytes:
    """Hold commands back for some milliseconds: all, or those that write."""
    timeout = parse_int(args[2], "timeout is not an integer or out of range")
    if timeout < 0:
        raise CommandError("ERR timeout is negative")
    mode = args[3].upper() if len(args) == 4 else b"ALL"
    if len(args) > 4:
        raise CommandError("ERR syntax error")
    if mode not in (b"WRITE", b"ALL"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    server = session.server
    server.pause_until_ms = max(server.pause_until_ms, session.keyspace.now_ms + timeout)
    server.pause_writes_only = mode == b"WRITE"
    return OK


@_sub("unpause", 2, "Resumes processing commands from paused clients.", "6.2.0")
def client_unpause(session: Session, args: list[bytes]) -> bytes:
    """End a pause."""
    session.server.pause_until_ms = 0
    return OK


@_sub("reply", 3, "Instructs the server whether to reply to commands.", "3.2.0")
def client_reply(session: Session, args: list[bytes]) -> bytes:
    """Switch this connection's replies."""
    mode = args[2].lower()
    if mode == b"on":
        session.reply_mode = modes.REPLY_ON
    elif mode == b"off":
        session.reply_mode = modes.REPLY_OFF
    elif mode == b"skip":
        if session.reply_mode != modes.REPLY_OFF:
            session.reply_mode = modes.REPLY_SKIP_NEXT
    else:
        raise CommandError("ERR syntax error")
    return OK


def _switch(argument: bytes) -> bool:
    if argument.lower() not in (b"on", b"off"):
        raise CommandError("ERR syntax error")
    return argument.lower() == b"on"


@_sub("no-evict", 3, "Sets the client eviction mode of the connection.", "7.0.0")
def client_no_evict(session: Session, args: list[bytes]) -> bytes:
    """Note the wish; no client is ever evicted for memory here."""
    session.no_evict = _switch(args[2])
    return OK


@_sub("no-touch", 3, "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.", "7.2.0")
def client_no_touch(session: Session, args: list[bytes]) -> bytes:
    """Choose whether this client's reads count as uses."""
    session.no_touch = _switch(args[2])
    return OK


@_sub("getredir", 2, "Returns the client ID to which the connection's tracking notifications are redirected.", "6.0.0")
def client_getredir(session: Session, args: list[bytes]) -> bytes:
    """Answer -1: tracking is not enabled."""
    return MINUS_ONE


@_sub("trackinginfo", 2, "Returns information about server-assisted client-side caching for the connection.", "6.2.0")
def client_trackinginfo(session: Session, args: list[bytes]) -> bytes:
    """Answer that tracking is off."""
    return mapping(
        session.resp,
        [
            (bulk(b"flags"), set_of(session.resp, [bulk(b"off")])),
            (bulk(b"redirect"), MINUS_ONE),
            (bulk(b"prefixes"), EMPTY_ARRAY),
        ],
    )


@_sub("tracking", -3, "Controls server-assisted client-side caching for the connection.", "6.0.0")
def client_tracking(session: Session, args: list[bytes]) -> bytes:
    """Accept OFF; there is no server-assisted caching yet."""
    if not _switch(args[2]):
        return OK
    raise CommandError("ERR client tracking is not supported by this server")


@_sub("unblock", -3, "Unblocks a client blocked by a blocking command from a different connection.", "5.0.0")
def client_unblock(session: Session, args: list[bytes]) -> bytes:
    """Answer 0: no command of this server blocks."""
    parse_int(args[2])
    if len(args) > 4 or (len(args) == 4 and args[3].upper() not in (b"TIMEOUT", b"ERROR")):
        raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    return ZERO


@_sub("help", 2, "Returns helpful text about the different subcommands.", "5.0.0")
def client_help(session: Session, args: list[bytes]) -> bytes:
    """Answer the subcommands."""
    return help_lines("CLIENT", _HELP)


@command(
    "client",
    arity=-2,
    flags=_FLAGS,
    group="connection",
    since="2.4.0",
    summary="A container for client connection commands.",
    subcommands=(
        client_id,
        client_getname,
        client_setname,
        client_setinfo,
        client_info,
        client_list,
        client_kill,
        client_pause,
        client_unpause,
        client_reply,
        client_no_evict,
        client_no_touch,
        client_getredir,
        client_trackinginfo,
        client_tracking,
        client_unblock,
        client_help,
    ),
)
def client(session: Session, args: list[bytes]) -> bytes:
    """Never runs: a subcommand does."""
    raise CommandError("ERR wrong number of arguments for 'client' command")
