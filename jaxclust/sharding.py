"""The device mesh, and how arrays lie on it: batches over the `data` axis, all else on every device."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxclust.types import Array


def make_mesh(devices: int | None = None) -> Mesh:
    """A one-dimensional mesh over all devices of all processes, or over the first `devices` of them."""
    return Mesh(np.asarray(jax.devices()[:devices]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def put(x: np.ndarray, sharding: NamedSharding) -> Array:
    """Places a host array that every process holds whole; each process copies only its own shards."""
    with jax.transfer_guard_host_to_device("allow"):  # this transfer is asked for
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def put_local(x: np.ndarray, sharding: NamedSharding) -> Array:
    """Places a host array of which each process holds only its own rows."""
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_process_local_data(sharding, x)
