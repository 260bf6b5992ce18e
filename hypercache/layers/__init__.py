"""Frame layers: what happens to a frame between a message and the socket; each is a plug-in."""
