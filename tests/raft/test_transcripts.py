"""Golden transcripts (`tests.raft.transcripts`): published scenarios, played and compared with what was recorded and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.raft.transcripts import GOLDEN, replay

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(GOLDEN.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_is_played_as_it_was_recorded(path: Path) -> None:
    recorded = path.read_text()
    assert replay(recorded) == recorded


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 30
