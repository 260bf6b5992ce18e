from __future__ import annotations

import errno
import os
import platform
import select
from typing import TYPE_CHECKING

import pytest

from hypercache.persist.kernel_sync import KernelSync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sync() -> Iterator[KernelSync]:
    try:
        sync = KernelSync()
    except OSError as error:
        pytest.skip(f"the kernel refuses: {error}")
    yield sync
    sync.close()


def test_each_sync_of_a_file_ends_and_its_eventfd_tells(sync: KernelSync, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    for number in range(20):
        os.pwrite(descriptor, b"x", number)
        assert select.select([sync.eventfd], [], [], 0)[0] == []
        sync.start(descriptor)
        assert select.select([sync.eventfd], [], [], 10)[0] == [sync.eventfd]
        sync.end()
    os.close(descriptor)


def test_the_end_can_be_waited_for(sync: KernelSync, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, bytes(1 << 20))
    sync.start(descriptor)
    sync.end()
    assert select.select([sync.eventfd], [], [], 0)[0] == []
    os.close(descriptor)


def test_what_cannot_be_synced_is_refused(sync: KernelSync) -> None:
    reading, writing = os.pipe()
    for descriptor in (writing, 1 << 20):
        with pytest.raises(OSError) as refusal:
            sync.start(descriptor)
        assert refusal.value.errno in (errno.EINVAL, errno.EBADF)
    os.close(reading)
    os.close(writing)


def test_a_machine_whose_numbers_are_not_known_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(OSError, match="not implemented"):
        KernelSync()
