from __future__ import annotations

import random

import pytest

from hypercache.raft import Outbound
from hypercache.testing.clock import HeapClock
from hypercache.testing.network import SimulatedNetwork
from hypercache.wire.messages import Propose, VoteResponse


class Wire:
    def __init__(self, seed: int = 1) -> None:
        self.clock = HeapClock()
        self.came: list[tuple[int, int, int]] = []
        self.network = SimulatedNetwork(self.clock, random.Random(seed), self.deliver)

    def deliver(self, sender: int, receiver: int, outbound: Outbound) -> None:
        self.came.append((sender, receiver, outbound.exchange))

    def send(self, count: int, sender: int = 1, to: int = 2) -> None:
        for number in range(count):
            self.network.send(sender, Outbound(to, VoteResponse(1, True), number, True))

    def numbers(self) -> list[int]:
        self.clock.advance(100)
        return [number for _, _, number in self.came]


def test_a_quiet_network_brings_everything_once_and_not_in_order() -> None:
    wire = Wire()
    wire.send(100)
    assert wire.came == []
    numbers = wire.numbers()
    assert sorted(numbers) == list(range(100))
    assert numbers != sorted(numbers)


def test_a_lossy_network_loses_its_share() -> None:
    wire = Wire()
    wire.network.loss = 0.3
    wire.send(2000)
    assert 1300 < len(wire.numbers()) < 1500
    assert wire.network.sent == 2000
    assert wire.network.lost == 2000 - len(wire.came)


def test_a_doubling_network_brings_some_twice_but_no_proposal() -> None:
    wire = Wire()
    wire.network.doubling = 0.5
    wire.send(1000)
    assert 1400 < len(wire.numbers()) < 1600
    wire.came.clear()
    for number in range(100):
        wire.network.send(1, Outbound(2, Propose(1, number, 0, b""), number, False))
    assert sorted(wire.numbers()) == list(range(100))


def test_a_stray_message_takes_ten_times_as_long() -> None:
    wire = Wire()
    wire.network.stray, wire.network.jitter = 1.0, 0.0
    wire.send(1)
    wire.clock.advance(0.0099)
    assert not wire.came
    wire.clock.advance(0.0002)
    assert wire.came


@pytest.mark.parametrize("one_way", [False, True])
def test_a_cut_stops_one_direction_or_both_and_nobody_else(one_way: bool) -> None:
    wire = Wire()
    pairs = wire.network.separate([1], [1, 2, 3], one_way=one_way)
    for sender, to in ((1, 2), (2, 1), (3, 1), (2, 3)):
        wire.send(1, sender, to)
    wire.numbers()
    assert {(sender, to) for sender, to, _ in wire.came} == ({(2, 1), (3, 1), (2, 3)} if one_way else {(2, 3)})
    wire.network.mend(pairs)
    wire.send(1)
    assert (1, 2, 0) in (wire.numbers() and wire.came)


def test_mending_one_cut_leaves_another() -> None:
    wire = Wire()
    first = wire.network.separate([1], [2])
    second = wire.network.separate([1], [2, 3])
    wire.network.mend(second)
    assert wire.network.cut == set(first)
    wire.network.heal()
    assert not wire.network.cut


def test_equal_seeds_give_equal_fates() -> None:
    fates = []
    for seed in (1, 1, 2):
        wire = Wire(seed)
        wire.network.loss = wire.network.doubling = wire.network.stray = 0.3
        wire.send(200)
        fates.append(wire.numbers())
    assert fates[0] == fates[1] != fates[2]
