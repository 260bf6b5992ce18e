"""Extensions of every kind, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from hypercache.wire import Extension, More
from hypercache.wire.extension import Part, Trace

u64 = st.integers(0, (1 << 64) - 1)
traces = st.builds(
    Trace,
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    u64,
    st.lists(u64, max_size=16, unique=True).map(tuple),
)
mores = st.builds(
    More,
    version_vector=st.none() | st.dictionaries(u64, u64, max_size=20),
    retry_after=st.none() | st.integers(0, (1 << 32) - 1),
    view=st.none() | u64,
    follows=st.integers(0, (1 << 128) - 1),
    part=st.none() | st.builds(Part, u64, u64, u64),
)
extensions = st.builds(
    Extension,
    exchange=st.none() | st.integers(0, (1 << 32) - 1),
    reply=st.booleans(),
    stream=st.integers(0, 65535),
    stamp=st.integers(0, (1 << 128) - 1),
    trace=st.none() | traces,
    more=st.none() | mores,
)
