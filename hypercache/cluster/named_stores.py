"""The stores that the cluster has defined: made and dropped by entries, kept by this node's keyspace and by the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from hypercache.cluster.gateway import NO_LEADER, refusal_line
from hypercache.cluster.raft_stores import dropped_log
from hypercache.control.commands import CreateStore, DropStore, decode_outcome, proposal
from hypercache.control.state import Level
from hypercache.errors import ConfigurationError, MalformedMessageError
from hypercache.resp.definitions import StoreFacts, StoreRequest
from hypercache.resp.replies import OK, error
from hypercache.store import policy_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.python.failure import Failure

    from hypercache.cluster.gateway import Log
    from hypercache.cluster.machine import ClusterMachine
    from hypercache.control.commands import Command
    from hypercache.control.state import ControlState, StoreDefinition
    from hypercache.store import EvictionPolicy, Keyspace

_log = Logger()
_UNKNOWN: Final = "UNKNOWN the change found no majority in time; it may or may not have happened"
_STAMP_OF_MS_BITS: Final = 80
"""From milliseconds to a stamp (`hypercache.store.replica`)."""


class ClusterStores:
    """Named stores (`hypercache.resp.contracts.NamedStores`).

    Args:
        log: the log.
        machine: the state machine.
        keyspace: this node's stores.
        policies: the eviction policies by name.
        clock: the reactor.
    """

    def __init__(
        self, log: Log, machine: ClusterMachine, keyspace: Keyspace, policies: Mapping[str, EvictionPolicy], clock: Any
    ) -> None:
        self._log = log
        self._clock = clock
        self._machine = machine
        self._keyspace = keyspace
        self._policies = policies
        keyspace.logged = machine.stores.stores

    # What clients ask

    def create(self, request: StoreRequest, done: Callable[[bytes], None]) -> None:
        """Have a store made; ``done`` is called later, with the reply."""
        try:
            eviction = policy_named(request.eviction, self._policies).name
        except ConfigurationError as fault:
            self._clock.callLater(0, done, error(f"ERR {fault}"))
            return
        command = CreateStore(request.name, request.level, request.replicas, request.maxmemory, eviction, request.ttl_ms)
        self._clock.callLater(0, self._propose, command, done)

    def drop(self, name: str, done: Callable[[bytes], None]) -> None:
        """Have a store dropped; ``done`` is called later, with the reply."""
        self._clock.callLater(0, self._propose, DropStore(name), done)

    def find(self, name: str, done: Callable[[bytes | None], None]) -> None:
        """Bring this node level with the cluster; ``done`` is called later, with None, or an error reply where that failed."""
        self._clock.callLater(0, self._read, done)

    def _read(self, done: Callable[[bytes | None], None]) -> None:
        self._log.read().addCallbacks(done, lambda failure: done(error(refusal_line(failure, NO_LEADER))))

    def all(self) -> list[StoreFacts]:
        """Return what is defined, by name."""
        definitions = self._machine.control.state.stores
        return [self._facts(definitions[name]) for name in sorted(definitions)]

    def _facts(self, definition: StoreDefinition) -> StoreFacts:
        request = StoreRequest(
            definition.name,
            definition.level,
            definition.replicas,
            definition.maxmemory,
            definition.eviction,
            definition.ttl_ms,
        )
        store = self._keyspace.named(definition.name)
        if store is None:
            return StoreFacts(request, 0, 0, 0)
        return StoreFacts(request, len(store), store.volatile, store.used_bytes())

    def _propose(self, command: Command, done: Callable[[bytes], None]) -> None:
        def refused(failure: Failure) -> None:
            done(error(refusal_line(failure, _UNKNOWN)))

        self._log.propose(proposal(command)).addCallbacks(lambda answer: done(_reply(answer)), refused)

    # What the log says

    def changed(self, before: ControlState, behind: ControlState) -> None:
        """Have the stores that are not kept in the log as they are defined (`ClusterMachine.on_control`)."""
        if before.stores is behind.stores:
            return
        for name, definition in before.stores.items():
            if definition.level != Level.RAFT and behind.stores.get(name) != definition:
                self._keyspace.drop(name, dropped_log(name))
        for name, definition in behind.stores.items():
            if definition.level != Level.RAFT and before.stores.get(name) != definition:
                self._define(definition)

    def _define(self, definition: StoreDefinition) -> None:
        try:
            policy = policy_named(definition.eviction, self._policies)
        except ConfigurationError:
            policy = self._keyspace.policy
        # Every member applies the entry at the same time, and so has the same floor; a snapshot does not tell it.
        made_now = definition.created_index == self._machine.applying_index
        floor = self._machine.stores.now_ms << _STAMP_OF_MS_BITS if made_now else 0
        name = definition.name
        if not self._keyspace.define(name, maxmemory=definition.maxmemory, policy=policy, ttl_ms=definition.ttl_ms, floor=floor):
            _log.error("there are too many stores for {name}; a restart frees those that were dropped", name=name)


def _reply(answer: bytes) -> bytes:
    try:
        outcome = decode_outcome(answer)
    except MalformedMessageError as fault:
        return error(f"ERR {fault}")
    return OK if outcome.ok else error(f"ERR {outcome.text}")
