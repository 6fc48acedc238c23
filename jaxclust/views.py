"""Views of an image: random augmentations as pure functions of one image and one key.

    views = make({"plain": {"policy": "plain"}, "strong": {"policy": "simclr", "area": (0.08, 1.0), ...}}, size=32)
    strong = jax.vmap(views["strong"])(images, jax.random.split(key, len(images)))   # u8[B, H, W, C] -> f32[B, S, S, C]

A policy is a function `(size, *, settings) -> View` under `@policy`; its keyword-only arguments are the settings
a config gives, all of them. It draws its parameters first and applies them second, so that each half is tested alone.
The operations follow torchvision on PIL images (Pillow's arithmetic), without Pillow's rounding to eight bits.

Two choices are for speed, on a CPU above all. Inside, an image is a tuple of planes f32[H, W], one per channel, because
XLA turns interleaved channels into scalar code. And where a chain of operations has to land in memory its three
planes are packed into one integer, as XLA evaluates the whole chain again for every array that comes out of it.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from jaxclust.config import hint

View = Callable[[jax.Array, jax.Array], jax.Array]  # (image u8[H, W, C], key) -> f32[size, size, C] in [0, 1]
Planes = tuple[jax.Array, ...]  # one f32[H, W] in [0, 1] per channel: three (RGB) or one (grey)

GREY = (0.299, 0.587, 0.114)  # ITU-R 601
ASPECT = (3 / 4, 4 / 3)  # width / height of a random crop
SIGMA = (0.1, 2.0)  # of the blur, in pixels
ATTEMPTS = 10  # crops drawn before falling back to the central one


# ---------------------------------------------------------------- config -> views


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_area(value):
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(map(_is_number, value))
        and 0 < value[0] <= value[1] <= 1
    )


# A setting's type, with the check of a value and the words for what passes it.
Probability = Annotated[float, lambda v: _is_number(v) and 0 <= v <= 1, "a number in [0, 1]"]
Strength = Annotated[float, lambda v: _is_number(v) and 0 <= v < math.inf, "a finite number >= 0"]
Area = Annotated[tuple[float, float], _is_area, "a pair (low, high) with 0 < low <= high <= 1"]

_policies: dict[str, Callable[..., View]] = {}


def policy(function):
    """Makes `function` a policy that a config can name."""
    _policies[function.__name__] = function
    return function


def make(policies: Mapping[str, Mapping], size: int) -> dict[str, View]:
    """Builds the views that a config describes.

    Args:
      policies: view name -> `policy` (the name of a policy) and every setting of that policy.
      size: side of the square views, in pixels.

    Returns:
      view name -> View.

    Raises:
      ValueError: a policy or setting is unknown, missing, or has a value outside its range.
    """
    return {name: _build(f"views.{name}", config, size) for name, config in policies.items()}


def _build(where, config, size):
    if not hasattr(config, "keys") or "policy" not in config:
        raise ValueError(f"missing {where}.policy, the name of a policy: {', '.join(_policies)}")
    settings = dict(config)
    name = settings.pop("policy")
    if name not in tuple(_policies):
        raise ValueError(f"{where}.policy is {name!r}{hint(str(name), _policies)}")
    kinds = {
        key: argument.annotation
        for key, argument in inspect.signature(_policies[name]).parameters.items()
        if argument.kind is argument.KEYWORD_ONLY
    }
    for key in settings:
        if key not in kinds:
            raise ValueError(f"unknown key {where}.{key}{hint(key, ['policy', *kinds], where + '.')}")
    if missing := [f"{where}.{key}" for key in kinds if key not in settings]:
        raise ValueError(f"missing {', '.join(missing)}; the policy {name!r} needs every one of its settings")
    for key, value in settings.items():
        valid, words = kinds[key].__metadata__
        if not valid(value):
            raise ValueError(f"{where}.{key} is {value!r}; it must be {words}")
    return _policies[name](size, **settings)


# ---------------------------------------------------------------- policies


@policy
def plain(size: int) -> View:
    """The image resized to `size` x `size`, for evaluation and for methods that need an undistorted view."""

    def view(image, key):
        del key
        height, width, _ = image.shape
        return _interleave(crop_resize(image, 0, 0, height, width, False, size))

    return view


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


class SimclrParams(NamedTuple):
    crop: Crop
    flip: jax.Array  # bool[]
    jitter: Jitter
    grey: jax.Array  # bool[]
    sigma: jax.Array  # f32[], pixels; 0 is no blur


@policy
def simclr(
    size: int, *, area: Area, flip: Probability, strength: Strength, grey: Probability, blur: Probability
) -> View:
    """SimCLR's augmentation (Chen et al., ICML 2020, arXiv:2002.05709, appendix A).

    In this order: random resized crop, horizontal flip, colour jitter with p 0.8, greyscale, Gaussian blur.

    Args:
      size: side of the view, in pixels.
      area: smallest and largest crop, as a fraction of the image.
      flip: probability of a horizontal flip.
      strength: s; the three factors are within 1 -+ 0.8 s and the hue shift within -+0.2 s of a turn.
      grey: probability of greyscale.
      blur: probability of the blur.

    Returns:
      The view. What a zero switches off is not in its program, nor is colour for an image of one channel.
    """

    def view(image, key):
        params = sample_simclr(key, image.shape[:2], area=area, flip=flip, strength=strength, grey=grey, blur=blur)
        planes = crop_resize(image, *params.crop, params.flip, size)
        if strength:
            planes = jitter(planes, params.jitter)
        if grey:
            planes = adjust_saturation(planes, jnp.where(params.grey, 0.0, 1.0))
        if blur:
            planes = gaussian_blur(planes, params.sigma, radius=_blur_radius(size))
        return _interleave(planes)

    return view


def _blur_radius(size):
    # A kernel of about a tenth of the side, 23 at 224 pixels; past 4 x the largest sigma all weights are below 1e-4.
    return min(max(1, size // 20), math.ceil(4 * SIGMA[1]))


# ---------------------------------------------------------------- sampling
# Few calls of jax.random, each for several numbers: every call takes XLA a fifth of a second to compile.


def sample_simclr(key, shape, *, area, flip, strength, grey, blur) -> SimclrParams:
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


def sample_crop(key, shape, area) -> Crop:
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
    place = jnp.floor(jax.random.uniform(place_key, (2,)) * (room + 1)).astype(jnp.int32)
    top, left = jnp.where(fits[first], jnp.minimum(place, room), room // 2)
    return Crop(top, left, height, width)


def sample_jitter(key, brightness, contrast, saturation, hue, p) -> Jitter:
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
    return Jitter(*jnp.where(happens < p, values, nothing), time=jnp.stack(time))


# ---------------------------------------------------------------- operations


def crop_resize(image, top, left, height, width, flip, size) -> Planes:
    """Cuts a rectangle out, resizes it (antialiased bilinear, as Pillow's) and maybe mirrors it left to right.

    Args:
      image: u8[H, W, C], C = 1 or 3.
      top, left, height, width: the rectangle in whole pixels, inside the image; may be traced.
      flip: bool[]; may be traced.
      size: side of the result.

    Returns:
      Planes of f32[size, size].
    """
    H, W, C = image.shape
    if C not in (1, 3):
        raise ValueError(f"a view needs an image of 1 or 3 channels, not of shape {image.shape}")
    packed = _pack(tuple(image[..., c].astype(jnp.float32) * (1 / 255) for c in range(C)))
    columns = _resample_rows(_transpose(packed), *_taps(left, width, W, flip, size))
    return _resample_rows(_transpose(_pack(columns)), *_taps(top, height, H, False, size))


def _taps(start, length, extent, mirror, size):
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


def _resample_rows(packed, index, weight):
    # Two or three taps as a rule; gathering those beats a dense matrix product by far, more so the larger the image.
    terms = [
        tuple(weight[:, k, None] * p for p in _unpack(jnp.take(packed, index[:, k], axis=0, mode="clip")))
        for k in range(index.shape[1])
    ]
    return tuple(map(sum, zip(*terms)))


def adjust_brightness(planes: Planes, factor) -> Planes:
    """Multiplies by `factor` >= 0, as ImageEnhance.Brightness."""
    return tuple(_smaller(factor * p, 1.0) for p in planes)


def adjust_contrast(planes: Planes, factor) -> Planes:
    """Scales the distance to the mean of the grey image by `factor`, as ImageEnhance.Contrast."""
    offset = (1 - factor) * _mean_grey(_pack(planes))
    return tuple(_clip(factor * p + offset) for p in planes)


def adjust_saturation(planes: Planes, factor) -> Planes:
    """Scales the distance to the grey image by `factor`, as ImageEnhance.Color; 0 is greyscale."""
    if len(planes) == 1:
        return planes
    offset = (1 - factor) * _grey(planes)
    return tuple(_clip(factor * p + offset) for p in planes)


def hue_shift(planes: Planes, turn) -> Planes:
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

    def below_top(triangle):
        return top - _smaller(_larger(triangle, 0.0), chroma)

    return (
        below_top(2 * chroma - jnp.abs(h - 3 * chroma)),
        below_top(jnp.abs(h - 2 * chroma) - chroma),
        below_top(jnp.abs(h - 4 * chroma) - chroma),
    )


def jitter(planes: Planes, params: Jitter) -> Planes:
    """Applies the four colour operations in the order of `params.time`.

    Under vmap every image runs the same program, so this is one program that holds all 24 orders; what is not due is
    given a factor of 1 or a shift of 0. Contrast alone looks beyond its pixel: around it, in each half, brightness,
    saturation, brightness, hue, brightness, saturation, brightness holds any order of the other three.
    """
    brightness, contrast, saturation, hue = params.time
    brightness_first = brightness < saturation

    def due(value, *conditions, idle=1.0):
        return jnp.where(jnp.stack(conditions).all(0), value, idle)

    def half(packed, second):
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


def gaussian_blur(planes: Planes, sigma, radius) -> Planes:
    """Blurs with a Gaussian of `sigma` pixels cut off at `radius`, the edge pixels repeated; 0 changes nothing."""
    offsets = jnp.arange(-radius, radius + 1)
    weight = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    weight = weight / weight.sum()

    def blur(plane):
        # Shifted sums: on a CPU, XLA runs a convolution under vmap image by image, with a kernel each.
        H, W = plane.shape
        padded = jax.lax.optimization_barrier(jnp.pad(plane, radius, mode="edge"))
        rows = jax.lax.optimization_barrier(sum(weight[k] * padded[k : k + H] for k in range(2 * radius + 1)))
        return _clip(sum(weight[k] * rows[:, k : k + W] for k in range(2 * radius + 1)))

    return tuple(map(blur, planes))


# ---------------------------------------------------------------- planes


def _grey(planes):
    return planes[0] if len(planes) == 1 else sum(weight * p for weight, p in zip(GREY, planes))


# jnp.maximum, jnp.minimum and jnp.clip pass NaN on, for which a CPU needs five instructions instead of one.
def _larger(x, y):
    return jnp.where(x > y, x, y)


def _smaller(x, y):
    return jnp.where(x < y, x, y)


def _clip(x):
    return _smaller(_larger(x, 0.0), 1.0)


LEVELS = 4 * 255  # ten bits a channel, in steps of a quarter of an eight-bit level, which are exact for the source
SHIFTS = (0, 10, 20)


def _pack(planes):
    """Three planes in one i32[H, W] in memory; a single plane stays as it is."""
    if len(planes) == 1:
        return planes[0]
    # A float of 2**23 or more has no fraction: the sum rounds, and leaves the integer in the low bits.
    r, g, b = (jax.lax.bitcast_convert_type(p * LEVELS + 2.0**23, jnp.int32) & 1023 for p in planes)
    return jax.lax.optimization_barrier(r | g << 10 | b << 20)


def _unpack(packed):
    if packed.dtype != jnp.int32:
        return (packed,)
    return tuple((packed >> shift & 1023).astype(jnp.float32) * (1 / LEVELS) for shift in SHIFTS)


def _transpose(packed):
    # In memory, so that the gather that follows copies whole rows.
    return jax.lax.optimization_barrier(packed.T)


def _mean_grey(packed):
    if packed.dtype != jnp.int32:
        return jnp.mean(packed)
    # Sums of integers may be reordered, so a CPU vectorises them. Safe from overflow up to 1,400 pixels a side.
    sums = [jnp.sum(packed >> shift & 1023) for shift in SHIFTS]
    return sum(weight * s for weight, s in zip(GREY, sums)) / (LEVELS * packed.size)


def _interleave(planes):
    """Planes -> f32[H, W, C]."""
    packed = _pack(planes)[..., None]
    if len(planes) == 1:
        return packed
    return (packed >> jnp.array(SHIFTS) & 1023).astype(jnp.float32) * (1 / LEVELS)
