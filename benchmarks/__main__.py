"""``python -m benchmarks [NAME …]``: run benchmarks and print their figures."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import msgspec

from benchmarks.report import Row, print_table

NAMES = ("codec", "resp", "replicate", "memory", "pause", "idle", "metrics", "links", "consensus")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--rounds", default=5, show_default=True, help="Rounds whose median counts.")
@click.option("--quick", is_flag=True, help="A tenth of the work, to see that it runs.")
@click.option("--json", "file", type=click.Path(), help="Write the figures to a file as well.")
@click.option("--clients", default="1,64", show_default=True, help="How many clients, in turn (consensus).")
@click.option("--seconds", default=3.0, show_default=True, help="How long they ask at a time (consensus).")
def main(names: tuple[str, ...], rounds: int, quick: bool, file: str | None, clients: str, seconds: float) -> None:
    """Measure HyperCache, as ratios against a peer in the same run on this machine."""
    rows: list[Row] = []
    for name in names or NAMES:
        options = {"clients": [int(count) for count in clients.split(",")], "seconds": seconds} if name == "consensus" else {}
        rows += importlib.import_module(f"benchmarks.{name}").run(rounds, quick, **options)
    print_table(rows)
    if file:
        Path(file).write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


if __name__ == "__main__":
    main()
