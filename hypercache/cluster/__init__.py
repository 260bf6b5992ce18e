"""Members of a cluster, their heartbeats, and the first form of replication."""
