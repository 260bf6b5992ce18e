"""Which key goes first when memory is full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.plugin import IPlugin
from zope.interface import implementer

from hypercache.interfaces import IEvictionPolicy

if TYPE_CHECKING:
    from hypercache.store import Candidate

_PREFIX: Final = b"tmp:"
_BEFORE_ALL_OTHERS: Final = 1 << 40
"""More ticks of 64 ms than any key has been idle."""


@implementer(IPlugin, IEvictionPolicy)
class TmpFirst:
    """``tmp-first``: keys that begin with ``tmp:`` go before all others; among equals the longest unused goes."""

    name = "tmp-first"
    evicts = True
    volatile_only = False
    counts_uses = False

    def score(self, candidate: Candidate) -> float:
        """Return the idle time, raised where the key is one of those."""
        return candidate.idle_ticks + (_BEFORE_ALL_OTHERS if candidate.key.startswith(_PREFIX) else 0)
