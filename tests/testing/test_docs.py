from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypercache.testing.nemesis import FAULT_KINDS, Faults

DOCUMENT = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, str(DOCUMENT), "exec"), names)
    assert names["sure"] > 20
    assert names["group"].invariants.violation is None


def test_every_module_is_in_the_table() -> None:
    directory = Path(__file__).parents[2] / "hypercache" / "testing"
    named = set(re.findall(r"`(\w+)`", DOCUMENT.read_text()))
    assert {path.stem for path in directory.glob("*.py")} - {"__init__", "__main__"} <= named


def test_every_kind_of_fault_has_a_weight() -> None:
    assert all(getattr(Faults(), kind) > 0 for kind in FAULT_KINDS)
