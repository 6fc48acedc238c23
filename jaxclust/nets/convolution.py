"""Convolutions by the algorithm that suits the platform and the shape.

Around a small map there is as much padding as map. On a CPU, XLA multiplies that as well, and its gradients there are
slower still: a map that ends with at most two places a side is made as matrix products instead, with only the taps
that meet the image. On larger maps XLA's own convolution is the best that was found, but for the kernel's gradient:
that is a product of columns (im2col), few enough at a time that they stay in the caches. What is compiled for a GPU or
TPU holds XLA's own alone. `jaxclust/commands/bench/README.md` has the tables.
"""

import contextlib
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SMALL = 2  # places a side that are made as products
COLUMNS = 2**21  # bytes of the columns of a kernel's gradient at a time
TAPS, PAYS = 9, 2**25  # the columns of more taps take 4 s to compile, which pays from so many bytes in a batch on
_ours = ContextVar("ours", default=True)


class Reach(NamedTuple):
    """What a place of the result meets along one axis."""

    image: tuple[int, int]  # first, and one after the last
    taps: slice


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]], **how: Any
) -> jax.Array:
    """`lax.conv_general_dilated`, as `flax.linen.Conv(conv_general_dilated=...)` calls it.

    Args:
      x: f[B, H, W, C].
      kernel: f[h, w, C, D].
      strides: two.
      padding: of H and of W, before and after.
      **how: the layout, which is that of Flax, and dilations and groups, which are not for products.

    Returns:
      f[B, H', W', D].
    """
    ours = _ours.get() and how["feature_group_count"] == 1 and {*how["lhs_dilation"], *how["rhs_dilation"]} == {1}
    alone = jax.device_count() == 1  # a loop over rows that lie on several would exchange in each of its turns
    return _convolve(x, kernel, tuple(strides), tuple(padding), tuple(how.items()), ours, ours and alone)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))  # so that layers of one shape are traced once
def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, how: Any, as_products: bool, by_columns: bool
) -> jax.Array:
    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **dict(how))

    rows, columns = (_reaches(*axis) for axis in zip(x.shape[1:3], kernel.shape[:2], strides, padding, strict=True))
    if as_products and max(len(rows), len(columns)) <= SMALL:
        products = functools.partial(_products, rows=rows, columns=columns)
        return lax.platform_dependent(x, kernel, cpu=products, default=convolution)
    if by_columns and kernel.shape[:2] != (1, 1):
        return _with_columns(convolution, strides, padding)(x, kernel)
    return convolution(x, kernel)


@contextlib.contextmanager
def by_xla_alone() -> Iterator[None]:
    """What is traced inside is as for a GPU: a program for a CPU then tells what one for a GPU does."""
    before = _ours.set(False)
    try:
        yield
    finally:
        _ours.reset(before)


def _reaches(size: int, taps: int, stride: int, padding: tuple[int, int]) -> list[Reach]:
    """Of each place along one axis, in order."""
    starts = range(-padding[0], size + padding[1] - taps + 1, stride)
    ends = [(max(start, 0), min(start + taps, size)) for start in starts]
    return [Reach(image, slice(image[0] - start, image[1] - start)) for start, image in zip(starts, ends)]


def _products(x: jax.Array, kernel: jax.Array, rows: list[Reach], columns: list[Reach]) -> jax.Array:
    """The convolution f[B, H', W', D], a matrix product for all places that meet the same part of the image."""
    batch, width = x.shape[0], kernel.shape[-1]
    together = defaultdict(list)  # part of the image -> (place, its taps)
    for place, (row, column) in enumerate(itertools.product(rows, columns)):
        together[row.image, column.image].append((place, kernel[row.taps, column.taps].reshape(-1, width)))
    made: dict[int, jax.Array] = {}
    for (across, along), meeting in together.items():
        places, taps = zip(*meeting)
        product = x[:, slice(*across), slice(*along)].reshape(batch, -1) @ jnp.concatenate(taps, axis=1)
        made |= zip(places, jnp.split(product, len(places), axis=1))
    return jnp.stack([made[place] for place in sorted(made)], axis=1).reshape(batch, len(rows), len(columns), width)


def _with_columns(convolution: Callable[..., jax.Array], strides: Any, padding: Any) -> Callable[..., jax.Array]:
    """The convolution, whose kernel's gradient on a CPU is `_kernel_gradient`."""

    def backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = kept

        def by_columns(x: jax.Array, g: jax.Array) -> jax.Array:
            return _kernel_gradient(x, g, kernel, strides, padding)

        def by_xla(x: jax.Array, g: jax.Array) -> jax.Array:
            return jax.linear_transpose(lambda kernel: convolution(x, kernel), kernel)(g)[0]

        (to_x,) = jax.linear_transpose(lambda x: convolution(x, kernel), x)(g)
        if math.prod(kernel.shape[:2]) > TAPS and len(x) * _columns_of_image(g, kernel) < PAYS:
            return to_x, by_xla(x, g)
        return to_x, lax.platform_dependent(x, g, cpu=by_columns, default=by_xla)

    differentiable = jax.custom_vjp(convolution)
    differentiable.defvjp(lambda x, kernel: (convolution(x, kernel), (x, kernel)), backward)
    return differentiable


def _kernel_gradient(x: jax.Array, g: jax.Array, kernel: jax.Array, strides: Any, padding: Any) -> jax.Array:
    """The gradient f[h, w, C, D] for images f[B, H, W, C] and the result's f[B, H', W', D], some images at a time."""
    (height, width, channels, made), (batch, *places, _) = kernel.shape, g.shape
    taps = list(itertools.product(range(height), range(width)))
    most = max(COLUMNS // _columns_of_image(g, kernel), 1)
    at_once = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)

    def product(x: jax.Array, g: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        last = [(n - 1) * stride + 1 for n, stride in zip(places, strides, strict=True)]
        shifted = [
            lax.slice(x, (0, i, j, 0), (at_once, i + last[0], j + last[1], channels), (1, *strides, 1)) for i, j in taps
        ]
        columns = jnp.concatenate(shifted, axis=-1).reshape(-1, len(taps) * channels)
        return lax.dot_general(
            columns, g.reshape(-1, made), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )

    parts = (a.reshape(batch // at_once, at_once, *a.shape[1:]) for a in (x, g))
    start = jnp.zeros((len(taps) * channels, made), jnp.float32)
    total, _ = lax.scan(lambda total, part: (total + product(*part), None), start, tuple(parts))
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _columns_of_image(g: jax.Array, kernel: jax.Array) -> int:
    """Bytes of the columns of one image, given the gradient f[B, H', W', D] of what it becomes."""
    return math.prod(g.shape[1:3]) * math.prod(kernel.shape[:3]) * g.dtype.itemsize
