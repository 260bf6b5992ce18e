"""What one key of a store does, step by step: the model that histories are judged against."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

    from hypercache.testing.histories import Call

NOT_A_NUMBER: Final = "not a number"
"""The answer to ``incr`` of something else."""

_DIGITS_MAX_COUNT: Final = 19


class States(Enum):
    """Stands for states where no single one can be named."""

    EVERY = 1
    SOME = 2
    SAME = 3


class But(NamedTuple):
    """Stands for every state but those with a mark."""

    mark: Hashable


class Effect(NamedTuple):
    """What a call with a known answer, or of unknown outcome, tells of the states around it; it makes searches shorter.

    Attributes:
        needs: the mark of the states in which it is answered so, or has an effect where the answer is unknown; EVERY or `But` where
            those are many; SOME where it is not known.
        leaves: the only state that it changes others to; SAME where it changes none, SOME where that depends.
        grows: where all changes are calls of this name that grow, the marks that one leaves behind never come back.
    """

    needs: Hashable | States = States.SOME
    leaves: Hashable | States = States.SOME
    grows: bool = False


class Model(Protocol):
    """An object that does one thing after the other."""

    @property
    def initial(self) -> Hashable:
        """The state before the first operation."""

    def apply(self, state: Hashable, call: Call) -> tuple[Hashable, Any]:
        """Return the state after a call, and its answer; neither depends on anything else."""

    def effect(self, call: Call, answer: Any) -> Effect:
        """Return what a call that was answered so tells; ``Effect()`` is always right."""

    def unknown_effect(self, call: Call) -> Effect:
        """Return what a call that may have taken effect tells; ``Effect()`` is always right."""

    def marks(self, state: Hashable) -> tuple[Hashable, ...]:
        """Return the marks of a state, as `Effect.needs` names them."""


class RegisterModel:
    """A key with a value of bytes; None is no value.

    ``("get",)`` answers the value; ``("set", v)`` True; ``("delete",)`` whether there was a value; ``("incr", n)`` the new number;
    ``("cas", old, new)`` whether the value was ``old`` and is now ``new``; ``("add", v)`` whether there was none and it is now
    ``v``; ``("swap", v)`` the value before; ``("append", v)`` the new length.

    Args:
        initial: the value at the start.
    """

    def __init__(self, initial: bytes | None = None) -> None:
        self.initial: Hashable = initial

    def apply(self, state: Any, call: Call) -> tuple[Hashable, Any]:
        """Return the value after a call, and its answer.

        Raises:
            ValueError: there is no such call.
        """
        name = call[0]
        if name == "get":
            return state, state
        if name == "set":
            return call[1], True
        if name == "incr":
            return _incremented(state, call[1])
        if name == "cas":
            return (call[2], True) if state == call[1] else (state, False)
        if name == "add":
            return (call[1], True) if state is None else (state, False)
        if name == "swap":
            return call[1], state
        if name == "delete":
            return None, state is not None
        if name == "append":
            value = (state or b"") + call[1]
            return value, len(value)
        raise ValueError(f"a register knows no {name!r}")

    def effect(self, call: Call, answer: Any) -> Effect:
        """Return what a call that was answered so tells."""
        name = call[0]
        if name == "get":
            return Effect(answer, States.SAME)
        if name == "swap":
            return Effect(answer, call[1])
        if name == "incr" and isinstance(answer, int):
            return Effect(_Number(answer - call[1]), b"%d" % answer, call[1] > 0)
        if name == "append" and isinstance(answer, int):
            return Effect(_Length(answer - len(call[1])), States.SOME, bool(call[1]))
        if name == "delete" and isinstance(answer, bool):
            return Effect(But(None), None) if answer else Effect(None, States.SAME)
        if name == "cas" and answer is False:
            return Effect(But(call[1]), States.SAME)
        if name == "add" and answer is False:
            return Effect(But(None), States.SAME)
        return self.unknown_effect(call) if answer is True else Effect()

    def unknown_effect(self, call: Call) -> Effect:
        """Return what a call that may have taken effect tells."""
        name = call[0]
        if name == "get":
            return Effect(States.EVERY, States.SAME)
        if name in ("set", "swap"):
            return Effect(States.EVERY, call[1])
        if name == "delete":
            return Effect(States.EVERY, None)
        if name == "cas":
            return Effect(call[1], call[2])
        if name == "add":
            return Effect(None, call[1])
        return Effect(States.EVERY, States.SOME, bool(call[1]) if name == "append" else call[1] > 0)

    def marks(self, state: Any) -> tuple[Hashable, ...]:
        """Return the value itself, its length, and its number where it is one."""
        length = _Length(len(state or b""))
        number = _number(state)
        return (state, length) if number is None else (state, length, _Number(number))


class _Length(NamedTuple):
    """The mark of values of so many bytes."""

    length: int


class _Number(NamedTuple):
    """The mark of values that count as a number."""

    number: int
    kind: str = "number"


def _number(state: bytes | None) -> int | None:
    """Return the number that a value counts as; None where it is none."""
    if state is None:
        return 0
    digits = state.removeprefix(b"-")
    if len(digits) > _DIGITS_MAX_COUNT or not digits.isdigit():
        return None
    number = int(state)
    return number if b"%d" % number == state else None


def _incremented(state: bytes | None, by: int) -> tuple[Hashable, Any]:
    before = _number(state)
    if before is None:
        return state, NOT_A_NUMBER
    return b"%d" % (before + by), before + by
