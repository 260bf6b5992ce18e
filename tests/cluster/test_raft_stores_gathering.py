"""What waits for more before it is proposed, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hypercache.cluster.gateway import UNKNOWN
from hypercache.errors import OutcomeUnknownError
from hypercache.limits import RAFT_GATHER_AGAIN_SECONDS, RAFT_GATHER_BYTES, RAFT_GATHER_SECONDS
from tests.cluster.raft_log import RaftNode

if TYPE_CHECKING:
    from collections.abc import Sequence


class Writers:
    """Writes that go to the gateway as connections would send them, and what they were told."""

    def __init__(self) -> None:
        self.node = RaftNode()
        self.node.create()
        self.log = self.node.store().log
        self.told: list[Sequence[bytes] | str] = []

    def write(self, count: int, size: int = 1) -> None:
        for _ in range(count):
            self.log.write(2, [[b"SET", b"key", b"v" * size]], self.told.append)
        self.node.clock.advance(0)

    @property
    def proposed(self) -> int:
        return len(self.node.log.waiting)


@pytest.fixture
def writers() -> Writers:
    return Writers()


def test_few_writes_wait_while_many_are_under_way_until_they_are_half_as_many(writers: Writers) -> None:
    writers.write(10)
    writers.write(4)
    assert writers.proposed == 1
    writers.write(1)
    assert writers.proposed == 2
    writers.node.log.deliver()
    assert len(writers.told) == 15


def test_one_write_under_way_holds_up_no_other(writers: Writers) -> None:
    writers.write(1)
    writers.write(1)
    assert writers.proposed == 2


def test_what_waits_is_proposed_when_its_time_is_over(writers: Writers) -> None:
    writers.write(10)
    writers.write(1)
    writers.node.clock.advance(RAFT_GATHER_SECONDS * 0.9)
    assert writers.proposed == 1
    writers.node.clock.advance(RAFT_GATHER_SECONDS * 0.2)
    assert writers.proposed == 2


def test_what_waits_is_proposed_soon_when_what_was_under_way_is_answered(writers: Writers) -> None:
    writers.write(10)
    writers.write(1)
    writers.node.log.deliver()
    assert writers.proposed == 0
    writers.node.clock.advance(RAFT_GATHER_AGAIN_SECONDS)
    assert writers.proposed == 1


def test_who_was_answered_shares_the_proposal_of_those_who_waited(writers: Writers) -> None:
    writers.write(10)
    writers.write(1)
    writers.node.log.deliver()
    writers.write(10)
    assert writers.proposed == 1
    writers.node.log.deliver()
    assert len(writers.told) == 21
    writers.node.clock.advance(RAFT_GATHER_SECONDS)
    assert writers.proposed == 0


def test_what_failed_is_under_way_no_more(writers: Writers) -> None:
    writers.write(10)
    writers.node.log.fail(OutcomeUnknownError("no majority"))
    assert writers.told == [UNKNOWN] * 10
    writers.write(1)
    assert writers.proposed == 1


def test_large_writes_do_not_wait(writers: Writers) -> None:
    writers.write(10)
    writers.write(1, RAFT_GATHER_BYTES)
    assert writers.proposed == 2


def test_reads_do_not_wait_for_writes_that_do(writers: Writers) -> None:
    writers.write(10)
    writers.write(1)
    writers.log.read(lambda _: None)
    writers.node.clock.advance(0)
    assert writers.node.log.reads == 1
    assert writers.proposed == 2
