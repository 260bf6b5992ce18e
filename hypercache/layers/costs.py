"""What a frame costs its sender where links are limited."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import ConfigurationError
from hypercache.wire.messages import (
    AppendEntries,
    AuthProof,
    AuthResult,
    GenericError,
    Goodbye,
    Heartbeat,
    Hello,
    HelloReply,
    KeepAlive,
    PreVoteRequest,
    PreVoteResponse,
    StreamReset,
    VoteRequest,
    VoteResponse,
    WindowUpdate,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.wire.schema import Schema

_DEFAULT_COST: Final = 3
_VOTE_COST: Final = 5
_SEED_COSTS: Final = {
    Heartbeat.TYPE: 1,
    VoteRequest.TYPE: _VOTE_COST,
    VoteResponse.TYPE: _VOTE_COST,
    PreVoteRequest.TYPE: _VOTE_COST,
    PreVoteResponse.TYPE: _VOTE_COST,
    AppendEntries.TYPE: 10,
}

_RAFT: Final = range(0x10, 0x1D)
_FREE_IN_PLACE: Final = frozenset(each.TYPE for each in (Hello, HelloReply, AuthProof, AuthResult, Goodbye, StreamReset))
_FREE_AHEAD: Final = frozenset(each.TYPE for each in (KeepAlive, WindowUpdate, GenericError))
_ENTRY: Final = re.compile(r"(0[xX][0-9a-fA-F]{1,2}|[A-Za-z]\w*)=([0-9]{1,9})")


class Costs(msgspec.Struct, frozen=True):
    """The costs of one kind of peer.

    Attributes:
        tokens: what a frame costs that is no answer, by its type; 0 for nothing.
        overtaking: types that go ahead of frames that wait.
    """

    tokens: tuple[int, ...]
    overtaking: frozenset[int]


class CostTable(msgspec.Struct, frozen=True):
    """The costs of all kinds of peer.

    A base peer's answers are told by their type, those of an extended one by the flag REPLY. Raft is free for members, and only for
    them: a stranger's is refused later, and to refuse it is work.

    Attributes:
        member, stranger: of an extended peer.
        base_member, base_stranger: of a base peer.
    """

    member: Costs
    stranger: Costs
    base_member: Costs
    base_stranger: Costs


def cost_table(entries: Iterable[str], schema: Schema, burst: int) -> CostTable:
    """Return the seed's costs with the operator's changes.

    Args:
        entries: ``Name=cost`` or ``0x80=cost`` each.
        schema: gives the names, and says what is an answer.
        burst: the most that a link can save up, in tokens; what would cost more costs as much.

    Raises:
        ConfigurationError: an entry is none, names nothing or the same as another, or costs more than can be saved up.
    """
    tokens = [min(_SEED_COSTS.get(message_type, _DEFAULT_COST), burst) for message_type in range(256)]
    given: dict[int, str] = {}
    for entry in entries:
        message_type, cost = _parsed(entry, schema)
        if message_type in given:
            raise ConfigurationError(f"rate.costs: {entry!r} gives the type a cost that {given[message_type]!r} has given already")
        if message_type in _FREE_IN_PLACE or message_type in _FREE_AHEAD:
            raise ConfigurationError(f"rate.costs: {entry!r}: this type is for the link itself, and always free")
        if cost > burst:
            raise ConfigurationError(f"rate.costs: {entry!r}: more than rate.burst = {burst} can never be paid")
        given[message_type] = entry
        tokens[message_type] = cost
    answers = frozenset(cls.ANSWER for cls in schema if cls.ANSWER >= 0) - _FREE_IN_PLACE
    raft = frozenset(_RAFT)

    def costs(overtaking: frozenset[int]) -> Costs:
        free = overtaking | _FREE_IN_PLACE
        return Costs(tuple(0 if each in free else cost for each, cost in enumerate(tokens)), overtaking)

    return CostTable(
        member=costs(_FREE_AHEAD | raft),
        stranger=costs(_FREE_AHEAD),
        base_member=costs(_FREE_AHEAD | answers | raft),
        base_stranger=costs(_FREE_AHEAD | answers),
    )


def _parsed(entry: str, schema: Schema) -> tuple[int, int]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ConfigurationError(f"rate.costs: {entry!r} is no cost; write Name=cost or 0x80=cost")
    name, cost = match[1], int(match[2])
    if name[:2] in ("0x", "0X"):
        return int(name, 16), cost
    cls = schema.by_name(name)
    if cls is None:
        close = difflib.get_close_matches(name, [each.__name__ for each in schema], 1, 0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigurationError(f"rate.costs: {entry!r} names no message{hint}")
    return cls.TYPE, cost
