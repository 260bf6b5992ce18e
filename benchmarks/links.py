"""Links between two nodes, each way of trusting them against the plain one; and the plain one against AMP and gRPC."""

from __future__ import annotations
