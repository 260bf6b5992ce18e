from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from hypercache.net.lean import LeanReactor
from tests.links.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def lean() -> Iterator[LeanReactor]:
    made = LeanReactor(reactor)
    yield made
    real: Any = reactor
    real.removeReader(made)
    made.connectionLost(Failure(ConnectionDone()))


@pytest_twisted.async_yield_fixture
async def nodes(tmp_path: Path, lean: LeanReactor) -> AsyncIterator[Nodes]:
    made = Nodes(tmp_path, lean)
    yield made
    await made.close()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Collect the lines that are logged."""
    lines: list[str] = []

    def note(event: Any) -> None:
        lines.append(formatEvent(event))
        if "log_failure" in event:
            lines.append(event["log_failure"].getTraceback())

    observer: Any = note
    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)
