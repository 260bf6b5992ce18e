"""Two ends of a link without a link: stacks that write frames, and read what the other wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock

from hypercache.layers.stack import LinkView, Stack
from hypercache.limits import MAX_FRAME_BYTES
from hypercache.wire import Capability, Decoder
from hypercache.wire.header import BASE_VERSION, EXTENDED_VERSION, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.errors import WireError

KEYS = (b"d" * 32, b"l" * 32)
BOTH = int(Capability.SIGNING | Capability.COMPRESSION)


class End:
    """One end of a link.

    Args:
        factories: its layers.
        dialled: whether it dialled.
        keys: d2l and l2d, or None.
        capabilities: what both sides can do.
        extended: of version 0x02.
        max_frame: the longest payload, in bytes.
        members: says whether the peer is one.

    Attributes:
        clock: advance it.
        written: the frames that it has sent, (type, payload) as on the wire.
        came: what it has received.
        batches: the same, as it was handed up.
        pauses: how often reading is paused.
        failures: the errors that came later.
        on_came: called with what was handed up.
    """

    def __init__(
        self,
        factories: Iterable[Any],
        *,
        dialled: bool = True,
        keys: tuple[bytes, bytes] | None = KEYS,
        capabilities: int = BOTH,
        extended: bool = True,
        max_frame: int = MAX_FRAME_BYTES,
        members: Callable[[], bool] = lambda: True,
    ) -> None:
        self.clock = Clock()
        self.written: list[Any] = []
        self.came: list[Any] = []
        self.batches: list[list[Any]] = []
        self.pauses = 0
        self.pauses_ever = 0
        self.failures: list[WireError] = []
        self.on_came: Callable[[list[Any]], None] = lambda frames: None
        self.version = EXTENDED_VERSION if extended else BASE_VERSION
        if keys is not None and not dialled:
            keys = keys[::-1]
        self.view = LinkView(
            dialled=dialled,
            extended=extended,
            node_id=7,
            capabilities=capabilities,
            keys=keys,
            max_frame=max_frame,
            clock=self.clock,
            pause=lambda: self._pause(1),
            resume=lambda: self._pause(-1),
            is_member=members,
            fail=self.failures.append,
        )
        layers = [factory.layer(self.view) for factory in sorted(factories, key=lambda factory: factory.order)]
        self.stack = Stack([layer for layer in layers if layer is not None], write=self.written.extend, handle=self._handle)
        self.decoder = Decoder(max_frame=max_frame)
        self.decoder.extended = self.decoder.strict = True
        self.decoder.raw_version = self.version

    def send(self, *frames: tuple[int, bytes]) -> list[Any]:
        """Send frames; return what that put on the wire."""
        before = len(self.written)
        self.stack.send(list(frames))
        return self.written[before:]

    def hear(self, frames: Iterable[tuple[int, bytes]], chunk: int = 0) -> None:
        """Read frames that the other has written, as bytes in chunks of so many."""
        data = b"".join(frame(self.version, *each) for each in frames)
        step = chunk or max(1, len(data))
        for at in range(0, len(data), step):
            arrived = self.decoder.feed(data[at : at + step])
            assert all(event.__class__ is tuple for event in arrived), arrived
            if arrived:
                self.stack.receive(arrived)

    def _pause(self, step: int) -> None:
        self.pauses += step
        self.pauses_ever += max(step, 0)
        assert self.pauses >= 0

    def _handle(self, frames: list[Any]) -> None:
        self.came += frames
        self.batches.append(frames)
        self.on_came(frames)


def pair(*factories: Any, **options: Any) -> tuple[End, End]:
    """Return both ends of a link with the same layers."""
    return End(factories, dialled=True, **options), End(factories, dialled=False, **options)
