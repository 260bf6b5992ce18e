"""``python -m hypercache.testing``: run simulations, or one again."""

from __future__ import annotations

import argparse
import os
import sys

from hypercache.testing.seeds import be_quiet, run_seeds
from hypercache.testing.simulation import SimulationError, simulate


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hypercache.testing", description="Simulate groups that things go wrong in.")
    parser.add_argument("--seed", type=int, help="run this one, and say what came of it")
    parser.add_argument("--seeds", default="0-99", help="run these: FIRST-LAST")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each lasts, of virtual time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--trace", action="store_true", help="with --seed: also print the digest of all events")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        try:
            outcome = simulate(given.seed, given.seconds, traced=given.trace)
        except SimulationError as error:
            sys.stdout.write(f"{error}\n")
            return 1
        sys.stdout.write(f"{outcome}\n")
        return 0
    first, _, last = given.seeds.partition("-")
    failures = count = answered = 0
    for result in run_seeds(range(int(first), int(last or first) + 1), given.seconds, given.jobs):
        count += 1
        if isinstance(result, str):
            failures += 1
            sys.stdout.write(f"{result}\n\n")
        else:
            answered += result.answered
    sys.stdout.write(f"{count} runs, {answered} operations answered, {failures} failed\n")
    return 1 if failures else 0


if __name__ == "__main__":
    be_quiet()
    sys.exit(main())
