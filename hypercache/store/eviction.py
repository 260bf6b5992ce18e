"""Which key goes first when memory is full: policies that score a small sample.

A policy is pure: it is shown one `Candidate` at a time and answers with a number; of the sample the highest goes. So a step costs
the same at any number of keys. `hypercache.interfaces.IEvictionPolicy` is what a plug-in provides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import msgspec

from hypercache.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One sampled key, as a policy sees it.

    Attributes:
        key: the key.
        idle_ticks: time since its last use, in ticks of 64 ms.
        frequency: the logarithmic use counter, 0 to 255; only kept under policies with ``counts_uses``.
        deadline: Unix milliseconds, 0 for none.
        noise: a fresh random number in [0, 1).
    """

    key: bytes
    idle_ticks: int
    frequency: int
    deadline: int
    noise: float


class EvictionPolicy(Protocol):
    """What the store needs of a policy."""

    @property
    def name(self) -> str:
        """The name in the configuration."""
        ...

    @property
    def evicts(self) -> bool:
        """False for the policy under which writes are refused instead."""
        ...

    @property
    def volatile_only(self) -> bool:
        """True where only keys with a deadline may go."""
        ...

    @property
    def counts_uses(self) -> bool:
        """True where the store must keep frequencies."""
        ...

    def score(self, candidate: Candidate) -> float:
        """Return how much this key should go; of a sample the highest does."""
        ...


class NoEviction:
    """``none``: nothing goes; a write that needs memory is refused."""

    name: ClassVar[str] = "none"
    evicts: ClassVar[bool] = False
    volatile_only: ClassVar[bool] = False
    counts_uses: ClassVar[bool] = False

    def score(self, candidate: Candidate) -> float:
        """Return 0 for every key: none goes before another."""
        return 0.0


class _Sampled:
    """A policy over all keys or only those that expire."""

    evicts: ClassVar[bool] = True
    counts_uses: ClassVar[bool] = False

    def __init__(self, name: str, *, volatile_only: bool = False) -> None:
        self.name = name
        self.volatile_only = volatile_only


class LeastRecentlyUsed(_Sampled):
    """``lru``: the longest unused goes."""

    def score(self, candidate: Candidate) -> float:
        """Return the idle time."""
        return candidate.idle_ticks


class LeastFrequentlyUsed(_Sampled):
    """``lfu``: the least often used goes."""

    counts_uses: ClassVar[bool] = True

    def score(self, candidate: Candidate) -> float:
        """Return the counter's complement; among equals the longest unused goes."""
        return 255 - candidate.frequency + min(candidate.idle_ticks, 0xFFFFFF) / 0x1000000


class RandomChoice(_Sampled):
    """``random``: any goes."""

    def score(self, candidate: Candidate) -> float:
        """Return the candidate's noise."""
        return candidate.noise


class SoonestToExpire(_Sampled):
    """``ttl``: the nearest to its deadline goes; keys without one never do."""

    def score(self, candidate: Candidate) -> float:
        """Return the negated deadline."""
        return -candidate.deadline


NO_EVICTION: Final[EvictionPolicy] = NoEviction()

REDIS_NAMES: Final[Mapping[str, str]] = {
    "noeviction": "none",
    "allkeys-lru": "lru",
    "allkeys-lfu": "lfu",
    "allkeys-random": "random",
    "volatile-ttl": "ttl",
    "volatile-lru": "volatile-lru",
    "volatile-lfu": "volatile-lfu",
    "volatile-random": "volatile-random",
}
"""Redis' ``maxmemory-policy`` values and ours."""


def built_in_policies() -> dict[str, EvictionPolicy]:
    """Return the policies that come with HyperCache, by name."""
    policies: list[EvictionPolicy] = [
        NO_EVICTION,
        LeastRecentlyUsed("lru"),
        LeastFrequentlyUsed("lfu"),
        RandomChoice("random"),
        SoonestToExpire("ttl", volatile_only=True),
        LeastRecentlyUsed("volatile-lru", volatile_only=True),
        LeastFrequentlyUsed("volatile-lfu", volatile_only=True),
        RandomChoice("volatile-random", volatile_only=True),
    ]
    return {policy.name: policy for policy in policies}


def policy_named(name: str, policies: Mapping[str, EvictionPolicy]) -> EvictionPolicy:
    """Return a policy by our name or by Redis' (``allkeys-lru`` …).

    Raises:
        ConfigurationError: no policy has that name.
    """
    policy = policies.get(REDIS_NAMES.get(name, name))
    if policy is None:
        known = ", ".join(sorted({*policies, *REDIS_NAMES}))
        raise ConfigurationError(f"unknown eviction policy {name!r}; known are: {known}")
    return policy
