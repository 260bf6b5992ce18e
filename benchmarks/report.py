"""The table of figures."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table


class Row(msgspec.Struct):
    """One figure: ours, the peer's, their ratio, and the ratio that is wanted (None: it is shown only)."""

    what: str
    ours: float
    peer: float
    ratio: float
    wanted: float | None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """Say whether the wanted ratio is met."""
        if self.wanted is None:
            return ""
        met = self.ratio <= self.wanted if self.at_most else self.ratio >= self.wanted
        return "met" if met else "missed"


def print_table(rows: list[Row]) -> None:
    """Print the rows."""
    table = Table("figure", "ours", "peer or wanted", "ratio", "wanted", "verdict")
    for row in rows:
        wanted = "" if row.wanted is None else f"{row.wanted:g}"
        table.add_row(row.what, f"{row.ours:,.2f}", f"{row.peer:,.2f}", f"{row.ratio:.2f}", wanted, row.verdict)
    Console(width=120).print(table)
