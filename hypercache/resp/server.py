"""The server family: INFO CONFIG COMMAND TIME MEMORY."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.commands import COMMAND_SUBCOMMANDS, command_info
from hypercache.resp.glob import Glob
from hypercache.resp.info import info_text
from hypercache.resp.replies import OK, array, bulk, help_lines, integer, mapping, nil, text, verbatim
from hypercache.resp.table import Command, command

if TYPE_CHECKING:
    from hypercache.resp.session import Session

_GROUP: Final = "server"
_ADMIN: Final = "admin noscript loading stale"


@command("info", arity=-1, flags="loading stale", group=_GROUP, summary="Returns information and statistics about the server.")
def info(session: Session, args: list[bytes]) -> bytes:
    """Answer figures of the node: all sections, or those named."""
    wanted = {arg.lower().decode(errors="replace") for arg in args[1:]} or {"default"}
    return verbatim(session.resp, info_text(session.server, wanted))


@command("time", arity=1, flags="loading stale fast", group=_GROUP, since="2.6.0", summary="Returns the server time.")
def time(session: Session, args: list[bytes]) -> bytes:
    """Answer Unix seconds and microseconds."""
    seconds, milliseconds = divmod(session.keyspace.now_ms, 1000)
    return array([bulk(b"%d" % seconds), bulk(b"%d" % (milliseconds * 1000))])


@command("config|get", arity=-3, flags=_ADMIN, group=_GROUP, since="2.0.0", summary="Returns the effective values of parameters.")
def config_get(session: Session, args: list[bytes]) -> bytes:
    """Answer the settings whose names match any of the patterns."""
    patterns = [Glob(arg.lower()) for arg in args[2:]]
    # A name that is asked for as such is answered in the same spelling.
    asked = {arg.lower(): arg for arg in args[2:]}
    chosen = [
        (bulk(asked.get(name.encode(), name.encode())), text(parameter.read()))
        for name, parameter in session.server.parameters.all().items()
        if any(pattern.matches(name.encode()) for pattern in patterns)
    ]
    return mapping(session.resp, chosen)


@command("config|set", arity=-4, flags=_ADMIN, group=_GROUP, since="2.0.0", summary="Sets parameters in-flight.")
def config_set(session: Session, args: list[bytes]) -> bytes:
    """Change settings, all or none."""
    if len(args) % 2:
        raise CommandError("ERR syntax error")
    words = [arg.decode("utf-8", "surrogateescape") for arg in args[2:]]
    session.server.parameters.set_all(list(zip(words[::2], words[1::2], strict=True)))
    return OK


@command("config|resetstat", arity=2, flags=_ADMIN, group=_GROUP, since="2.0.0", summary="Resets the server's statistics.")
def config_resetstat(session: Session, args: list[bytes]) -> bytes:
    """Set the counters that INFO shows to zero."""
    server = session.server
    server.table.reset_counters()
    server.commands_processed = server.error_replies = server.protocol_errors = 0
    server.clients.reset_counters()
    for store in session.keyspace.all_stores():
        store.hits = store.misses = store.expired = store.evicted = 0
    return OK


@command("config|rewrite", arity=2, flags=_ADMIN, group=_GROUP, since="2.8.0", summary="Persists the configuration to file.")
def config_rewrite(session: Session, args: list[bytes]) -> bytes:
    """Refuse: the configuration file is the operator's, comments and all."""
    raise CommandError("ERR The server does not rewrite its configuration file; put the setting into it")


@command("config|help", arity=2, flags="loading stale", group=_GROUP, since="5.0.0", summary="Returns helpful text.")
def config_help(session: Session, args: list[bytes]) -> bytes:
    """Answer the subcommands."""
    return help_lines(
        "CONFIG",
        (
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
        ),
    )


@command(
    "config",
    arity=-2,
    flags=_ADMIN,
    group=_GROUP,
    since="2.0.0",
    summary="A container for server configuration commands.",
    subcommands=(config_get, config_set, config_resetstat, config_rewrite, config_help),
)
def config(session: Session, args: list[bytes]) -> bytes:
    """Never runs: a subcommand does."""
    raise CommandError("ERR wrong number of arguments for 'config' command")


@command(
    "memory|usage",
    arity=-3,
    flags="readonly",
    keys=(2, 2, 1),
    group=_GROUP,
    since="4.0.0",
    summary="Estimates the memory usage of a key.",
)
def memory_usage(session: Session, args: list[bytes]) -> bytes:
    """Answer about how many bytes a key takes."""
    if len(args) not in (3, 5) or (len(args) == 5 and args[3].upper() != b"SAMPLES"):
        raise CommandError("ERR syntax error")
    used = session.store.memory_of(args[2])
    return nil(session.resp) if used is None else integer(used)


@command("memory|help", arity=2, flags="loading stale", group=_GROUP, since="4.0.0", summary="Returns helpful text.")
def memory_help(session: Session, args: list[bytes]) -> bytes:
    """Answer the subcommands."""
    return help_lines("MEMORY", ("USAGE <key> [SAMPLES <count>]", "    Return memory in bytes used by <key> and its value."))


@command(
    "memory",
    arity=-2,
    group=_GROUP,
    since="4.0.0",
    summary="A container for memory diagnostics commands.",
    subcommands=(memory_usage, memory_help),
)
def memory(session: Session, args: list[bytes]) -> bytes:
    """Never runs: a subcommand does."""
    raise CommandError("ERR wrong number of arguments for 'memory' command")


@command(
    "command",
    arity=-1,
    flags="loading stale",
    group=_GROUP,
    since="2.8.13",
    summary="Returns detailed information about all commands.",
    subcommands=COMMAND_SUBCOMMANDS,
)
def command_command(session: Session, args: list[bytes]) -> bytes:
    """Answer what COMMAND INFO answers, of every command."""
    entries: list[Command] = list(session.server.table.commands.values())
    return array([command_info(session.resp, entry) for entry in entries])
