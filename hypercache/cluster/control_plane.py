"""A node's part in what all members agree on: the Raft group, its disk, the state machine, and who keeps the members in order.

A node founds a cluster, or finds one on its disk, or is let into one; before that it has no part in anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet import defer
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from hypercache.cluster.admission import Admission
from hypercache.cluster.group_figures import group_status
from hypercache.cluster.steward import Steward
from hypercache.cluster.suspicion import Detector
from hypercache.consensus.driver import Consensus, ConsensusLimits
from hypercache.consensus.links import SENDERS, Links, RaftHandler
from hypercache.control.commands import AddMember, FoundCluster
from hypercache.control.duties import Policy
from hypercache.control.report import status_report
from hypercache.errors import ConfigurationError, HyperCacheError, NotLeaderError
from hypercache.handlers.departure import LeaveHandler
from hypercache.handlers.suspicion import SuspicionHandler
from hypercache.limits import RAFT_ANSWER_SECONDS, RAFT_RESIGN_SECONDS
from hypercache.persist.raft_log import Recovered, open_raft_storage
from hypercache.raft import Configuration, HardState, Options, Raft
from hypercache.wire import NodeType

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from hypercache.cluster.machine import ClusterMachine
    from hypercache.cluster.membership import Membership
    from hypercache.config import Settings
    from hypercache.consensus.contracts import Journal
    from hypercache.control.state import ControlState
    from hypercache.net.link import PeerLink
    from hypercache.persist.disk import Disk
    from hypercache.persist.identity import Identity
    from hypercache.persist.raft_log import RaftStorage
    from hypercache.wire import Message

_log = Logger()
_ELECTION_HEARTBEATS_MIN_COUNT: Final = 3


def raft_options(settings: Settings) -> Options:
    """Return how the group behaves, of the settings; a tick is a heartbeat.

    Raises:
        ConfigurationError: they contradict each other.
    """
    raft = settings.raft
    election = round(raft.election / raft.heartbeat)
    if election < _ELECTION_HEARTBEATS_MIN_COUNT:
        raise ConfigurationError(
            f"raft.election = {raft.election:g} must be at least {_ELECTION_HEARTBEATS_MIN_COUNT} times "
            f"raft.heartbeat = {raft.heartbeat:g}: a single heartbeat that is late must elect nobody"
        )
    return Options(election_ticks=election, prompt_commits=False, lease_ticks=max(1, election * 3 // 4) if raft.lease else 0)


class ControlPlane:
    """A node's part in what all members agree on.

    Args:
        settings: how the node is set up.
        identity: who it is; where it founds a cluster, that is written down here.
        disk: the directory of the log.
        machine: the state machine; its changes are to be told to `agreed`.
        clock: the reactor.
        rng: for cluster ids and election timeouts.
        journals: what waits for the log, and what waits for snapshots.
        failed: called where the node must end.

    Attributes:
        consensus: the node's part in the group; None while it belongs to none.
        admission: who may be a member.
        left: called when this node is no member any more.

    Raises:
        ConfigurationError: the disk holds no log of the cluster that the node belongs to, and nobody is named who could send one.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        disk: Disk,
        machine: ClusterMachine,
        *,
        clock: Any,
        rng: random.Random,
        journals: tuple[Journal, Journal],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.consensus: Consensus | None = None
        self.left: Callable[[], None] = _nobody
        self._settings = settings
        self._options = raft_options(settings)
        self._identity = identity
        self._disk = disk
        self._storage: RaftStorage | None = None
        self._recovered: Recovered | None = None
        self._machine = machine
        self._clock = clock
        self._rng = rng
        self._failed = failed
        self._membership: Membership | None = None
        self._steward: Steward | None = None
        self._ended = False
        self._resigning: Deferred[None] | None = None
        self._journals = journals
        self._links = Links(self._link_to, self._step, RAFT_ANSWER_SECONDS)
        self.admission = Admission(self, settings.cluster.max_nodes)
        self._found_or_find()

    def _found_or_find(self) -> None:
        """Belong to the cluster on the disk; found one where there is none and nobody is to be joined (consistency.md, rule 13)."""
        identity, join = self._identity, self._settings.cluster.join
        if not identity.cluster_id:
            if join:
                return
            if identity.clustered:
                raise _joins_anew("has left its cluster to be let in anew")
            identity.adopt_cluster(identity.expected_cluster or self._rng.randrange(1, 1 << 64))
            _log.info("founded cluster {id}", id=identity.cluster_id)
        storage = self._open()
        if not storage.is_empty:
            return
        if not identity.clustered:
            # Nobody else was ever in this cluster: whatever became of its log, this node founds it.
            self._recovered = Recovered(HardState(), storage.found(Configuration((identity.node_id,))), [])
        elif join:
            # It holds nothing of what it may have acknowledged (rule 14): it says so, and is let in anew.
            identity.leave_cluster()
        else:
            raise _joins_anew(f"belongs to cluster {identity.cluster_id}, and its log is gone")

    def _open(self) -> RaftStorage:
        if self._storage is None:
            identity, segment = self._identity, self._settings.raft.segment
            self._storage, self._recovered = open_raft_storage(
                self._disk, identity.cluster_id, identity.node_id, segment_bytes=segment
            )
        return self._storage

    # Life

    def attach(self, membership: Membership) -> None:
        """Take part over the links of a membership, now or as soon as this node has joined."""
        self._membership = membership
        if self._identity.cluster_id:
            self._take_part()
        else:
            membership.adopted = self._take_part

    def stop(self) -> None:
        """Take part no more."""
        if self._steward is not None:
            self._steward.stop()
        if self.consensus is not None:
            self.consensus.stop()
        self._links.stop()
        for journal in self._journals:
            journal.stop()
        if self._storage is not None:
            self._storage.close()

    def handlers(self) -> list[Any]:
        """Return the handlers of the messages that this takes from members."""
        return [
            *(RaftHandler(request, self._links) for request in SENDERS),
            SuspicionHandler(self._suspected),
            LeaveHandler(self.admission),
        ]

    def _take_part(self) -> None:
        membership = self._membership
        assert membership is not None
        settings, identity, storage = self._settings, self._identity, self._open()
        recovered, self._recovered = self._recovered, None
        assert recovered is not None
        raft = Raft(
            identity.node_id,
            self._options,
            self._rng,
            storage,
            hard_state=recovered.hard_state,
            snapshot=recovered.snapshot,
            entries=recovered.entries,
        )
        self.consensus = consensus = Consensus(
            raft,
            boot=identity.boot,
            storage=storage,
            journal=self._journals[0],
            snapshot_journal=self._journals[1],
            machine=self._machine,
            transport=self._links,
            clock=self._clock,
            limits=ConsensusLimits(
                tick=settings.raft.heartbeat, snapshot_after=settings.raft.snapshot_after, keep=settings.raft.keep
            ),
            failed=self._failed,
        )
        self._steward = steward = Steward(
            consensus,
            lambda: self.state,
            self._own,
            accounts=self._accounts,
            clock=self._clock,
            heard_at=self._heard_at,
            tell=self._tell,
            policy=Policy(settings.raft.voters, settings.raft.out_after),
            detector=Detector(interval=settings.cluster.heartbeat),
            interval=settings.cluster.heartbeat,
        )
        consensus.changed = self._changed
        membership.agreement = self.admission
        consensus.start()
        if raft.configuration.members() == (identity.node_id,):
            # Nobody else could lead.
            consensus.campaign()
        steward.start()

    # What others ask

    @property
    def state(self) -> ControlState:
        """What is agreed on, as far as this node has applied it."""
        return self._machine.control.state

    @property
    def identity(self) -> Identity:
        """Who this node is."""
        return self._identity

    @property
    def leads(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.consensus is not None and self.consensus.leads

    @property
    def leader(self) -> int:
        """Who leads, as far as this node knows; 0 for nobody."""
        return 0 if self.consensus is None else self.consensus.raft.leader

    def transfer(self, target: int) -> None:
        """Hand the leadership to another voter (`Consensus.transfer`).

        Raises:
            RaftError: this node does not lead, or the target does not vote.
            BusyError: a transfer is under way.
        """
        if self.consensus is None:
            raise NotLeaderError(0)
        self.consensus.transfer(target)

    def resign(self) -> Deferred[None]:
        """Hand the leadership to the most level voter, if this node leads; fires when it does not any more, or after a while."""
        done: Deferred[None] = Deferred()
        consensus = self.consensus
        heir = 0
        if consensus is not None and consensus.leads:
            heard = {node for node in self.state.voters if self._link_to(node) is not None}
            progress = consensus.raft.progress
            heir = max((node for node in heard if node in progress), key=lambda node: progress[node].match, default=0)
        if not heir or consensus is None:
            done.callback(None)
            return done
        try:
            consensus.transfer(heir)
        except HyperCacheError as error:
            _log.info("the leadership is not handed over: {reason}", reason=error)
            done.callback(None)
            return done
        self._resigning = done
        done.addTimeout(RAFT_RESIGN_SECONDS, self._clock).addErrback(_too_slow)
        return done

    def propose(self, data: bytes) -> Deferred[bytes]:
        """Propose an entry (`Consensus.propose`); without a part in a group nobody leads it."""
        return fail(NotLeaderError(0)) if self.consensus is None else self.consensus.propose(data)

    def read(self) -> Deferred[None]:
        """Wait until what was applied may be read (`Consensus.read`)."""
        return fail(NotLeaderError(0)) if self.consensus is None else self.consensus.read()

    def _accounts(self) -> list[AddMember]:
        membership = self._membership
        return [] if membership is None else self.admission.accounts(membership.links())

    def agreed(self, before: ControlState, state: ControlState) -> None:
        """Take what an entry made of the control plane (`ClusterMachine.on_control`)."""
        membership = self._membership
        if membership is None or (before.members, before.removed) == (state.members, state.removed):
            return
        membership.agreed(state.members, before.members.keys() - state.members.keys(), state.ring_version)
        self._changed()
        self.admission.settle(state)
        own = self._identity.node_id
        if own in state.removed and own not in state.members:
            self.end_membership()

    def end_membership(self) -> None:
        """Take note that this node is no member any more."""
        if not self._ended:
            self._ended = True
            _log.critical("this node is no member of the cluster any more; with an empty data directory it can join anew")
            self.left()

    def turn(self) -> None:
        """Do what is to be done, now (`Consensus.turn`)."""
        if self.consensus is not None:
            self.consensus.turn()

    def link_up(self, link: PeerLink) -> None:
        """Take note of a link to a member."""
        if self.consensus is not None:
            self.consensus.lost(link.node_id)

    def link_down(self, link: PeerLink) -> None:
        """Take note that a link to a member is gone."""
        if self.consensus is not None:
            self.consensus.hung_up(link.node_id)

    def status(self) -> dict[str, Any]:
        """Return what `hypercache status` shows."""
        name = self._membership.facts.name if self._membership is not None else ""
        return status_report(self.state, group_status(self._identity.node_id, name, self.state, self.consensus, self._steward))

    # Inside

    def _own(self) -> FoundCluster:
        membership = self._membership
        assert membership is not None
        identity, facts = self._identity, membership.facts
        founder = AddMember(
            identity.node_id,
            facts.cluster_address,
            NodeType.CACHE,
            int(facts.capabilities),
            facts.name,
            facts.client_address,
            identity.boot,
            max_nodes=self._settings.cluster.max_nodes,
        )
        return FoundCluster(identity.cluster_id, founder)

    def _changed(self) -> None:
        if self._resigning is not None and not self.leads and not self._resigning.called:
            self._resigning.callback(None)
        if self._steward is not None:
            self._steward.poke()

    def _link_to(self, node_id: int) -> PeerLink | None:
        return self._membership.link_to(node_id) if self._membership is not None else None

    def _step(self, sender: int, message: Message, exchange: int) -> None:
        if self.consensus is not None:
            self.consensus.step(sender, message, exchange)

    def _suspected(self, sender: int, message: Any) -> None:
        if self._steward is not None:
            self._steward.suspected(sender, message)

    def _heard_at(self, node_id: int) -> float | None:
        link = self._link_to(node_id)
        return None if link is None else link.last_heard

    def _tell(self, node_id: int, message: Message) -> None:
        link = self._link_to(node_id)
        if link is not None and link.extended:
            link.send(message)


def _joins_anew(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"this node {reason}; give --join HOST:PORT of a member, or start with an empty data directory to found another cluster"
    )


def _too_slow(failure: Failure) -> None:
    """Go without: the others elect a leader by themselves."""
    failure.trap(defer.TimeoutError)


def _nobody() -> None:
    """Nobody wants to know."""
