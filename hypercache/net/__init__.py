"""Twisted adapters: the doors for clients and peers."""
