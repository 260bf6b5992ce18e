"""The HTTP port for operators."""
