"""What is done to an image in a view, each operation with its parameters given.

They follow torchvision on PIL images (Pillow's arithmetic), without Pillow's rounding to eight bits.

Two choices are for speed, on a CPU above all. Inside, an image is a tuple of planes f32[H, W], one per channel, because
XLA turns interleaved channels into scalar code. And where a chain of operations has to land in memory its three
planes are packed into one integer, as XLA evaluates the whole chain again for every array that comes out of it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Scalar = jax.Array | float  # one number, perhaps traced
Planes = tuple[jax.Array, ...]  # one f32[H, W] in [0, 1] per channel: three (RGB) or one (grey)

GREY = (0.299, 0.587, 0.114)  # ITU-R 601


class Crop(NamedTuple):
    top: jax.Array  # i32[]
    left: jax.Array  # i32[]
    height: jax.Array  # i32[]
    width: jax.Array  # i32[]


class Jitter(NamedTuple):
    brightness: jax.Array  # f32[], a factor; 1 changes nothing
    contrast: jax.Array  # f32[], likewise
    saturation: jax.Array  # f32[], likewise
    hue: jax.Array  # f32[], a shift in turns; 0 changes nothing
    time: jax.Array  # f32[4], when each of the four happens, in the order above; the smallest is first


def to_planes(image: jax.Array) -> Planes:
    """u8[H, W, C] -> Planes; a ValueError if C is neither 1 nor 3."""
    C = image.shape[-1]
    if C not in (1, 3):
        raise ValueError(f"a view needs an image of 1 or 3 channels, not of shape {image.shape}")
    return tuple(image[..., c].astype(jnp.float32) * (1 / 255) for c in range(C))


def crop_resize(
    planes: Planes, top: Scalar, left: Scalar, height: Scalar, width: Scalar, flip: jax.Array | bool, size: int
) -> Planes:
    """Cuts a rectangle out, resizes it (antialiased bilinear, as Pillow's) and maybe mirrors it left to right.

    Args:
      planes: the image, f32[H, W] each.
      top, left, height, width: the rectangle in whole pixels, inside the image; may be traced.
      flip: bool[]; may be traced.
      size: side of the result.

    Returns:
      Planes of f32[size, size].
    """
    H, W = planes[0].shape
    columns = _resample_rows(_transpose(_pack(planes)), *_taps(left, width, W, flip, size))
    return _resample_rows(_transpose(_pack(columns)), *_taps(top, height, H, False, size))


def _taps(
    start: Scalar, length: Scalar, extent: int, mirror: jax.Array | bool, size: int
) -> tuple[jax.Array, jax.Array]:
    """Which pixels of [start, start + length) make up each of `size` pixels, and their weights: [size, taps] each."""
    # Positions are whole numbers of 1 / (2 size) pixels. XLA may compute an index twice, for the gather and for the
    # weight, and round the two differently; a floor of floats could then pair a weight with the wrong pixel.
    taps = math.ceil(2 * max(extent / size, 1))  # as many as the widest support can reach
    support = jnp.maximum(length, size)  # of the triangle filter: a pixel of the source or, if larger, of the result
    i = jnp.arange(size)[:, None]
    centre = (2 * jnp.where(mirror, size - 1 - i, i) + 1) * length
    index = (centre - 2 * support + size) // (2 * size) + jnp.arange(taps)
    weight = jnp.maximum(0.0, 1 - jnp.abs((2 * index + 1) * size - centre) / (2 * support))
    weight = jnp.where((index >= 0) & (index < length), weight, 0.0)  # nothing leaks in from outside the crop
    return start + jnp.clip(index, 0, length - 1), weight / weight.sum(1, keepdims=True)


def _resample_rows(packed: jax.Array, index: jax.Array, weight: jax.Array) -> Planes:
    # Two or three taps as a rule; gathering those beats a dense matrix product by far, more so the larger the image.
    terms = [
        tuple(weight[:, k, None] * p for p in _unpack(jnp.take(packed, index[:, k], axis=0, mode="clip")))
        for k in range(index.shape[1])
    ]
    return tuple(sum(plane) for plane in zip(*terms))


def rotate(planes: Planes, angle: Scalar) -> Planes:
    """Turns counter-clockwise by `angle` degrees about the centre; nearest pixel, black outside, as Image.rotate."""
    H, W = planes[0].shape
    cos, sin = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
    y, x = jnp.arange(H)[:, None] - (H - 1) / 2, jnp.arange(W) - (W - 1) / 2  # pixel centres, from the image's
    row = jnp.floor(sin * x + cos * y + H / 2).astype(jnp.int32)  # i32[H, W], of the pixel that comes to each place
    column = jnp.floor(cos * x - sin * y + W / 2).astype(jnp.int32)
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    index = jnp.where(inside, row * W + column, H * W)  # one past the end is filled
    return _unpack(jnp.take(_pack(planes).ravel(), index, mode="fill", fill_value=0))


def adjust_brightness(planes: Planes, factor: Scalar) -> Planes:
    """Multiplies by `factor` >= 0, as ImageEnhance.Brightness."""
    return tuple(_smaller(factor * p, 1.0) for p in planes)


def adjust_contrast(planes: Planes, factor: Scalar) -> Planes:
    """Scales the distance to the mean of the grey image by `factor`, as ImageEnhance.Contrast."""
    offset = (1 - factor) * _mean_grey(_pack(planes))
    return tuple(_clip(factor * p + offset) for p in planes)


def adjust_saturation(planes: Planes, factor: Scalar) -> Planes:
    """Scales the distance to the grey image by `factor`, as ImageEnhance.Color; 0 is greyscale."""
    if len(planes) == 1:
        return planes
    offset = (1 - factor) * _grey(planes)
    return tuple(_clip(factor * p + offset) for p in planes)


def hue_shift(planes: Planes, turn: Scalar) -> Planes:
    """Shifts H by `turn` (1 is once around) at the same S and V of HSV.

    Each channel runs between min and max as a clipped triangle of H. With H counted in sixths of a turn from red and
    times the chroma, max - min, nothing has to be divided by a chroma that may be 0.
    """
    if len(planes) == 1:
        return planes
    r, g, b = planes
    top = _larger(_larger(r, g), b)
    chroma = top - _smaller(_smaller(r, g), b)
    red, green = r == top, g == top
    sixths = 6 * (turn - jnp.round(turn)) + jnp.where(red, 0.0, jnp.where(green, 2.0, 4.0))
    h = jnp.where(red, g - b, jnp.where(green, b - r, r - g)) + chroma * sixths
    h = jnp.where(h < 0, h + 6 * chroma, h)
    h = jnp.where(h >= 6 * chroma, h - 6 * chroma, h)

    def below_top(triangle: jax.Array) -> jax.Array:
        return top - _smaller(_larger(triangle, 0.0), chroma)

    return (
        below_top(2 * chroma - jnp.abs(h - 3 * chroma)),
        below_top(jnp.abs(h - 2 * chroma) - chroma),
        below_top(jnp.abs(h - 4 * chroma) - chroma),
    )


def colour_jitter(planes: Planes, params: Jitter) -> Planes:
    """Applies the four colour operations in the order of `params.time`.

    Under vmap every image runs the same program, so this is one program that holds all 24 orders; what is not due is
    given a factor of 1 or a shift of 0. Contrast alone looks beyond its pixel: around it, in each half, brightness,
    saturation, brightness, hue, brightness, saturation, brightness holds any order of the other three.
    """
    brightness, contrast, saturation, hue = params.time
    brightness_first = brightness < saturation

    def due(value: jax.Array, *conditions: jax.Array, idle: float = 1.0) -> jax.Array:
        return jnp.where(jnp.stack(conditions).all(0), value, idle)

    def half(packed: jax.Array, second: jax.Array) -> tuple[jax.Array, None]:
        planes = _unpack(packed)
        planes = adjust_contrast(planes, due(params.contrast, second))
        here_b, here_s, here_h = ((time > contrast) == second for time in (brightness, saturation, hue))
        for late in (False, True):
            b = here_b & ((brightness > hue) == late)
            s = here_s & ((saturation > hue) == late)
            if late:
                planes = hue_shift(planes, due(params.hue, here_h, idle=0.0))
            planes = adjust_brightness(planes, due(params.brightness, b, brightness_first))
            planes = adjust_saturation(planes, due(params.saturation, s))
            planes = adjust_brightness(planes, due(params.brightness, b, ~brightness_first))
        return _pack(planes), None

    return _unpack(jax.lax.scan(half, _pack(planes), jnp.array([False, True]))[0])


def gaussian_blur(planes: Planes, sigma: Scalar, radius: int) -> Planes:
    """Blurs with a Gaussian of `sigma` pixels cut off at `radius`, the edge pixels repeated; 0 changes nothing."""
    offsets = jnp.arange(-radius, radius + 1)
    weight = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    weight = weight / weight.sum()

    def blur(plane: jax.Array) -> jax.Array:
        # Shifted sums: on a CPU, XLA runs a convolution under vmap image by image, with a kernel each.
        H, W = plane.shape
        padded = jax.lax.optimization_barrier(jnp.pad(plane, radius, mode="edge"))
        rows = jax.lax.optimization_barrier(sum(weight[k] * padded[k : k + H] for k in range(2 * radius + 1)))
        return _clip(sum(weight[k] * rows[:, k : k + W] for k in range(2 * radius + 1)))

    return tuple(map(blur, planes))


def _grey(planes: Planes) -> jax.Array:
    return planes[0] if len(planes) == 1 else sum(weight * p for weight, p in zip(GREY, planes))  # type: ignore[return-value]


# jnp.maximum, jnp.minimum and jnp.clip pass NaN on, for which a CPU needs five instructions instead of one.
def _larger(x: jax.Array, y: Scalar) -> jax.Array:
    return jnp.where(x > y, x, y)


def _smaller(x: jax.Array, y: Scalar) -> jax.Array:
    return jnp.where(x < y, x, y)


def _clip(x: jax.Array) -> jax.Array:
    return _smaller(_larger(x, 0.0), 1.0)


LEVELS = 4 * 255  # ten bits a channel, in steps of a quarter of an eight-bit level, which are exact for the source
SHIFTS = (0, 10, 20)


def _pack(planes: Planes) -> jax.Array:
    """Three planes in one i32[H, W] in memory; a single plane stays as it is."""
    if len(planes) == 1:
        return planes[0]
    # A float of 2**23 or more has no fraction: the sum rounds, and leaves the integer in the low bits.
    r, g, b = (jax.lax.bitcast_convert_type(p * LEVELS + 2.0**23, jnp.int32) & 1023 for p in planes)
    return jax.lax.optimization_barrier(r | g << 10 | b << 20)


def _unpack(packed: jax.Array) -> Planes:
    if packed.dtype != jnp.int32:
        return (packed,)
    return tuple((packed >> shift & 1023).astype(jnp.float32) * (1 / LEVELS) for shift in SHIFTS)


def _transpose(packed: jax.Array) -> jax.Array:
    # In memory, so that the gather that follows copies whole rows.
    return jax.lax.optimization_barrier(packed.T)


def _mean_grey(packed: jax.Array) -> jax.Array:
    if packed.dtype != jnp.int32:
        return jnp.mean(packed)
    # Sums of integers may be reordered, so a CPU vectorises them. Safe from overflow up to 1,400 pixels a side.
    sums = [jnp.sum(packed >> shift & 1023) for shift in SHIFTS]
    return sum(weight * s for weight, s in zip(GREY, sums)) / (LEVELS * packed.size)  # type: ignore[return-value]


def interleave(planes: Planes) -> jax.Array:
    """Planes -> f32[H, W, C]."""
    packed = _pack(planes)[..., None]
    if len(planes) == 1:
        return packed
    return (packed >> jnp.array(SHIFTS) & 1023).astype(jnp.float32) * (1 / LEVELS)


def standardise(image: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """(image - mean) / std, with a number of each for every channel of f32[H, W, C]; a ValueError if it has others."""
    C = image.shape[-1]
    if not len(mean) == len(std) == C:
        raise ValueError(f"mean {mean} and std {std} must each have a number for every channel of the image, here {C}")
    return (image - jnp.array(mean)) / jnp.array(std)
