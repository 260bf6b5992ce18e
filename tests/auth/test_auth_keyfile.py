from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.logger import LogLevel, capturedLogs, formatEvent

from hypercache.auth import keyfile
from hypercache.auth.credentials import key_line
from hypercache.auth.keyfile import KeyFile, add_key, read_keys
from hypercache.errors import ConfigurationError
from tests.auth.handshakes import key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Logged = Callable[[], list[tuple[LogLevel, str]]]


class Wall:
    """A clock that is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.touch(0o600)
    file.write_bytes(key_line(key("a")))
    return file


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Return a function that returns what has been logged."""
    with capturedLogs() as events:
        yield lambda: [(event["log_level"], formatEvent(event)) for event in events]


def ids(file: KeyFile) -> list[str]:
    return [each.key_id for each in file.current()]


def test_a_changed_file_is_read_again_after_a_second(path: Path, wall: Wall, logged: Logged) -> None:
    file = KeyFile(path, wall)
    add_key(path, key("b"))
    wall.now += 0.9
    assert ids(file) == ["a"]
    wall.now += 0.1
    assert ids(file) == ["a", "b"]
    assert logged() == [(LogLevel.info, f"read 2 keys again from {path}")]


def test_the_file_is_looked_at_once_a_second_and_read_only_when_it_has_changed(
    path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = KeyFile(path, wall)
    looked, real = [0], keyfile._state

    def counted(path: Path) -> object:
        looked[0] += 1
        return real(path)

    monkeypatch.setattr(keyfile, "_state", counted)
    monkeypatch.setattr(keyfile, "read_keys", lambda path: pytest.fail("it was read"))
    for _ in range(101):
        file.current()
        wall.now += 0.03125
    assert looked == [3]


def test_a_clock_that_is_set_back_does_not_keep_the_file_from_being_read(path: Path, wall: Wall) -> None:
    file = KeyFile(path, wall)
    add_key(path, key("b"))
    wall.now -= 5000
    assert ids(file) == ["a", "b"]


def test_a_broken_file_is_logged_once_and_the_old_keys_stay(path: Path, wall: Wall, logged: Logged) -> None:
    file = KeyFile(path, wall)
    good = path.read_bytes()
    path.write_bytes(good + b"oops\n")
    for _ in range(5):
        wall.now += 1
        assert ids(file) == ["a"]
    ((level, text),) = logged()
    assert level is LogLevel.error
    assert text.startswith(f"the keys stay as they were: {path}, line 2: ")
    path.write_bytes(good + b"oops again\n")
    wall.now += 1
    assert ids(file) == ["a"]
    assert len(logged()) == 2
    path.write_bytes(good + key_line(key("b")))
    wall.now += 1
    assert ids(file) == ["a", "b"]


def test_a_file_that_is_gone_is_logged_once_and_the_old_keys_stay(path: Path, wall: Wall, logged: Logged) -> None:
    file = KeyFile(path, wall)
    path.unlink()
    for _ in range(5):
        wall.now += 1
        assert ids(file) == ["a"]
    ((_, text),) = logged()
    assert f"{path} is missing; make it with: hypercache keygen {path}" in text
    add_key(path, key("b"))
    wall.now += 1
    assert ids(file) == ["b"]


def test_a_link_that_is_turned_to_another_file_is_a_change(path: Path, wall: Wall, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    file = KeyFile(link, wall)
    other = tmp_path / "other"
    add_key(other, key("b"))
    link.unlink()
    link.symlink_to(other)
    wall.now += 1
    assert ids(file) == ["b"]


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666, 0o777])
def test_a_file_that_anybody_can_use_is_refused(path: Path, wall: Wall, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"^{path} can be used by anybody.*chmod 600 {path}$"):
        KeyFile(path, wall)


def test_permissions_that_are_given_later_are_refused_too(path: Path, wall: Wall, logged: Logged) -> None:
    file = KeyFile(path, wall)
    path.chmod(0o644)
    wall.now += 1
    assert ids(file) == ["a"]
    assert "can be used by anybody" in logged()[0][1]


@pytest.mark.parametrize("mode", [0o640, 0o660])
def test_a_file_that_its_group_can_use_is_warned_of(path: Path, wall: Wall, mode: int, logged: Logged) -> None:
    path.chmod(mode)
    assert ids(KeyFile(path, wall)) == ["a"]
    ((level, text),) = logged()
    assert level is LogLevel.warn
    assert f"{path} can be used by its group" in text


def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path, wall: Wall) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, told in {"": "is no file", "pipe": "is no file", "none": "is missing", "pipe/x": "cannot be read: Not a dir"}.items():
        with pytest.raises(ConfigurationError, match=told):
            KeyFile(tmp_path / name, wall)


@pytest.mark.parametrize("data", [b"", b"\n# nothing\n"])
def test_a_file_without_a_key_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=rf"^{path} holds no key; make one with: hypercache keygen {path}$"):
        read_keys(path)


def test_a_file_that_is_too_long_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile, "CREDENTIALS_FILE_MAX_BYTES", path.stat().st_size)
    read_keys(path)
    monkeypatch.setattr(keyfile, "CREDENTIALS_FILE_MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ConfigurationError, match="is longer than"):
        read_keys(path)


def test_no_descriptor_is_left_open(path: Path, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for each in (path, tmp_path):
        for _ in range(3):
            with contextlib.suppress(ConfigurationError):
                read_keys(each)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestAdding:
    def test_a_new_file_is_its_owners_alone_whatever_the_umask(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            add_key(tmp_path / "new", key("a"))
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600

    @pytest.mark.parametrize("before", [b"", b"# mine\n", b"# mine", b"# mine\n" + key_line(key("x")).rstrip()])
    def test_what_stood_in_the_file_stays(self, tmp_path: Path, before: bytes) -> None:
        path = tmp_path / "keys"
        path.touch(0o640)
        path.write_bytes(before)
        add_key(path, key("a"))
        assert path.read_bytes() == (before.rstrip(b"\n") + b"\n").lstrip(b"\n") + key_line(key("a"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [each.name for each in tmp_path.iterdir()] == ["keys"]

    def test_a_broken_file_is_left_as_it_is(self, path: Path) -> None:
        path.write_bytes(b"oops\n")
        with pytest.raises(ConfigurationError, match="line 1"):
            add_key(path, key("a"))
        assert path.read_bytes() == b"oops\n"

    def test_an_id_that_is_taken_is_refused(self, path: Path) -> None:
        with pytest.raises(ConfigurationError, match="has the id 'a' too"):
            add_key(path, key("a"))
        assert len(read_keys(path)[0]) == 1

    def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
            add_key(path, key("b"))
        assert path.read_bytes() == key_line(key("a"))
        assert list(path.parent.iterdir()) == [path]

    def test_it_is_on_disk_before_it_takes_the_old_ones_place(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[str] = []
        real = os.fsync

        def noted(fd: int) -> None:
            done.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else str(len(read_keys(path)[0])))
            real(fd)

        monkeypatch.setattr(os, "fsync", noted)
        add_key(path, key("b"))
        assert done == ["1", "directory"]

    def test_the_file_behind_a_link_is_replaced_and_the_link_stays(self, path: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(path)
        add_key(link, key("b"))
        assert link.is_symlink()
        assert len(read_keys(path)[0]) == 2

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
    def test_a_file_stays_its_owners(self, path: Path) -> None:
        os.chown(path, 12345, 23456)
        add_key(path, key("b"))
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_hundred_thousand_keys_are_read_in_bounded_time(path: Path) -> None:
    line = key_line(key("a"))
    path.write_bytes(b"".join(line.replace(b'"a"', b'"%d"' % number) for number in range(100_000)))
    began = time.perf_counter()
    assert len(read_keys(path)[0]) == 100_000
    assert time.perf_counter() - began < 5
