"""What frames cost, and what an operator may write about it."""

from __future__ import annotations

from typing import ClassVar

import pytest

from hypercache.errors import ConfigurationError
from hypercache.layers.costs import CostTable, cost_table
from hypercache.wire import Message
from hypercache.wire.kinds import Part, u8
from hypercache.wire.messages import SCHEMA
from hypercache.wire.schema import Schema


class Ask(Message, frozen=True):
    """A plug-in's request."""

    TYPE: ClassVar[int] = 0x90
    ANSWER: ClassVar[int] = 0x91
    PARTS: ClassVar[tuple[Part, ...]] = (u8("number"),)
    number: int


class Tell(Message, frozen=True):
    """Its answer."""

    TYPE: ClassVar[int] = 0x91


def table(*entries: str, burst: int = 10_000) -> CostTable:
    return cost_table(entries, Schema((Ask, Tell), extends=SCHEMA), burst)


def test_the_costs_are_the_seeds() -> None:
    costs = table().stranger.tokens
    assert [costs[each] for each in (0x32, 0x10, 0x11, 0x12, 0x20, 0x30, 0x41, 0x90)] == [1, 5, 5, 10, 3, 3, 3, 3]
    assert table().member.tokens[0x20] == 3


def test_raft_is_free_for_members_and_goes_ahead() -> None:
    for costs in (table("AppendEntries=9").member, table().base_member):
        for message_type in range(0x10, 0x1D):
            assert costs.tokens[message_type] == 0
            assert message_type in costs.overtaking
    for costs in (table().stranger, table().base_stranger):
        assert costs.tokens[0x12] == 10
        assert 0x12 not in costs.overtaking


def test_what_is_for_the_link_itself_is_free_and_what_ends_something_keeps_its_place() -> None:
    tables = table()
    for costs in (tables.member, tables.stranger, tables.base_member, tables.base_stranger):
        assert not any(costs.tokens[each] for each in (*range(8), 0xFF))
        assert {0x00, 0x06, 0xFF} <= costs.overtaking
        assert not costs.overtaking & {0x01, 0x02, 0x03, 0x04, 0x05, 0x07}


def test_a_base_peers_answers_are_free_by_their_type_plug_ins_included() -> None:
    tables = table()
    for message_type in (0x21, 0x31, 0x33, 0x40, 0x91):
        for costs in (tables.base_member, tables.base_stranger):
            assert costs.tokens[message_type] == 0
            assert message_type in costs.overtaking
        assert tables.member.tokens[message_type] == 3


def test_entries_change_costs_by_name_or_type() -> None:
    costs = table("Heartbeat=2", "0x20=7", "Ask=0", "0xEF=10000", "VoteRequest=6").stranger.tokens
    assert [costs[each] for each in (0x32, 0x20, 0x90, 0xEF, 0x10, 0x30)] == [2, 7, 0, 10_000, 6, 3]
    assert 0x90 not in table("Ask=0").member.overtaking


def test_nothing_costs_more_than_can_be_saved_up() -> None:
    assert table(burst=2).stranger.tokens[0x12] == 2
    assert table(burst=2).stranger.tokens[0x32] == 1


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("Heartbeet=1", "did you mean Heartbeat"),
        ("heartbeat=1", "did you mean Heartbeat"),
        ("Nonsense=1", "names no message"),
        ("Heartbeat", "is no cost"),
        ("Heartbeat=", "is no cost"),
        ("=1", "is no cost"),
        ("", "is no cost"),
        ("Heartbeat=-1", "is no cost"),
        ("Heartbeat=1.5", "is no cost"),
        ("Heartbeat=1e3", "is no cost"),
        ("Heartbeat=٣", "is no cost"),
        ("Heartbeat =1", "is no cost"),
        ("Heartbeat=1 ", "is no cost"),
        ("Heartbeat=1=2", "is no cost"),
        ("Heartbeat=1000000000", "is no cost"),
        ("0x=1", "is no cost"),
        ("0x100=1", "is no cost"),
        ("50=1", "is no cost"),
        ("0x32=10001", "can never be paid"),
        ("Goodbye=1", "always free"),
        ("0xff=1", "always free"),
        ("KeepAlive=1", "always free"),
    ],
)
def test_an_entry_that_is_no_cost_is_named(entry: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        table("ReplicateData=2", entry)
    assert f"rate.costs: {entry!r}" in str(raised.value)
    assert reason in str(raised.value)


def test_two_entries_of_one_type_are_named_both() -> None:
    with pytest.raises(ConfigurationError) as raised:
        table("Heartbeat=1", "0x32=2")
    assert "'Heartbeat=1'" in str(raised.value)
    assert "'0x32=2'" in str(raised.value)
