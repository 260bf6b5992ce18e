"""HyperCache: a distributed cache that speaks RESP to clients and its own binary protocol between nodes."""

__version__ = "0.1.0"
