"""A network between nodes that loses, delays, reorders and doubles messages, and is cut as a test wishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.wire.messages import Propose, ProposeResponse

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from hypercache.raft import Outbound
    from hypercache.testing.clock import HeapClock

# A transport delivers these once at most: who proposes counts the copies that it sent.
_ONCE: Final = frozenset({Propose, ProposeResponse})


class SimulatedNetwork:
    """The links between nodes; each message takes a way of its own, so that later ones overtake earlier ones.

    Args:
        clock: the true time.
        random: decides on every message.
        deliver: called with sender, receiver and message.

    Attributes:
        loss: how likely a message is lost.
        doubling: how likely it comes twice.
        delay: the shortest time on the way, seconds.
        jitter: how much longer it may be, seconds.
        stray: how likely a message takes ten times as long.
        cut: directed pairs (sender, receiver) between which nothing passes; what is on its way arrives.
        sent, lost: messages, counted.
        trace: called with a sentence for what happens to a message; None for nobody.
    """

    def __init__(self, clock: HeapClock, random: random.Random, deliver: Callable[[int, int, Outbound], None]) -> None:
        self.loss = 0.0
        self.doubling = 0.0
        self.delay = 0.001
        self.jitter = 0.004
        self.stray = 0.0
        self.cut: set[tuple[int, int]] = set()
        self.sent = self.lost = 0
        self.trace: Callable[[str], None] | None = None
        self._clock = clock
        self._chance = random.random
        self._deliver = deliver

    def send(self, sender: int, outbound: Outbound) -> None:
        """Carry a message, or lose it."""
        self.sent += 1
        chance = self._chance
        if (self.cut and (sender, outbound.to) in self.cut) or (self.loss and chance() < self.loss):
            self.lost += 1
            if self.trace is not None:
                self.trace(f"{sender} -> {outbound.to} lost: {outbound.message}")
            return
        if self.trace is not None:
            self.trace(f"{sender} -> {outbound.to}: {outbound.message}")
        delay = self.delay + chance() * self.jitter
        if self.stray and chance() < self.stray:
            delay *= 10
        self._clock.schedule(delay, self._deliver, sender, outbound.to, outbound)
        if self.doubling and chance() < self.doubling and type(outbound.message) not in _ONCE:
            self._clock.schedule(delay + chance() * 10 * self.jitter, self._deliver, sender, outbound.to, outbound)

    def separate(self, some: Iterable[int], others: Iterable[int], *, one_way: bool = False) -> list[tuple[int, int]]:
        """Cut all links between two groups of nodes; return the pairs that were not cut before, for `mend`.

        Args:
            some: one group.
            others: the other.
            one_way: whether the other group still reaches the first.
        """
        pairs = [(here, there) for here in some for there in others if here != there]
        if not one_way:
            pairs += [(there, here) for here, there in pairs]
        new = [pair for pair in pairs if pair not in self.cut]
        self.cut.update(new)
        return new

    def mend(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Let messages pass again."""
        self.cut.difference_update(pairs)

    def heal(self) -> None:
        """Let everything pass again, undisturbed."""
        self.cut.clear()
        self.loss = self.doubling = self.stray = 0.0
