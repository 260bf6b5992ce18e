"""A node's state machine and storage, with somebody who watches what they are told to do."""

from __future__ import annotations

import struct
import zlib
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol

from hypercache.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hypercache.consensus.contracts import StateMachine, Storage
    from hypercache.raft import Ready, SnapshotMeta
    from hypercache.testing.crashes import CrashPoints

_HEAD: Final = struct.Struct(">QB")
_DIGEST: Final = struct.Struct(">I")
_PREPARED: Final = 1


class Watcher(Protocol):
    """Who is told (`hypercache.testing.invariants`)."""

    def prepared(self, node: int, number: int, already: bool) -> None:
        """A node prepares a proposal."""

    def applied(self, node: int, index: int, number: int, prepared: bool) -> None:
        """A node applies a proposal."""

    def adopted(self, node: int) -> None:
        """A node takes over a snapshot's state."""

    def writing(self, node: int, readies: Sequence[Ready]) -> None:
        """A node's storage is about to write."""

    def unwritten(self, node: int, readies: Sequence[Ready]) -> None:
        """A node's storage could not write."""

    def written(self, node: int, readies: Sequence[Ready]) -> None:
        """A node's storage has written, and says that it is durable."""


def numbered(number: int, data: bytes) -> bytes:
    """Return a proposal's data for a `WatchedMachine`: every proposal has another number."""
    return _HEAD.pack(number, 0) + data


class WatchedMachine:
    """A state machine that is told every proposal once, in order, and after `prepare`: what breaks that is reported.

    Args:
        machine: the state machine.
        node: whose it is.
        watcher: who is told.
        points: passed before and after `apply`, `freeze` and `adopt`.

    Attributes:
        machine: as given.
        digest: of all that was applied, in its order; two machines with the same digest are the same.
    """

    def __init__(self, machine: StateMachine, node: int, watcher: Watcher, points: CrashPoints) -> None:
        self.machine = machine
        self.digest = 0
        self._node = node
        self._watcher = watcher
        self._points = points

    def prepare(self, data: bytes) -> bytes:
        """Let the machine prepare, and mark that."""
        number, marks = _HEAD.unpack_from(data)
        self._watcher.prepared(self._node, number, bool(marks & _PREPARED))
        return _HEAD.pack(number, marks | _PREPARED) + self.machine.prepare(data[_HEAD.size :])

    def apply(self, index: int, client_id: int, data: bytes) -> bytes:
        """Let the machine apply."""
        self._points.reach("apply")
        number, marks = _HEAD.unpack_from(data)
        self._watcher.applied(self._node, index, number, bool(marks & _PREPARED))
        self.digest = zlib.crc32(data, self.digest + index & 0xFFFFFFFF)
        answer = self.machine.apply(index, client_id, data[_HEAD.size :])
        self._points.reach("apply done")
        return answer

    def membership_changed(self, index: int, voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
        """Pass it on."""
        self.machine.membership_changed(index, voters, learners)

    def knows(self, client_id: int) -> bool:
        """Pass it on."""
        return self.machine.knows(client_id)

    def take_forgotten(self) -> tuple[int, ...]:
        """Pass it on."""
        return self.machine.take_forgotten()

    def freeze(self) -> Iterable[bytes]:
        """Return the digest, then the machine's pieces."""
        self._points.reach("freeze")
        return chain((_DIGEST.pack(self.digest),), self.machine.freeze())

    def load(self, stream: Iterable[bytes]) -> tuple[int, Any]:
        """Return digest and state."""
        self._points.reach("load")
        pieces = iter(stream)
        head = b""
        while len(head) < _DIGEST.size:
            head += next(pieces)
        (digest,) = _DIGEST.unpack_from(head)
        return digest, self.machine.load(chain((head[_DIGEST.size :],), pieces))

    def adopt(self, loaded: tuple[int, Any]) -> None:
        """Take both over."""
        self._points.reach("adopt")
        self._watcher.adopted(self._node)
        self.digest = loaded[0]
        self.machine.adopt(loaded[1])
        self._points.reach("adopt done")


class WatchedStorage:
    """A storage whose writes are reported.

    Args:
        storage: the storage.
        node: whose it is.
        watcher: who is told.
        points: passed before and after each call.
    """

    def __init__(self, storage: Storage, node: int, watcher: Watcher, points: CrashPoints) -> None:
        self._storage = storage
        self._node = node
        self._watcher = watcher
        self._points = points
        self.read = storage.read

    def write(self, readies: Sequence[Ready]) -> None:
        """Write readies."""
        self._points.reach("write")
        self._watcher.writing(self._node, readies)
        try:
            self._storage.write(readies)
        except StorageError:
            self._watcher.unwritten(self._node, readies)
            raise
        self._watcher.written(self._node, readies)
        self._points.reach("write done")

    def append(self, readies: Sequence[Ready]) -> None:
        """Write nothing: the simulated journal has no kernel to help it."""

    def synced(self, error: BaseException | None) -> None:
        """Nothing was appended."""

    def save_snapshot(self, snapshot: SnapshotMeta, stream: Iterable[bytes]) -> None:
        """Save a snapshot."""
        self._points.reach("save snapshot")
        self._storage.save_snapshot(snapshot, stream)
        self._points.reach("save snapshot done")

    def load_snapshot(self) -> Iterator[bytes]:
        """Return the newest snapshot's pieces."""
        self._points.reach("load snapshot")
        return self._storage.load_snapshot()

    def compact(self, index: int) -> None:
        """Free what is covered by a snapshot."""
        self._points.reach("compact")
        self._storage.compact(index)
        self._points.reach("compact done")
