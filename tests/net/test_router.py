from __future__ import annotations

import pytest
from zope.interface import Invalid

from hypercache.errors import SchemaError
from hypercache.net.router import Router
from hypercache.wire.messages import SCHEMA
from tests.net.peers import Handler


def test_a_type_has_one_handler() -> None:
    first = Handler(0x32, lambda context, message: None)
    router = Router(SCHEMA, [first])
    assert router.handler_for(0x32) is first
    assert router.handler_for(0x20) is None
    with pytest.raises(SchemaError, match="0x32"):
        router.add(Handler(0x32, lambda context, message: None))


def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(Invalid):
        Router(SCHEMA, [object()])
