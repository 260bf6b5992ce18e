"""The layers that HyperCache brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypercache.layers.compression import CompressionFactory
from hypercache.layers.rate import RateFactory
from hypercache.layers.signing import SigningFactory
from hypercache.wire.compression import Codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.config import Settings
    from hypercache.wire.schema import Schema


def built_in_layers(settings: Settings, *, schema: Schema, count_limited: Callable[[int], None]) -> list[Any]:
    """Return the factories of the layers that the settings ask for, the lowest first; signing is always among them.

    Args:
        settings: the node's.
        schema: the messages that are understood, plug-ins' included.
        count_limited: called with how many frames had to wait for the rate limit, or were refused by it.

    Raises:
        ConfigurationError: an entry of ``rate.costs`` is no cost, or the rate no rate; the text names it.
    """
    layers: list[Any] = [SigningFactory()]
    compression, rate = settings.compression, settings.rate
    if compression.codec != "off":
        codec = Codec[compression.codec.upper()]
        layers.append(CompressionFactory(codec, threshold=compression.threshold, ratio_max=compression.ratio_max))
    if rate.per_second:
        layers.append(
            RateFactory(rate.per_second, burst=rate.burst, policy=rate.policy, costs=rate.costs, schema=schema, count=count_limited)
        )
    return layers
