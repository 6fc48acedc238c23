"""Training: from a config to a checked run, and from its first step to its last."""
