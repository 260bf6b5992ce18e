"""What a node agrees on with others, wired: the control plane, the stores of level raft, the way of commands to both."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercache.cluster.control_plane import ControlPlane
from hypercache.cluster.gateway import Gateway
from hypercache.cluster.machine import ClusterMachine
from hypercache.cluster.named_members import NamedMembers
from hypercache.cluster.named_stores import ClusterStores
from hypercache.cluster.raft_stores import RaftStores
from hypercache.cluster.raft_upkeep import RaftUpkeep
from hypercache.control.machine import ControlMachine
from hypercache.persist.disk import DirectoryDisk
from hypercache.persist.journal import JournalThread, make_journal

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from hypercache.config import Settings
    from hypercache.control.state import ControlState
    from hypercache.persist.identity import Identity
    from hypercache.store import EvictionPolicy, Keyspace

LOG_DIRECTORY = "raft"
"""Where in the data directory the log is."""


class Agreement:
    """A node's share in what all agree on.

    Args:
        settings: how the node is set up.
        identity: who it is.
        keyspace: its stores.
        policies: the eviction policies by name.
        reactor: runs it.
        rng: for cluster ids, election timeouts, and the luck of commands.
        report_failure: told the command's name and the exception where a command failed by a bug.
        failed: called where the node must end.

    Attributes:
        control: the node's part in the group.
        stores: what clients can ask of named stores.
        members: what they can ask of members.

    Raises:
        ConfigurationError, StorageError: the log cannot be used; the text says why.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        keyspace: Keyspace,
        policies: Mapping[str, EvictionPolicy],
        *,
        reactor: Any,
        rng: random.Random,
        report_failure: Callable[[str, Exception], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        kept = RaftStores(policies, report_failure)
        machine = ClusterMachine(ControlMachine(), kept, time.time, rng)
        disk = DirectoryDisk(Path(settings.node.data_dir) / LOG_DIRECTORY)
        self.control = ControlPlane(
            settings,
            identity,
            disk,
            machine,
            clock=reactor,
            rng=rng,
            journals=(make_journal(reactor), JournalThread(reactor, "snapshots")),
            failed=failed,
        )
        self.stores = ClusterStores(self.control, machine, keyspace, policies, reactor)
        self.members = NamedMembers(self.control, reactor)
        machine.on_control = self._agreed
        Gateway(self.control, kept, reactor)
        self._upkeep = RaftUpkeep(self.control, kept, reactor, time.time)

    def start(self) -> None:
        """Look after the stores."""
        self._upkeep.start()

    def stop(self) -> None:
        """Take part no more."""
        self._upkeep.stop()
        self.control.stop()

    def _agreed(self, before: ControlState, behind: ControlState) -> None:
        self.stores.changed(before, behind)
        self.control.agreed(before, behind)
