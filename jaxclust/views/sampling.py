"""The parameters of a random view, drawn from one key."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxclust.views.operations import Crop, Jitter

ASPECT = (3 / 4, 4 / 3)  # width / height of a random crop
SIGMA = (0.1, 2.0)  # of the blur, in pixels
Shape = tuple[int, ...]  # (H, W)
Range = tuple[float, float]  # (low, high)
Strengths = tuple[float, float, float, float]  # brightness, contrast, saturation, hue
ATTEMPTS = 10  # crops drawn before falling back to the central one


class SimclrParams(NamedTuple):
    crop: Crop
    flip: jax.Array  # bool[]
    jitter: Jitter
    grey: jax.Array  # bool[]
    sigma: jax.Array  # f32[], pixels; 0 is no blur


class MocoParams(NamedTuple):
    crop: Crop
    flip: jax.Array  # bool[]
    jitter: Jitter
    grey: jax.Array  # bool[]


class MmdcParams(NamedTuple):
    jitter: Jitter
    grey: jax.Array  # bool[]
    angle: jax.Array  # f32[], degrees counter-clockwise
    crop: Crop
    flip: jax.Array  # bool[]


# Few calls of jax.random, each for several numbers: every call takes XLA a fifth of a second to compile.


def sample_simclr(
    key: jax.Array, shape: Shape, *, area: Range, flip: float, strength: float, grey: float, blur: float
) -> SimclrParams:
    """Draws the parameters of one `simclr` view of an image of shape (H, W); the settings are `simclr`'s."""
    crop_key, jitter_key, key = jax.random.split(key, 3)
    spread = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    low, high = jnp.array([0, 0, 0, SIGMA[0]]), jnp.array([1, 1, 1, SIGMA[1]])
    flips, greys, blurs, sigma = jax.random.uniform(key, (4,), minval=low, maxval=high)
    return SimclrParams(
        crop=sample_crop(crop_key, shape, area),
        flip=flips < flip,
        jitter=sample_jitter(jitter_key, *spread, p=0.8),
        grey=greys < grey,
        sigma=jnp.where(blurs < blur, sigma, 0.0),
    )


def sample_moco(
    key: jax.Array, shape: Shape, *, area: Range, flip: float, jitter: Strengths, grey: float
) -> MocoParams:
    """Draws the parameters of one `moco` view of an image of shape (H, W); the settings are `moco`'s."""
    crop_key, jitter_key, key = jax.random.split(key, 3)
    flips, greys = jax.random.uniform(key, (2,))
    return MocoParams(
        crop=sample_crop(crop_key, shape, area),
        flip=flips < flip,
        jitter=sample_jitter(jitter_key, *jitter, p=1.0),
        grey=greys < grey,
    )


def sample_mmdc(
    key: jax.Array, shape: Shape, *, turn: float, crops: Sequence[int], jitter: Strengths, grey: float, flip: float
) -> MmdcParams:
    """Draws the parameters of one `mmdc` view of an image of shape (H, W); the settings are `mmdc`'s."""
    crop_key, jitter_key, key = jax.random.split(key, 3)
    greys, turns, flips = jax.random.uniform(key, (3,))
    return MmdcParams(
        jitter=sample_jitter(jitter_key, *jitter, p=1.0),
        grey=greys < grey,
        angle=turn * (2 * turns - 1),
        crop=sample_square(crop_key, shape, crops),
        flip=flips < flip,
    )


def sample_crop(key: jax.Array, shape: Shape, area: Range) -> Crop:
    """Draws a crop of random area and aspect, as torchvision's RandomResizedCrop does.

    Args:
      key: PRNG key.
      shape: (H, W) of the image.
      area: smallest and largest crop, as a fraction of the image.

    Returns:
      The first of ten draws that fits in the image; if none fits, the largest central crop of a valid aspect.
    """
    H, W = shape
    key, place_key = jax.random.split(key)
    low, high = (jnp.array([area[i], math.log(ASPECT[i])]) for i in range(2))
    fraction, log_aspect = jax.random.uniform(key, (ATTEMPTS, 2), minval=low, maxval=high).T
    pixels, aspect = H * W * fraction, jnp.exp(log_aspect)
    widths = jnp.round(jnp.sqrt(pixels * aspect)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(pixels / aspect)).astype(jnp.int32)
    widths, heights = jax.lax.optimization_barrier((widths, heights))  # rounded once, the same for every use
    fits = (widths > 0) & (widths <= W) & (heights > 0) & (heights <= H)
    first = jnp.argmax(fits)

    central_h, central_w = min(H, round(W / ASPECT[0])), min(W, round(H * ASPECT[1]))
    height = jnp.where(fits[first], heights[first], central_h)
    width = jnp.where(fits[first], widths[first], central_w)
    room = jnp.stack([H - height, W - width])
    top, left = jnp.where(fits[first], _up_to(room, jax.random.uniform(place_key, (2,))), room // 2)
    return Crop(top, left, height, width)


def sample_square(key: jax.Array, shape: Shape, sides: Sequence[int]) -> Crop:
    """Draws a square crop: its side is one of `sides`, in pixels, and its place anywhere in an image of (H, W)."""
    which, *place = jax.random.uniform(key, (3,))
    side = jnp.array(sides)[_up_to(len(sides) - 1, which)]
    top, left = _up_to(jnp.array(shape) - side, jnp.stack(place))
    return Crop(top, left, side, side)


def _up_to(most: jax.Array | int, uniform: jax.Array) -> jax.Array:
    """Whole numbers from 0 to `most`, equally likely, from uniform ones in [0, 1)."""
    return jnp.minimum(jnp.floor(uniform * (most + 1)).astype(jnp.int32), most)


def sample_jitter(
    key: jax.Array, brightness: float, contrast: float, saturation: float, hue: float, p: float
) -> Jitter:
    """Draws a colour jitter that happens with probability `p`, and with 1 - p changes nothing.

    Args:
      key: PRNG key.
      brightness, contrast, saturation: a factor is uniform in [max(0, 1 - this), 1 + this].
      hue: the shift is uniform in [-hue, hue] turns.
      p: probability.
    """
    spread = jnp.array([brightness, contrast, saturation, hue])
    nothing = jnp.array([1.0, 1.0, 1.0, 0.0])
    low = jnp.maximum(nothing - spread, jnp.array([0.0, 0.0, 0.0, -jnp.inf]))
    value_key, key = jax.random.split(key)
    values = jax.random.uniform(value_key, (4,), minval=low, maxval=nothing + spread)
    happens, *time = jax.random.uniform(key, (5,))
    return Jitter._make((*jnp.where(happens < p, values, nothing), jnp.stack(time)))
