from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hypercache.errors import ConfigurationError
from hypercache.persist.identity import FILE_NAME, Identity

if TYPE_CHECKING:
    from pathlib import Path


def open_identity(directory: Path) -> Identity:
    return Identity(directory, random.Random(1))


def test_an_identity_is_made_once_and_each_start_has_a_higher_boot_number(tmp_path: Path) -> None:
    first = open_identity(tmp_path / "a" / "b")
    assert (first.is_new, first.boot, first.cluster_id, first.clustered) == (True, 1, 0, False)
    assert 0 < first.node_id < 1 << 64
    first.adopt_cluster(7)
    first.note_members()
    first.close()
    for boot in (2, 3):
        again = open_identity(tmp_path / "a" / "b")
        assert (again.is_new, again.node_id, again.boot) == (False, first.node_id, boot)
        assert (again.cluster_id, again.clustered) == (7, True)
        again.close()


def test_the_boot_number_is_on_disk_before_the_start_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def noted(fd: int) -> None:
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)
    open_identity(tmp_path).close()
    # The file, then the directory that names it.
    assert len(synced) == 2


def test_two_processes_cannot_share_a_data_directory(tmp_path: Path) -> None:
    program = (
        "import random, sys, pathlib; from hypercache.persist.identity import Identity;"
        "held = Identity(pathlib.Path(sys.argv[1]), random.Random()); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigurationError, match=r"in use by another node.*--data-dir"):
            open_identity(tmp_path)
        other.kill()
    open_identity(tmp_path).close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"node_id": 0, "boot": 1, "cluster_id": 0}',
        b'{"node_id": 1, "boot": -1, "cluster_id": 0}',
        b'{"node_id": 1}',
    ],
)
def test_a_damaged_identity_is_refused_by_name_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"{path} is damaged"):
            open_identity(tmp_path)
    assert path.read_bytes() == content


def test_a_full_disk_is_told_and_leaves_the_old_identity_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_identity(tmp_path).close()
    before = (tmp_path / FILE_NAME).read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
            open_identity(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    again = open_identity(tmp_path)
    assert again.boot == 2
    again.close()


def test_a_data_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_identity(path)


def test_a_node_gets_the_id_that_it_is_set_up_for_and_keeps_it(tmp_path: Path) -> None:
    made = Identity(tmp_path, random.Random(1), node_id=77, expected_cluster=5)
    assert (made.node_id, made.cluster_id, made.expected_cluster) == (77, 0, 5)
    made.adopt_cluster(5)
    made.close()
    again = open_identity(tmp_path)
    assert (again.node_id, again.cluster_id) == (77, 5)
    again.close()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"node_id": 78}, r"node\.id = 78, but .* belongs to 77; correct the setting"),
        ({"expected_cluster": 6}, r"cluster\.id = 6, but .* belongs to 5; correct the setting"),
        ({"node_id": 1 << 64}, r"node\.id = \d+ is no id"),
    ],
)
def test_an_id_that_the_data_directory_contradicts_is_refused_and_the_directory_let_go(
    tmp_path: Path, options: dict[str, int], complaint: str
) -> None:
    made = Identity(tmp_path, random.Random(1), node_id=77)
    made.adopt_cluster(5)
    made.close()
    with pytest.raises(ConfigurationError, match=complaint):
        Identity(tmp_path, random.Random(1), **options)
    open_identity(tmp_path).close()
