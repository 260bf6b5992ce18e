"""The file that a node's keys are in: read strictly, read again when it changes, replaced whole."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from hypercache.auth.credentials import Keyring, key_line, parse_keys
from hypercache.errors import ConfigurationError
from hypercache.limits import CREDENTIALS_CHECK_SECONDS, CREDENTIALS_FILE_MAX_BYTES, MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.auth.credentials import NodeCredential

_log = Logger()
_OF_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
_OF_GROUP: Final = stat.S_IRGRP | stat.S_IWGRP


class KeyFile:
    """The keys of a node, as the file has them now.

    While the node runs, a file that is broken or gone leaves the keys as they were: that is logged once for each change of the
    file. Who rotates keys needs no restart, and a slip of the pen cuts nobody off.

    Args:
        path: the file.
        wall: returns Unix seconds.

    Raises:
        ConfigurationError: the file cannot be used as it is; the text says what to do.
    """

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self.path = path
        self._wall = wall
        self._checked = wall()
        self._state = _state(path)
        self._keys = self._read()

    def current(self) -> Keyring:
        """Return the keys; the file is looked at once a second at most."""
        now = self._wall()
        # The clock may also have been set back.
        if not 0 <= now - self._checked < CREDENTIALS_CHECK_SECONDS:
            self._checked = now
            state = _state(self.path)
            if state != self._state:
                self._state = state
                self._reread()
        return self._keys

    def _reread(self) -> None:
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            _log.error("the keys stay as they were: {reason}", reason=str(error))
        else:
            _log.info("read {count} keys again from {path}", count=len(self._keys), path=self.path)

    def _read(self) -> Keyring:
        keys, mode = read_keys(self.path)
        if mode & _OF_GROUP:
            _log.warn("{path} can be used by its group; unless that is wanted: chmod 600 {path}", path=self.path)
        return keys


def _state(path: Path) -> object:
    """Return what differs when the file is another one, or has been written to, or its permissions have changed."""
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_keys(path: Path) -> tuple[Keyring, int]:
    """Return the keys of a file, and its mode.

    Raises:
        ConfigurationError: it cannot be read, may be read or written by anybody, or is no file of keys.
    """
    data, found = _contents(path)
    keys = parse_keys(data, str(path))
    if not len(keys):
        raise ConfigurationError(f"{path} holds no key; make one with: hypercache keygen {path}")
    return keys, found.st_mode


def held_keys(path: Path) -> Keyring:
    """Return the keys of a file that may have none, or be missing, yet.

    Raises:
        ConfigurationError: as `read_keys`.
    """
    return parse_keys(_contents(path)[0], str(path)) if path.exists() else Keyring(())


def _contents(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        # A pipe in the file's place must not stop the node.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{path} is no file")
            if found.st_mode & _OF_OTHERS:
                raise ConfigurationError(f"{path} can be used by anybody on this machine; keep the keys secret: chmod 600 {path}")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(CREDENTIALS_FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is missing; make it with: hypercache keygen {path}") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > CREDENTIALS_FILE_MAX_BYTES:
        longest = CREDENTIALS_FILE_MAX_BYTES // MIB
        raise ConfigurationError(f"{path} is longer than {longest} MiB; take out keys that are not valid any more")
    return data, found


def add_key(path: Path, credential: NodeCredential) -> Keyring:
    """Append a key to a file; make the file, for its owner alone, where it is missing.

    The file is replaced whole: a node that reads it meanwhile finds the old or the new one. What stood in it stays as it was, and
    so do its owner and who may read it.

    Args:
        path: the file.
        credential: the key.

    Returns:
        All keys of the file.

    Raises:
        ConfigurationError: the file is broken already, has a key of that id or no room, or cannot be written.
    """
    try:
        # The file that a symbolic link names is replaced, not the link.
        path = path.resolve()
        old, found = _contents(path) if path.exists() else (b"", None)
        end = b"\n" if old and not old.endswith(b"\n") else b""
        data = old + end + key_line(credential)
        keys = parse_keys(data, str(path))
        _replace(path, data, found)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    return keys


def _replace(path: Path, data: bytes, found: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - opened by descriptor
            if found is not None:
                if (found.st_uid, found.st_gid) != (os.getuid(), os.getgid()):
                    os.fchown(descriptor, found.st_uid, found.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
