"""Virtual time: one heap of what is to happen, and the clocks of the nodes, which go wrong in their own ways.

`HeapClock` is the time of a simulation; `NodeClock` is what one node's code takes for its reactor. Both provide `IReactorTime`.
Equal seeds give equal runs: what is due at the same time happens in the order in which it was asked for.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable

_PENDING: Final = 0
_CALLED: Final = 1
_CANCELLED: Final = 2
_SWEEP_COUNT: Final = 256
_ROUNDING_SECONDS: Final = 1e-9


@implementer(IDelayedCall)
class Timer:
    """A call that is to come; what `callLater` returns.

    Args:
        clock: the clock that it hangs on.
        time: when it is due, seconds of that clock.
        call: what is called.
        arguments: with what.
        named: with what, by name.
    """

    __slots__ = ("_clock", "arguments", "call", "named", "state", "time")

    def __init__(
        self, clock: HeapClock | NodeClock, time: float, call: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self.time = time
        self.call = call
        self.arguments = arguments
        self.named = named
        self.state = _PENDING
        self._clock = clock

    def getTime(self) -> float:
        """Return when it is due, seconds of its clock."""
        return self.time

    def active(self) -> bool:
        """Whether it is still to come."""
        return self.state == _PENDING

    def cancel(self) -> None:
        """Forget it.

        Raises:
            AlreadyCalled, AlreadyCancelled: it is not to come any more.
        """
        self._require_active()
        self.state = _CANCELLED
        self._clock.cancelled(self)

    def reset(self, secondsFromNow: float) -> None:  # noqa: N803 - the interface's name
        """Let it come so many seconds from now.

        Raises:
            AlreadyCalled, AlreadyCancelled: it is not to come any more.
        """
        self._require_active()
        self._move(self._clock.seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:  # noqa: N803 - the interface's name
        """Let it come so many seconds later than it would.

        Raises:
            AlreadyCalled, AlreadyCancelled: it is not to come any more.
        """
        self._require_active()
        self._move(self.time + secondsLater)

    def fire(self) -> None:
        """Make the call."""
        self.state = _CALLED
        self.call(*self.arguments, **self.named)

    def _move(self, time: float) -> None:
        earlier = time < self.time
        self.time = time
        # A place in the heap that is too early is put right when it comes up.
        if earlier:
            self._clock.place(self)

    def _require_active(self) -> None:
        if self.state == _CALLED:
            raise AlreadyCalled
        if self.state == _CANCELLED:
            raise AlreadyCancelled


@implementer(IReactorTime)
class HeapClock:
    """The time of a simulation.

    Args:
        start: the first reading, seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._count = 0
        self._cancelled = 0
        # A place is compared by its time and its count alone. Without a call it is that of a timer.
        self._heap: list[tuple[float, int, Callable[..., Any] | None, Any]] = []

    def seconds(self) -> float:
        """Return the time."""
        return self._now

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> Timer:  # noqa: A002
        """Call something after a delay, seconds."""
        timer = Timer(self, self._now + _checked(delay), callable, args, kw)
        self.place(timer)
        return timer

    def schedule(self, delay: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Call something after a delay, seconds, without a way back: cheaper than `callLater`."""
        self._count += 1
        heappush(self._heap, (self._now + delay, self._count, call, arguments))

    def getDelayedCalls(self) -> list[Timer]:
        """Return the timers that are still to come, each once, in the order in which they were made."""
        timers = {id(subject): subject for _, _, call, subject in sorted(self._heap, key=_count_of) if call is None}
        return [timer for timer in timers.values() if timer.active()]

    def step(self) -> bool:
        """Let the next thing happen; return whether there was one."""
        while self._heap:
            if self._happen():
                return True
        return False

    def run_until(self, time: float) -> None:
        """Let all happen that is due up to a time, in order; it is that time then."""
        heap = self._heap
        happen = self._happen
        while heap and heap[0][0] <= time:
            happen()
        self._now = max(self._now, time)

    def advance(self, amount: float) -> None:
        """Let an amount of time pass, seconds."""
        self.run_until(self._now + amount)

    def place(self, timer: Timer) -> None:
        """Let a timer of this clock come up at its time."""
        self._count += 1
        heappush(self._heap, (timer.time, self._count, None, timer))

    def cancelled(self, timer: Timer) -> None:
        """Note that a timer does not come; its place goes when it comes up, or with many others."""
        self._cancelled += 1
        if self._cancelled > _SWEEP_COUNT and self._cancelled * 2 > len(self._heap):
            self._heap[:] = [place for place in self._heap if place[2] is not None or place[3].state == _PENDING]
            heapify(self._heap)
            self._cancelled = 0

    def _happen(self) -> bool:
        """Take the first place; return whether something happened."""
        when, _, call, subject = heappop(self._heap)
        if call is not None:
            self._now = when
            call(*subject)
            return True
        if subject.state != _PENDING:
            self._cancelled -= subject.state == _CANCELLED
            return False
        if subject.time > when:
            self.place(subject)
            return False
        self._now = when
        subject.fire()
        return True


@implementer(IReactorTime)
class NodeClock:
    """One node's clock: it runs at a rate of its own, and jumps.

    Timers follow the clock's reading, as a reactor's do: when it jumps ahead, all that is now due comes at once; when it jumps
    back, they come that much later.

    Args:
        clock: the true time.
        offset: how far this clock is ahead, seconds.
        rate: its seconds in a true second.
        run: what a call that is due is handed to: `Timer.fire` of it by default; a node that sleeps makes it later.
    """

    def __init__(
        self, clock: HeapClock, offset: float = 0.0, rate: float = 1.0, run: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._clock = clock
        self._run = run
        self._rate = rate
        self._base = clock.seconds() + offset
        self._since = clock.seconds()
        self._timers: dict[int, Timer] = {}

    def seconds(self) -> float:
        """Return what the clock shows."""
        return self._base + (self._clock.seconds() - self._since) * self._rate

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> Timer:  # noqa: A002
        """Call something after a delay, seconds of this clock."""
        timer = Timer(self, self.seconds() + _checked(delay), callable, args, kw)
        self.place(timer)
        return timer

    def getDelayedCalls(self) -> list[Timer]:
        """Return the timers that are still to come."""
        return list(self._timers.values())

    def jump(self, amount: float) -> None:
        """Let the clock show so many seconds more, or less."""
        self._base += amount
        self._place_all()

    def set_rate(self, rate: float) -> None:
        """Let the clock run at another rate from now on."""
        self._base, self._since = self.seconds(), self._clock.seconds()
        self._rate = rate
        self._place_all()

    def stop(self) -> None:
        """Forget all timers: the node is gone."""
        for timer in self._timers.values():
            timer.state = _CANCELLED
        self._timers.clear()

    def place(self, timer: Timer) -> None:
        """Let a timer of this clock come up at its time."""
        self._timers[id(timer)] = timer
        missing = timer.time - self.seconds()
        # Never early, not by a rounding: who is called early asks again, for no time at all.
        self._clock.schedule(max(missing / self._rate, _ROUNDING_SECONDS) if missing > 0 else 0.0, self._comes_up, timer)

    def cancelled(self, timer: Timer) -> None:
        """Note that a timer does not come."""
        self._timers.pop(id(timer), None)

    def _place_all(self) -> None:
        for timer in list(self._timers.values()):
            self.place(timer)

    def _comes_up(self, timer: Timer) -> None:
        if timer.state != _PENDING:
            return
        if timer.time > self.seconds():
            self.place(timer)
            return
        del self._timers[id(timer)]
        if self._run is None:
            timer.fire()
        else:
            # Nobody can take it back any more, even where the node is asleep and makes the call later.
            timer.state = _CALLED
            self._run(timer.fire)


def _checked(delay: float) -> float:
    if delay < 0:
        raise ValueError(f"a delay of {delay:g} s lies in the past")
    return delay


def _count_of(place: tuple[float, int, Any, Any]) -> int:
    return place[1]
