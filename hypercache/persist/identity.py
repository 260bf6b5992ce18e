"""Who a node is: its id, its boot number, its cluster; kept in the data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from hypercache.errors import ConfigurationError

if TYPE_CHECKING:
    import random

FILE_NAME: Final = "identity.json"
_LOCK_NAME: Final = "lock"
_UINT64_MAX: Final = (1 << 64) - 1


_Id = Annotated[int, msgspec.Meta(ge=1)]


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node_id: _Id
    boot: _Id
    cluster_id: Annotated[int, msgspec.Meta(ge=0)]
    clustered: bool = False


class Identity:
    """A node's identity, held open by one process at a time.

    Args:
        directory: the data directory; made where it is missing.
        rng: the source of new ids.
        node_id: the id that the node is set up for; 0 for any.
        expected_cluster: the cluster that it is set up for; 0 for any.

    Attributes:
        node_id: given once, never 0.
        boot: one more at each start.
        cluster_id: 0 while the node belongs to no cluster.
        expected_cluster: as given.
        clustered: whether the cluster has ever had another member.
        is_new: whether the directory was empty of an identity.

    Raises:
        ConfigurationError: the directory cannot be used, is in use, or holds a damaged identity or another one than the node is
            set up for; the text says what to do.
    """

    def __init__(self, directory: Path, rng: random.Random, *, node_id: int = 0, expected_cluster: int = 0) -> None:
        self._path = directory / FILE_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / _LOCK_NAME).open("a")
        except OSError as error:
            raise ConfigurationError(f"the data directory {directory} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ConfigurationError(
                f"the data directory {directory} is in use by another node; give this one its own with --data-dir"
            ) from None
        try:
            stored = self._read()
            _compare("node.id", node_id, stored.node_id if stored else 0, directory)
            _compare("cluster.id", expected_cluster, stored.cluster_id if stored else 0, directory)
        except ConfigurationError:
            self._lock.close()
            raise
        self.is_new = stored is None
        self.node_id = stored.node_id if stored else node_id or rng.randrange(1, _UINT64_MAX)
        self.expected_cluster = expected_cluster
        self.boot = stored.boot + 1 if stored else 1
        self.cluster_id = stored.cluster_id if stored else 0
        self.clustered = stored.clustered if stored else False
        try:
            self._write()
        except ConfigurationError:
            self._lock.close()
            raise

    def adopt_cluster(self, cluster_id: int, *, joined: bool = False) -> None:
        """Belong to a cluster from now on, durably.

        Args:
            cluster_id: which.
            joined: whether others let this node in: it never founds that cluster again.

        Raises:
            ConfigurationError: it cannot be written.
        """
        self.cluster_id = cluster_id
        self.clustered = self.clustered or joined
        self._write()

    def leave_cluster(self) -> None:
        """Belong to no cluster from now on, durably, but expect to be let into the same one again.

        Raises:
            ConfigurationError: it cannot be written.
        """
        self.expected_cluster = self.cluster_id
        self.cluster_id = 0
        self._write()

    def note_members(self) -> None:
        """Know from now on that the cluster has other members, durably.

        Raises:
            ConfigurationError: it cannot be written.
        """
        self.clustered = True
        self._write()

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()

    def _read(self) -> _Stored | None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            return msgspec.json.decode(data, type=_Stored)
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"{self._path} is damaged ({error}); restore it, or empty the data directory to start as a new node"
            ) from None

    def _write(self) -> None:
        # Beside and renamed, both durable, so that a crash leaves the old or the new one, whole.
        data = msgspec.json.encode(_Stored(self.node_id, self.boot, self.cluster_id, self.clustered))
        beside = self._path.with_suffix(".new")
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be written: {error.strerror}") from None


def _compare(setting: str, wanted: int, stored: int, directory: Path) -> None:
    """Hold a setting against what the data directory says; 0 says nothing."""
    if not 0 <= wanted <= _UINT64_MAX:
        raise ConfigurationError(f"{setting} = {wanted} is no id: it must be below 2 to the 64th")
    if wanted and stored and wanted != stored:
        raise ConfigurationError(
            f"{setting} = {wanted}, but {directory} belongs to {stored}; correct the setting, or give the node another --data-dir"
        )
