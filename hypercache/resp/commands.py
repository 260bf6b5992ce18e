"""COMMAND: what a client can learn about the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.glob import Glob
from hypercache.resp.replies import array, bulk, help_lines, integer, mapping, nil, set_of, simple, text
from hypercache.resp.table import Command, command

if TYPE_CHECKING:
    from hypercache.resp.session import Session
    from hypercache.resp.table import CommandTable

_FLAGS: Final = "loading stale"
_CATEGORIES: Final = {"readonly": "@read", "write": "@write", "admin": "@admin", "fast": "@fast"}
_KEY_FLAGS: Final = {
    "del": "RM delete",
    "unlink": "RM delete",
    "getdel": "RW access delete",
    "set": "OW update",
    "setex": "OW update",
    "psetex": "OW update",
    "mset": "OW update",
    "setnx": "OW insert",
    "msetnx": "OW insert",
    "append": "RW insert",
    "setrange": "RW update",
    "expire": "RW update",
    "pexpire": "RW update",
    "expireat": "RW update",
    "pexpireat": "RW update",
    "persist": "RW update",
}
_GROUP_CATEGORIES: Final = {"generic": "@keyspace", "string": "@string", "bitmap": "@bitmap", "connection": "@connection"}


def _shown_flags(entry: Command) -> list[str]:
    return sorted(entry.flags)


def _categories(entry: Command) -> list[str]:
    named = [category for flag, category in _CATEGORIES.items() if flag in entry.flags]
    if "fast" not in entry.flags:
        named.append("@slow")
    if entry.group in _GROUP_CATEGORIES:
        named.append(_GROUP_CATEGORIES[entry.group])
    return named


def command_info(resp: int, entry: Command) -> bytes:
    """Return what COMMAND INFO answers of one command: the ten elements of Redis 7."""
    return array(
        [
            text(entry.name),
            integer(entry.arity),
            set_of(resp, [simple(flag.encode()) for flag in _shown_flags(entry)]),
            *(integer(number) for number in entry.keys),
            set_of(resp, [simple(category.encode()) for category in _categories(entry)]),
            array([]),
            array([]),
            array([command_info(resp, sub) for sub in entry.subcommands.values()]),
        ]
    )


def _docs(resp: int, entry: Command) -> bytes:
    pairs = [
        (bulk(b"summary"), text(entry.summary)),
        (bulk(b"since"), text(entry.since)),
        (bulk(b"group"), text(entry.group)),
    ]
    if entry.subcommands:
        subs = [(text(sub.name), _docs(resp, sub)) for sub in entry.subcommands.values()]
        pairs.append((bulk(b"subcommands"), mapping(resp, subs)))
    return mapping(resp, pairs)


def key_positions(entry: Command, args: list[bytes]) -> list[int]:
    """Return the indexes of the arguments that are keys.

    Raises:
        CommandError: the command takes no keys, or not this number of arguments.
    """
    first, last, step = entry.keys
    if not first:
        raise CommandError("ERR The command has no key arguments")
    if not entry.accepts(len(args)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    end = len(args) + last if last < 0 else last
    return list(range(first, end + 1, step))


def _named(table: CommandTable, name: bytes) -> Command | None:
    """Return the command, or the subcommand ``container|name``; None where there is none."""
    container, bar, sub = name.partition(b"|")
    entry = table.find(container)
    return entry.subcommands.get(sub.lower()) if entry is not None and bar else entry


def _entry_of(session: Session, args: list[bytes]) -> Command:
    entry = session.server.table.resolve(args)
    if entry is None:
        raise CommandError("ERR Invalid command specified")
    return entry


@command("command|count", arity=2, flags=_FLAGS, group="server", since="2.8.13", summary="Returns a count of commands.")
def command_count(session: Session, args: list[bytes]) -> bytes:
    """Answer how many commands there are."""
    return integer(len(session.server.table.commands))


@command("command|info", arity=-2, flags=_FLAGS, group="server", since="2.8.13", summary="Returns information about commands.")
def command_info_command(session: Session, args: list[bytes]) -> bytes:
    """Answer details of the named commands, of all where none is named."""
    table = session.server.table
    names = args[2:] or [name.encode() for name in table.commands]
    found = [_named(table, name) for name in names]
    return array([nil(session.resp) if entry is None else command_info(session.resp, entry) for entry in found])


@command("command|docs", arity=-2, flags=_FLAGS, group="server", since="7.0.0", summary="Returns documentation of commands.")
def command_docs(session: Session, args: list[bytes]) -> bytes:
    """Answer a summary of the named commands, of all where none is named."""
    table = session.server.table
    names = args[2:] or [name.encode() for name in table.commands]
    found = [entry for name in names if (entry := _named(table, name)) is not None]
    return mapping(session.resp, [(text(entry.name), _docs(session.resp, entry)) for entry in found])


@command("command|list", arity=-2, flags=_FLAGS, group="server", since="7.0.0", summary="Returns a list of command names.")
def command_list(session: Session, args: list[bytes]) -> bytes:
    """Answer the names: all, or filtered by pattern, category or module."""
    entries = list(session.server.table.commands.values())
    if len(args) > 2:
        if len(args) != 5 or args[2].upper() != b"FILTERBY":
            raise CommandError("ERR syntax error")
        kind, value = args[3].upper(), args[4]
        if kind == b"PATTERN":
            pattern = Glob(value.lower())
            entries = [entry for entry in entries if pattern.matches(entry.name.encode())]
        elif kind == b"ACLCAT":
            category = "@" + value.decode(errors="replace").lower()
            entries = [entry for entry in entries if category in _categories(entry)]
        elif kind == b"MODULE":
            entries = []
        else:
            raise CommandError("ERR syntax error")
    return array([text(entry.name) for entry in entries])


@command(
    "command|getkeys", arity=-4, flags=_FLAGS, group="server", since="2.8.13", summary="Extracts the key names from a command."
)
def command_getkeys(session: Session, args: list[bytes]) -> bytes:
    """Answer the keys of a whole command."""
    inner = args[2:]
    return array([bulk(inner[at]) for at in key_positions(_entry_of(session, inner), inner)])


@command(
    "command|getkeysandflags",
    arity=-4,
    flags=_FLAGS,
    group="server",
    since="7.0.0",
    summary="Extracts the key names and access flags.",
)
def command_getkeysandflags(session: Session, args: list[bytes]) -> bytes:
    """Answer the keys of a whole command, each with how it is accessed."""
    inner = args[2:]
    entry = _entry_of(session, inner)
    named = "RO access" if "readonly" in entry.flags else _KEY_FLAGS.get(entry.name, "RW access update")
    flags = [simple(flag.encode()) for flag in named.split()]
    return array(
        [array([bulk(inner[at]), set_of(session.resp, flags)]) for at in key_positions(entry, inner)],
    )


@command("command|help", arity=2, flags=_FLAGS, group="server", since="5.0.0", summary="Returns helpful text.")
def command_help(session: Session, args: list[bytes]) -> bytes:
    """Answer the subcommands."""
    return help_lines(
        "COMMAND",
        (
            "(no subcommand)",
            "    Return details about all commands.",
            "COUNT",
            "    Return the total number of commands in this server.",
            "LIST",
            "    Return a list of all commands in this server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple commands.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple commands.",
            "GETKEYS <full-command>",
            "    Return the keys from a full command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full command.",
        ),
    )


COMMAND_SUBCOMMANDS: Final = (
    command_count,
    command_info_command,
    command_docs,
    command_list,
    command_getkeys,
    command_getkeysandflags,
    command_help,
)
