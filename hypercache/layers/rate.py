"""A bound on how much a peer may ask for: a token bucket for each link.

What a frame costs is in a table (`hypercache.layers.costs`). Some frames cost nothing:

- answers, and errors: this side has asked for them;
- what is for the link itself: the handshake, Goodbye, WindowUpdate, StreamReset, keep-alives;
- Raft between members: a cluster that does not agree serves nobody.

Over the limit there are two policies. *pause*: frames that cannot be paid for wait, nothing more is read, and they go on, in
order, at the moment when there are tokens for them. So nothing is lost, and TCP slows the peer down. What waits is what was read
already. Of the frames behind it, Raft, answers, errors, WindowUpdate and keep-alives overtake, for they stand in no order to
requests. Goodbye and StreamReset do stand in one: they are free, but keep their place, or the peer's last requests would be lost.
*reject*: the frame is refused, and its sender is told when to try again.
"""

from __future__ import annotations

from collections import deque
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from zope.interface import implementer

from hypercache.errors import ConfigurationError, WireError
from hypercache.interfaces import IFrameLayerFactory
from hypercache.layers.bucket import NANOSECONDS, TokenBucket
from hypercache.layers.costs import cost_table
from hypercache.layers.stack import FrameLayer, RefusedFrame
from hypercache.limits import RATE_BURST_COUNT
from hypercache.wire.codes import ErrorCode
from hypercache.wire.extension import REPLY
from hypercache.wire.messages import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.layers.costs import Costs, CostTable
    from hypercache.layers.stack import LinkView
    from hypercache.wire.schema import Schema

ORDER: Final = 90
PAUSE: Final = "pause"
REJECT: Final = "reject"

_NANOSECONDS_PER_MS: Final = 1_000_000
_RETRY_AFTER_MAX_MS: Final = (1 << 32) - 1


@implementer(IFrameLayerFactory)
class RateFactory:
    """Makes the rate limit of each link.

    Args:
        per_second: tokens that accrue in a second.
        burst: tokens that a link may save up, and begins with.
        policy: what happens over the limit: `PAUSE` or `REJECT`.
        costs: entries that change what messages cost, ``Name=cost`` or ``0x80=cost``.
        schema: the messages that are understood, plug-ins' included.
        count: called with how many frames had to wait, or were refused.

    Raises:
        ConfigurationError: the rate is no rate, or an entry no cost; the text names it.
    """

    name = "rate"
    order = ORDER
    capability = 0
    base_peers = True

    def __init__(
        self,
        per_second: float,
        *,
        count: Callable[[int], None],
        burst: int = RATE_BURST_COUNT,
        policy: str = PAUSE,
        costs: Iterable[str] = (),
        schema: Schema = SCHEMA,
    ) -> None:
        if not isfinite(per_second) or per_second <= 0:
            raise ConfigurationError(f"rate.per_second = {per_second} is no rate")
        if policy not in (PAUSE, REJECT):
            raise ConfigurationError(f"rate.policy = {policy!r}: must be one of {PAUSE}, {REJECT}")
        self._per_second = per_second
        self._burst = burst
        self._table = cost_table(costs, schema, burst)
        self._make: type[PausingLayer | RejectingLayer] = PausingLayer if policy == PAUSE else RejectingLayer
        self._count = count

    def layer(self, link: LinkView) -> PausingLayer | RejectingLayer:
        """Return the layer of a link, with a full bucket."""
        return self._make(link, TokenBucket(self._per_second, self._burst, link.clock.seconds()), self._table, self._count)


class _RateLayer(FrameLayer):
    """What both policies share: who can pay for a whole read goes on without another look."""

    def __init__(self, link: LinkView, bucket: TokenBucket, table: CostTable, count: Callable[[int], None]) -> None:
        self._link = link
        self._bucket = bucket
        self._reply = REPLY if link.extended else 0
        self._member, self._stranger = (table.member, table.stranger) if link.extended else (table.base_member, table.base_stranger)
        self._count = count

    def receive(self, frames: list[Any]) -> None:
        """Hand up what the peer can pay for."""
        costs = self._costs()
        tokens, reply = costs.tokens, self._reply
        total = 0
        for frame in frames:
            # What a layer below has refused is paid for by nobody.
            if frame.__class__ is tuple:
                payload = frame[1]
                if not (reply and payload and payload[0] & reply):
                    total += tokens[frame[0]]
        self._bucket.refill(self._link.clock.seconds())
        if self._bucket.take(total):
            self.above.receive(frames)
        else:
            self._limit(frames, costs)

    def _costs(self) -> Costs:
        return self._member if self._link.is_member() else self._stranger

    def _limit(self, frames: list[Any], costs: Costs) -> None:
        """Take the frames of a read that cannot all be paid for."""
        raise NotImplementedError

    def _is_answer(self, frame: tuple[int, bytes]) -> bool:
        return bool(self._reply and frame[1] and frame[1][0] & self._reply)

    def _cost(self, frame: Any, costs: Costs) -> int:
        return costs.tokens[frame[0]] if frame.__class__ is tuple and not self._is_answer(frame) else 0


class PausingLayer(_RateLayer):
    """Has frames wait, and nothing more read, until they can be paid for."""

    def __init__(self, link: LinkView, bucket: TokenBucket, table: CostTable, count: Callable[[int], None]) -> None:
        super().__init__(link, bucket, table, count)
        self._waiting: deque[Any] = deque()
        self._timer: Any = None
        self._closed = False

    def receive(self, frames: list[Any]) -> None:
        """Hand up what the peer can pay for; what was still read after the pause joins what waits."""
        if not self._waiting:
            super().receive(frames)
            return
        ahead = self._queue(frames, self._costs())
        if ahead:
            self.above.receive(ahead)

    def close(self) -> None:
        """Forget what waits."""
        self._closed = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _limit(self, frames: list[Any], costs: Costs) -> None:
        paid = 0
        while self._bucket.take(self._cost(frames[paid], costs)):
            paid += 1
        ahead = frames[:paid] + self._queue(frames[paid:], costs)
        self._link.pause()
        self._schedule(costs)
        if ahead:
            self.above.receive(ahead)

    def _queue(self, frames: list[Any], costs: Costs) -> list[Any]:
        """Have frames wait; return those that overtake."""
        ahead: list[Any] = []
        before = len(self._waiting)
        for frame in frames:
            overtakes = frame.__class__ is tuple and (frame[0] in costs.overtaking or self._is_answer(frame))
            (ahead if overtakes else self._waiting).append(frame)
        self._count(len(self._waiting) - before)
        return ahead

    def _schedule(self, costs: Costs) -> None:
        if self._waiting and not self._closed:
            delay = self._bucket.wait(self._cost(self._waiting[0], costs)) / NANOSECONDS
            self._timer = self._link.clock.callLater(delay, self._go_on)

    def _go_on(self) -> None:
        """Hand up what can be paid for by now."""
        self._timer = None
        costs, waiting = self._costs(), self._waiting
        self._bucket.refill(self._link.clock.seconds())
        ready = []
        while waiting and self._bucket.take(self._cost(waiting[0], costs)):
            ready.append(waiting.popleft())
        self._schedule(costs)
        try:
            if ready:
                self.above.receive(ready)
        except WireError as error:
            self._link.fail(error)
        finally:
            if not waiting and not self._closed:
                self._link.resume()


class RejectingLayer(_RateLayer):
    """Refuses frames that cannot be paid for."""

    def _limit(self, frames: list[Any], costs: Costs) -> None:
        bucket = self._bucket
        result: list[Any] = []
        refused = 0
        for frame in frames:
            cost = self._cost(frame, costs)
            if bucket.take(cost):
                result.append(frame)
                continue
            refused += 1
            retry_after_ms = min(-(-bucket.wait(cost) // _NANOSECONDS_PER_MS), _RETRY_AFTER_MAX_MS)
            result.append(
                RefusedFrame(frame, ErrorCode.RATE_LIMITED, "more than the rate limit of this link allows", retry_after_ms)
            )
        self._count(refused)
        self.above.receive(result)
