"""What travels between nodes: stamps, outboxes, feeds, and how a received change is applied."""
