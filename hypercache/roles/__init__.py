"""One composition root a role."""
