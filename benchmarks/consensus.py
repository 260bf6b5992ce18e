"""Puts that three servers agree on, each on its disk first: against etcd and PySyncObj, on the same disk in the same run.

All servers and the client share the machine's cores; each round asks all of them in turn. etcd is asked in two ways, by as many
connections as there are clients and by one connection with as many calls under way, and the better one counts.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import groups, pysyncobj_group
from benchmarks.closed_loop import Load, put_for
from benchmarks.disk import sync_microseconds
from benchmarks.failover import seconds_without_leader
from benchmarks.report import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENTS = (1, 64)
SECONDS = 3.0
_WANTED_OVER_ETCD = {1: 1.5, 64: 3.0}
_WANTED_OVER_PYSYNCOBJ = 5.0
_OUTSTANDING = 64
_KILLS_A_ROUND = 5


class _Way:
    """One way of asking one group, and what it has measured."""

    def __init__(self, group: groups.Group, clients: int, together: int = 1, everywhere: bool = False) -> None:
        self._group = group
        self._clients = clients
        self._together = together
        self._everywhere = everywhere
        self.loads: list[Load] = []
        self.cpu_us: list[float] = []

    def measure(self, seconds: float) -> None:
        """Put for some seconds, at the leader or everywhere."""
        ports = self._group.ports if self._everywhere else [self._group.ports[self._group.leader()]]
        before = self._group.cpu_seconds()
        load = put_for(seconds, ports, self._clients, self._group.dialect, self._together)
        self.loads.append(load)
        # The time to wait for what is under way at the end is in here too; it is short.
        self.cpu_us.append((self._group.cpu_seconds() - before) / (load.per_second * seconds) * 1e6 if load.per_second else 0.0)

    def per_second(self) -> float:
        """Return the median of confirmed puts a second."""
        return median(load.per_second for load in self.loads)


class _Ways:
    """All ways of asking a group."""

    def __init__(self, group: groups.Group, clients: Sequence[int]) -> None:
        self.group = group
        self.connections = {count: _Way(group, count) for count in clients}
        self.everywhere = {count: _Way(group, count, everywhere=True) for count in clients if count > 1}
        self.one_connection = {count: _Way(group, 1, together=count) for count in {*clients, _OUTSTANDING} if count > 1}
        self.without_leader: list[float] = []

    def measure(self, seconds: float) -> None:
        """Ask in each way once."""
        for ways in (self.connections, self.everywhere, self.one_connection):
            for way in ways.values():
                way.measure(seconds)

    def kill_leaders(self, times: int) -> None:
        """Kill leaders, and keep how long there was none."""
        self.without_leader += [seconds_without_leader(self.group) for _ in range(times)]

    def best(self, count: int) -> _Way:
        """Return the better of many connections and of one."""
        ways = [ways[count] for ways in (self.connections, self.one_connection) if count in ways]
        return max(ways, key=_Way.per_second)


def run(rounds: int, quick: bool, clients: Sequence[int] = CLIENTS, seconds: float = SECONDS) -> list[Row]:
    """Return the rows: puts a second against both, failover against etcd, and what explains them.

    Args:
        rounds: whose medians count.
        quick: whether a tenth of the time will do.
        clients: how many of them, in turn.
        seconds: how long they put at a time.
    """
    seconds = seconds / 10 if quick else seconds
    syncs, pysyncobj = [], {way: [0.0] * 0 for way in (pysyncobj_group.WAYS if _has_pysyncobj() else ())}
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory()))
        ours = _Ways(running.enter_context(groups.own(directory)), clients)
        etcd = _Ways(running.enter_context(groups.etcd(directory)), clients) if _has_etcd() else None
        for number in range(rounds):
            syncs.append(sync_microseconds(directory))
            for ways in (ours, etcd) if number % 2 else (etcd, ours):
                if ways:
                    ways.measure(seconds)
            for way, rates in pysyncobj.items():
                place = directory / f"pysyncobj {way} {number}"
                rates.append(pysyncobj_group.puts_per_second(place, way, pysyncobj_group.Order(seconds, _OUTSTANDING)))
        for _ in range(rounds):
            for ways in (ours, etcd):
                if ways:
                    ways.kill_leaders(1 if quick else _KILLS_A_ROUND)
    rows = _etcd_rows(ours, etcd, clients) if etcd else _own_rows(ours, clients)
    rows += _pysyncobj_rows(ours, {way: median(rates) for way, rates in pysyncobj.items()})
    sync = median(syncs)
    return [*rows, Row("fdatasync of 100 bytes, µs; a second", sync, 1e6 / sync, 1.0, None)]


def _etcd_rows(ours: _Ways, etcd: _Ways, clients: Sequence[int]) -> list[Row]:
    rows = []
    for count in clients:
        own, theirs = ours.connections[count], etcd.best(count)
        rows.append(_compared(f"puts/s by {count} clients at the leader, against etcd", own, theirs, _WANTED_OVER_ETCD.get(count)))
        own_ms, etcd_ms = (median(load.median_ms for load in way.loads) for way in (own, theirs))
        rows.append(Row("… median ms a put", own_ms, etcd_ms, own_ms / etcd_ms, None))
        own_ms, etcd_ms = (median(load.p99_ms for load in way.loads) for way in (own, theirs))
        rows.append(Row("… 99th percentile, ms", own_ms, etcd_ms, own_ms / etcd_ms, None))
        own_us, etcd_us = median(own.cpu_us), median(theirs.cpu_us)
        rows.append(Row("… CPU µs a put, all three servers", own_us, etcd_us, own_us / etcd_us, None))
        own_cpu, etcd_cpu = (median(load.cpu for load in way.loads) for way in (own, theirs))
        rows.append(Row("… cores that the clients took", own_cpu, etcd_cpu, own_cpu / etcd_cpu, None))
        if count > 1:
            rows.append(_compared(f"puts/s by {count} clients, each a connection", own, etcd.connections[count], None))
            rows.append(
                _compared("… by one connection, as many under way", ours.one_connection[count], etcd.one_connection[count], None)
            )
            rows.append(_compared("… over all members", ours.everywhere[count], etcd.everywhere[count], None))
    own_ms, etcd_ms = (median(ways.without_leader) * 1e3 for ways in (ours, etcd))
    rows.append(Row("no leader after its death, ms", own_ms, etcd_ms, own_ms / etcd_ms, 1.0, at_most=True))
    own_ms, etcd_ms = (max(ways.without_leader) * 1e3 for ways in (ours, etcd))
    return [*rows, Row("… the longest", own_ms, etcd_ms, own_ms / etcd_ms, None)]


def _own_rows(ours: _Ways, clients: Sequence[int]) -> list[Row]:
    rows = [Row(f"puts/s by {count} clients", ours.connections[count].per_second(), 0.0, 0.0, None) for count in clients]
    return [*rows, Row("no leader after its death, ms", median(ours.without_leader) * 1e3, 0.0, 0.0, None)]


def _pysyncobj_rows(ours: _Ways, theirs: dict[str, float]) -> list[Row]:
    """Compare with the faster of PySyncObj's ways, whose load costs no network: ours comes over one connection."""
    rows = []
    for kind in ("as shipped", "durable"):
        rates = [rate for way, rate in theirs.items() if way.startswith(kind)]
        if rates:
            own = ours.one_connection[_OUTSTANDING].per_second()
            what = f"puts/s, {_OUTSTANDING} outstanding, against PySyncObj, {kind}"
            rows.append(Row(what, own, max(rates), own / max(rates), _WANTED_OVER_PYSYNCOBJ))
            own = ours.connections[_OUTSTANDING].per_second() if _OUTSTANDING in ours.connections else 0.0
            rows.append(Row(f"… ours by {_OUTSTANDING} clients", own, max(rates), own / max(rates), None))
    return rows


def _compared(what: str, own: _Way, other: _Way, wanted: float | None) -> Row:
    ours, theirs = own.per_second(), other.per_second()
    return Row(what, ours, theirs, ours / theirs, wanted)


def _has_etcd() -> bool:
    found = shutil.which(groups.EtcdGroup.PROGRAM) is not None
    if not found:
        print("etcd is left out: please install the Debian package etcd-server")
    return found


def _has_pysyncobj() -> bool:
    found = importlib.util.find_spec("pysyncobj") is not None
    if not found:
        print("PySyncObj is left out: please install it with pip install -e '.[bench]'")
    return found
