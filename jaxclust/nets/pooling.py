"""Max pooling, whose gradient goes the way that suits the platform.

XLA's gradient looks for each window's largest once more and adds what comes back to a map of zeros: on a CPU one window
after another, for CUDA by atomic operations, with four 32-bit indices for each window whatever the dtype. Here a
window's largest is one byte, and each place of the image adds up what its windows send it. A TPU has an instruction for
XLA's. `jaxclust/commands/bench/README.md` has what that saves.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """The largest of each window; the gradient goes to the first that is it, row by row.

    Args:
      x: f[B, H, W, C].
      size: of a window, a side.
      stride: from one window to the next.
      padding: places around the image, smaller than all else.

    Returns:
      f[B, H', W', C].
    """
    return _pooled(x, size, stride, padding)


def _pooled(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    return nn.max_pool(x, (size, size), (stride, stride), ((padding, padding), (padding, padding)))


def _forward(x: jax.Array, size: int, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    return _pooled(x, size, stride, padding), x


def _backward(size: int, stride: int, padding: int, x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    def scattered(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: _pooled(x, size, stride, padding), x)[1](g)[0]

    def gathered(x: jax.Array, g: jax.Array) -> jax.Array:
        return _gathered(x, g, size, stride, padding)

    return (lax.platform_dependent(x, g, tpu=scattered, default=gathered),)


def _gathered(x: jax.Array, g: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """The gradient f[B, H, W, C] from that of the windows, g f[B, H', W', C]."""
    image = x.shape[1:3]
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), (padding, padding, 0), (padding, padding, 0), (0, 0, 0)))
    taps = list(itertools.product(range(size), repeat=2))  # places within a window
    rows, columns = (stride * (n - 1) + 1 for n in g.shape[1:3])  # from the first window to the last

    best, chosen = jnp.full(g.shape, -jnp.inf, x.dtype), jnp.zeros(g.shape, jnp.uint8)
    for k, (i, j) in enumerate(taps):
        seen = x[:, i : i + rows : stride, j : j + columns : stride]
        best, chosen = jnp.maximum(best, seen), jnp.where(seen > best, jnp.uint8(k), chosen)

    sent = []
    for k, place in enumerate(taps):
        starts = [p - padding for p in place]  # in the image; what falls outside of it is cut off
        spread = [(s, n - s - r, stride - 1) for s, n, r in zip(starts, image, (rows, columns), strict=True)]
        sent.append(lax.pad(jnp.where(chosen == k, g, 0), jnp.zeros((), g.dtype), ((0, 0, 0), *spread, (0, 0, 0))))
    return functools.reduce(jnp.add, sent)


max_pool.defvjp(_forward, _backward)
