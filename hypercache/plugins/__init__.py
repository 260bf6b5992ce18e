"""Where plug-ins are found: any distribution may put a module into a ``hypercache/plugins`` of its own, without an ``__init__.py``.

This is the only place for one. What a module exposes here is an object that provides `twisted.plugin.IPlugin` and one of the
interfaces of `hypercache.interfaces`; docs/plugins.md shows how.
"""

from __future__ import annotations

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))

__all__: list[str] = []
