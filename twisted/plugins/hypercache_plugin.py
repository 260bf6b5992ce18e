"""Makes ``twistd hypercache`` known."""

from twisted.application.service import ServiceMaker

hypercache = ServiceMaker("HyperCache", "hypercache.tap", "A distributed cache for Redis clients", "hypercache")
