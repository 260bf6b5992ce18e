"""The layers of one link, on top of each other: frames go down through all of them, and come up through all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from zope.interface import implementer

from hypercache.interfaces import IFrameLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.errors import WireError

    Frame = tuple[int, bytes]


class RefusedFrame(msgspec.Struct, frozen=True):
    """A received frame that a layer will not have handled; it goes up in the frame's place, and its sender is told.

    Attributes:
        frame: the frame.
        code: the error code.
        text: why.
        retry_after_ms: when the sender may try again; 0 for no word on that.
    """

    frame: Frame
    code: int
    text: str
    retry_after_ms: int = 0


def _taken_for_a_member() -> bool:
    return True


def _raised(error: WireError) -> None:
    raise error


class LinkView(msgspec.Struct, frozen=True):
    """What layers may know of a link, and do to it.

    Attributes:
        dialled: whether this side opened the connection.
        extended: Hello agreed on version 0x02.
        node_id: the peer's; 0 while unknown.
        capabilities: the bits of Hello that both sides have.
        keys: None, or what signs and what verifies.
        max_frame: the largest payload that both sides accept, in bytes.
        clock: the reactor: ``seconds()`` and ``callLater``.
        pause: call it to have nothing read; it counts, so each call needs one of ``resume``.
        resume: call it to have the link read on.
        is_member: says whether the peer is a member of the cluster; that may change while the link lives.
        fail: a layer that hands up frames later, in a call of the clock, hands it the WireError that may come of that.
    """

    dialled: bool
    extended: bool
    node_id: int
    capabilities: int
    keys: tuple[bytes, bytes] | None
    max_frame: int
    clock: Any
    pause: Callable[[], None]
    resume: Callable[[], None]
    is_member: Callable[[], bool] = _taken_for_a_member
    fail: Callable[[WireError], None] = _raised


@implementer(IFrameLayer)
class FrameLayer:
    """A layer that changes nothing: what others build on."""

    above: Any
    below: Any

    def send(self, frames: list[Frame]) -> None:
        """Hand down what is sent."""
        self.below.send(frames)

    def receive(self, frames: list[Any]) -> None:
        """Hand up what was received."""
        self.above.receive(frames)

    def close(self) -> None:
        """Have nothing to cancel."""


class _End:
    """The outer side of a stack: what arrives at it is the stack's result."""

    def __init__(self, send: Callable[[list[Frame]], None], receive: Callable[[list[Any]], None]) -> None:
        self.send = send
        self.receive = receive


class Stack:
    """The layers of one link.

    Args:
        layers: from the socket's side upward.
        write: takes the frames that come out at the bottom.
        handle: takes the frames that come out at the top.

    Attributes:
        send: takes the frames of one write, at the top.
        receive: takes the frames of one read, at the bottom.
    """

    def __init__(self, layers: Iterable[Any], *, write: Callable[[list[Frame]], None], handle: Callable[[list[Any]], None]) -> None:
        end: Any = _End(write, handle)
        self._layers = list(layers)
        below = end
        for layer in self._layers:
            layer.below = below
            if below is not end:
                below.above = layer
            below = layer
        if self._layers:
            below.above = end
        self.send: Callable[[list[Frame]], None] = below.send
        self.receive: Callable[[list[Any]], None] = self._layers[0].receive if self._layers else handle

    def __len__(self) -> int:
        return len(self._layers)

    def close(self) -> None:
        """The link is gone."""
        for layer in self._layers:
            layer.close()
