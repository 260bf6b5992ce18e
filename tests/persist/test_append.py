"""What the loop writes itself is what `write` would have written, and leaves to `write` what would take long."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from hypercache.errors import DiskFullError, StorageError
from hypercache.limits import RAFT_LOOP_WRITE_MAX_BYTES
from hypercache.persist.disk import AppendFile, DirectoryDisk
from hypercache.persist.tail import AMBIGUOUS
from hypercache.raft import HardState, SnapshotMeta
from hypercache.testing.disk import SimulatedDisk
from tests.persist.kept import MEMBERS, chunks_of, entry, ready, reopen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hypercache.raft import Ready


class FailingDisk(DirectoryDisk):
    """A directory whose files, once `error` is set, take half of what is appended and fail."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.error: OSError | None = None

    def create(self, name: str, reserve_bytes: int = 0) -> AppendFile:
        file = super().create(name, reserve_bytes)
        append = file.append

        def failing(data: bytes) -> None:
            if self.error is None:
                append(data)
            else:
                append(data[: len(data) // 2])
                raise self.error

        file.append = failing  # type: ignore[method-assign]
        return file


def one(index: int, data: bytes | str = "x", term: int = 1) -> list[Ready]:
    return [ready(index, entry(term, data), state=(term, 0, index - 1))]


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_it_comes_to_the_same_as_write(tmp_path: Path) -> None:
    appended, written = tmp_path / "appended", tmp_path / "written"
    batches = [
        [ready(1, entry(2, "a"), entry(2, "b"), state=(2, 8, 0)), ready(3, entry(2, "c"), state=(2, 8, 2))],
        [ready(state=(3, 7, 2))],
        [ready(2, entry(3, "B"), state=(3, 7, 2))],
        one(3, "C", 3),
    ]
    storage, _ = reopen(DirectoryDisk(appended))
    other, _ = reopen(DirectoryDisk(written))
    for batch in batches:
        descriptor = storage.append(batch)
        assert descriptor is not None
        os.fdatasync(descriptor)
        storage.synced(None)
        other.write(batch)
    assert content(appended) == content(written)
    _, recovered = reopen(DirectoryDisk(appended))
    assert recovered.hard_state == HardState(3, 0, 2)
    assert [each.data for each in recovered.entries] == [b"a", b"B", b"C"]


def test_what_is_large_is_left_to_write(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path), 1 << 22)
    before = content(tmp_path)
    assert storage.append(one(1, bytes(RAFT_LOOP_WRITE_MAX_BYTES + 1))) is None
    assert content(tmp_path) == before
    assert storage.append(one(1, b"x" * RAFT_LOOP_WRITE_MAX_BYTES)) is not None


def test_a_snapshot_and_its_pieces_are_left_to_write(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path))
    meta = SnapshotMeta(5, 1, MEMBERS)
    whole = ready(state=(1, 0, 0), snapshot=meta)
    assert storage.append([whole]) is None
    (chunk,) = chunks_of(meta, b"state")
    assert storage.append([type(whole)(number=1, chunks=(chunk,))]) is None
    storage.write([whole])
    assert storage.append(one(6)) is not None


def test_a_batch_that_a_torn_one_could_look_like_is_left_to_write(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path))
    before = content(tmp_path)
    assert storage.append(one(1, AMBIGUOUS)) is None
    assert content(tmp_path) == before
    storage.write(one(1, AMBIGUOUS))
    assert storage.append(one(2)) is not None


def test_the_next_segment_is_left_to_write(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path), 4096)
    index = 1
    while storage.append(one(index, b"x" * 100)) is not None:
        index += 1
    assert index > 10
    storage.write(one(index, b"x" * 100))
    assert len(content(tmp_path)) == 2
    assert storage.append(one(index + 1)) is not None
    assert len(reopen(DirectoryDisk(tmp_path), 4096)[1].entries) == index + 1


def test_where_the_disk_has_no_descriptors_all_is_left_to_write() -> None:
    storage, _ = reopen(SimulatedDisk())
    assert storage.append(one(1)) is None
    storage.write(one(1))


def test_nothing_to_write_is_left_to_write(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path))
    assert storage.append([]) is None


def test_while_a_snapshot_is_saved_all_is_left_to_write(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path))
    storage.write(one(1))
    begun, go = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        begun.set()
        assert go.wait(10)
        yield b"state"

    saving = threading.Thread(target=storage.save_snapshot, args=(SnapshotMeta(1, 1, MEMBERS), pieces()))
    saving.start()
    assert begun.wait(10)
    assert storage.append(one(2)) is None
    go.set()
    saving.join()
    assert storage.append(one(2)) is not None


def test_on_a_full_disk_nothing_of_it_stays_and_write_says_so(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    storage, _ = reopen(disk)
    storage.write(one(1))
    disk.error = OSError(errno.ENOSPC, "on purpose")
    assert storage.append(one(2)) is None
    with pytest.raises(DiskFullError):
        storage.write(one(2))
    disk.error = None
    assert storage.append(one(2, "now")) is not None
    assert [each.data for each in reopen(DirectoryDisk(tmp_path))[1].entries] == [b"x", b"now"]


def test_a_disk_that_fails_ends_it(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    storage, _ = reopen(disk)
    disk.error = OSError(errno.EIO, "on purpose")
    with pytest.raises(StorageError, match="on purpose"):
        storage.append(one(1))
    disk.error = None
    with pytest.raises(StorageError, match="failed earlier"):
        storage.append(one(1))


def test_a_sync_that_fails_ends_it(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path))
    assert storage.append(one(1)) is not None
    with pytest.raises(StorageError, match="on purpose"):
        storage.synced(OSError(errno.EIO, "on purpose"))
    with pytest.raises(StorageError, match="failed earlier"):
        storage.write(one(2))


def test_nothing_is_appended_to_what_is_closed(tmp_path: Path) -> None:
    storage, _ = reopen(DirectoryDisk(tmp_path))
    storage.close()
    with pytest.raises(StorageError, match="closed"):
        storage.append(one(1))
