"""One of three processes that share a dictionary by PySyncObj; its leader puts values when it is told to.

Run as ``python -m benchmarks.pysyncobj_peer FILE WAY OWN OTHER OTHER``: its log; one of `WAYS`; its address, the others'. The load
is made in the leader's process, which costs PySyncObj no network for it.

PySyncObj writes its log through a memory map and never has it synced: a power cut takes what it has confirmed. In the ways that are
called durable it is made to keep what Raft promises, as the others do: followers sync before they say that they have entries,
the leader before it counts itself, each once for all that came together. A synced vote is not asked of it.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pysyncobj.syncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict
from pysyncobj.journal import FileJournal
from pysyncobj.transport import TCPTransport

from benchmarks.asking import Took, say
from benchmarks.dialects import KEYS_COUNT, VALUE
from benchmarks.pysyncobj_group import WAYS, Answer, Order

if TYPE_CHECKING:
    from collections.abc import Callable

_TICK_SECONDS = 0.001


class Way(msgspec.Struct, frozen=True):
    """How PySyncObj is set up.

    Attributes:
        durable: whether the log is synced.
        together: whether entries are sent once a period; else each at once.
        period_seconds: between heartbeats.
    """

    durable: bool
    together: bool
    period_seconds: float


_WAYS = dict(
    zip(WAYS, (Way(False, False, 0.01), Way(False, True, 0.001), Way(True, False, 0.01), Way(True, True, 0.001)), strict=True)
)
"""Of the periods that were tried those by which it was fastest."""


class _SyncedJournal(FileJournal):
    """The log, which is synced before others rely on it."""

    _unsynced = False

    def add(self, *entry: object) -> None:
        super().add(*entry)
        self._unsynced = True

    def sync(self) -> None:
        """Sync what was added."""
        if self._unsynced:
            self.flush()
            self._unsynced = False


class _SyncingTransport(TCPTransport):
    """Sends no answer to entries before they are synced."""

    journal: _SyncedJournal

    def send(self, node: object, message: dict[str, object]) -> bool:
        if message["type"] == "next_node_idx":
            self.journal.sync()
        return bool(super().send(node, message))


class _Putting:
    """One process' part: takes PySyncObj's turns, and puts values on order."""

    def __init__(self, group: SyncObj, shared: ReplDict, sync: Callable[[], None]) -> None:
        self._group = group
        self._sync = sync
        self._shared = shared
        self._count = 0
        self._under_way = 0
        self._until = 0.0

    def turn(self) -> None:
        """Let PySyncObj do what is to be done: it begins with counting who has the entries, this process among them."""
        self._sync()
        self._group.doTick(_TICK_SECONDS)

    def obey(self, order: Order) -> Answer:
        """Put values for as long as the order says."""
        leads = bool(order.seconds) and self._group._isLeader()
        started, started_cpu = time.perf_counter(), time.process_time()
        self._count, self._until = 0, started + order.seconds
        if leads:
            for _ in range(order.in_flight):
                self._put()
            while self._under_way:
                self.turn()
        took = Took(time.perf_counter() - started, time.process_time() - started_cpu)
        return Answer(self._count, took, leads or self._group._isLeader())

    def _put(self) -> None:
        self._under_way += 1
        self._shared.set(f"key:{self._count % KEYS_COUNT:012}", VALUE, callback=self._done)

    def _done(self, result: object, error: int) -> None:
        self._under_way -= 1
        if error != FAIL_REASON.SUCCESS:
            raise SystemExit(f"PySyncObj refused a command: {error}")
        self._count += 1
        if time.perf_counter() < self._until:
            self._put()


def _putting(file: str, way: Way, own: str, others: list[str]) -> _Putting:
    shared = ReplDict()
    settings = SyncObjConf(
        autoTick=False,
        journalFile=file,
        fullDumpFile=str(Path(file).with_suffix(".dump")),
        appendEntriesUseBatch=way.together,
        appendEntriesPeriod=way.period_seconds,
        raftMinTimeout=1.0,
        raftMaxTimeout=2.0,
    )
    if not way.durable:
        return _Putting(SyncObj(own, others, settings, consumers=[shared]), shared, lambda: None)
    journal = _SyncingTransport.journal = _SyncedJournal(file)
    pysyncobj.syncobj.createJournal = lambda file: journal
    group = SyncObj(own, others, settings, consumers=[shared], transportClass=_SyncingTransport)
    return _Putting(group, shared, journal.sync)


def main() -> None:
    """Run until killed."""
    file, way, own, *others = sys.argv[1:]
    putting = _putting(file, _WAYS[way], own, others)
    say("ready")
    while True:
        putting.turn()
        if select.select([sys.stdin], [], [], 0)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            say(msgspec.json.encode(putting.obey(msgspec.json.decode(line, type=Order))).decode())


if __name__ == "__main__":
    main()
