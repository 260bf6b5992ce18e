"""What clients asked and were answered: the record that a checker judges (`hypercache.testing.linearizability`)."""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

Call: TypeAlias = tuple[Any, ...]
"""What is asked of one key: a name, then hashable arguments, as `RegisterModel` and other models read them."""

NEVER: Final = 1 << 62
"""The place of an event that did not come."""


class Outcome(IntEnum):
    """What the client knows of its operation."""

    OK = 1
    """It was answered: it took effect once, between asking and answer."""
    FAILED = 2
    """It certainly took no effect, and never will."""
    UNKNOWN = 3
    """It may have taken effect, may yet at any later time, or never; at most once."""


class Operation(msgspec.Struct, frozen=True):
    """One operation of a client.

    Attributes:
        client: who asked; one client has one operation under way.
        key: what it was about; operations on different keys are judged apart.
        call: what was asked.
        outcome: what is known of it.
        result: the answer; None where there was none.
        start: the place of the asking among all events of the history.
        end: the place of the answer; `NEVER` where it is not known whether it took effect.
        started: when it was asked, in the seconds of the recorder's clock.
        ended: when the answer came; infinity where there was none.
    """

    client: int
    key: Hashable
    call: Call
    outcome: Outcome
    result: Any
    start: int
    end: int
    started: float = 0.0
    ended: float = inf

    def __str__(self) -> str:
        name, *arguments = self.call
        asked = f"client {self.client}: {name}({', '.join(map(repr, arguments))})"
        if self.outcome is Outcome.OK:
            return f"{asked} -> {self.result!r} [{self.started:.6f} s to {self.ended:.6f} s]"
        return f"{asked} {self.outcome.name.lower()} [from {self.started:.6f} s]"


class History:
    """Records operations as they happen.

    The order of the calls is the order of the events, also where the clock stands still; so all clients record in one thread.

    Args:
        now: the clock, seconds; it never goes back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._begun: list[tuple[int, Hashable, Call, int, float]] = []
        self._ended: dict[int, tuple[Outcome, Any, int, float]] = {}
        self._events = 0

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, client: int, key: Hashable, call: Call) -> int:
        """Note that a client asks; return the operation's number, to be given with its end."""
        self._begun.append((client, key, call, self._events, self._now()))
        self._events += 1
        return len(self._begun) - 1

    def ok(self, number: int, result: Any) -> None:
        """Note an answer."""
        self._end(number, Outcome.OK, result)

    def failed(self, number: int) -> None:
        """Note that an operation certainly takes no effect."""
        self._end(number, Outcome.FAILED, None)

    def unknown(self, number: int) -> None:
        """Note that nothing will be heard of an operation; one that is never ended counts the same."""
        self._end(number, Outcome.UNKNOWN, None)

    def _end(self, number: int, outcome: Outcome, result: Any) -> None:
        assert number not in self._ended, "an operation ends once"
        self._ended[number] = (outcome, result, self._events, self._now())
        self._events += 1

    def operations(self) -> list[Operation]:
        """Return what was recorded so far, in the order of asking."""
        found = []
        lost = (Outcome.UNKNOWN, None, NEVER, inf)
        for number, (client, key, call, start, started) in enumerate(self._begun):
            outcome, result, end, ended = self._ended.get(number, lost)
            if outcome is Outcome.UNKNOWN:
                end, ended = NEVER, inf
            found.append(Operation(client, key, call, outcome, result, start, end, started, ended))
        return found


def by_key(operations: Iterable[Operation]) -> dict[Hashable, list[Operation]]:
    """Return the operations on each key, in the order given."""
    keys: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        keys.setdefault(operation.key, []).append(operation)
    return keys


def encode_history(operations: Iterable[Operation]) -> bytes:
    """Return a history as msgpack, to be kept beside the report of a failure; keys and arguments are bytes, texts or numbers."""
    return msgspec.msgpack.encode(list(operations))


def decode_history(data: bytes) -> list[Operation]:
    """Return the history that `encode_history` wrote.

    Raises:
        msgspec.DecodeError: it is none.
    """
    rows: list[dict[str, Any]] = msgspec.msgpack.decode(data, type=list[dict[str, Any]])
    return [Operation(**{**row, "call": tuple(row["call"]), "outcome": Outcome(row["outcome"])}) for row in rows]
