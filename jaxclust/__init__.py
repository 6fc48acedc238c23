"""Cluster unlabelled images by training a network from scratch, in JAX."""

__version__ = "0.1.0"
