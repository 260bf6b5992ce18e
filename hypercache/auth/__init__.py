"""Who a peer is: credentials, the proofs of a link, and the built-in providers."""
