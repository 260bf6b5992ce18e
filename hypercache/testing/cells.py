"""A small state machine for simulations: cells with a value and a version, and who may propose."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hypercache.errors import MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_COMMAND: Final = struct.Struct(">BHQQ")
_ANSWER: Final = struct.Struct(">?QQ")


class CellOperation(IntEnum):
    """What a command does to its cell."""

    SET = 1
    """Write the value."""
    CAS = 2
    """Write the value where the cell holds the expected one."""
    GET = 3
    """Write nothing."""


class CellAnswer(msgspec.Struct, frozen=True):
    """What a command, or a read, found.

    Attributes:
        done: whether the command did what it should.
        value: what the cell holds after it.
        version: the index of the entry that wrote that; 0 for none.
    """

    done: bool
    value: int
    version: int


def cell_command(operation: CellOperation, key: int, value: int = 0, expected: int = 0) -> bytes:
    """Return a command for `Cells`."""
    return _COMMAND.pack(operation, key, value, expected)


def cell_answer(data: bytes) -> CellAnswer:
    """Return what an answer of `Cells` says."""
    return CellAnswer(*_ANSWER.unpack(data))


class _State(msgspec.Struct, array_like=True):
    # In the order in which they were first written, which is that of the log.
    cells: dict[int, tuple[int, int]]
    members: tuple[int, ...]
    gone: tuple[int, ...]
    forgotten: tuple[int, ...]


class Cells:
    """The state machine (`hypercache.consensus.contracts.StateMachine`).

    Args:
        members: the nodes of the group that is founded.
    """

    def __init__(self, members: Iterable[int]) -> None:
        self._state = _State({}, tuple(sorted(members)), (), ())

    def get(self, key: int) -> CellAnswer:
        """Return what a cell holds."""
        value, version = self._state.cells.get(key, (0, 0))
        return CellAnswer(True, value, version)

    def prepare(self, data: bytes) -> bytes:
        """Return the data: there is nothing for the leader to decide."""
        return data

    def apply(self, index: int, client_id: int, data: bytes) -> bytes:
        """Apply a command."""
        operation, key, value, expected = _COMMAND.unpack(data)
        held, version = self._state.cells.get(key, (0, 0))
        done = operation != CellOperation.CAS or held == expected
        if done and operation != CellOperation.GET:
            self._state.cells[key] = held, version = value, index
        return _ANSWER.pack(done, held, version)

    def membership_changed(self, index: int, voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
        """Refuse those who left."""
        state = self._state
        members = {*voters, *learners}
        gone = {*state.gone, *state.members} - members
        state.forgotten = tuple(sorted({*state.forgotten, *(gone - {*state.gone})} - members))
        state.gone = tuple(sorted(gone))
        state.members = tuple(sorted(members))

    def knows(self, client_id: int) -> bool:
        """Whether a client has not left."""
        return client_id not in self._state.gone

    def take_forgotten(self) -> tuple[int, ...]:
        """Return who left since this was asked before."""
        forgotten, self._state.forgotten = self._state.forgotten, ()
        return forgotten

    def freeze(self) -> Iterable[bytes]:
        """Return the state in small pieces."""
        encoded = msgspec.msgpack.encode(self._state)
        return [encoded[at : at + 64] for at in range(0, len(encoded), 64)]

    def load(self, stream: Iterable[bytes]) -> _State:
        """Return what a snapshot's pieces say.

        Raises:
            MalformedMessageError: they are damaged.
        """
        try:
            return msgspec.msgpack.decode(b"".join(stream), type=_State)
        except msgspec.MsgspecError as error:
            raise MalformedMessageError(f"the cells of a snapshot are damaged: {error}") from None

    def adopt(self, loaded: Any) -> None:
        """Become what was loaded."""
        self._state = loaded
