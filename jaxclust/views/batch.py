"""The views of a batch, which a CPU makes few at a time.

Planes of 128 images at 224 pixels leave a CPU's caches, and are so large that their memory is given back after each
batch and asked for anew, page by page, for the next. Those of a few images are neither.
"""

import os
from collections.abc import Callable

import jax
from jax import lax

ROOM = 2**19  # bytes of packed planes that each core works on at a time


def views_of(view: Callable[[jax.Array, jax.Array], jax.Array], images: jax.Array, ids: jax.Array) -> jax.Array:
    """The view of each image, the same to the last bit however many are made at a time.

    Args:
      view: (image u8[H, W, C], id) -> f32[S, S, C], a pure function.
      images: u8[B, H, W, C].
      ids: [B], of the images.

    Returns:
      f32[B, S, S, C].
    """
    together = jax.vmap(jax.jit(view, inline=True))  # traced once for all of the below
    devices = jax.device_count()
    side = max(*images.shape[1:3], *jax.eval_shape(together, images, ids).shape[1:3])
    few = _few(side, len(images) // devices)
    if len(images) % devices or few * devices == len(images):
        return together(images, ids)

    def in_turn(images: jax.Array, ids: jax.Array) -> jax.Array:
        # [turns, devices * few, ...]: the images of a device follow one another, and stay on it.
        parts = [_swapped(x.reshape(devices, -1, few, *x.shape[1:])) for x in (images, ids)]
        made = lax.map(lambda part: together(*part), parts)
        return _swapped(made.reshape(-1, devices, few, *made.shape[2:])).reshape(-1, *made.shape[2:])

    return lax.platform_dependent(images, ids, cpu=in_turn, default=together)


def _swapped(x: jax.Array) -> jax.Array:
    """[a, b, n, ...] as [b, a n, ...]."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def _few(side: int, count: int) -> int:
    """How many of `count` images of this side to take at a time: equal parts that the cores have room for."""
    most = max(1, (os.cpu_count() or 1) * ROOM // (4 * side**2))
    return next(n for n in range(min(most, count), 0, -1) if count % n == 0) if count else 0
