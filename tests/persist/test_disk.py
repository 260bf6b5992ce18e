from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from hypercache.persist.disk import DirectoryDisk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def disk(tmp_path: Path) -> DirectoryDisk:
    return DirectoryDisk(tmp_path / "made" / "too")


def test_what_is_appended_is_read(disk: DirectoryDisk) -> None:
    file = disk.create("a")
    file.append(b"one")
    file.append(b"two")
    file.sync()
    disk.sync()
    assert disk.read("a", 0, 100) == b"onetwo"
    assert disk.read("a", 2, 2) == b"et"
    assert disk.read("a", 6, 2) == b""
    assert disk.size("a") == 6
    file.close()


def test_what_is_reserved_reads_as_zeros_until_it_is_appended(disk: DirectoryDisk) -> None:
    file = disk.create("a", 100)
    file.append(b"one")
    assert disk.read("a", 0, 1000).rstrip(b"\0") == b"one"
    file.truncate(3)
    file.append(b"two")
    assert disk.read("a", 0, 1000) == b"onetwo"
    file.close()


def test_a_file_is_continued_at_its_end_and_where_it_was_cut(disk: DirectoryDisk) -> None:
    disk.create("a").close()
    file = disk.open("a")
    file.append(b"one")
    file.close()
    file = disk.open("a")
    file.append(b"two")
    file.truncate(4)
    file.append(b"!")
    assert disk.read("a", 0, 100) == b"onet!"
    file.close()


def test_creating_empties_and_replacing_replaces(disk: DirectoryDisk) -> None:
    for name in ("a", "b", "a"):
        file = disk.create(name)
        file.append(name.encode() * 2)
        file.close()
    disk.replace("a", "b")
    assert disk.names() == ["b"]
    assert disk.read("b", 0, 100) == b"aa"
    disk.remove("b")
    assert disk.names() == []


def test_subdirectories_are_no_files(disk: DirectoryDisk, tmp_path: Path) -> None:
    (tmp_path / "made" / "too" / "lost+found").mkdir()
    assert disk.names() == []


@pytest.mark.parametrize("call", ["open", "size", "remove"])
def test_a_missing_file_is_an_error(disk: DirectoryDisk, call: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(disk, call)("missing")


def test_a_short_write_is_gone_on_with(disk: DirectoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: pwrite(descriptor, bytes(data)[:7], at))
    file = disk.create("a")
    file.append(b"0123456789" * 3)
    assert disk.read("a", 0, 100) == b"0123456789" * 3
    file.close()


def test_a_short_read_is_gone_on_with(disk: DirectoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = disk.create("a")
    file.append(b"0123456789" * 3)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, at: pread(descriptor, min(size, 7), at))
    assert disk.read("a", 1, 100) == (b"0123456789" * 3)[1:]
    assert disk.read("a", 1, 20) == (b"0123456789" * 3)[1:21]
    file.close()


def test_a_file_system_that_cannot_reserve_does_without(disk: DirectoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("hypercache.persist.disk._reserve", refuse)
    file = disk.create("a", 100)
    assert disk.size("a") == 0
    file.close()
