"""One directory as the durable parts see it: files that are appended to, and what makes them durable.

What is appended is durable once the file is synced; that a file exists, is gone or has another name, once the directory is. Until
then a crash may keep any part of it, in any order, by whole sectors: one that did not reach the disk reads as zeros where the file
was longer before, or what follows it was kept. `hypercache.testing` has a directory in memory that does just that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

# macOS has neither.
_sync_data: Final = getattr(os, "fdatasync", os.fsync)
_reserve: Final = getattr(os, "posix_fallocate", None)
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_CONTINUE: Final = os.O_WRONLY | os.O_CLOEXEC

SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all."""


class AppendFile(Protocol):
    """A file open for appending. Every call may raise OSError."""

    def append(self, data: bytes) -> None:
        """Add data at the end; where it raises, any part of the data may be there."""

    def sync(self) -> None:
        """Make the content durable; where it raises, nothing is known of what the disk holds of it."""

    def descriptor(self) -> int | None:
        """Return what fdatasync(2) can be called with in the place of `sync`; None where there is no such thing."""

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes, durable with the next sync; what is appended next follows there."""

    def close(self) -> None:
        """Let go of it, without a sync."""


class Disk(Protocol):
    """A directory without subdirectories. Every call may raise OSError; a file that is missing raises FileNotFoundError.

    Several threads may call it at once, for different files.
    """

    @property
    def path(self) -> str:
        """What an operator knows it by."""

    def names(self) -> list[str]:
        """Return the names of the files, in any order."""

    def size(self, name: str) -> int:
        """Return a file's length, bytes."""

    def read(self, name: str, offset: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` from ``offset`` on; fewer only at the end of the file."""

    def create(self, name: str, reserve_bytes: int = 0) -> AppendFile:
        """Open a new file; one of that name is emptied.

        Args:
            name: its name.
            reserve_bytes: how long it may become. Where the file system can, it is made so long now, of zeros that appending
                replaces: a sync then need not write the file's length, which takes half its time.
        """

    def open(self, name: str) -> AppendFile:
        """Open a file to append behind what it holds."""

    def replace(self, old: str, new: str) -> None:
        """Give a file another name at once; one of that name is gone."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def sync(self) -> None:
        """Make names durable: what was created, replaced and removed."""


class DirectoryDisk:
    """A directory of the file system.

    Args:
        directory: the directory; made where it is missing, with its parents.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            _sync_directory(directory.parent)

    @property
    def path(self) -> str:
        """The directory's path."""
        return str(self._directory)

    def names(self) -> list[str]:
        """Return the names of the files, in any order."""
        with os.scandir(self._directory) as found:
            return [entry.name for entry in found if entry.is_file(follow_symlinks=False)]

    def size(self, name: str) -> int:
        """Return a file's length, bytes."""
        return (self._directory / name).stat().st_size

    def read(self, name: str, offset: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` from ``offset`` on; fewer only at the end of the file."""
        descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, max_bytes, offset)
            if len(data) == max_bytes or not data:
                return data
            pieces = [data]
            missing = max_bytes - len(data)
            while missing and data:
                data = os.pread(descriptor, missing, offset + max_bytes - missing)
                pieces.append(data)
                missing -= len(data)
            return b"".join(pieces)
        finally:
            os.close(descriptor)

    def create(self, name: str, reserve_bytes: int = 0) -> AppendFile:
        """Open a new file, as long as ``reserve_bytes`` where that can be had; one of that name is emptied."""
        descriptor = os.open(self._directory / name, _CREATE, 0o600)
        if reserve_bytes and _reserve is not None:
            # A file system that cannot, or a full disk: appending will tell.
            with suppress(OSError):
                _reserve(descriptor, 0, reserve_bytes)
        return _DescriptorFile(descriptor, 0)

    def open(self, name: str) -> AppendFile:
        """Open a file to append behind what it holds."""
        descriptor = os.open(self._directory / name, _CONTINUE)
        return _DescriptorFile(descriptor, os.fstat(descriptor).st_size)

    def replace(self, old: str, new: str) -> None:
        """Give a file another name at once; one of that name is gone."""
        (self._directory / old).replace(self._directory / new)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._directory / name).unlink()

    def sync(self) -> None:
        """Make names durable: what was created, replaced and removed."""
        _sync_directory(self._directory)


class _DescriptorFile:
    def __init__(self, descriptor: int, end: int) -> None:
        self._descriptor = descriptor
        self._end = end

    def append(self, data: bytes) -> None:
        written = os.pwrite(self._descriptor, data, self._end)
        self._end += written
        if written == len(data):
            return
        rest = memoryview(data)[written:]
        while rest:
            written = os.pwrite(self._descriptor, rest, self._end)
            self._end += written
            rest = rest[written:]

    def sync(self) -> None:
        _sync_data(self._descriptor)

    def descriptor(self) -> int:
        return self._descriptor

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._end = size

    def close(self) -> None:
        os.close(self._descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
