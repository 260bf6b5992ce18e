"""docs/plugins.md builds the example: file by file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.plugins.conftest import EXAMPLE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_shows_the_files_of_the_example_as_they_are() -> None:
    shown = dict(FILE.findall((ROOT / "docs" / "plugins.md").read_text()))
    assert shown == {str(file.relative_to(EXAMPLE)): file.read_text() for file in sources()}


def sources() -> list[Path]:
    return [EXAMPLE / "pyproject.toml", *(EXAMPLE / "src").rglob("*.py")]
