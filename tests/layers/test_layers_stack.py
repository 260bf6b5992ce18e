"""A stack of layers: to add one touches no other."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface import implementer
from zope.interface.verify import verifyObject

from hypercache.config import load_settings
from hypercache.errors import ConfigurationError, SignatureError
from hypercache.interfaces import IFrameLayer, IFrameLayerFactory
from hypercache.layers.built_in import built_in_layers
from hypercache.layers.stack import FrameLayer, LinkView, RefusedFrame, Stack
from hypercache.wire.extension import encode_extension
from hypercache.wire.messages import SCHEMA
from tests.layers.stacks import End, pair
from tests.wire.extensions import extensions

TEXT = b'{"name": "value"}, ' * 500
ALL = ("compression.codec=zstd", "rate.per_second=1000000", "rate.burst=1000000")


def built_in(*overrides: str, counted: list[int] | None = None) -> list[Any]:
    count = (lambda number: None) if counted is None else counted.append
    return built_in_layers(load_settings("", overrides), schema=SCHEMA, count_limited=count)


class MaskLayer(FrameLayer):
    """Masks what follows a payload's first byte."""

    def send(self, frames: list[tuple[int, bytes]]) -> None:
        self.below.send([(message_type, _masked(payload)) for message_type, payload in frames])

    def receive(self, frames: list[Any]) -> None:
        self.above.receive([(frame[0], _masked(frame[1])) if isinstance(frame, tuple) else frame for frame in frames])


@implementer(IFrameLayerFactory)
class MaskFactory:
    """Knows nothing of any other layer, nor they of it."""

    name = "mask"
    capability = 0
    base_peers = True

    def __init__(self, order: int) -> None:
        self.order = order

    def layer(self, link: LinkView) -> MaskLayer:
        return MaskLayer()


def _masked(payload: bytes) -> bytes:
    return payload[:1] + bytes(byte ^ 0x5A for byte in payload[1:])


def test_a_plain_layer_is_what_the_interface_says() -> None:
    layer = FrameLayer()
    layer.above = layer.below = None
    verifyObject(IFrameLayer, layer)
    verifyObject(IFrameLayerFactory, MaskFactory(1))


def test_an_empty_stack_is_a_wire() -> None:
    sent: list[Any] = []
    came: list[Any] = []
    stack = Stack([], write=sent.extend, handle=came.extend)
    stack.send([(1, b"a")])
    stack.receive([(2, b"b")])
    stack.close()
    assert (sent, came, len(stack)) == ([(1, b"a")], [(2, b"b")], 0)


def test_layers_stand_in_their_order_and_are_closed() -> None:
    closed: list[int] = []

    class Numbered(FrameLayer):
        def __init__(self, number: int) -> None:
            self.number = number

        def send(self, frames: list[tuple[int, bytes]]) -> None:
            self.below.send([(kind, payload + bytes((self.number,))) for kind, payload in frames])

        def receive(self, frames: list[Any]) -> None:
            self.above.receive([(kind, payload + bytes((self.number,))) for kind, payload in frames])

        def close(self) -> None:
            closed.append(self.number)

    sent: list[Any] = []
    came: list[Any] = []
    layers = [Numbered(number) for number in (1, 2, 3)]
    stack = Stack(layers, write=sent.extend, handle=came.extend)
    stack.send([(0, b"")])
    stack.receive([(0, b"")])
    stack.close()
    assert sent == [(0, b"\3\2\1")]
    assert came == [(0, b"\1\2\3")]
    assert sorted(closed) == [1, 2, 3]
    assert [lower.above is upper and upper.below is lower for lower, upper in pairwise(layers)] == [True, True]


@pytest.mark.parametrize("order", [5, 15, 50, 85, 95])
def test_a_layer_can_be_added_anywhere_and_touches_no_other(order: int) -> None:
    frames = [(0x20, b"\0" + TEXT), (0x32, b"\0beat"), (0x20, b"\0" + TEXT)]
    dialler, listener = pair(*built_in(*ALL), MaskFactory(order))
    plain, _ = pair(*built_in(*ALL))
    assert len(dialler.stack) == len(plain.stack) + 1
    listener.hear(dialler.send(*frames))
    dialler.hear(listener.send(*frames))
    assert dialler.came == listener.came == frames
    assert [len(payload) for _, payload in dialler.written] != [len(payload) for _, payload in frames]


def test_an_added_layer_weakens_no_signature() -> None:
    dialler, listener = pair(*built_in(*ALL), MaskFactory(50))
    message_type, payload = dialler.send((0x32, b"\0beat"))[0]
    with pytest.raises(SignatureError):
        listener.hear([(message_type, payload[:-1] + bytes((payload[-1] ^ 1,)))])
    assert listener.came == []


@given(
    st.lists(st.tuples(st.sampled_from([0x20, 0x32, 0x12, 0x50, 0xFF]), extensions, st.integers(0, 4000)), max_size=10),
    st.integers(1, 3000),
    st.sampled_from(["off", "zstd", "lz4"]),
    st.booleans(),
)
def test_anything_goes_through_all_layers_unchanged(rows: list[Any], chunk: int, codec: str, keyed: bool) -> None:
    overrides = (*ALL[1:], f"compression.codec={codec}")
    dialler, listener = pair(*built_in(*overrides), keys=(b"d" * 32, b"l" * 32) if keyed else None)
    frames = [(message_type, encode_extension(extension, TEXT[:size])) for message_type, extension, size in rows]
    dialler.send(*frames[:3])
    dialler.send(*frames[3:])
    listener.hear(dialler.written, chunk)
    assert listener.came == frames


def test_the_settings_choose_the_layers() -> None:
    assert [(each.name, each.order) for each in built_in()] == [("signing", 10)]
    assert [each.name for each in built_in(*ALL)] == ["signing", "compression", "rate"]
    assert [each.order for each in built_in(*ALL)] == [10, 20, 90]
    for each in built_in(*ALL):
        verifyObject(IFrameLayerFactory, each)
    base = End([each for each in built_in(*ALL) if each.base_peers], extended=False, keys=None)
    assert len(base.stack) == 1


def test_the_settings_reach_the_layers() -> None:
    def sent(*overrides: str) -> list[Any]:
        dialler, _ = pair(*built_in("compression.codec=lz4", *overrides), keys=None)
        return dialler.send((0x20, b"\0" + TEXT[:300]), (0x20, b"\0" + TEXT[:301]))

    assert [payload[:2] for _, payload in sent("compression.threshold=300")] == [b"\0{", b"\x20\2"]
    assert [payload[:2] for _, payload in sent("compression.threshold=299")] == [b"\x20\2", b"\x20\2"]
    assert [payload[:2] for _, payload in sent("compression.threshold=299", "compression.ratio_max=2")] == [b"\0{", b"\0{"]
    counted: list[int] = []
    rate = ("rate.per_second=1", "rate.burst=5", "rate.policy=reject", "rate.costs=ReplicateData=2")
    _, listener = pair(*built_in(*rate, counted=counted), keys=None)
    listener.hear([(0x20, b"\0")] * 4)
    assert [isinstance(each, RefusedFrame) for each in listener.came] == [False, False, True, True]
    assert [each.retry_after_ms for each in listener.came[2:]] == [1000, 1000]
    assert counted == [2]


def test_a_cost_that_is_none_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="'Heartbeet=1'"):
        built_in("rate.per_second=5", "rate.costs=Heartbeet=1")


def test_the_layer_of_the_documentation_works() -> None:
    text = (Path(__file__).parents[2] / "docs" / "layers.md").read_text()
    block = text.partition("and write a factory:")[2].partition("\n- ")[0]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(block), names)
    observed: list[tuple[int, int]] = []
    factory = names["SizesFactory"](lambda message_type, size: observed.append((message_type, size)))
    verifyObject(IFrameLayerFactory, factory)
    dialler, listener = pair(*built_in(*ALL), factory)
    listener.hear(dialler.send((0x20, b"\0" + TEXT)))
    assert listener.came == [(0x20, b"\0" + TEXT)]
    assert observed == [(0x20, 1 + len(TEXT))]
