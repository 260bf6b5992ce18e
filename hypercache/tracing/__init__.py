"""Tracing: spans of what clients ask and of what that makes nodes ask each other (docs/tracing.md)."""

from hypercache.tracing.marking import current_trace, mark_traced
from hypercache.tracing.spans import Exporter, Span, make_exporter
from hypercache.tracing.tracer import Tracer

__all__ = ["Exporter", "Span", "Tracer", "current_trace", "make_exporter", "mark_traced"]
