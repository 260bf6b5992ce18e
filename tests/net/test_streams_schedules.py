"""Streams under any schedule: every message comes once and in order, memory is bounded, and in the end all is over."""

from __future__ import annotations

from collections import defaultdict
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypercache.errors import BusyError, LinkLostError
from hypercache.net import stream as stream_module
from hypercache.net.streams import CANCELLED, Stream
from tests.net.pipe import MOST, Side, pair, settle


class Schedules(RuleBasedStateMachine):
    """Both sides open, send, end and give up streams in any order; the windows are so small that they are often used up."""

    COUNT = 6
    BYTES = 400
    SIZES = (0, 1, 40, 150, 399, 400, 1000)

    @initialize()
    def link(self) -> None:
        self.sides = pair()
        self.sent: dict[tuple[Side, int], list[bytes]] = defaultdict(list)
        self.opened: list[tuple[Side, Stream]] = []
        self.broken: set[int] = set()
        self.busy = 0
        self.number = 0
        for side in self.sides:
            side.holds = lambda stream_id: True

    def __init__(self) -> None:
        super().__init__()
        self.windows = mock.patch.multiple(
            stream_module, STREAM_WINDOW_COUNT=self.COUNT, STREAM_WINDOW_BYTES=self.BYTES, STREAM_OUTBOX_MAX_COUNT=self.COUNT
        )
        self.windows.start()

    @rule(which=st.integers(0, 1))
    def open(self, which: int) -> None:
        try:
            self.opened.append((self.sides[which], self.sides[which].open()))
        except BusyError:
            assert len(self.sides[which].streams) >= MOST
            self.busy += 1

    def ends(self, stream: int) -> tuple[Side, Stream] | None:
        """Return one of the two ends of a stream that was opened."""
        if not self.opened:
            return None
        side, opened = self.opened[stream // 2 % len(self.opened)]
        if stream % 2:
            side = side.other
        found = side.met.get(opened.stream_id)
        return None if found is None else (side, found)

    @rule(stream=st.integers(0, 60), size=st.sampled_from(SIZES))
    def put(self, stream: int, size: int) -> None:
        end = self.ends(stream)
        if end is None:
            return
        side, found = end
        self.number += 1
        body = self.number.to_bytes(4, "big") + bytes(size)
        full = found.full
        try:
            side.put(found, body)
        except BusyError:
            assert full
            self.busy += 1
        except LinkLostError:
            assert found.finished
        else:
            assert not full
            self.sent[side, found.stream_id].append(body)

    @rule(stream=st.integers(0, 60))
    def finish(self, stream: int) -> None:
        end = self.ends(stream)
        if end is not None:
            end[1].finish()

    @rule(stream=st.integers(0, 60))
    def reset(self, stream: int) -> None:
        end = self.ends(stream)
        if end is not None:
            self.broken.add(end[1].stream_id)
            end[1].reset(CANCELLED, "no more")

    @rule(which=st.integers(0, 1), most=st.sampled_from((1, 100, 3000)))
    def pump(self, which: int, most: int) -> None:
        self.sides[which].pump(most)

    @rule(which=st.integers(0, 1), count=st.integers(1, 5))
    def deliver(self, which: int, count: int) -> None:
        side = self.sides[which]
        for _ in range(min(count, len(side.wire))):
            side.deliver()

    @rule(which=st.integers(0, 1), place=st.integers(0, 20))
    def handle(self, which: int, place: int) -> None:
        held = self.sides[which].held
        if held:
            stream, size = held.pop(place % len(held))
            stream.consumed(size)

    @invariant()
    def every_message_comes_once_and_in_order(self) -> None:
        for side in self.sides:
            for stream_id, bodies in side.got.items():
                assert bodies == self.sent[side.other, stream_id][: len(bodies)]

    @invariant()
    def memory_is_bounded(self) -> None:
        most = self.BYTES + max(self.SIZES) + 20
        for side in self.sides:
            assert len(side.streams) <= 2 * MOST
            by_stream: defaultdict[Stream, list[int]] = defaultdict(list)
            for stream, size in side.held:
                if not stream.given_up:
                    by_stream[stream].append(size)
            assert side.streams.held_bytes == sum(map(sum, by_stream.values()))
            for sizes in by_stream.values():
                assert len(sizes) <= self.COUNT
                assert sum(sizes) <= most
            for stream in side.met.values():
                assert len(stream._outbox) <= self.COUNT
                assert stream._outbox_bytes == sum(len(data) for _, data in stream._outbox) <= most

    def teardown(self) -> None:
        if hasattr(self, "sides"):
            self._all_arrives_in_the_end()
        self.windows.stop()

    def _all_arrives_in_the_end(self) -> None:
        for side in self.sides:
            side.holds = lambda stream_id: False
            side.handle_held()
        settle(*self.sides)
        for (side, stream_id), bodies in self.sent.items():
            if stream_id not in self.broken:
                assert side.other.got[stream_id] == bodies
        # Nobody took the other for a cheat.
        assert sum(side.metrics.refused_stream_messages + side.metrics.refused_requests for side in self.sides) == self.busy
        for _, stream in self.opened:
            stream.finish()
        settle(*self.sides)
        for side in self.sides:
            for stream in side.met.values():
                stream.finish()
        settle(*self.sides)
        for side in self.sides:
            assert len(side.streams) == 0
            assert not side.streams.ready
            assert side.streams.held_bytes == 0


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
