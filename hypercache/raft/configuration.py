"""Who votes, who learns, and how one configuration becomes another (dissertation, chapter 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hypercache.errors import ConfigurationChangeError, MalformedMessageError
from hypercache.limits import RAFT_MEMBERS_MAX_COUNT, RAFT_VOTERS_MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterable


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The members of a group; each tuple ascends.

    Attributes:
        voters: the ids that vote; while it is joint, the incoming ones.
        outgoing: the voters of the configuration that is being left; empty where it is not joint.
        learners: the ids that are sent the log and do not vote.
        learners_next: outgoing voters that become learners when the joint configuration is left.
        auto_leave: whether the leader leaves the joint configuration by itself once it is committed.
    """

    voters: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False

    @property
    def joint(self) -> bool:
        """Whether both the old and the new voters must agree."""
        return bool(self.outgoing)

    def votes(self, node: int) -> bool:
        """Whether a node votes in either configuration."""
        return node in self.voters or node in self.outgoing

    def members(self) -> tuple[int, ...]:
        """Return every id that is sent the log, ascending."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def change(self, voters: Iterable[int], learners: Iterable[int] = (), *, auto_leave: bool = True) -> Configuration:
        """Return the configuration that begins a change: joint where the voters differ, else at once the wanted one.

        Args:
            voters: the voters wanted.
            learners: the learners wanted.
            auto_leave: whether the leader ends the joint configuration by itself.

        Raises:
            ConfigurationChangeError: a change is under way already, or the wanted members are none or too many, or overlap.
        """
        new, learning = set(voters), set(learners)
        if self.joint:
            raise ConfigurationChangeError("a change of configuration is under way")
        if not new or new & learning or 0 in new | learning:
            raise ConfigurationChangeError("a configuration needs voters, none of them also a learner, none with id 0")
        if len(new) > RAFT_VOTERS_MAX_COUNT or len(new | learning) > RAFT_MEMBERS_MAX_COUNT:
            raise ConfigurationChangeError(f"at most {RAFT_VOTERS_MAX_COUNT} voters and {RAFT_MEMBERS_MAX_COUNT} members")
        old = set(self.voters)
        if new == old or not old:
            return Configuration(_ordered(new), learners=_ordered(learning))
        return Configuration(_ordered(new), self.voters, _ordered(learning - old), _ordered(learning & old), auto_leave)

    def leave(self) -> Configuration:
        """Return the configuration behind a joint one.

        Raises:
            ConfigurationChangeError: it is not joint.
        """
        if not self.joint:
            raise ConfigurationChangeError("there is no joint configuration to leave")
        return Configuration(self.voters, learners=_ordered({*self.learners, *self.learners_next}))

    def encode(self) -> bytes:
        """Return the data of a configuration entry (msgpack)."""
        return msgspec.msgpack.encode(self)


def decode_configuration(data: bytes) -> Configuration:
    """Return the configuration that an entry's data holds.

    Raises:
        MalformedMessageError: the data is none.
    """
    try:
        return msgspec.msgpack.decode(data, type=Configuration)
    except msgspec.MsgspecError as error:
        raise MalformedMessageError(f"a configuration entry is damaged: {error}") from None


def _ordered(nodes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(nodes))
