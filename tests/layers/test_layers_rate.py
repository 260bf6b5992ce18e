"""The rate limit of a link: what waits, what is refused, and what neither befalls."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from hypercache.errors import ConfigurationError, MalformedMessageError
from hypercache.interfaces import IFrameLayer, IFrameLayerFactory
from hypercache.layers.rate import RateFactory
from hypercache.layers.stack import RefusedFrame
from hypercache.net.faults import FAULTS
from hypercache.wire import ErrorCode, Extension, Status
from hypercache.wire.extension import encode_extension, reply_head, request_head
from hypercache.wire.messages import GenericError, NodeJoinResponse, ReplicateResponse
from tests.layers.stacks import End

Frame = tuple[int, bytes]
NANOSECONDS = 10**9
JOIN, WRITE, BEAT, RAFT, GOODBYE, RESET, WINDOW, ALIVE, ERROR = 0x30, 0x20, 0x32, 0x12, 0x05, 0x07, 0x06, 0x00, 0xFF


class Limited(End):
    """An end whose frames are read straight off the wire; ``at`` has when each was handed up, in nanoseconds."""

    def __init__(
        self, per_second: float, burst: int, policy: str = "pause", *, costs: tuple[str, ...] = (), **options: Any
    ) -> None:
        self.counted: list[int] = []
        factory = RateFactory(per_second, burst=burst, policy=policy, costs=costs, count=self.counted.append)
        super().__init__([factory], keys=None, **options)
        self.at: list[int] = []
        self.on_came = lambda frames: self.at.extend([round(self.clock.seconds() * NANOSECONDS)] * len(frames))

    def run_until(self, seconds: float) -> None:
        """Advance the clock from call to call, so that each sees the time at which it was due."""
        while (calls := self.clock.getDelayedCalls()) and (due := min(call.getTime() for call in calls)) <= seconds:
            self.clock.rightNow = due
            self.clock.advance(0)
        self.clock.rightNow = seconds


def write(number: int) -> Frame:
    return WRITE, request_head(number) + b"body"


def writes(count: int, first: int = 0) -> list[Frame]:
    return [write(first + number) for number in range(count)]


def test_the_layer_and_its_factory_are_what_their_interfaces_say() -> None:
    for policy in ("pause", "reject"):
        factory = RateFactory(1.0, policy=policy, count=lambda count: None)
        verifyObject(IFrameLayerFactory, factory)
        layer = factory.layer(End([]).view)
        layer.above = layer.below = None
        verifyObject(IFrameLayer, layer)


@pytest.mark.parametrize("per_second", [0.0, -1.0, inf, -inf, nan])
def test_a_rate_that_is_none_is_refused(per_second: float) -> None:
    with pytest.raises(ConfigurationError, match=r"rate\.per_second"):
        RateFactory(per_second, count=lambda count: None)
    with pytest.raises(ConfigurationError, match=r"rate\.policy"):
        RateFactory(1.0, policy="drop", count=lambda count: None)
    with pytest.raises(ConfigurationError, match="'Heartbeat'"):
        RateFactory(1.0, costs=["Heartbeat"], count=lambda count: None)


@pytest.mark.parametrize("policy", ["pause", "reject"])
def test_within_the_limit_nothing_happens(policy: str) -> None:
    end = Limited(30.0, 30, policy)
    answers = [(0x21, reply_head(number)) for number in range(40)]
    frames = [*writes(9), *answers, (BEAT, request_head(5)), (BEAT, request_head(6)), (BEAT, request_head(7))]
    end.hear(frames)
    assert end.came == frames
    assert end.batches == [frames]
    assert end.counted == []
    assert end.clock.getDelayedCalls() == []
    assert end.send(*frames) == frames


# Pause


def test_over_the_limit_reading_pauses_until_the_moment_when_there_are_tokens() -> None:
    end = Limited(10.0, 6)
    frames = writes(4)
    end.hear(frames)
    assert end.came == frames[:2]
    assert end.pauses == 1
    assert end.counted == [2]
    end.run_until(0.299_999_999)
    assert end.came == frames[:2]
    end.run_until(0.3)
    assert end.came == frames[:3]
    assert end.pauses == 1
    end.run_until(0.6)
    assert end.came == frames
    assert (end.pauses, end.pauses_ever) == (0, 1)
    assert end.clock.getDelayedCalls() == []


reads = st.lists(
    st.tuples(st.integers(0, 900), st.lists(st.sampled_from([BEAT, WRITE, JOIN, RAFT, GOODBYE, WINDOW]), max_size=8)), max_size=12
)


@given(st.sampled_from([1.0, 7.0, 2.5, 30.0, 1000.0]), st.integers(3, 12), reads)
def test_nothing_is_lost_order_is_kept_and_each_frame_goes_on_as_early_as_it_may(
    per_second: float, burst: int, reads: list[tuple[int, list[int]]]
) -> None:
    end = Limited(per_second, burst)
    rate, level, last = Fraction(str(per_second)) / NANOSECONDS, Fraction(burst), 0
    expected: dict[Frame, int] = {}
    milliseconds = number = 0
    in_order: list[Frame] = []
    for pause, types in reads:
        milliseconds += pause
        end.run_until(milliseconds / 1000)
        frames = []
        for message_type in types:
            number += 1
            frame = (message_type, request_head(number))
            frames.append(frame)
            now = milliseconds * 1_000_000
            if message_type in (RAFT, WINDOW):
                expected[frame] = now
                continue
            in_order.append(frame)
            cost = {BEAT: 1, GOODBYE: 0}.get(message_type, 3)
            now = max(now, last)
            level = min(Fraction(burst), level + (now - last) * rate)
            if level < cost:
                wait = -((level - cost) // rate)
                now += int(wait)
                level = min(Fraction(burst), level + wait * rate)
            level -= cost
            last = expected[frame] = now
        end.hear(frames)
    end.run_until(10**6)
    assert dict(zip(end.came, end.at, strict=True)) == expected
    assert [frame for frame in end.came if frame[0] not in (RAFT, WINDOW)] == in_order
    assert [frame for frame in end.came if frame[0] in (RAFT, WINDOW)] == [each for each in expected if each[0] in (RAFT, WINDOW)]
    assert end.pauses == 0


def test_raft_of_a_member_overtakes_what_waits() -> None:
    end = Limited(1.0, 3)
    raft = [(message_type, request_head(message_type)) for message_type in range(0x10, 0x1D)]
    end.hear([write(1), raft[0], write(2), *raft[1:5], write(3)])
    assert end.came == [write(1), *raft[:5]]
    # What was still read behaves the same.
    end.hear([write(4), *raft[5:]])
    assert end.came == [write(1), *raft]
    end.run_until(20)
    assert end.came[14:] == [write(2), write(3), write(4)]


def test_raft_of_a_stranger_is_limited_like_all_else() -> None:
    member = False
    end = Limited(1.0, 10, members=lambda: member)
    vote, append = (0x10, request_head(1)), (0x12, request_head(2))
    end.hear([vote, append])
    assert end.came == [vote]
    end.run_until(5)
    assert end.came == [vote, append]
    member = True
    end.hear([append] * 20)
    assert end.came == [vote] + [append] * 21


def test_answers_errors_and_credit_overtake_what_waits() -> None:
    end = Limited(1.0, 3)
    ahead = [(0x21, reply_head(1) + bytes(8)), (0x90, reply_head(2)), (ERROR, b"\0e"), (WINDOW, b"\0w"), (ALIVE, b"\0")]
    end.hear([write(1), write(2), *ahead, write(3)])
    assert end.came == [write(1), *ahead]


def test_an_answer_of_a_base_peer_is_told_by_its_type() -> None:
    end = Limited(1.0, 3, extended=False)
    # In version 0x01 the first byte of a payload is no flag.
    asked, again = (WRITE, b"\2" + bytes(30)), (WRITE, b"\2again" + bytes(30))
    ahead = [(0x21, bytes(8)), (0x33, bytes(16)), (0x40, bytes(15)), (ERROR, bytes(8)), (RAFT, bytes(50))]
    end.hear([asked, again, *ahead])
    assert end.came == [asked, *ahead]
    end.run_until(3)
    assert end.came == [asked, *ahead, again]


def test_an_answer_without_its_flag_is_no_answer_to_an_extended_peer() -> None:
    end = Limited(1.0, 3)
    end.hear([write(1), (0x40, b"\0" + bytes(15))])
    assert end.came == [write(1)]


def test_the_end_of_a_link_or_stream_is_free_and_never_overtakes() -> None:
    end = Limited(1.0, 3)
    ends = [(GOODBYE, b"\0bye"), (RESET, b"\0end")]
    end.hear([*ends, write(1), *ends, write(2), *ends])
    assert end.came == [*ends, write(1), *ends]
    end.run_until(3)
    assert end.came == [*ends, write(1), *ends, write(2), *ends]


def test_what_was_read_before_the_pause_took_effect_waits_too() -> None:
    end = Limited(3.0, 3)
    end.hear(writes(3))
    end.hear(writes(2, 3))
    assert end.came == writes(1)
    assert (end.pauses, end.pauses_ever) == (1, 1)
    assert sum(end.counted) == 4
    end.run_until(4)
    assert end.came == writes(5)
    assert end.at == [0, *(second * NANOSECONDS for second in range(1, 5))]


def test_a_link_that_was_over_the_limit_may_be_so_again() -> None:
    end = Limited(3.0, 3)
    for round_ in range(3):
        end.hear(writes(2, 2 * round_))
        end.run_until(10.0 * (round_ + 1))
    assert end.came == writes(6)
    assert (end.pauses, end.pauses_ever) == (0, 3)


def test_a_timer_that_comes_too_early_is_set_again() -> None:
    end = Limited(1.0, 3)
    end.hear(writes(2))
    (call,) = end.clock.getDelayedCalls()
    end.clock.rightNow = 2.5
    call.reset(0)
    end.clock.advance(0)
    assert end.came == writes(1)
    assert end.batches == [writes(1)]
    end.run_until(3)
    assert end.came == writes(2)
    assert end.pauses == 0


def test_close_cancels_what_was_scheduled() -> None:
    end = Limited(1.0, 3)
    end.hear(writes(9))
    assert len(end.clock.getDelayedCalls()) == 1
    end.stack.close()
    assert end.clock.getDelayedCalls() == []
    assert end.came == writes(1)
    end.hear(writes(9))
    assert end.clock.getDelayedCalls() == []
    end.stack.close()


def test_nothing_is_scheduled_where_what_is_handed_up_ends_the_link() -> None:
    for seconds in (0.0, 3.0):
        end = Limited(1.0, 3)
        if seconds:
            end.hear(writes(9))
        end.on_came = lambda frames, end=end: end.stack.close()  # type: ignore[misc]
        if seconds:
            end.clock.advance(seconds)
        else:
            end.hear(writes(9))
        assert end.clock.getDelayedCalls() == []


def test_an_error_from_above_ends_the_link_also_where_it_comes_late() -> None:
    end = Limited(1.0, 3)
    end.hear(writes(2))
    error = MalformedMessageError("from a layer above")

    def fault(frames: list[Any]) -> None:
        raise error

    end.on_came = fault
    end.run_until(3)
    assert end.failures == [error]
    assert end.pauses == 0
    # A bug above is for the log; what waits goes on.
    end.hear(writes(3))
    error = KeyError("a layer's own bug")  # type: ignore[assignment]
    with pytest.raises(KeyError):
        end.run_until(6)
    assert len(end.clock.getDelayedCalls()) == end.pauses == 1


def test_an_error_from_above_leaves_what_waits_scheduled() -> None:
    end = Limited(1.0, 3)

    def fault(frames: list[Any]) -> None:
        raise MalformedMessageError("from a layer above")

    end.on_came = fault
    with pytest.raises(MalformedMessageError):
        end.hear(writes(2))
    assert len(end.clock.getDelayedCalls()) == end.pauses == 1


# Reject


def test_over_the_limit_frames_are_refused_in_their_place_with_word_of_when_to_come_again() -> None:
    end = Limited(10.0, 7, "reject")
    raft = (RAFT, request_head(9))
    beat = (BEAT, request_head(8))
    end.hear([*writes(3), beat, raft, write(4)])
    first, second, refused, also, last, too_late = end.came
    assert [first, second, also, last] == [write(0), write(1), beat, raft]
    assert refused.frame == write(2)
    assert refused.code == ErrorCode.RATE_LIMITED
    # One token of three was there at first, none when the heartbeat had taken it.
    assert refused.retry_after_ms == 200
    assert (too_late.frame, too_late.retry_after_ms) == (write(4), 300)
    assert end.counted == [2]
    assert end.pauses_ever == 0
    assert end.clock.getDelayedCalls() == []


@given(st.sampled_from([0.7, 3.0, 10.0]), st.integers(1, 10))
def test_who_comes_again_when_it_was_told_to_is_served(per_second: float, burst: int) -> None:
    end = Limited(per_second, burst, "reject")
    end.hear(writes(12))
    refused = end.came[-1]
    end.clock.advance(refused.retry_after_ms / 1000)
    end.hear([refused.frame])
    assert end.came[-1] == refused.frame
    end.hear([refused.frame])
    assert isinstance(end.came[-1], RefusedFrame)


def test_the_sender_hears_retry_later_or_an_error() -> None:
    end = Limited(1.0, 1, "reject")
    other = (0x41, request_head(3))
    end.hear([write(1), write(2), (JOIN, request_head(7)), other])
    answers = []
    for refused in end.came[1:]:
        fault = FAULTS[RefusedFrame](refused)
        answers.append((fault.exchange, fault.retry_after_ms > 0, fault.answer(extended=True)))
    assert answers[0] == (2, True, ReplicateResponse(Status.RETRY_LATER, 1))
    assert answers[1] == (7, True, NodeJoinResponse(Status.RETRY_LATER, 1, 0))
    number, retry, error = answers[2]
    assert isinstance(error, GenericError)
    assert (number, retry, error.error_code) == (3, True, ErrorCode.RATE_LIMITED)


@pytest.mark.parametrize("extended", [True, False])
def test_answers_raft_and_what_is_for_the_link_itself_are_never_refused(extended: bool) -> None:
    end = Limited(1.0, 3, "reject", extended=extended)
    free = [(each, reply_head(each)) for each in (*range(0x10, 0x1D), *range(8), 0x21, 0x33, 0x31, 0xFF)]
    end.hear([write(1), *free, write(2), *free])
    assert end.came[1 : -1 - len(free)] == free
    assert isinstance(end.came[1 + len(free)], RefusedFrame)
    assert end.came[2 + len(free) :] == free


# Both


@pytest.mark.parametrize("policy", ["pause", "reject"])
def test_what_a_layer_below_has_refused_costs_nothing_and_stays_refused(policy: str) -> None:
    end = Limited(1.0, 6, policy)
    refused = RefusedFrame(write(7), ErrorCode.NOT_LEADER, "below")
    end.stack.receive([write(1), refused, refused, write(2)])
    assert end.came == [write(1), refused, refused, write(2)]
    end.stack.receive([write(3), refused])
    end.run_until(3)
    assert [each for each in end.came if isinstance(each, RefusedFrame) and each.code == ErrorCode.NOT_LEADER] == [refused] * 3


@pytest.mark.parametrize("policy", ["pause", "reject"])
def test_an_empty_payload_is_no_trouble(policy: str) -> None:
    end = Limited(1.0, 3, policy)
    end.hear([(WRITE, b""), (WRITE, b"")])
    end.run_until(3)
    assert end.came[0] == (WRITE, b"")
    assert len(end.came) == 2


def test_the_operators_costs_count() -> None:
    end = Limited(1.0, 10, costs=("ReplicateData=1", "0x32=10"))
    end.hear([*writes(10), (BEAT, request_head(1))])
    assert end.came == writes(10)
    assert end.clock.getDelayedCalls()[0].getTime() == 10


def test_a_frame_on_a_stream_costs_like_any_other() -> None:
    end = Limited(1.0, 3)
    frames = [(WRITE, encode_extension(Extension(stream=3), bytes((number,)))) for number in range(2)]
    end.hear(frames)
    assert end.came == frames[:1]
