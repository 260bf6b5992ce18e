"""The ``hypercache`` command."""

from hypercache.cli.main import main

__all__ = ["main"]
