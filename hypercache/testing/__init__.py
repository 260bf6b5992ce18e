"""A simulated cluster that tries to break promises, for the tests of HyperCache and of whoever builds on it (docs/testing.md)."""
