"""Exactly-once application: what each client was answered, as part of the state machine (dissertation, section 6.3).

A proposal carries its client, its sequence and the client's lowest sequence that is still unanswered. A client is a node; each
start of it has sequences of its own, above those of its starts before (`sequence_of`), so that its first proposal trims all older
ones. The table changes by apply alone, and so is the same on every member. It belongs into the snapshot (`encode`). Apply refuses
proposals of nodes that are no members before it looks here: of those it knows nothing any more.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import MalformedMessageError, RaftError
from hypercache.limits import RAFT_SESSION_ANSWERS_MAX_COUNT
from hypercache.wire.messages import Propose

if TYPE_CHECKING:
    from collections.abc import Iterable

_COUNTER_BITS: Final = 40
_BOOT_BITS: Final = 24


def sequence_of(boot: int, counter: int) -> int:
    """Return the sequence of a start's ``counter``-th proposal.

    Args:
        boot: the node's boot number, under 2**24.
        counter: grows with each proposal of that start, under 2**40.

    Raises:
        RaftError: a number is used up.
    """
    if not (0 <= boot < 1 << _BOOT_BITS and 0 <= counter < 1 << _COUNTER_BITS):
        raise RaftError(f"boot {boot} or proposal {counter} exceeds what a sequence can name")
    return boot << _COUNTER_BITS | counter


def proposal_of(data: bytes) -> Propose:
    """Return the proposal that an entry of type 1 holds.

    Raises:
        MalformedMessageError: it holds none.
    """
    return Propose.decode_payload(data)


class Verdict(Enum):
    """What apply does with a proposal."""

    NEW = "new"
    """Apply it, then `Sessions.answered`."""
    ANSWERED = "answered"
    """It was applied before: give the same answer."""
    STALE = "stale"
    """Its client has its answer, or is gone: nothing is applied, nobody waits."""


class _Session(msgspec.Struct, array_like=True):
    lowest: int
    answers: dict[int, bytes]


class Sessions:
    """The answers of all clients that may still be asked for again.

    Args:
        answers_max_count: a client's answers; beyond it the oldest go, and count as stale.
    """

    __slots__ = ("_answers_max_count", "_sessions")

    def __init__(self, answers_max_count: int = RAFT_SESSION_ANSWERS_MAX_COUNT) -> None:
        self._answers_max_count = answers_max_count
        self._sessions: dict[int, _Session] = {}

    def __len__(self) -> int:
        return sum(len(session.answers) for session in self._sessions.values())

    def judge(self, proposal: Propose) -> tuple[Verdict, bytes]:
        """Say what apply does with a proposal, and what it was answered; trims what its client no longer waits for.

        A proposal of client 0 has no session and is always new.
        """
        if not proposal.client_id:
            return Verdict.NEW, b""
        session = self._sessions.get(proposal.client_id)
        if session is None:
            session = self._sessions[proposal.client_id] = _Session(0, {})
        if proposal.lowest_unanswered > session.lowest:
            session.lowest = proposal.lowest_unanswered
            for sequence in [known for known in session.answers if known < session.lowest]:
                del session.answers[sequence]
        if proposal.sequence < session.lowest:
            return Verdict.STALE, b""
        answer = session.answers.get(proposal.sequence)
        return (Verdict.NEW, b"") if answer is None else (Verdict.ANSWERED, answer)

    def answered(self, proposal: Propose, answer: bytes) -> None:
        """Remember what a new proposal was answered."""
        if not proposal.client_id:
            return
        session = self._sessions[proposal.client_id]
        session.answers[proposal.sequence] = answer
        if len(session.answers) > self._answers_max_count:
            oldest = min(session.answers)
            del session.answers[oldest]
            session.lowest = oldest + 1

    def forget(self, clients: Iterable[int]) -> None:
        """Drop the sessions of members that were removed: a committed change, applied by all at the same place."""
        for client in clients:
            self._sessions.pop(client, None)

    def encode(self) -> bytes:
        """Return the table for a snapshot: u32 length, msgpack; the same table gives the same bytes."""
        rows = [(client, session.lowest, sorted(session.answers.items())) for client, session in sorted(self._sessions.items())]
        encoded = msgspec.msgpack.encode(rows)
        return struct.pack(">I", len(encoded)) + encoded

    @classmethod
    def decode(cls, data: bytes, answers_max_count: int = RAFT_SESSION_ANSWERS_MAX_COUNT) -> tuple[Sessions, int]:
        """Return the table that a snapshot holds, and where it ends.

        Raises:
            MalformedMessageError: the bytes are damaged.
        """
        try:
            (length,) = struct.unpack_from(">I", data)
            rows = msgspec.msgpack.decode(data[4 : 4 + length], type=list[tuple[int, int, list[tuple[int, bytes]]]])
        except (struct.error, msgspec.MsgspecError) as error:
            raise MalformedMessageError(f"the sessions of a snapshot are damaged: {error}") from None
        sessions = cls(answers_max_count)
        for client, lowest, answers in rows:
            sessions._sessions[client] = _Session(lowest, dict(answers))
        return sessions, 4 + length
