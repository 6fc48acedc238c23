"""Compiled programs on disk, for whoever starts the same program again."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from jaxclust import data


def use_cache() -> None:
    """A second start of the same program reads it from disk instead of compiling it."""
    for name, value in settings().items():
        jax.config.update(name, value)


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """The same inside, and JAX's settings as they were afterwards; a cache that is in use already stays in use."""
    if jax.config.jax_compilation_cache_dir is not None:
        yield
        return
    before = {name: getattr(jax.config, name) for name in settings()}
    use_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()  # JAX would go on with the one it has opened


def settings() -> dict[str, str | float]:
    """JAX's settings of the cache."""
    folder = str(data.cache.directory() / "xla")
    return {"jax_compilation_cache_dir": folder, "jax_persistent_cache_min_compile_time_secs": 0.5}
