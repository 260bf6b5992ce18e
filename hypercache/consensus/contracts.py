"""What the driver needs of others: a disk, somebody who waits for it, peers, a state machine.

`hypercache.persist` and `hypercache.net` have them for a real node, `hypercache.testing` for a simulated one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hypercache.raft import Outbound, Ready, SnapshotMeta


class Storage(Protocol):
    """What a node keeps on its disk.

    `write` and `compact` block on the disk and are made through one `Journal`, one at a time; `save_snapshot` and what reads
    `load_snapshot` go through another one, beside them: a large snapshot holds up no entry. `read` is called on the loop.
    """

    def write(self, readies: Sequence[Ready]) -> None:
        """Write what these readies want written, in order, and make it durable with one fsync.

        Raises:
            DiskFullError: nothing more fits; what was written of it does not count, and the log is as it was.
            StorageError: the disk failed: nothing is known of what it holds, and the process must end.
        """

    def append(self, readies: Sequence[Ready]) -> int | None:
        """Write as `write` does, but make nothing durable, and do not wait for the disk; called on the loop.

        Returns:
            The descriptor of the file whose content must be made durable, with nothing else between: then comes `synced`. None
            where that would not do, or would take long: nothing is written, and `write` must do it.

        Raises:
            StorageError: as `write`.
        """

    def synced(self, error: BaseException | None) -> None:
        """Take note that what was appended is durable, or why it is not.

        Raises:
            StorageError: there was an error.
        """

    def save_snapshot(self, snapshot: SnapshotMeta, stream: Iterable[bytes]) -> None:
        """Write a snapshot of this node's own state machine, durably, beside and renamed; older snapshots then go.

        Args:
            snapshot: what it stands for; nothing happens where a newer one is there by now.
            stream: the pieces behind `hypercache.raft.snapshot_header`, which this writes itself.

        Raises:
            DiskFullError, StorageError: as `write`.
        """

    def load_snapshot(self) -> Iterator[bytes]:
        """Return the pieces of the newest snapshot, without its header, for the state machine."""

    def compact(self, index: int) -> None:
        """Free what only holds entries up to ``index``."""

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        """Return a chunk for a follower (`hypercache.raft.SnapshotReader`); called on the loop, and so bounded by one chunk."""


class Journal(Protocol):
    """Does blocking work in order, off the loop."""

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Do work after all that was handed in before; then call ``done`` on the loop with its result, or what it raised."""

    def write(self, storage: Storage, readies: Sequence[Ready], done: Callable[[Any, BaseException | None], None]) -> None:
        """Do ``storage.write(readies)``, or what comes to the same, as `run` does."""

    def stop(self) -> None:
        """Wait for what is being done, do no more, and call nobody any more."""


class Transport(Protocol):
    """Carries messages to peers."""

    def send(self, outbound: Outbound) -> None:
        """Send a message, or lose it; it arrives once at most.

        A request's ``exchange`` is the core's: its answer is handed to `Consensus.step` with it. A reply's is what
        `Consensus.step` was given with the request.
        """

    def flush(self) -> None:
        """See that what was sent is on its way: nothing more comes in this turn."""


class StateMachine(Protocol):
    """What the log is applied to. All of it is deterministic, and runs on the loop."""

    def prepare(self, data: bytes) -> bytes:
        """Return a proposal with what only the leader may decide, such as the time; called by the leader before it proposes."""

    def apply(self, index: int, client_id: int, data: bytes) -> bytes:
        """Apply a committed proposal; return its answer. It reads no clock, no memory figure, nothing of this node alone."""

    def membership_changed(self, index: int, voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
        """Take note of a committed configuration of the group that is not joint."""

    def knows(self, client_id: int) -> bool:
        """Whether proposals of a client are applied: it is a member."""

    def take_forgotten(self) -> tuple[int, ...]:
        """Return the clients whose answers must be forgotten behind the entry that was applied last: they have left."""

    def freeze(self) -> Iterable[bytes]:
        """Return the state as of now in pieces, to be read later and elsewhere: what is applied meanwhile does not change them."""

    def load(self, stream: Iterable[bytes]) -> Any:
        """Return what a snapshot's pieces say, for `adopt`; called off the loop, it touches nothing that is in use.

        Raises:
            MalformedMessageError: they are damaged.
        """

    def adopt(self, loaded: Any) -> None:
        """Become what was loaded; called on the loop."""
