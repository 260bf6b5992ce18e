"""Tracers whose spans are kept, and a clock of their own."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from hypercache.config import TracingSettings
from hypercache.tracing import Tracer

if TYPE_CHECKING:
    from hypercache.tracing import Span

NOW_SECONDS = 1_800_000_000.0
NODE_ID = 7
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


class Recorder:
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.closed = False

    def export(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


class RecordingTracer(Tracer):
    """A tracer with such an exporter, and a wall clock that is set."""

    def __init__(self, sample: float = 0.0, *, node_id: int = NODE_ID, seed: int = 1) -> None:
        self.recorder = Recorder()
        self.now = NOW_SECONDS
        settings = TracingSettings(sample=sample)
        super().__init__(settings, rng=random.Random(seed), wall=lambda: self.now, node_id=node_id, exporter=self.recorder)

    @property
    def spans(self) -> list[Span]:
        return self.recorder.spans
