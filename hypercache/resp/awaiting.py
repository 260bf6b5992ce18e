"""Commands whose replies come later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercache.resp.contracts import StoreLog
    from hypercache.resp.table import Command


class Run(msgspec.Struct):
    """Commands of one connection, one directly after the other, that are answered together.

    Attributes:
        entries: the commands.
        log: what they went through; None for a single one that sees to its reply itself.
        writes: False for reads, which may be run once they are answered.
        trace: what a single one belongs to; None for nothing.
        since_ms: when they were handed over, Unix milliseconds.
        answered: whether the outcome is known.
        outcome: a reply for each, or the error line for all; None where reads may be run.
    """

    entries: list[Command]
    log: StoreLog | None
    writes: bool
    trace: object | None
    since_ms: int
    answered: bool = False
    outcome: Sequence[bytes] | str | None = None
