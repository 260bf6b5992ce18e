"""Finds plug-ins in `hypercache.plugins`, checks them, and makes what a node is composed of."""

from hypercache.discovery.handlers import plugin_handlers
from hypercache.discovery.loading import Plugin, Plugins, complaint, load_plugins, log_plugins

__all__ = ["Plugin", "Plugins", "complaint", "load_plugins", "log_plugins", "plugin_handlers"]
