"""A directory in memory that loses at a crash what was not synced, and fails as disks do (`hypercache.persist.disk.Disk`)."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from hypercache.persist.disk import SECTOR_BYTES
from hypercache.testing.crashes import CrashPoints, SimulatedCrash

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_NOTHING: Final = 1 << 62


class _Content:
    """What a file holds, whatever its name.

    Attributes:
        data: as it is read now.
        durable: as the disk has it.
        low, high: between them, and behind the shorter one's end, the two may differ.
        lost: a sync failed: what the disk has of it does not change any more.
    """

    __slots__ = ("data", "durable", "high", "lost", "low")

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytearray(data)
        self.low, self.high = _NOTHING, 0
        self.lost = False

    def write(self, at: int, data: bytes) -> None:
        end = at + len(data)
        if at == len(self.data):
            self.data += data
        else:
            self.data[at:end] = data
        self.low = min(self.low, at)
        self.high = max(self.high, end)

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.low = min(self.low, size)
        self.high = max(self.high, len(self.durable))

    def sync(self) -> None:
        if self.lost or not self.high:
            return
        del self.durable[len(self.data) :]
        self.durable[self.low : self.high] = self.data[self.low : self.high]
        self.low, self.high = _NOTHING, 0

    def after_crash(self, random: random.Random, keep: float) -> bytes:
        """Return what the disk holds after a crash: nothing that was not synced, all, a beginning, or some of the sectors."""
        if self.lost or not self.high or random.random() >= keep:
            return bytes(self.durable)
        data, durable = self.data, self.durable
        how = random.randrange(3)
        if how == 0:
            return bytes(data)
        if how == 1 and len(data) > len(durable):
            return bytes(data[: random.randrange(len(durable), len(data) + 1)])
        kept = bytearray(durable)
        for start in range(self.low // SECTOR_BYTES * SECTOR_BYTES, min(self.high, len(data)), SECTOR_BYTES):
            if random.random() < 0.5:
                end = min(start + SECTOR_BYTES, len(data))
                kept += bytes(max(start - len(kept), 0))
                kept[start:end] = data[start:end]
        return bytes(kept)


class SimulatedDisk:
    """A directory in memory.

    Args:
        points: passed before and after every change: ``"append log"`` before bytes are added to ``log-…``, ``"append log done"``
            after; likewise create, open, sync, truncate, replace, remove, and ``"sync directory"``.
        capacity: how many bytes all files hold together; None for any number.

    Attributes:
        points: as given.
        capacity: as given; may be changed at any time.
        full: whether nothing can be written, not even where a place was reserved.
        fail_syncs: how many of the next syncs of files raise EIO; nothing is written to those files any more.
        writes, syncs: how often something was appended, and synced.
    """

    def __init__(self, points: CrashPoints | None = None, capacity: int | None = None) -> None:
        self.points = points or CrashPoints()
        self.capacity = capacity
        self.full = False
        self.fail_syncs = 0
        self.writes = self.syncs = 0
        self._dead = False
        self._names: dict[str, _Content] = {}
        self._durable_names: dict[str, _Content] = {}
        # What the directory does not have durably yet: changes of names, in order.
        self._renamings: list[Callable[[dict[str, _Content]], None]] = []

    @property
    def path(self) -> str:
        """What it is called in errors."""
        return "simulated"

    # What reads

    def names(self) -> list[str]:
        """Return the names of the files."""
        self._require_life()
        return list(self._names)

    def size(self, name: str) -> int:
        """Return a file's length, bytes."""
        return len(self._content(name).data)

    def read(self, name: str, offset: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` from ``offset`` on."""
        return bytes(self._content(name).data[offset : offset + max_bytes])

    # What changes something

    def create(self, name: str, reserve_bytes: int = 0) -> SimulatedFile:
        """Open a new file, as long as ``reserve_bytes`` where they fit; one of that name is emptied."""
        kind = kind_of(name)
        self.reach(f"create {kind}")
        if self.full or self.room <= 0:
            raise _no_space()
        content = self._names.get(name)
        if content is None:
            content = self._names[name] = _Content()
            self._renamings.append(partial(_add, name, content))
        else:
            content.truncate(0)
        if reserve_bytes <= self.room:
            content.write(0, bytes(reserve_bytes))
        self.points.reach(f"create {kind} done")
        return SimulatedFile(self, content, kind, 0)

    def open(self, name: str) -> SimulatedFile:
        """Open a file to append behind what it holds."""
        kind = kind_of(name)
        self.reach(f"open {kind}")
        content = self._content(name)
        return SimulatedFile(self, content, kind, len(content.data))

    def replace(self, old: str, new: str) -> None:
        """Give a file another name."""
        kind = kind_of(new)
        self.reach(f"replace {kind}")
        content = self._content(old)
        del self._names[old]
        self._names[new] = content
        self._renamings.append(partial(_rename, old, new, content))
        self.points.reach(f"replace {kind} done")

    def remove(self, name: str) -> None:
        """Remove a file."""
        kind = kind_of(name)
        self.reach(f"remove {kind}")
        self._content(name)
        del self._names[name]
        self._renamings.append(partial(_drop, name))
        self.points.reach(f"remove {kind} done")

    def sync(self) -> None:
        """Make names durable."""
        self.reach("sync directory")
        self._durable_names = dict(self._names)
        self._renamings.clear()
        self.points.reach("sync directory done")

    # What goes wrong

    @property
    def clean(self) -> bool:
        """Whether all that is there is there durably; what is removed, or a part of a file to be, does not matter."""
        durable = self._durable_names
        for name, content in self._names.items():
            if (content.high or content.lost or durable.get(name) is not content) and not name.endswith(".part"):
                return False
        return True

    def crash(self, random: random.Random, *, keep: float = 0.5) -> SimulatedDisk:
        """Return what a crash leaves; this one is dead: whatever is asked of it raises `SimulatedCrash`.

        Args:
            random: decides what is kept of what was not synced.
            keep: how likely it is that something is.
        """
        self._dead = True
        names = dict(self._durable_names)
        if self._renamings and random.random() < keep:
            ordered = random.random() < 0.5
            upto = random.randrange(len(self._renamings) + 1)
            for at, change in enumerate(self._renamings):
                if at < upto if ordered else random.random() < 0.5:
                    change(names)
        survivor = SimulatedDisk(self.points, self.capacity)
        for name, content in names.items():
            survivor._names[name] = _Content(content.after_crash(random, keep))
        survivor._durable_names = dict(survivor._names)
        return survivor

    def damage(self, name: str, offset: int, flip: int = 1) -> None:
        """Flip bits of a byte, as a bad disk does."""
        content = self._content(name)
        content.data[offset] ^= flip
        content.durable[offset] ^= flip

    @property
    def room(self) -> int:
        """How many bytes still fit."""
        if self.capacity is None:
            return _NOTHING
        return self.capacity - sum(len(content.data) for content in self._names.values())

    def _content(self, name: str) -> _Content:
        self._require_life()
        content = self._names.get(name)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return content

    def reach(self, name: str) -> None:
        """Pass a point of this disk."""
        self._require_life()
        self.points.reach(name)

    def _require_life(self) -> None:
        if self._dead:
            raise SimulatedCrash("the node is dead")


class SimulatedFile:
    """A file open for appending.

    Args:
        disk: its disk.
        content: what it holds.
        kind: what its points are called.
        end: where it is appended to.
    """

    __slots__ = ("_append", "_append_done", "_content", "_disk", "_end", "_kind", "_sync", "_sync_done")

    def __init__(self, disk: SimulatedDisk, content: _Content, kind: str, end: int) -> None:
        self._disk = disk
        self._content = content
        self._end = end
        self._kind = kind
        self._append, self._append_done = f"append {kind}", f"append {kind} done"
        self._sync, self._sync_done = f"sync {kind}", f"sync {kind} done"

    def append(self, data: bytes) -> None:
        """Add data; on a disk that is full, a part of it."""
        disk = self._disk
        disk.reach(self._append)
        content = self._content
        if disk.full or (disk.capacity is not None and self._end + len(data) - len(content.data) > disk.room):
            fits = len(data) // 2 if disk.full else disk.room
            content.write(self._end, data[: max(fits, 0)])
            raise _no_space()
        content.write(self._end, data)
        self._end += len(data)
        disk.writes += 1
        disk.points.reach(self._append_done)

    def sync(self) -> None:
        """Make the content durable."""
        disk = self._disk
        disk.reach(self._sync)
        if disk.fail_syncs:
            disk.fail_syncs -= 1
            self._content.lost = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._content.sync()
        disk.syncs += 1
        disk.points.reach(self._sync_done)

    def descriptor(self) -> None:
        """Return nothing: the kernel knows no such file."""

    def truncate(self, size: int) -> None:
        """Cut the file."""
        self._disk.reach(f"truncate {self._kind}")
        self._content.truncate(size)
        self._end = size
        self._disk.points.reach(f"truncate {self._kind} done")

    def close(self) -> None:
        """Let go of it."""


def kind_of(name: str) -> str:
    """Return what a file is, without its numbers: ``log`` for ``log-7.hc``, ``snapshot.part`` for ``snapshot-3-1.hc.part``."""
    return name.partition("-")[0].partition(".")[0] + (".part" if name.endswith(".part") else "")


def _add(name: str, content: _Content, names: dict[str, _Content]) -> None:
    names[name] = content


def _rename(old: str, new: str, content: _Content, names: dict[str, _Content]) -> None:
    if names.get(old) is content:
        del names[old]
    names[new] = content


def _drop(name: str, names: dict[str, _Content]) -> None:
    names.pop(name, None)


def _no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
