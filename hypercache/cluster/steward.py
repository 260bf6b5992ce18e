"""What a node does for the group beside its part in Raft: it says whom it does not hear, and as leader it sees to the members.

It acts on a clock. Everything that it decides is decided by pure functions (`hypercache.control.duties`), and becomes true by an
entry of the log alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hypercache.cluster.suspicion import Detector
from hypercache.control.commands import AddMember, FoundCluster, RemoveMember, SetMemberState, decode_outcome, proposal
from hypercache.control.duties import ChangeGroup, GroupView, Policy, next_duty
from hypercache.control.state import MemberState
from hypercache.errors import HyperCacheError
from hypercache.limits import HEARTBEAT_INTERVAL_SECONDS, SUSPICION_REPORT_SECONDS
from hypercache.raft import ProgressState, State
from hypercache.wire.messages import SuspectedNode, Suspicion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from hypercache.control.commands import Command
    from hypercache.control.state import ControlState, Member
    from hypercache.raft import Raft
    from hypercache.wire.schema import Message

_log = Logger()
_SETTLING_LOOKS: Final = 10
"""How often a leader looks, in one interval, whether it has applied what was agreed on before it led."""


class Group(Protocol):
    """What the steward needs of `hypercache.consensus.driver.Consensus`."""

    @property
    def raft(self) -> Raft:
        """The core."""
        ...

    def propose(self, data: bytes) -> Deferred[bytes]:
        """Propose an entry; fires with its answer."""
        ...

    def change_members(self, voters: Iterable[int], learners: Iterable[int]) -> None:
        """Begin to change who takes part.

        Raises:
            RaftError, BusyError: not now.
        """
        ...


class Steward:
    """Looks after the members.

    Args:
        group: this node's part in the Raft group.
        state: returns the control plane as of now.
        own: returns how this node joins, or founds, the cluster it belongs to: id, address, boot.
        accounts: returns what the members that are linked say of themselves.
        clock: the reactor.
        heard_at: returns when a member was last heard, by the clock, in seconds; None where it is not linked.
        tell: sends a message to a member, or loses it.
        policy: what the operator wishes of the group.
        detector: judges silence.
        interval: seconds between two looks; a heartbeat's.

    Attributes:
        suspects: whom this node suspects now.
    """

    def __init__(
        self,
        group: Group,
        state: Callable[[], ControlState],
        own: Callable[[], FoundCluster],
        *,
        accounts: Callable[[], Iterable[AddMember]] = tuple,
        clock: Any,
        heard_at: Callable[[int], float | None],
        tell: Callable[[int, Message], None],
        policy: Policy | None = None,
        detector: Detector | None = None,
        interval: float = HEARTBEAT_INTERVAL_SECONDS,
    ) -> None:
        self.suspects: frozenset[int] = frozenset()
        self._group = group
        self._state = state
        self._own = own
        self._accounts = accounts
        self._clock = clock
        self._heard_at = heard_at
        self._tell = tell
        self._policy = policy or Policy()
        self._detector = detector or Detector(interval=interval)
        self._interval = interval
        self._looked = 0.0
        self._told: tuple[int, frozenset[int]] = (0, frozenset())
        # As leader: what others suspect, with when they said so; and since when each member has been down.
        self._term = 0
        self._reports: dict[int, tuple[float, frozenset[int]]] = {}
        self._down_since: dict[int, float] = {}
        self._busy = False
        self._complaint = ""
        self._poked: Any = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def start(self) -> None:
        """Begin."""
        self._looked = self._clock.seconds()
        self._looking.start(self._interval)

    def stop(self) -> None:
        """End; what was proposed may happen still."""
        if self._looking.running:
            self._looking.stop()
        if self._poked is not None and self._poked.active():
            self._poked.cancel()

    def poke(self) -> None:
        """See to the members soon: the control plane has changed, or who leads."""
        if self._looking.running and self._poked is None and self._leads:
            self._poked = self._clock.callLater(0, self._tend_now)

    def suspected(self, sender: int, message: Suspicion) -> None:
        """Take what a member suspects; it counts while this node leads, and for as long as the sender repeats it."""
        members = self._state().members
        if sender in members:
            suspects = frozenset(node.node_id for node in message.nodes if node.node_id in members)
            self._reports[sender] = (self._clock.seconds(), suspects)

    def phi(self, node_id: int) -> float:
        """Return how suspicious a member's silence is."""
        return self._detector.phi(node_id, self._clock.seconds())

    def doubts(self) -> dict[int, frozenset[int]]:
        """Return who is suspected, and by whom, as far as this node was told."""
        now = self._clock.seconds()
        members = self._state().members
        doubters: dict[int, set[int]] = {}
        # A report lives through the loss of one or two.
        life = max(SUSPICION_REPORT_SECONDS, 3 * self._interval)
        reports = {sender: nodes for sender, (at, nodes) in self._reports.items() if now - at <= life}
        for sender, nodes in {**reports, self._group.raft.node_id: self.suspects}.items():
            for node in nodes & members.keys():
                doubters.setdefault(node, set()).add(sender)
        return {node: frozenset(senders) for node, senders in doubters.items()}

    def view(self) -> GroupView:
        """Return what this node sees of its group; of what only a leader sees it has nothing where it does not lead."""
        state = self._state()
        now = self._clock.seconds()
        raft = self._group.raft
        log = raft.log
        configuration = raft.configuration
        return GroupView(
            node_id=raft.node_id,
            voters=configuration.voters,
            learners=configuration.learners,
            changing=configuration.joint or log.configuration_index > log.applied,
            configured=log.configuration_index,
            commit=raft.commit,
            match={
                node: 0 if progress.state is ProgressState.SNAPSHOT else progress.match for node, progress in raft.progress.items()
            },
            heard={node for node in state.members if node not in self.suspects and self._is_linked(node)},
            suspects=self.doubts(),
            down_seconds={node: now - since for node, since in self._down_since.items()},
        )

    # What every node does

    @property
    def _leads(self) -> bool:
        return self._group.raft.state is State.LEADER

    def _look(self) -> None:
        now = self._clock.seconds()
        late = now - self._looked - self._interval
        self._looked = now
        if late > self._interval:
            # This node itself was stopped, and heard nobody: that says nothing of the others.
            self._detector.forgive(late)
        own = self._group.raft.node_id
        watched = [node_id for node_id in self._state().members if node_id != own]
        self._detector.watch(watched, now)
        for node_id in watched:
            heard = self._heard_at(node_id)
            if heard is not None:
                self._detector.heard(node_id, heard)
        self.suspects = self._detector.suspects(now)
        if self._leads:
            self._told = (0, frozenset())
            self._tend()
        else:
            self._tell_leader()

    def _tell_leader(self) -> None:
        leader = self._group.raft.leader
        suspects = self.suspects - {leader}
        if leader and (suspects or (self._told[0] == leader and self._told[1])):
            self._tell(leader, Suspicion(tuple(SuspectedNode(node) for node in sorted(suspects))))
        self._told = (leader, suspects)

    # What the leader does

    def _tend_now(self) -> None:
        self._poked = None
        if self._leads:
            self._tend()

    def _tend(self) -> None:
        raft = self._group.raft
        term = raft.term
        state = self._state()
        now = self._clock.seconds()
        if state.cluster_id and raft.log.term_of(raft.log.applied) != term:
            # What this node has applied is older than its leadership: others may have agreed on more. Founding counts once anyhow.
            if self._poked is None:
                self._poked = self._clock.callLater(self._interval / _SETTLING_LOOKS, self._tend_now)
            return
        if term != self._term:
            # What another leader saw is not known here: a member is out only after this one has seen it down for as long.
            self._term = term
            self._down_since.clear()
        down = {node_id for node_id, member in state.members.items() if member.state is MemberState.DOWN}
        self._down_since = {node_id: self._down_since.get(node_id, now) for node_id in down}
        self._reports = {sender: report for sender, report in self._reports.items() if sender in state.members}
        if self._busy:
            return
        account = self._account(state)
        if account is not None:
            self._propose(account)
            return
        duty = next_duty(state, self.view(), self._policy)
        if isinstance(duty, ChangeGroup):
            self._change(duty)
        elif duty is not None:
            self._propose(duty)

    def _account(self, state: ControlState) -> FoundCluster | AddMember | None:
        """Return what a member says of itself and the cluster does not know: its leader first, whom nobody else could tell of."""
        own = self._own()
        if not state.cluster_id:
            return own
        return next((each for each in (own.founder, *self._accounts()) if _is_news(state.members.get(each.node_id), each)), None)

    def _is_linked(self, node_id: int) -> bool:
        return node_id == self._group.raft.node_id or self._heard_at(node_id) is not None

    def _change(self, duty: ChangeGroup) -> None:
        try:
            self._group.change_members(duty.voters, duty.learners)
        except HyperCacheError as error:
            self._complain(f"cannot change the group to {duty}: {error}")
        else:
            _log.info("the group becomes voters {voters}, learners {learners}", voters=duty.voters, learners=duty.learners)

    def _propose(self, command: Command) -> None:
        self._busy = True
        answer = self._group.propose(proposal(command))
        answer.addCallback(self._answered, command)
        answer.addErrback(self._failed, command)

    def _answered(self, answer: bytes, command: Command) -> None:
        self._busy = False
        outcome = decode_outcome(answer)
        if outcome.ok:
            self._complaint = ""
            _log.info("agreed: {what}", what=_in_words(command))
        else:
            self._complain(f"not agreed that {_in_words(command)}: {outcome.text}")

    def _failed(self, failure: Failure, command: Command) -> None:
        """Leave it to the next look, which sees whether it happened."""
        self._busy = False
        failure.trap(HyperCacheError)
        self._complain(f"not agreed that {_in_words(command)}: {failure.getErrorMessage()}")

    def _complain(self, complaint: str) -> None:
        """Tell the operator, where that is news."""
        if complaint != self._complaint:
            self._complaint = complaint
            _log.warn("{complaint}", complaint=complaint)


def _is_news(known: Member | None, account: AddMember) -> bool:
    """Whether a member says of itself what the cluster does not know; of who is no member nothing is taken."""
    if known is None or account.boot < known.boot:
        return False
    said = (account.address, account.client_address, account.name, account.capabilities, account.boot)
    return said != (known.address, known.client_address, known.name, known.capabilities, known.boot)


def _in_words(command: Command) -> str:
    """Return what a command makes true, for people."""
    if isinstance(command, FoundCluster):
        return f"node {command.founder.node_id} founds cluster {command.cluster_id}"
    if isinstance(command, AddMember):
        return f"node {command.node_id} is at {command.address or 'no address'}, in its start {command.boot}"
    if isinstance(command, SetMemberState):
        return f"node {command.node_id} is {command.state} ({command.reason})"
    if isinstance(command, RemoveMember):
        return f"node {command.node_id} is no member any more"
    return str(command)
