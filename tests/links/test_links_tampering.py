"""Whoever sits on a signed link: no frame that is changed, dropped, doubled, moved or made up reaches a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.limits import FRAME_TIMEOUT_SECONDS, FRAME_TIMEOUT_SECONDS_PER_MIB, MIB
from hypercache.wire import encode_extended
from hypercache.wire.extension import Extension
from hypercache.wire.messages import GenericError, Goodbye, Heartbeat, KeepAlive, ReplicateData, ReplicateResponse
from hypercache.wire.signing import sign
from tests.links.pair import BODY_AT, DONE, Pair, Side, flipped, messages_of, reframed
from tests.net.peers import MAX_FRAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EVIL = ReplicateData(1, 0, "", b"forged", b"by nobody")
SIGNED = encode_extended(EVIL, Extension(1, signed=True))
FORGED = {
    "a version 0x01 frame": EVIL.encode_frame(),
    "an unsigned frame": encode_extended(EVIL, Extension(1)),
    "a frame with a signature of zeros": reframed(SIGNED, SIGNED[BODY_AT:] + bytes(16)),
    "a frame signed with another key": sign(bytes(32), 0, EVIL.TYPE, b"\x41\0\0\0\1" + EVIL.encode_payload()),
    "a keep-alive": KeepAlive().encode_frame(),
    "an unsigned keep-alive": encode_extended(KeepAlive()),
    "an error": GenericError(7, 0, "believe me").encode_frame(),
    "an unsigned error": encode_extended(GenericError(7, 0, "believe me"), Extension(1, reply=True)),
    "an unsigned answer": encode_extended(DONE, Extension(1, reply=True)),
    "an unsigned goodbye": encode_extended(Goodbye(0, "go")),
    "an empty frame": reframed(encode_extended(EVIL), b""),
    "a frame of a single byte": reframed(encode_extended(EVIL), b"\x40"),
    "a frame that is its signature": reframed(encode_extended(EVIL), b"\x40" * 16),
    "an unknown version": reframed(EVIL.encode_frame(), version=3),
    "version 0": reframed(EVIL.encode_frame(), version=0),
    "garbage": b"no frame at all",
}

FRAMES_LATE_COUNT = round((FRAME_TIMEOUT_SECONDS + FRAME_TIMEOUT_SECONDS_PER_MIB * MAX_FRAME / MIB) / 5) + 2
"""After so many times five seconds no frame may be unfinished."""


def write(number: int) -> ReplicateData:
    return ReplicateData(1, 0, "", b"k%d" % number, b"v" * (number % 50))


def requests(pair: Pair, count: int) -> tuple[list[bytes], list[bytes]]:
    """Have each side ask the other; return the frames on their way, the dialler's and the listener's."""
    for number in range(count):
        for side in pair.sides:
            side.ask(write(number) if number % 4 else Heartbeat(side.node_id, number, 1))
    return pair.dialler.written(), pair.listener.written()


def stream_of(count: int, seed: int = 1) -> tuple[Pair, list[bytes], list[bytes]]:
    pair = Pair(seed=seed).negotiate()
    assert pair.dialler.is_trusted
    assert pair.listener.is_trusted
    return pair, *requests(pair, count)


def holds(side: Side, sent: list[bytes], arrived: bytes, *, cut: Sequence[int] = ()) -> None:
    """Have a side read bytes, and hold what it handles against what its peer has sent.

    Everything before the first change is handled, nothing of what follows, and the link ends.
    """
    side.hear(arrived, cut=cut)
    whole = b"".join(sent)
    same = next((at for at in range(min(len(whole), len(arrived))) if whole[at] != arrived[at]), min(len(whole), len(arrived)))
    sound = []
    for frame in sent:
        same -= len(frame)
        if same < 0:
            break
        sound.append(frame)
    assert side.handled == messages_of(sound)
    if not whole.startswith(arrived):
        # A length that was changed may be that of a frame that never becomes whole.
        side.clock.pump([5.0] * (0 if side.is_over else FRAMES_LATE_COUNT))
        assert side.is_over
    side.hear(b"".join(sent))
    if side.is_over:
        assert side.handled == messages_of(sound)


def test_what_nobody_touches_is_handled_and_answered() -> None:
    pair, ours, theirs = stream_of(20)
    pair.listener.hear(b"".join(ours))
    pair.dialler.hear(b"".join(theirs))
    pair.run()
    assert pair.listener.handled == messages_of(ours)
    assert len(pair.dialler.answers) == len(pair.listener.answers) == 20


def test_no_bit_of_a_request_can_be_changed() -> None:
    _, (first, second, third), _ = stream_of(3)
    for bit in range(8 * len(second)):
        pair, sent, _ = stream_of(3)
        assert sent == [first, second, third]
        arrived = first + flipped(second, bit) + third
        holds(pair.listener, sent, arrived)


def test_no_bit_of_an_answer_can_be_changed() -> None:
    length = 1
    bit = 0
    while bit < 8 * length:
        pair, sent, _ = stream_of(1)
        pair.listener.hear(sent[0])
        (answer,) = pair.listener.written()
        length = len(answer)
        pair.dialler.hear(flipped(answer, bit))
        assert not pair.dialler.answers
        pair.clock.pump([0.5] * 4)
        assert not pair.dialler.answers or isinstance(pair.dialler.answers[0], Exception)
        bit += 3


def test_a_bit_that_is_changed_without_its_checksum_ends_the_link_too() -> None:
    for bit in range(8 * BODY_AT, 8 * BODY_AT + 100, 7):
        pair, sent, _ = stream_of(2)
        changed = bytearray(sent[0])
        changed[bit // 8] ^= 1 << bit % 8
        holds(pair.listener, sent, bytes(changed) + sent[1])


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("place", [0, 2])
def test_a_frame_that_is_made_up_ends_the_link(what: str, place: int) -> None:
    pair, ours, theirs = stream_of(3)
    for side, sent in ((pair.listener, ours), (pair.dialler, theirs)):
        arrived = b"".join([*sent[:place], FORGED[what], *sent[place:]])
        holds(side, sent, arrived)
        assert not any(isinstance(answer, ReplicateResponse) for answer in side.answers)


EDITS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "dropped": lambda sent: [sent[0], *sent[2:]],
    "the first dropped": lambda sent: sent[1:],
    "doubled": lambda sent: [sent[0], sent[1], *sent[1:]],
    "swapped": lambda sent: [sent[0], sent[2], sent[1], *sent[3:]],
    "replayed later": lambda sent: [*sent, sent[0]],
    "replayed whole": lambda sent: [*sent, *sent],
    "cut short": lambda sent: [sent[0], sent[1][:-1], *sent[2:]],
    "cut in the header": lambda sent: [sent[0], sent[1][:7], *sent[2:]],
    "made longer": lambda sent: [sent[0], reframed(sent[1], sent[1][BODY_AT:] + b"x"), *sent[2:]],
    "of another type": lambda sent: [sent[0], reframed(sent[1], message_type=Heartbeat.TYPE), *sent[2:]],
    "of another version": lambda sent: [sent[0], reframed(sent[1], version=1), *sent[2:]],
    "joined": lambda sent: [sent[0], reframed(sent[1], sent[1][BODY_AT:] + sent[2][BODY_AT:]), *sent[3:]],
    "with the signature of another": lambda sent: [sent[0], reframed(sent[1], sent[1][BODY_AT:-16] + sent[2][-16:]), *sent[2:]],
}


@pytest.mark.parametrize("what", EDITS)
def test_frames_cannot_be(what: str) -> None:
    pair, ours, theirs = stream_of(5)
    for side, sent in ((pair.listener, ours), (pair.dialler, theirs)):
        arrived = b"".join(EDITS[what](sent))
        holds(side, sent, arrived)


def test_a_frame_of_another_connection_of_the_same_nodes_is_worth_nothing() -> None:
    _, other_ours, other_theirs = stream_of(3, seed=2)
    for place in range(3):
        pair, ours, theirs = stream_of(3)
        for side, sent, other in ((pair.listener, ours, other_ours), (pair.dialler, theirs, other_theirs)):
            arrived = b"".join([*sent[:place], other[place], *sent[place + 1 :]])
            holds(side, sent, arrived)


def test_a_frame_that_is_sent_back_to_who_sent_it_is_worth_nothing() -> None:
    for place in range(3):
        pair, ours, theirs = stream_of(3)
        for side, sent, own in ((pair.listener, ours, theirs), (pair.dialler, theirs, ours)):
            arrived = b"".join([*sent[:place], own[place], *sent[place:]])
            holds(side, sent, arrived)


def test_a_connection_that_is_cut_leaves_the_frames_before_and_no_part_of_one() -> None:
    _, sent, _ = stream_of(4)
    whole = b"".join(sent)
    for end in range(0, len(whole), 5):
        pair, _, _ = stream_of(4)
        pair.listener.hear(whole[:end])
        pair.listener.lose()
        holds(pair.listener, sent, whole[:end])


class Edit:
    """What an attacker does to the frames of one direction; drawn by hypothesis."""

    def __init__(self, kind: str, at: int, other: int, data: bytes) -> None:
        self.kind = kind
        self.at = at
        self.other = other
        self.data = data

    def __repr__(self) -> str:
        return f"Edit({self.kind!r}, {self.at}, {self.other}, {self.data!r})"

    def __call__(self, frames: list[bytes], own: list[bytes], foreign: list[bytes]) -> list[bytes]:
        frames = [frame for frame in frames if frame]
        if not frames:
            return frames
        at, other = self.at % len(frames), self.other % len(frames)
        before, frame, behind = frames[:at], frames[at], frames[at + 1 :]
        if self.kind == "flip":
            return [*before, flipped(frame, self.other % (8 * len(frame))), *behind]
        if self.kind == "drop":
            return before + behind
        if self.kind == "double":
            return [*before, frame, frame, *behind]
        if self.kind == "swap":
            swapped = list(frames)
            swapped[at], swapped[other] = swapped[other], swapped[at]
            return swapped
        if self.kind == "replay":
            return [*before, frames[other], *frames[at:]]
        if self.kind == "reflect":
            return [*before, own[self.other % len(own)], *frames[at:]]
        if self.kind == "foreign":
            return [*before, foreign[self.other % len(foreign)], *frames[at:]]
        if self.kind == "forge":
            return [*before, list(FORGED.values())[self.other % len(FORGED)], *frames[at:]]
        if self.kind == "insert":
            return [*before, self.data, *frames[at:]]
        # Truncated: what follows is read as its rest.
        return [*before, frame[: self.other % len(frame)], *behind]


KINDS = ("flip", "drop", "double", "swap", "replay", "reflect", "foreign", "forge", "insert", "truncate")
edits = st.builds(Edit, st.sampled_from(KINDS), st.integers(0, 50), st.integers(0, 5000), st.binary(min_size=1, max_size=40))
_, *FOREIGN = stream_of(10, seed=2)


@settings(max_examples=300, deadline=None)
@given(st.lists(edits, min_size=1, max_size=4), st.booleans(), st.lists(st.integers(0, 2000), max_size=6))
def test_whatever_an_attacker_does_what_is_handled_is_what_was_sent_before_it(
    script: list[Edit], towards_dialler: bool, cuts: list[int]
) -> None:
    pair, ours, theirs = stream_of(10)
    side, sent, own = (pair.dialler, theirs, ours) if towards_dialler else (pair.listener, ours, theirs)
    frames = sent
    for edit in script:
        frames = edit(frames, own, FOREIGN[int(towards_dialler)])
    arrived = b"".join(frames)
    holds(side, sent, arrived)
