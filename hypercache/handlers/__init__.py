"""What a node does with each type of message: one handler a module."""
