"""What was asked and is not answered: each request has one outcome, and its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher

from hypercache.errors import BusyError, DeadlineError, LinkLostError, RefusedError
from hypercache.net.exchanges import NUMBER_MAX, Exchanges, Numbers
from hypercache.wire.messages import GenericError, HashRingUpdate, HeartbeatResponse, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

BEAT = HeartbeatResponse.TYPE
DONE = ReplicateResponse.TYPE


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    events: list[Any] = []

    def note(event: Any) -> None:
        if "log_failure" in event:
            events.append(event)

    observer: Any = note
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


class Told:
    """A sink that notes what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, Any]] = []

    def __call__(self, number: int, answer: Any) -> None:
        self.outcomes.append((number, answer))

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.outcomes]


def numbered() -> Exchanges:
    exchanges = Exchanges()
    exchanges.in_order = False
    return exchanges


def beat(number: int) -> HeartbeatResponse:
    return HeartbeatResponse(number, 0)


def retry_later() -> GenericError:
    return GenericError(0x0101, 0, "later")


# Extended peers


@given(st.permutations(range(1, 9)))
def test_answers_may_come_in_any_order(order: list[int]) -> None:
    exchanges, told = numbered(), Told()
    exchanges.expect(1, BEAT, told, 9.0)
    exchanges.expect(2, BEAT, told, 9.0, 4)
    for number in (6, 7, 8):
        exchanges.expect(number, BEAT, told, 9.0)
    for number in order:
        assert exchanges.answer(number, beat(number))
    assert told.outcomes == [(number, beat(number)) for number in order]
    assert len(exchanges) == 0


def test_an_answer_is_taken_once_and_one_that_nobody_waits_for_not_at_all() -> None:
    exchanges, told = numbered(), Told()
    exchanges.expect(1, BEAT, told, 9.0)
    assert exchanges.answer(1, beat(1))
    assert not exchanges.answer(1, beat(1))
    assert not exchanges.answer(2, beat(2))
    assert told.numbers == [1]


def test_an_answer_of_another_type_leaves_the_request_waiting_but_an_error_answers_any() -> None:
    exchanges, told = numbered(), Told()
    exchanges.expect(1, BEAT, told, 9.0)
    assert not exchanges.answer(1, ReplicateResponse(0, 0))
    assert len(exchanges) == 1
    assert exchanges.answer(1, retry_later())
    assert told.outcomes == [(1, retry_later())]


def test_an_error_that_says_when_to_ask_again_comes_as_a_refusal() -> None:
    exchanges, told = numbered(), Told()
    exchanges.expect(1, BEAT, told, 9.0, 2)
    exchanges.answer(1, retry_later(), 1500)
    exchanges.answer(2, beat(2), 1500)
    refusal = told.outcomes[0][1]
    assert isinstance(refusal, RefusedError)
    assert (refusal.code, refusal.retry_after) == (0x0101, 1.5)
    assert told.outcomes[1] == (2, beat(2))


def test_a_request_that_could_not_be_sent_is_forgotten() -> None:
    exchanges, told = numbered(), Told()
    exchanges.expect(1, BEAT, told, 9.0)
    exchanges.forget(1)
    exchanges.forget(1)
    assert len(exchanges) == 0
    exchanges.fail(LinkLostError("gone"))
    assert told.outcomes == []


# Base peers


def test_a_base_peer_is_matched_in_order() -> None:
    exchanges, told = Exchanges(), Told()
    exchanges.expect(1, BEAT, told, 9.0, 2)
    exchanges.expect(3, DONE, told, 9.0)
    assert not exchanges.answer_in_order(ReplicateResponse(0, 0), DONE)
    assert exchanges.answer_in_order(beat(7), BEAT)
    assert exchanges.answer_in_order(retry_later(), 0)
    assert exchanges.answer_in_order(ReplicateResponse(0, 0), DONE)
    assert not exchanges.answer_in_order(beat(7), BEAT)
    assert told.outcomes == [(1, beat(7)), (2, retry_later()), (3, ReplicateResponse(0, 0))]
    assert len(exchanges) == 0


def test_a_ring_comes_as_an_answer_only_where_the_oldest_request_asks_for_one() -> None:
    exchanges, told = Exchanges(), Told()
    assert not exchanges.awaits(HashRingUpdate.TYPE)
    exchanges.expect(1, BEAT, told, 9.0)
    exchanges.expect(2, HashRingUpdate.TYPE, told, 9.0)
    assert not exchanges.awaits(HashRingUpdate.TYPE)
    exchanges.answer_in_order(beat(1), BEAT)
    assert exchanges.awaits(HashRingUpdate.TYPE)


# Deadlines


def test_a_request_fails_when_its_deadline_has_passed_and_a_late_answer_is_nobodys() -> None:
    exchanges, told = numbered(), Told()
    exchanges.expect(1, BEAT, told, 5.0)
    exchanges.expect(2, BEAT, told, 7.0)
    exchanges.expect(3, BEAT, told, 6.0, 2)
    assert exchanges.expire(4.9) == 0
    assert exchanges.expire(6.0) == 3
    assert told.numbers == [1, 3, 4]
    assert all(isinstance(error, DeadlineError) for _, error in told.outcomes)
    assert not exchanges.answer(1, beat(1))
    assert exchanges.expire(6.5) == 0
    assert exchanges.expire(7.0) == 1
    assert len(exchanges) == 0


def test_until_the_earliest_deadline_nothing_is_looked_through() -> None:
    class Counted(dict[int, Any]):
        looks = 0

        def items(self) -> Any:
            Counted.looks += 1
            return super().items()

    exchanges, told = numbered(), Told()
    exchanges._numbered = Counted()
    for number in range(1, 1001):
        exchanges.expect(number, BEAT, told, 5.0 + number / 1000)
    for tick in range(50):
        assert exchanges.expire(tick / 10) == 0
    assert Counted.looks == 0
    # What was answered before counts no more: one look finds the next deadline.
    for number in range(1, 1000):
        exchanges.answer(number, beat(number))
    for tick in range(51, 60):
        assert exchanges.expire(tick / 10) == 0
    assert Counted.looks == 1
    assert exchanges.expire(6.0) == 1
    # Nor does what was late count.
    exchanges.expect(2000, BEAT, told, 7.0)
    exchanges.expect(2001, BEAT, told, 9.0)
    assert exchanges.expire(7.0) == 1
    looks = Counted.looks
    for tick in range(71, 90):
        assert exchanges.expire(tick / 10) == 0
    assert Counted.looks == looks


def test_a_base_peers_later_deadlines_are_kept_too() -> None:
    exchanges, told = Exchanges(), Told()
    exchanges.expect(1, BEAT, told, 5.0)
    exchanges.expect(2, BEAT, told, 8.0)
    exchanges.answer_in_order(beat(1), BEAT)
    assert exchanges.expire(6.0) == 0
    assert exchanges.expire(8.0) == 1
    assert told.numbers == [1, 2]


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 3)), max_size=12), st.lists(st.floats(0, 110), max_size=12))
def test_whatever_the_deadlines_each_is_kept_to(requests: list[tuple[float, int]], looks: list[float]) -> None:
    exchanges = numbered()
    numbers = Numbers()
    outcomes: dict[int, float] = {}
    deadlines: dict[int, float] = {}
    now = 0.0

    def sink(number: int, answer: Any) -> None:
        outcomes[number] = now

    for deadline, count in requests:
        first = numbers.take(count)
        exchanges.expect(first, BEAT, sink, deadline, count)
        deadlines.update(dict.fromkeys(range(first, first + count), deadline))
    for look in sorted(looks):
        now = look
        exchanges.expire(look)
        assert set(outcomes) == {number for number, deadline in deadlines.items() if deadline <= look}
    assert all(deadlines[number] <= when for number, when in outcomes.items())


def test_a_base_peer_that_is_late_has_lost_count_and_all_requests_end_at_once() -> None:
    exchanges, told = Exchanges(), Told()
    exchanges.expect(1, BEAT, told, 5.0, 2)
    exchanges.expect(3, BEAT, told, 9.0)
    exchanges.answer_in_order(beat(1), BEAT)
    assert exchanges.expire(6.0) == 1
    assert told.numbers == [1, 2, 3]
    assert isinstance(told.outcomes[1][1], DeadlineError)
    assert isinstance(told.outcomes[2][1], LinkLostError)
    # Its answers would be taken for others', and it is not asked again.
    assert not exchanges.answer_in_order(beat(2), BEAT)
    with pytest.raises(LinkLostError):
        exchanges.expect(4, BEAT, told, 9.0)
    assert exchanges.expire(20.0) == 0
    exchanges.fail(LinkLostError("gone"))
    assert len(told.outcomes) == 3


# Loss


@pytest.mark.parametrize("in_order", [True, False])
def test_a_lost_link_fails_all_requests_with_one_error_and_takes_no_more(in_order: bool) -> None:
    exchanges, told = Exchanges(), Told()
    exchanges.in_order = in_order
    exchanges.expect(1, BEAT, told, 9.0)
    exchanges.expect(2, BEAT, told, 9.0, 3)
    error = LinkLostError("gone")
    exchanges.fail(error)
    assert told.numbers == [1, 2, 3, 4]
    assert all(outcome is error for _, outcome in told.outcomes)
    assert len(exchanges) == 0
    with pytest.raises(LinkLostError, match="gone"):
        exchanges.expect(5, BEAT, told, 9.0)
    assert len(exchanges) == 0
    exchanges.fail(error)
    assert len(told.outcomes) == 4


def test_who_is_told_of_a_deadline_may_end_the_link_and_ask_again() -> None:
    exchanges, told = numbered(), Told()
    refused: list[Exception] = []

    def cut(number: int, answer: Any) -> None:
        told(number, answer)
        exchanges.fail(LinkLostError("cut"))
        try:
            exchanges.expect(50, BEAT, told, 9.0)
        except LinkLostError as error:
            refused.append(error)

    exchanges.expect(1, BEAT, cut, 5.0)
    exchanges.expect(2, BEAT, told, 5.0)
    exchanges.expect(3, BEAT, told, 9.0)
    exchanges.expire(5.0)
    assert told.numbers == [1, 2, 3]
    assert [type(outcome) for _, outcome in told.outcomes] == [DeadlineError, LinkLostError, LinkLostError]
    assert refused


def test_who_is_told_of_a_deadline_may_ask_again_at_once() -> None:
    exchanges, told = numbered(), Told()

    def again(number: int, answer: Any) -> None:
        told(number, answer)
        if number < 3:
            exchanges.expect(number + 1, BEAT, again, 5.0 + number)

    exchanges.expect(1, BEAT, again, 5.0)
    assert exchanges.expire(5.0) == 1
    assert exchanges.expire(6.0) == 1
    assert exchanges.expire(6.9) == 0
    assert exchanges.expire(7.0) == 1
    assert told.numbers == [1, 2, 3]


def test_a_sink_that_fails_takes_nothing_from_the_others(failures: list[Any]) -> None:
    exchanges, told = numbered(), Told()

    def faulty(number: int, answer: Any) -> None:
        raise RuntimeError("a fault of who asked")

    for number in (1, 3, 5):
        exchanges.expect(number, BEAT, faulty, 1.0 if number == 3 else 9.0)
        exchanges.expect(number + 1, BEAT, told, 1.0 if number == 3 else 9.0)
    exchanges.answer(1, beat(1))
    exchanges.answer(2, beat(2))
    exchanges.expire(2.0)
    exchanges.fail(LinkLostError("gone"))
    assert told.numbers == [2, 4, 6]
    assert len(failures) == 3


# Numbers


def test_numbers_go_round_behind_the_last_and_are_never_0() -> None:
    numbers = Numbers()
    assert [numbers.take(1), numbers.take(10), numbers.take(1)] == [1, 2, 12]
    numbers._next = NUMBER_MAX - 1
    assert numbers.take(2) == NUMBER_MAX - 1
    assert numbers.take(1) == 1
    numbers._next = NUMBER_MAX
    assert numbers.take(2) == 1
    assert numbers.take(1) == 3


@pytest.mark.parametrize(("first", "count"), [(2, 1), (1, 3)])
def test_a_number_that_comes_round_while_it_is_waited_for_is_not_used(first: int, count: int) -> None:
    exchanges, old, new = numbered(), Told(), Told()
    exchanges.expect(2, BEAT, old, 9.0)
    exchanges.expect(NUMBER_MAX, BEAT, new, 9.0)
    with pytest.raises(BusyError):
        exchanges.expect(first, BEAT, new, 9.0, count)
    assert exchanges.answer(2, beat(2))
    assert old.numbers == [2]
    exchanges.expect(2, BEAT, new, 9.0, count)
    assert exchanges.answer(2, beat(2))
    assert new.numbers == [2]


def test_a_request_may_move_to_another_link_under_its_number() -> None:
    exchanges, told = numbered(), Told()
    exchanges.expect(9, BEAT, told, 9.0)
    exchanges.expect(5, BEAT, told, 9.0)
    assert exchanges.answer(5, beat(5))
    assert exchanges.answer(9, beat(9))
