"""The device mesh, and how arrays lie on it: batches over the `data` axis, all else on every device."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxclust.run.errors import ConfigError
from jaxclust.types import Array


def devices() -> list[jax.Device]:
    """The devices of all processes. Whoever may be the first to ask for them asks here, as JAX ends in tracebacks.

    Raises:
      ConfigError: JAX is told to use devices that it cannot use.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as e:
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        if not asked:
            raise
        why = f" ({str(e).splitlines()[0]})" if str(e) else ""
        raise ConfigError(
            f"JAX_PLATFORMS is {asked!r}, which JAX cannot use here{why}; unset it for the devices that there are, and "
            f"for GPUs install jaxclust[cuda12] or jaxclust[cuda13]"
        ) from e


def make_mesh(first: int | None = None) -> Mesh:
    """A one-dimensional mesh over all devices of all processes, or over the first so many of them.

    Raises:
      ConfigError: see `devices`.
    """
    return Mesh(np.asarray(devices()[:first]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def split(x: Array, parts: int) -> Array:
    """A batch [B, ...] as equal parts [A, B / A, ...]: every A-th row, so that a device's rows stay on it."""
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)


def join(x: Array) -> Array:
    """Parts [A, B / A, ...] that `split` made, as the batch [B, ...] in its order."""
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])


def put(x: np.ndarray, sharding: NamedSharding) -> Array:
    """Places a host array that every process holds whole; each process copies only its own shards."""
    with jax.transfer_guard_host_to_device("allow"):  # this transfer is asked for
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def put_local(x: np.ndarray, sharding: NamedSharding) -> Array:
    """Places a host array of which each process holds only its own rows."""
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_process_local_data(sharding, x)
