"""The failure detector, on arrivals that are made up."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.cluster.suspicion import Detector, phi_of
from hypercache.limits import SUSPICION_WINDOW_COUNT

NODE = 7


def detector(**settings: float) -> Detector:
    """Return a detector that watches a node since 0."""
    made = Detector(interval=0.5, **settings)  # type: ignore[arg-type]
    made.watch([NODE], 0.0)
    return made


def beat(made: Detector, count: int, *, start: float = 0.0, interval: float = 0.5) -> float:
    """Let a node be heard so often; return when it was last."""
    for number in range(1, count + 1):
        made.heard(NODE, start + number * interval)
    return start + count * interval


def detection_seconds(made: Detector, last: float) -> float:
    """Return after which silence the node is suspected."""
    silence = 0.0
    while not made.suspects(last + silence):
        silence += 0.01
        assert silence < 60
    return silence


@given(st.floats(0.0, 20.0), st.floats(0.1, 5.0), st.floats(0.1, 3.0))
def test_phi_is_how_unlikely_such_a_silence_is(silence: float, mean: float, deviation: float) -> None:
    likely = 1 - NormalDist(mean, deviation).cdf(silence)
    if likely > 1e-9:
        assert phi_of(silence, mean, deviation) == pytest.approx(-math.log10(likely), rel=1e-5, abs=1e-6)


def test_phi_grows_on_beyond_the_smallest_float() -> None:
    values = [phi_of(silence / 10, 0.5, 0.1) for silence in range(5, 2000)]
    assert all(later > earlier for earlier, later in pairwise(values))
    assert values[-1] > 8e5
    assert math.isfinite(values[-1])
    at, step = 0.5 + 20.0 * 0.1 * math.sqrt(2), 1e-9
    assert phi_of(at + step, 0.5, 0.1) == pytest.approx(phi_of(at - step, 0.5, 0.1), rel=1e-2)


def test_a_punctual_node_that_dies_is_suspected_after_about_two_seconds() -> None:
    made = detector()
    last = beat(made, 200)
    assert made.phi(NODE, last + 0.5) < 0.1
    assert 1.8 < detection_seconds(made, last) < 2.5


def test_a_node_that_dies_after_its_first_beat_is_suspected_too() -> None:
    made = detector()
    assert 2.0 < detection_seconds(made, beat(made, 1)) < 5.0


def test_a_node_that_never_was_heard_has_a_grace_and_is_suspected_then() -> None:
    made = detector()
    assert not made.suspects(3.0)
    assert 3.0 < detection_seconds(made, 0.0) < 6.0


def test_a_node_that_is_unpunctual_is_given_more_time() -> None:
    rng = random.Random(1)
    steady, shaky = detector(), detector()
    last = now = 0.0
    for _ in range(200):
        now += 0.5 + abs(rng.gauss(0, 0.5))
        shaky.heard(NODE, now)
        last = now
    assert detection_seconds(shaky, last) > detection_seconds(steady, beat(steady, 200)) + 1.0


@pytest.mark.parametrize(("jitter", "loss"), [(0.05, 0.0), (0.2, 0.05), (0.4, 0.1)])
def test_living_nodes_are_hardly_ever_suspected(jitter: float, loss: float) -> None:
    rng = random.Random(2)
    wrong = looks = 0
    for _ in range(20):
        made = detector()
        arrivals = [number * 0.5 + rng.uniform(0, jitter) for number in range(1, 1000) if number < 5 or rng.random() >= loss]
        at = 0
        for look in range(1, 1000):
            now = look * 0.5
            while at < len(arrivals) and arrivals[at] <= now:
                made.heard(NODE, arrivals[at])
                at += 1
            looks += 1
            wrong += bool(made.suspects(now))
    assert wrong / looks < 1e-3


def test_a_pause_of_a_second_is_allowed() -> None:
    made = detector()
    last = beat(made, 300)
    assert not made.suspects(last + 1.5)
    short = detector(pause=0.0)
    assert short.suspects(beat(short, 300) + 1.5)


def test_dense_traffic_makes_a_node_no_more_suspicious_when_it_has_less_to_say() -> None:
    made = detector()
    last = beat(made, 60_000, interval=0.001)
    quiet = detector()
    assert detection_seconds(made, last) == pytest.approx(detection_seconds(quiet, beat(quiet, 200)), abs=0.1)


def test_a_node_that_is_heard_again_is_suspected_no_more() -> None:
    made = detector()
    last = beat(made, 50)
    assert made.suspects(last + 30) == {NODE}
    made.heard(NODE, last + 30)
    assert not made.suspects(last + 30.5)


def test_a_time_in_which_a_node_was_dead_says_nothing_of_its_rhythm() -> None:
    made = detector()
    last = 0.0
    for _ in range(5):
        last = beat(made, 4, start=last + 20.0)
    assert detection_seconds(made, last) < 4.0


def test_a_node_that_is_heard_of_at_every_look_has_the_rhythm_of_the_looks() -> None:
    made, exact = detector(), detector()
    rng = random.Random(4)
    last = 0.0
    for look in range(1, 200):
        last = look * 0.5 - rng.uniform(0, 0.1)
        made.heard(NODE, last)
    assert detection_seconds(made, last) == pytest.approx(detection_seconds(exact, beat(exact, 200)), abs=0.3)


def test_the_past_beyond_the_window_is_forgotten() -> None:
    made, new = detector(), detector()
    last = beat(made, 50, interval=2.0)
    assert detection_seconds(made, last) > 3.4
    last = beat(made, SUSPICION_WINDOW_COUNT, start=last)
    assert detection_seconds(made, last) == pytest.approx(detection_seconds(new, beat(new, SUSPICION_WINDOW_COUNT)), abs=0.02)


def test_sums_of_a_long_life_do_not_drift() -> None:
    rng = random.Random(3)
    made = detector()
    now = 1e9
    made.watch([], now)
    made.watch([NODE], now)
    for _ in range(20_000):
        now += rng.uniform(0.5, 0.6)
        made.heard(NODE, now)
    assert 1.5 < detection_seconds(made, now) < 2.5


def test_a_time_in_which_this_node_did_not_listen_is_forgiven() -> None:
    made = detector()
    last = beat(made, 50)
    made.forgive(60.0)
    assert not made.suspects(last + 60.5)
    assert made.suspects(last + 63.0)


def test_signs_that_come_out_of_order_are_none() -> None:
    made = detector()
    last = beat(made, 50)
    made.heard(NODE, last - 1)
    assert 1.8 < detection_seconds(made, last) < 2.5


def test_only_who_is_watched_is_judged() -> None:
    made = detector()
    beat(made, 5)
    made.heard(9, 100.0)
    assert made.suspects(100.0) == {NODE}
    made.watch([9], 100.0)
    assert made.phi(NODE, 200.0) == 0.0
    assert made.suspects(101.0) == frozenset()
    made.watch([NODE, 9], 101.0)
    assert made.suspects(102.0) == frozenset()
