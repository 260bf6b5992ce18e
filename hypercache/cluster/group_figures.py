"""What a node tells of its part in the Raft group: for `hypercache status`, and as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.control.report import GroupStatus

if TYPE_CHECKING:
    from hypercache.cluster.steward import Steward
    from hypercache.consensus.driver import Consensus
    from hypercache.control.state import ControlState

_FIGURES: Final = (
    "term",
    "leads",
    "leader",
    "committed",
    "applied",
    "proposals",
    "log_bytes",
    "leaderships",
    "writes",
    "disk_full",
)


def group_status(node_id: int, name: str, state: ControlState, consensus: Consensus | None, steward: Steward | None) -> GroupStatus:
    """Return a node's part in the group, as of now.

    Args:
        node_id: the node.
        name: what people call it.
        state: the control plane as it has applied it.
        consensus: its part; None where it has none.
        steward: knows whom it suspects; None likewise.
    """
    if consensus is None or steward is None:
        return GroupStatus(node_id, name)
    raft = consensus.raft
    configuration = raft.configuration
    return GroupStatus(
        node_id=node_id,
        name=name,
        role=raft.state.value,
        leader=raft.leader,
        term=raft.term,
        commit=raft.commit,
        applied=consensus.applying.applied,
        voters=configuration.voters,
        outgoing=configuration.outgoing,
        learners=configuration.learners,
        match={node: progress.match for node, progress in raft.progress.items()},
        suspects=steward.doubts(),
        phi={node: steward.phi(node) for node in state.members if node != node_id},
        disk_full=consensus.disk_full,
    )


def group_figures(consensus: Consensus | None) -> dict[str, int]:
    """Return the figures of a node's part in the group; zeros where it has none."""
    if consensus is None:
        return dict.fromkeys(_FIGURES, 0)
    raft, log = consensus.raft, consensus.raft.log
    values = (
        raft.term,
        int(consensus.leads),
        raft.leader,
        raft.commit,
        consensus.applying.applied,
        consensus.proposals,
        log.bytes_between(log.first_index - 1, log.last_index),
        consensus.leaderships,
        consensus.writes,
        int(consensus.disk_full),
    )
    return dict(zip(_FIGURES, values, strict=True))
