"""The command table: what each command is called, takes and does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from hypercache.resp.session import Session

if TYPE_CHECKING:
    from types import ModuleType

CommandFunction = Callable[[Session, list[bytes]], bytes | None]
"""Takes the session and the arguments, the name first; returns the encoded reply, or None where it comes by `Session.later`; raises
CommandError."""


class Command(msgspec.Struct):
    """One command, or one subcommand of a container such as CLIENT.

    Attributes:
        name: in lower case; a subcommand's is ``client|kill``.
        function: what it does.
        arity: how many arguments, the name included; negative: at least that many.
        flags: Redis' names: ``readonly write denyoom fast admin noscript loading stale no_auth …``.
        keys: first key, last key, step, as COMMAND INFO reports them; zeros for none.
        group: the family, as COMMAND DOCS names it.
        since: the Redis version that brought it.
        summary: one line.
        subcommands: of a container, by name without the container's.
        calls: how often it was called.
        failures: how often it answered with an error.
        rejections: how often it was refused before it ran.
    """

    name: str
    function: CommandFunction
    arity: int
    flags: frozenset[str]
    keys: tuple[int, int, int]
    group: str
    since: str
    summary: str
    subcommands: dict[bytes, Command] = msgspec.field(default_factory=dict)
    min_arguments: int = 0
    max_arguments: int = 0
    denies_oom: bool = False
    before_auth: bool = False
    touches_session: bool = False
    calls: int = 0
    failures: int = 0
    rejections: int = 0

    def __post_init__(self) -> None:
        self.min_arguments = abs(self.arity)
        self.max_arguments = self.arity if self.arity > 0 else 1 << 62
        self.denies_oom = "denyoom" in self.flags
        self.before_auth = "no_auth" in self.flags
        # A command on data leaves the connection and the settings as they are; the engine need not look at them again.
        self.touches_session = self.flags.isdisjoint(("readonly", "write"))

    def fresh(self) -> Command:
        """Return a copy whose counters are its own."""
        subcommands = {name: command.fresh() for name, command in self.subcommands.items()}
        return msgspec.structs.replace(self, subcommands=subcommands, calls=0, failures=0, rejections=0)

    def accepts(self, count: int) -> bool:
        """Say whether ``count`` arguments, the name included, fit the arity."""
        return self.min_arguments <= count <= self.max_arguments


def command(
    name: str,
    *,
    arity: int,
    flags: str = "",
    keys: tuple[int, int, int] = (0, 0, 0),
    group: str,
    since: str = "1.0.0",
    summary: str,
    subcommands: tuple[Command, ...] = (),
) -> Callable[[CommandFunction], Command]:
    """Declare the decorated function as a command; `Command` says what the arguments mean."""

    def declare(function: CommandFunction) -> Command:
        by_name = {sub.name.rpartition("|")[2].encode(): sub for sub in subcommands}
        return Command(name, function, arity, frozenset(flags.split()), keys, group, since, summary, by_name)

    return declare


class CommandTable:
    """The commands of a node, with counters of its own.

    Attributes:
        by_spelling: the usual spellings of a name, all lower and all upper case, to the command; the hot path looks here.
    """

    def __init__(self, commands: list[Command]) -> None:
        self.commands = {command.name: command.fresh() for command in commands}
        self.by_spelling: dict[bytes, Command] = {}
        for name, entry in self.commands.items():
            self.by_spelling[name.encode()] = entry
            self.by_spelling[name.upper().encode()] = entry

    @classmethod
    def of(cls, *modules: ModuleType) -> CommandTable:
        """Return the table of all commands that these modules declare; subcommands come with their containers."""
        found = [entry for module in modules for entry in vars(module).values() if isinstance(entry, Command)]
        return cls([entry for entry in found if "|" not in entry.name])

    def extended(self, commands: Iterable[Command]) -> CommandTable:
        """Return a table that has further commands too; one of a name that there is already takes its place."""
        return CommandTable([*self.commands.values(), *commands])

    def find(self, name: bytes) -> Command | None:
        """Return a command by its name in any case, None where there is none."""
        return self.by_spelling.get(name) or self.by_spelling.get(name.upper())

    def resolve(self, args: list[bytes]) -> Command | None:
        """Return the command, or the subcommand, that these arguments call; None where there is none."""
        entry = self.find(args[0])
        if entry is not None and entry.subcommands and len(args) > 1:
            return entry.subcommands.get(args[1].lower())
        return entry

    def reset_counters(self) -> None:
        """Set all counters to zero (CONFIG RESETSTAT)."""
        for entry in self.commands.values():
            for each in (entry, *entry.subcommands.values()):
                each.calls = each.failures = each.rejections = 0
