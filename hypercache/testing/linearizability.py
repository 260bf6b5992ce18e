"""Whether a history is linearizable: whether each operation may have taken effect at one moment between asking and answer.

Keys are judged apart, as linearizability is local; `hypercache.testing.ordering` searches the order of one key's operations.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hypercache.errors import UndecidedError
from hypercache.testing.histories import Operation, Outcome, by_key
from hypercache.testing.ordering import Search
from hypercache.testing.registers import RegisterModel

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from hypercache.testing.registers import Model

STEPS_MAX_COUNT: Final = 20_000_000
"""The steps after which a search gives up: a minute or two."""

EXPLAINING_STEPS_MAX_COUNT: Final = 200_000
"""The steps after which a search does that only makes an explanation shorter."""

_SHOWN_ORDERED: Final = 12
_SHOWN_STATES: Final = 8


class Violation(msgspec.Struct, frozen=True):
    """Why a history is not linearizable.

    Attributes:
        key: whose operations.
        blocked: the operation with whose answer the history stopped being linearizable: what was asked until then has an order
            without it, and none with it, given the answers that those under way got later. A later one where that is hard to find.
        ordered: one order without it; empty where that is hard to find.
        states: what the key held in that order while the operation was under way.
        waiting: other operations, under way when it was answered or of unknown outcome, that this order leaves out.
        length: how many operations had been asked when it was answered.
    """

    key: Hashable
    blocked: Operation
    ordered: tuple[Operation, ...]
    states: tuple[Any, ...]
    waiting: tuple[Operation, ...]
    length: int

    def __str__(self) -> str:
        shown = [repr(state) for state in self.states[:_SHOWN_STATES]]
        shown += [f"{len(self.states) - _SHOWN_STATES} more"] * (len(self.states) > _SHOWN_STATES)
        lines = [
            f"key {self.key!r} is not linearizable: this answer fits no order of the {self.length} operations asked until then:",
            f"  {self.blocked}",
            f"In one order of all others the key held meanwhile: {', '.join(shown)}",
        ]
        lines.append("The end of that order:" if self.ordered else "No order of others was found, or none was answered.")
        lines += [f"  {each}" for each in self.ordered[-_SHOWN_ORDERED:]]
        if self.waiting:
            lines.append("Under way, or of unknown outcome, and left out of it:")
            lines += [f"  {each}" for each in self.waiting]
        return "\n".join(lines)


def find_violation(
    operations: Iterable[Operation], model: Model | None = None, *, steps_max: int = STEPS_MAX_COUNT
) -> Violation | None:
    """Return why a history is not linearizable, None where it is.

    Args:
        operations: the history, of any number of keys.
        model: what a key does; a `RegisterModel` without a value where it is not given.
        steps_max: how many steps one search may take.

    Raises:
        UndecidedError: that many did not do.
    """
    chosen = RegisterModel() if model is None else model
    for key, of_key in by_key(operations).items():
        if Search(of_key, chosen, steps_max=steps_max).order() is None:
            return _explained(key, of_key, chosen)
    return None


def _explained(key: Hashable, operations: Sequence[Operation], model: Model) -> Violation:
    """Return the violation in a history that has one; what takes too long to decide counts as no violation yet."""
    answers = sorted(each.end for each in operations if each.outcome is Outcome.OK)

    def is_bad_until(end: int) -> bool:
        try:
            return Search(operations, model, until=end, steps_max=EXPLAINING_STEPS_MAX_COUNT).order() is None
        except UndecidedError:
            return False

    end = answers[min(bisect_left(answers, True, key=is_bad_until), len(answers) - 1)]
    blocked = next(each for each in operations if each.end == end)
    begun = [each for each in operations if each.start < end]
    others = [each for each in begun if each is not blocked]
    try:
        ordered = Search(others, model, until=end, steps_max=EXPLAINING_STEPS_MAX_COUNT).order() or []
    except UndecidedError:
        ordered = []
    left_out = {each.start for each in others if each.outcome is not Outcome.FAILED} - {each.start for each in ordered}
    waiting = tuple(each for each in others if ordered and each.start in left_out)
    return Violation(key, blocked, tuple(ordered), _held(ordered, blocked, model), waiting, len(begun))


def _held(ordered: Sequence[Operation], blocked: Operation, model: Model) -> tuple[Any, ...]:
    """Return the states, in an order, between what had to come before an operation and what had to come after it."""
    first = max((at + 1 for at, each in enumerate(ordered) if each.end < blocked.start), default=0)
    last = next((at for at, each in enumerate(ordered) if each.start > blocked.end), len(ordered))
    state = model.initial
    states = [state]
    for each in ordered[:last]:
        state, _ = model.apply(state, each.call)
        states.append(state)
    return tuple(dict.fromkeys(states[first:]))
