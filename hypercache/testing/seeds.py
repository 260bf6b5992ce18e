"""Many simulations, on all cores."""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import globalLogBeginner

from hypercache.testing.simulation import Outcome, SimulationError, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def run_seeds(seeds: Iterable[int], seconds: float, jobs: int) -> Iterator[Outcome | str]:
    """Run simulations in processes of their own; yields what came of each, in any order: a text is a failure's.

    Args:
        seeds: their numbers.
        seconds: how long each lasts, of virtual time.
        jobs: how many processes.
    """
    attempt = partial(_attempt, seconds=seconds)
    if jobs == 1:
        yield from map(attempt, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, be_quiet) as pool:
        yield from pool.imap_unordered(attempt, seeds, chunksize=8)


def be_quiet() -> None:
    """Keep the nodes' logs to themselves: that disks fail is no news here."""
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)


def _attempt(seed: int, seconds: float) -> Outcome | str:
    try:
        return simulate(seed, seconds)
    except SimulationError as error:
        return str(error)
