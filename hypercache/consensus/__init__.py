"""The driver of the Raft core: it gives it time, a disk, peers and a state machine (docs/raft.md)."""
