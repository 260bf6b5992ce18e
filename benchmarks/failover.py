"""How long a group confirms nothing when its leader is killed: clients try all members again and again."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING

from benchmarks.dialects import RefusedError

if TYPE_CHECKING:
    from benchmarks.dialects import Dialect
    from benchmarks.groups import Group

_TRY_EVERY_SECONDS = 0.02
_GIVE_UP_SECONDS = 1.0
_LOAD_BEFORE_SECONDS = 0.5
_DEADLINE_SECONDS = 30.0


class _Try:
    """One put on a connection of its own, so that it waits for no other."""

    def __init__(self, port: int, dialect: Dialect, number: int) -> None:
        self.sent_at = time.perf_counter()
        self.socket = socket.create_connection(("127.0.0.1", port), _GIVE_UP_SECONDS)
        self._dialect = dialect
        self.socket.sendall(dialect.greeting + dialect.put(number))

    def confirmed(self) -> bool:
        """Take what came.

        Raises:
            RefusedError, OSError: the put has failed, or nobody knows.
        """
        data = self.socket.recv(4096)
        if not data:
            raise ConnectionError
        count, answer = self._dialect.received(data)
        self.socket.sendall(answer)
        return bool(count)


def seconds_without_leader(group: Group) -> float:
    """Kill the leader under light load; return how long it took until a put was confirmed that was sent after that."""
    leader = group.leader()
    trying = _Trying(group)
    try:
        trying.until(time.perf_counter() + _LOAD_BEFORE_SECONDS, None)
        killed_at = time.perf_counter()
        group.kill(leader)
        confirmed_at = trying.until(killed_at + _DEADLINE_SECONDS, killed_at)
    finally:
        trying.end()
    if confirmed_at is None:
        raise SystemExit(f"nothing was confirmed within {_DEADLINE_SECONDS:g} s after a leader was killed")
    group.restart(leader)
    return confirmed_at - killed_at


class _Trying:
    """Sends a put every few milliseconds, to each member in turn."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._poller = select.epoll()
        self._tries: dict[int, _Try] = {}
        self._number = 0
        self._next_at = time.perf_counter()

    def until(self, deadline: float, sent_after: float | None) -> float | None:
        """Try until a put that was sent after a moment is confirmed, and return when that was; None at the deadline."""
        while (now := time.perf_counter()) < deadline:
            if now >= self._next_at:
                self._next_at = now + _TRY_EVERY_SECONDS
                self._try_next()
            for number, _ in self._poller.poll(max(0.0, self._next_at - time.perf_counter())):
                sent_at = self._tries[number].sent_at
                if self._confirmed(number) and sent_after is not None and sent_at > sent_after:
                    return time.perf_counter()
        return None

    def _try_next(self) -> None:
        for number in [number for number, each in self._tries.items() if time.perf_counter() - each.sent_at > _GIVE_UP_SECONDS]:
            self._forget(number)
        self._number += 1
        with contextlib.suppress(OSError):
            each = _Try(self._group.ports[self._number % len(self._group.ports)], self._group.dialect(), self._number)
            self._tries[each.socket.fileno()] = each
            self._poller.register(each.socket, select.EPOLLIN)

    def _confirmed(self, number: int) -> bool:
        try:
            confirmed = self._tries[number].confirmed()
        except (RefusedError, OSError):
            self._forget(number)
            return False
        if confirmed:
            self._forget(number)
        return confirmed

    def _forget(self, number: int) -> None:
        each = self._tries.pop(number)
        self._poller.unregister(each.socket)
        each.socket.close()

    def end(self) -> None:
        """Close what is open."""
        for each in self._tries.values():
            each.socket.close()
        self._poller.close()
