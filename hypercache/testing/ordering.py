"""Searches the order in which the operations on one key took effect.

After Wing and Gong ("Testing and verifying concurrent objects", 1993) and Lowe ("Testing for linearizability", 2017): depth first,
and never twice from the same set of ordered operations with the same state. An operation may come next when all that were answered
before it was asked are ordered. What keeps the search small beyond that:

- A read that may come next and fits is ordered at once and never taken back: it can stand in no one's way.
- An operation of unknown outcome may be left out. So what was reached with some of them covers what is reached with more, and of
  equal ones the first asked goes first.
- No state is left that an operation still needs, and that nothing still brings back.
- A write whose value nobody needs is ordered in front of any other write that may come next; of unknown outcome, it is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypercache.errors import UndecidedError
from hypercache.testing.histories import NEVER, Operation, Outcome
from hypercache.testing.registers import But, Effect, States

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from hypercache.testing.registers import Model

_PLAIN: Final = object()
"""Stands for all states that no operation speaks of."""


class _Trail(NamedTuple):
    """The operations in their order, last first."""

    operation: Operation
    before: _Trail | None


class _Place(NamedTuple):
    """Where the search is.

    Attributes:
        base: the first of the required operations that is not ordered yet.
        ordered: bit n: the required operation ``base + n`` is ordered.
        used: bit n: the optional operation n is.
        state: what the key holds.
        trail: how the search came here.
    """

    base: int
    ordered: int
    used: int
    state: Hashable
    trail: _Trail | None


class Search:
    """The search for an order of operations on one key.

    Args:
        operations: those.
        model: what the key does.
        until: a place in the history: only what was asked before counts, and what was answered later may be left out.
        steps_max: how many steps it may take.
    """

    def __init__(self, operations: Sequence[Operation], model: Model, *, until: int = NEVER, steps_max: int) -> None:
        self._model = model
        self._steps_max = steps_max
        self._steps = 0
        begun = [each for each in operations if each.start < until and each.outcome is not Outcome.FAILED]
        begun.sort(key=lambda operation: operation.start)
        self._required = [each for each in begun if each.outcome is Outcome.OK and each.end <= until]
        self._starts = [each.start for each in self._required]
        self._ends = [each.end for each in self._required]
        self._effects = [model.effect(each.call, each.result) for each in self._required]
        self._learn([each for each in begun if each.outcome is Outcome.UNKNOWN or each.end > until])
        self._seen: dict[tuple[int, int, Hashable], list[int]] = {}

    def _learn(self, optional: list[Operation]) -> None:
        """Note who needs which mark and who brings it, and which of the optional operations matter."""
        effects = [self._effect(each) for each in optional]
        everything = [*self._effects, *effects]
        is_known = all(effect.leaves is not States.SOME for effect in everything)
        changing = [
            (operation, effect)
            for operation, effect in zip([*self._required, *optional], everything, strict=True)
            if effect.leaves is not States.SAME
        ]
        self._is_growing = len({each.call[0] for each, _ in changing}) < 2 and all(effect.grows for _, effect in changing)
        self._is_closed = self._is_growing or is_known
        """Which marks may come back is known."""
        self._is_plain = is_known and all(effect.needs is not States.SOME for effect in everything)
        """States with no mark that is spoken of are alike."""
        self._is_exact = self._is_plain and not any(isinstance(effect.needs, But) for effect in everything)
        """They are of use to nobody."""
        self._needed = {effect.needs.mark if isinstance(effect.needs, But) else effect.needs for effect in everything}
        self._idle = [self._is_exact and needs is States.EVERY and not self._is_named(leaves) for needs, leaves, _ in self._effects]
        matter = [leaves is not States.SAME and not (self._is_exact and not self._is_named(leaves)) for _, leaves, _ in effects]
        self._optional = [each for each, matters in zip(optional, matter, strict=True) if matters]
        self._optional_effects = [effect for effect, matters in zip(effects, matter, strict=True) if matters]
        self._needers: dict[Hashable, list[int]] = {}
        self._bringers: dict[Hashable, list[int]] = {}
        for number, effect in enumerate(self._effects):
            self._needers.setdefault(effect.needs, []).append(number)
            for mark in self._brought(effect):
                self._bringers.setdefault(mark, []).append(number)
        self._optional_bringers: dict[Hashable, int] = {}
        self._twins: list[int] = []
        """Of each optional operation, the one before it that is alike; -1 where there is none."""
        twins: dict[Hashable, int] = {}
        for number, (operation, effect) in enumerate(zip(self._optional, self._optional_effects, strict=True)):
            for mark in self._brought(effect):
                self._optional_bringers[mark] = self._optional_bringers.get(mark, 0) | 1 << number
            is_plain = self._is_plain and not self._is_named(effect.leaves)
            call = (operation.call[0], effect.needs) if is_plain else operation.call
            alike = (is_plain, operation.outcome, call, operation.result)
            self._twins.append(twins.get(alike, -1))
            twins[alike] = number

    def _brought(self, effect: Effect) -> tuple[Hashable, ...]:
        """Return the marks that an operation may bring back."""
        if self._is_growing or isinstance(effect.leaves, States):
            return ()
        return self._model.marks(effect.leaves)

    def _is_named(self, state: Hashable) -> bool:
        """Whether an operation speaks of a state."""
        return not self._needed.isdisjoint(self._model.marks(state)) if not isinstance(state, States) else True

    def _effect(self, operation: Operation) -> Effect:
        if operation.outcome is Outcome.UNKNOWN:
            return self._model.unknown_effect(operation.call)
        return self._model.effect(operation.call, operation.result)

    def order(self) -> list[Operation] | None:
        """Return the operations in an order in which they may have taken effect; None where there is none.

        Raises:
            UndecidedError: the steps did not do.
        """
        places = [self._settled(_Place(0, 0, 0, self._model.initial, None))]
        # A place comes twice: first for the required operations that may follow it, then, if those led nowhere, for the optional.
        tried = [False]
        while places:
            place = places.pop()
            if tried.pop():
                following = list(self._after_optional(place))
            else:
                if place.base == len(self._required):
                    return _ordered(place.trail)
                if self._is_covered(place):
                    continue
                following = list(self._after_required(place))
                if self._optional:
                    places.append(place)
                    tried.append(True)
            places += reversed(following)
            tried += [False] * len(following)
        return None

    def _is_covered(self, place: _Place) -> bool:
        """Whether a place was looked at already, or one from which at least as much can be done."""
        state = _PLAIN if self._is_plain and not self._is_named(place.state) else place.state
        at = (place.base, place.ordered, state)
        known = self._seen.get(at)
        if known is None:
            self._seen[at] = [place.used]
            return False
        used = place.used
        if any(other & used == other for other in known):
            return True
        known[:] = [other for other in known if other & used != used]
        known.append(used)
        return False

    def _candidates(self, base: int, ordered: int) -> tuple[list[int], int]:
        """Return the required operations that may come next, and the event before which one of them has to."""
        starts, ends = self._starts, self._ends
        count = len(starts)
        found: list[int] = []
        limit = NEVER
        while base < count and starts[base] < limit:
            found.append(base)
            limit = min(limit, ends[base])
            # Step over this one and the ordered ones behind it.
            ordered >>= 1
            run = (~ordered & (ordered + 1)).bit_length()
            base += run
            ordered >>= run - 1
        return found, limit

    def _settled(self, place: _Place) -> _Place:
        """Return the place after all that may come next and need not be tried otherwise."""
        base, ordered, used, state, trail = place
        required, effects, idle = self._required, self._effects, self._idle
        moved = True
        while moved:
            moved = False
            unneeded = self._is_exact and not self._is_named(state)
            for number in self._candidates(base, ordered)[0]:
                operation = required[number]
                if effects[number].leaves is States.SAME:
                    if self._step(state, operation)[1] != operation.result:
                        continue
                elif unneeded and idle[number]:
                    state, _ = self._step(state, operation)
                else:
                    continue
                trail = _Trail(operation, trail)
                ordered |= 1 << (number - base)
                moved = True
            base, ordered = _advanced(base, ordered)
        return _Place(base, ordered, used, state, trail)

    def _after_required(self, place: _Place) -> Iterator[_Place]:
        """Yield the places after one more of the required operations, that which was answered first in front."""
        base, ordered, used, state, trail = place
        found, _ = self._candidates(base, ordered)
        found.sort(key=self._ends.__getitem__)
        idle = [number for number in found if self._idle[number]]
        for number in found:
            effect = self._effects[number]
            if effect.leaves is States.SAME or number in idle[1:]:
                continue
            operation = self._required[number]
            after, result = self._step(state, operation)
            if result != operation.result:
                continue
            before = place
            if effect.needs is States.EVERY and effect.leaves is not States.SOME:
                before = self._with(place, [each for each in idle if each != number])
            base, ordered, trail = before.base, before.ordered | 1 << (number - before.base), before.trail
            base, ordered = _advanced(base, ordered)
            if after == state or not self._is_missed(state, after, base, ordered, used):
                yield self._settled(_Place(base, ordered, used, after, _Trail(operation, trail)))

    def _after_optional(self, place: _Place) -> Iterator[_Place]:
        """Yield the places after one more of the optional operations."""
        used, state = place.used, place.state
        found, limit = self._candidates(place.base, place.ordered)
        idle = [number for number in found if self._idle[number]]
        for number, operation in enumerate(self._optional):
            if operation.start > limit:
                return
            twin = self._twins[number]
            if used >> number & 1 or (twin >= 0 and not used >> twin & 1):
                continue
            after, result = self._step(state, operation)
            if after == state or (operation.outcome is Outcome.OK and result != operation.result):
                continue
            effect = self._optional_effects[number]
            overwrites = effect.needs is States.EVERY and effect.leaves is not States.SOME
            base, ordered, _, _, trail = self._with(place, idle) if overwrites else place
            base, ordered = _advanced(base, ordered)
            if not self._is_missed(state, after, base, ordered, used | 1 << number):
                yield self._settled(_Place(base, ordered, used | 1 << number, after, _Trail(operation, trail)))

    def _with(self, place: _Place, numbers: Sequence[int]) -> _Place:
        """Return a place with further required operations ordered that the next one makes unseen."""
        base, ordered, used, state, trail = place
        for number in numbers:
            ordered |= 1 << (number - base)
            trail = _Trail(self._required[number], trail)
        return _Place(base, ordered, used, state, trail)

    def _is_missed(self, state: Hashable, after: Hashable, base: int, ordered: int, used: int) -> bool:
        """Whether a state that is left for another is needed later, and comes back no more."""
        if not self._is_closed:
            return False
        kept = self._model.marks(after)
        return any(
            mark not in kept
            and _is_any_open(self._needers.get(mark, ()), base, ordered)
            and not self._optional_bringers.get(mark, 0) & ~used
            and not _is_any_open(self._bringers.get(mark, ()), base, ordered)
            for mark in self._model.marks(state)
        )

    def _step(self, state: Hashable, operation: Operation) -> tuple[Hashable, Any]:
        self._steps += 1
        if self._steps > self._steps_max:
            raise UndecidedError(
                f"{len(self._required)} operations on {operation.key!r} are not ordered in {self._steps_max} steps"
            )
        return self._model.apply(state, operation.call)


def _is_any_open(numbers: Sequence[int], base: int, ordered: int) -> bool:
    """Whether one of some operations, by number, is not ordered yet."""
    for number in reversed(numbers):
        if number < base:
            return False
        if not ordered >> (number - base) & 1:
            return True
    return False


def _advanced(base: int, ordered: int) -> tuple[int, int]:
    """Return base and bits with the ordered operations at the front left behind."""
    run = (~ordered & (ordered + 1)).bit_length() - 1
    return base + run, ordered >> run


def _ordered(trail: _Trail | None) -> list[Operation]:
    operations: list[Operation] = []
    while trail is not None:
        operations.append(trail.operation)
        trail = trail.before
    operations.reverse()
    return operations
