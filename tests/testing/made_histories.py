"""Histories for the tests of the checker: written out, and made by a register that clients share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from hypercache.testing.histories import NEVER, History, Operation, Outcome
from hypercache.testing.registers import RegisterModel

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from hypercache.testing.histories import Call

MODEL = RegisterModel()


def written(*lines: str) -> list[Operation]:
    """Return the history that is drawn, one line a client or more.

    A column is a moment; ``[`` is the asking, ``]`` the answer and ``~`` an end of which nothing is known. Between them stands the
    call, arguments behind ``:``, the answer behind ``=``: ``[set:1=ok ]``, ``[get=1 ]``, ``[incr:1=7]``, ``[cas:1:2=yes]``,
    ``[get=-]`` for no value. Answers come before askings of the same column.
    """
    operations = []
    for client, line in enumerate(lines):
        at = 0
        while (start := line.find("[", at)) >= 0:
            end = min(where for where in (line.find("]", start), line.find("~", start)) if where >= 0)
            asked, _, answer = line[start + 1 : end].strip().partition("=")
            known = line[end] == "]"
            call = _call(asked)
            outcome = Outcome.OK if known else Outcome.UNKNOWN
            place = 2 * start + 1, 2 * end if known else NEVER
            operations.append(
                Operation(client, b"k", call, outcome, _answer(call, answer.strip()) if known else None, *place, start, end)
            )
            at = end
    return operations


def _call(text: str) -> Call:
    name, *arguments = text.strip().split(":")
    return (name, *(int(each) if name == "incr" else each.encode() for each in arguments))


def _answer(call: Call, text: str) -> Any:
    if text in ("ok", "yes", "no"):
        return text != "no"
    if call[0] in ("incr", "append"):
        return int(text)
    return None if text == "-" else text.encode()


CALLS = (
    ("get",),
    ("get",),
    ("set", b"1"),
    ("set", b"2"),
    ("set", b"3"),
    ("delete",),
    ("incr", 1),
    ("cas", b"1", b"2"),
    ("cas", b"2", b"1"),
    ("add", b"4"),
    ("swap", b"5"),
)


def made(
    rng: random.Random,
    *,
    count: int,
    clients: int,
    unknown: float = 0.0,
    calls: Sequence[Call] = CALLS,
    unique: bool = False,
) -> list[Operation]:
    """Return a linearizable history: each operation takes effect on a register at a moment between asking and answer.

    Args:
        rng: decides what happens when.
        count: operations.
        clients: at most so many operations are under way.
        unknown: the share of operations whose answer is lost; half of them take effect, some of those long after.
        calls: what clients ask.
        unique: each value that is set is another.
    """
    history = History(lambda: 0.0)
    state: Any = MODEL.initial
    # By client: the number, the call, whether it took effect, the answer.
    under_way: dict[int, list[Any]] = {}
    lost: list[Call] = []
    numbers = itertools.count(100)
    begun = 0
    while begun < count or under_way:
        client = rng.randrange(clients)
        if lost and rng.random() < 0.02:
            state, _ = MODEL.apply(state, lost.pop(rng.randrange(len(lost))))
        if client not in under_way:
            if begun < count:
                call = rng.choice(calls)
                if unique and call[0] in ("set", "swap", "add"):
                    call = (call[0], b"%d" % next(numbers))
                under_way[client] = [history.begin(client, b"k", call), call, False, None]
                begun += 1
            continue
        number, call, effective, answer = under_way[client]
        if not effective:
            if rng.random() < unknown:
                history.unknown(number)
                del under_way[client]
                if rng.random() < 0.5:
                    lost.append(call)
                continue
            state, answer = MODEL.apply(state, call)
            under_way[client][2:] = [True, answer]
        else:
            if rng.random() < unknown:
                history.unknown(number)
            else:
                history.ok(number, answer)
            del under_way[client]
    return history.operations()


def changed(operations: Sequence[Operation], at: int, result: Any) -> list[Operation]:
    """Return a history with another answer at one place."""
    found = list(operations)
    found[at] = msgspec.structs.replace(found[at], result=result)
    return found


def linearizable_by_trying_all(operations: Sequence[Operation], until: int = NEVER) -> bool:
    """Return whether any order fits of what was asked until an event: slow, and as the definition says it.

    What is unknown may be left out, and so may what was answered later.
    """
    begun = [each for each in operations if each.start < until]
    required = [each for each in begun if each.outcome is Outcome.OK and each.end <= until]
    optional = [each for each in begun if each.outcome is Outcome.UNKNOWN or each.end > until]
    for size in range(len(optional) + 1):
        for chosen in itertools.combinations(optional, size):
            if any(_fits(order) for order in itertools.permutations([*required, *chosen])):
                return True
    return False


def _fits(order: Sequence[Operation]) -> bool:
    state: Any = MODEL.initial
    latest = -1
    for operation in order:
        latest = max(latest, operation.start)
        if operation.end < latest:
            return False
        state, result = MODEL.apply(state, operation.call)
        if operation.outcome is Outcome.OK and result != operation.result:
            return False
    return True
