"""What the members of a cluster agree on: a pure state machine fed by the Raft log (docs/control-plane.md)."""
