"""Measures a config on this machine: `python -m jaxclust.bench --config=configs/digits_anchor.py`."""
