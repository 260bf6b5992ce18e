"""Named stores: records, expiry, eviction, memory accounting."""

from hypercache.store.eviction import Candidate, EvictionPolicy, built_in_policies, policy_named
from hypercache.store.keyspace import DEFAULT_STORE, Keyspace, store_name
from hypercache.store.replica import STAMP_STEP, Record
from hypercache.store.store import Store

__all__ = [
    "DEFAULT_STORE",
    "STAMP_STEP",
    "Candidate",
    "EvictionPolicy",
    "Keyspace",
    "Record",
    "Store",
    "built_in_policies",
    "policy_named",
    "store_name",
]
