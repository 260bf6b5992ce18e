from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_twisted
from twisted.internet import reactor

from hypercache.net.lean import LeanReactor
from tests.net.sockets import Doors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_twisted.async_yield_fixture
async def doors() -> AsyncIterator[Doors]:
    opened = Doors()
    yield opened
    await opened.close()


@pytest.fixture
def lean() -> LeanReactor:
    return LeanReactor(reactor)
