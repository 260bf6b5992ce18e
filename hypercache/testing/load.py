"""Clients that write and read cells, and see whether what they are answered is linearizable.

The log orders all writes, and the state machine is held to it elsewhere. So an answer is right if what it shows is at least as new
as all that anybody was answered before it was asked for: versions only grow. That costs nothing and misses nothing; the checker
of `hypercache.testing.linearizability`, which trusts no versions, takes `CellLoad.operations`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from hypercache.errors import BusyError, NotLeaderError
from hypercache.testing.cells import CellAnswer, CellOperation, cell_answer, cell_command
from hypercache.testing.histories import NEVER, Operation, Outcome

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from hypercache.testing.cells import Cells
    from hypercache.testing.group import SimulatedGroup
    from hypercache.testing.histories import Call


class CellEvent(msgspec.Struct):
    """One operation of a client.

    Attributes:
        client: whose.
        node: which node was asked.
        operation: what; None for a read without an entry in the log.
        key, value, expected: its arguments.
        asked: when, seconds.
        floor: the newest version that anybody was shown before.
        start: the place of the asking among all events of the load.
        ended: when it was answered; infinity where it was not.
        end: the place of the answer.
        answer: what it was answered; None where nothing is known.
        done: False where it certainly did not happen.
    """

    client: int
    node: int
    operation: CellOperation | None
    key: int
    value: int
    expected: int
    asked: float
    floor: int
    start: int
    ended: float = inf
    end: int = NEVER
    answer: CellAnswer | None = None
    done: bool = True


class CellLoad:
    """Clients, each with one operation at a time.

    Args:
        group: whom they ask; its state machines are `Cells`.
        clients: how many.
        keys: how many cells.
        think_seconds: how long a client waits between an answer and its next operation, on the average.

    Attributes:
        history: all operations.
        answered: how many were answered.
    """

    def __init__(self, group: SimulatedGroup, clients: int = 4, keys: int = 3, think_seconds: float = 0.6) -> None:
        self.history: list[CellEvent] = []
        self.answered = 0
        self._group = group
        self._keys = keys
        self._think_seconds = think_seconds
        self._clients = clients
        self._stopped = False
        self._values = 0
        self._places = 0
        self._floors = [0] * keys
        self._shown = [0] * keys
        self._written: dict[int, tuple[int, int]] = {}

    def start(self) -> None:
        """Let them begin."""
        for client in range(self._clients):
            self._later(client)

    def stop(self) -> None:
        """Let them ask nothing more."""
        self._stopped = True

    def _later(self, client: int) -> None:
        group = self._group
        group.clock.schedule(group.random.expovariate(1.0) * self._think_seconds, self._ask, client)

    def _ask(self, client: int) -> None:
        if self._stopped:
            return
        random = self._group.random
        nodes = [node.id for node in self._group.nodes.values() if node.alive]
        if not nodes:
            self._later(client)
            return
        key = random.randrange(self._keys)
        node = nodes[random.randrange(len(nodes))]
        chance = random.random()
        operation = None
        if chance < 0.45:
            operation = CellOperation.SET
        elif chance < 0.55:
            operation = CellOperation.CAS
        elif chance < 0.6:
            operation = CellOperation.GET
        self.ask(client, node, operation, key).addBoth(lambda _: self._later(client))

    def ask(self, client: int, node: int, operation: CellOperation | None, key: int) -> Deferred[Any]:
        """Let a client do one operation; fires when it has ended, whatever came of it."""
        group = self._group
        self._values += 1
        expected, floor, now = self._shown[key], self._floors[key], group.clock.seconds()
        event = CellEvent(client, node, operation, key, self._values, expected, now, floor, self._place())
        self.history.append(event)
        if operation is None:
            return group.read(node).addCallbacks(self._may_read, self._failed, (event,), {}, (event,))
        command = cell_command(operation, key, event.value, event.expected)
        return group.propose(node, command).addCallbacks(self._told, self._failed, (event,), {}, (event,))

    def operations(self) -> list[Operation]:
        """Return the history for the checker; a cell that was never written holds nothing."""
        return [_operation(event) for event in self.history]

    def _place(self) -> int:
        self._places += 1
        return self._places

    def _may_read(self, _: None, event: CellEvent) -> None:
        cells: Cells = self._group.nodes[event.node].machine.machine  # type: ignore[assignment]
        self._check(event, cells.get(event.key))

    def _told(self, data: bytes, event: CellEvent) -> None:
        self._check(event, cell_answer(data))

    def _failed(self, failure: Failure, event: CellEvent) -> None:
        event.done = not isinstance(failure.value, BusyError | NotLeaderError)

    def _check(self, event: CellEvent, answer: CellAnswer) -> None:
        event.answer = answer
        event.ended, event.end = self._group.clock.seconds(), self._place()
        self.answered += 1
        key, version = event.key, answer.version
        broken = self._group.invariants.broken
        if event.operation in (CellOperation.SET, CellOperation.CAS) and answer.done:
            if answer.value != event.value or version <= event.floor:
                broken(f"not linearizable: {event} was answered with a version that is not newer")
        elif version < event.floor:
            broken(f"not linearizable: {event} was answered with an older version than {event.floor}")
        if version and self._written.setdefault(version, (key, answer.value)) != (key, answer.value):
            broken(f"not linearizable: {event} shows another value than {self._written[version]}")
        if version > self._floors[key]:
            self._floors[key] = version
            self._shown[key] = answer.value


def _operation(event: CellEvent) -> Operation:
    answer = event.answer
    outcome = Outcome.OK if answer is not None else Outcome.UNKNOWN if event.done else Outcome.FAILED
    call: Call = ("get",)
    result: Any = answer and _bytes(answer.value)
    if event.operation is CellOperation.SET:
        call, result = ("set", _bytes(event.value)), True
    elif event.operation is CellOperation.CAS:
        call, result = ("cas", _bytes(event.expected), _bytes(event.value)), answer and answer.done
    return Operation(event.client, event.key, call, outcome, result, event.start, event.end, event.asked, event.ended)


def _bytes(value: int) -> bytes | None:
    return b"%d" % value if value else None
