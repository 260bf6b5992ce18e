"""Stores, users and plans: how each command about them changes the state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.control.commands import Code
from hypercache.control.effects import Effect, refused
from hypercache.control.state import Level, Plan, StoreDefinition
from hypercache.limits import (
    PLAN_MAX_BYTES,
    STORE_NAME_MAX_BYTES,
    STORE_REPLICAS_MAX_COUNT,
    STORES_MAX_COUNT,
    USER_NAME_MAX_BYTES,
    USER_RULES_MAX_BYTES,
    USERS_MAX_COUNT,
)

if TYPE_CHECKING:
    from hypercache.control.commands import BeginPlan, CreateStore, DropStore, DropUser, EndPlan, SetUser
    from hypercache.control.state import ControlState

# A name begins with a letter: SELECT takes a number for an index.
_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9_.:-]{{0,{STORE_NAME_MAX_BYTES - 1}}}")
_RESERVED: Final = re.compile(r"default|db[0-9]+")
_POLICY: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_NUMBER_END: Final = 1 << 63
_LEVELS: Final = {str(level): level for level in Level}


def create_store(state: ControlState, command: CreateStore, index: int) -> Effect:
    """Define a store."""
    fault = _store_fault(command)
    if fault is not None:
        return refused(state, *fault)
    if command.name in state.stores:
        return refused(state, Code.EXISTS, f"store '{command.name}' exists already")
    if len(state.stores) >= STORES_MAX_COUNT:
        return refused(state, Code.FULL, f"there are {STORES_MAX_COUNT} stores already, and there cannot be more")
    store = StoreDefinition(
        command.name,
        _LEVELS[command.level],
        command.replicas,
        command.maxmemory,
        command.eviction,
        command.ttl_ms,
        index,
    )
    return Effect(msgspec.structs.replace(state, stores={**state.stores, store.name: store}))


def drop_store(state: ControlState, command: DropStore) -> Effect:
    """Forget a store."""
    if _RESERVED.fullmatch(command.name):
        return refused(state, Code.RESERVED, f"store '{command.name}' is always there")
    if command.name not in state.stores:
        return refused(state, Code.UNKNOWN, f"no such store: {command.name[:STORE_NAME_MAX_BYTES]!r}")
    stores = {name: store for name, store in state.stores.items() if name != command.name}
    return Effect(msgspec.structs.replace(state, stores=stores))


def set_user(state: ControlState, command: SetUser) -> Effect:
    """Give a user rules."""
    if not 0 < len(command.name.encode()) <= USER_NAME_MAX_BYTES or len(command.rules) > USER_RULES_MAX_BYTES:
        return refused(
            state, Code.INVALID, f"a user's name has 1 to {USER_NAME_MAX_BYTES} bytes, its rules at most {USER_RULES_MAX_BYTES}"
        )
    if command.name not in state.users and len(state.users) >= USERS_MAX_COUNT:
        return refused(state, Code.FULL, f"there are {USERS_MAX_COUNT} users already, and there cannot be more")
    if state.users.get(command.name) == command.rules:
        return Effect(state)
    return Effect(msgspec.structs.replace(state, users={**state.users, command.name: command.rules}))


def drop_user(state: ControlState, command: DropUser) -> Effect:
    """Forget a user."""
    if command.name not in state.users:
        return refused(state, Code.UNKNOWN, f"no such user: {command.name[:USER_NAME_MAX_BYTES]!r}")
    users = {name: rules for name, rules in state.users.items() if name != command.name}
    return Effect(msgspec.structs.replace(state, users=users))


def begin_plan(state: ControlState, command: BeginPlan, index: int) -> Effect:
    """Begin a plan; one at a time is pending (consistency.md, rule 12)."""
    if state.plan is not None:
        return refused(state, Code.PENDING, f"plan {state.plan.index} is under way")
    if len(command.data) > PLAN_MAX_BYTES:
        return refused(state, Code.INVALID, f"a plan has at most {PLAN_MAX_BYTES} bytes")
    return Effect(msgspec.structs.replace(state, plan=Plan(index, command.reason, command.data)))


def end_plan(state: ControlState, command: EndPlan) -> Effect:
    """End the plan that is pending."""
    if state.plan is None or state.plan.index != command.index:
        return refused(state, Code.UNKNOWN, f"plan {command.index} is not under way")
    return Effect(msgspec.structs.replace(state, plan=None))


def _store_fault(command: CreateStore) -> tuple[Code, str] | None:
    """Return what is wrong with a definition by itself."""
    if not _NAME.fullmatch(command.name):
        return Code.INVALID, (
            f"a store's name has 1 to {STORE_NAME_MAX_BYTES} characters: a letter, then letters, digits, and any of _ . : -"
        )
    if _RESERVED.fullmatch(command.name):
        return Code.RESERVED, f"the name '{command.name}' belongs to a store that is always there"
    if command.level not in _LEVELS:
        return Code.INVALID, f"a store's level is one of {', '.join(_LEVELS)}"
    if command.level == Level.QUORUM:
        return Code.UNSUPPORTED, "level quorum is not served yet; use raft, which promises as much, or async"
    if not _POLICY.fullmatch(command.eviction):
        return Code.INVALID, "that is no name of an eviction policy"
    if not 0 <= command.replicas <= STORE_REPLICAS_MAX_COUNT:
        return Code.INVALID, f"a store has at most {STORE_REPLICAS_MAX_COUNT} replicas"
    if command.level == Level.RAFT and command.replicas:
        return Code.INVALID, "a store of level raft is held by every member of the group; leave REPLICAS out"
    if not (0 <= command.maxmemory < _NUMBER_END and 0 <= command.ttl_ms < _NUMBER_END):
        return Code.INVALID, "a number of bytes or milliseconds is out of range"
    return None
