"""Views of an image: random augmentations as pure functions of one image and one key.

    views = make({"plain": {"policy": "plain"}, "strong": {"policy": "simclr", "area": (0.08, 1.0), ...}}, size=32)
    strong = jax.vmap(views["strong"])(images, jax.random.split(key, len(images)))   # u8[B, H, W, C] -> f32[B, S, S, C]

A policy is a function `(size, *, settings) -> View` under `@policy`; its keyword-only arguments are the settings
a config gives, all of them. It draws its parameters (`sampling`) and then applies them (`operations`), so that each
half is tested alone.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.schema import Check, check_names
from jaxclust.views.operations import (
    adjust_saturation,
    colour_jitter,
    crop_resize,
    gaussian_blur,
    interleave,
    rotate,
    standardise,
    to_planes,
)
from jaxclust.views.sampling import sample_mmdc, sample_moco, sample_simclr

# (image u8[H, W, C], key) -> f32[size, size, C], in [0, 1] where the policy does not standardise it
View = Callable[[jax.Array, jax.Array], jax.Array]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _are_numbers(value: Any, *counts: int) -> bool:
    """Whether `value` is a tuple of that many finite numbers."""
    return (
        isinstance(value, tuple | list)
        and len(value) in counts
        and all(_is_number(v) and math.isfinite(v) for v in value)
    )


def _is_pixels(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


# A setting's type, and what is checked of its value.
Probability = Annotated[float, Check(lambda v: _is_number(v) and 0 <= v <= 1, "it must be a number in [0, 1]")]
Strength = Annotated[float, Check(lambda v: _is_number(v) and 0 <= v < math.inf, "it must be a finite number >= 0")]
Area = Annotated[
    tuple[float, float],
    Check(
        lambda v: _are_numbers(v, 2) and 0 < v[0] <= v[1] <= 1,
        "it must be a pair (low, high) with 0 < low <= high <= 1",
    ),
]
Jitter = Annotated[
    tuple[float, float, float, float],
    Check(
        lambda v: _are_numbers(v, 4) and min(v) >= 0 and v[3] <= 0.5,
        "it must be a tuple (brightness, contrast, saturation, hue) of finite numbers >= 0, the hue <= 0.5",
    ),
]
Mean = Annotated[
    tuple[float, ...], Check(lambda v: _are_numbers(v, 1, 3), "it must be a tuple of one or three finite numbers")
]
Std = Annotated[
    tuple[float, ...],
    Check(
        lambda v: _are_numbers(v, 1, 3) and min(v) > 0,
        "it must be a tuple of one or three finite numbers > 0",
    ),
]
Degrees = Annotated[float, Check(lambda v: _is_number(v) and 0 <= v <= 180, "it must be a number in [0, 180]")]
Pixels = Annotated[int, Check(_is_pixels, "it must be a whole number >= 1")]
Sides = Annotated[
    tuple[int, ...],
    Check(
        lambda v: isinstance(v, tuple | list) and len(v) > 0 and all(map(_is_pixels, v)),
        "it must be a tuple of one or more whole numbers >= 1",
    ),
]

Policy = Callable[..., View]
_policies: dict[str, Policy] = {}


def policy(function: Policy) -> Policy:
    """Makes `function` a policy that a config can name."""
    _policies[function.__name__] = function
    return function


def known() -> list[str]:
    """The names of the policies there are."""
    return [*_policies]


def options(name: str) -> dict[str, inspect.Parameter]:
    """The settings of the policy `name`."""
    arguments = inspect.signature(_policies[name]).parameters
    return {key: argument for key, argument in arguments.items() if argument.kind is argument.KEYWORD_ONLY}


def make(policies: Mapping[str, Mapping], size: int) -> dict[str, View]:
    """Builds the views that a config describes.

    Args:
      policies: view name -> `policy` (the name of a policy) and every setting of that policy.
      size: side of the square views, in pixels.

    Returns:
      view name -> View.

    Raises:
      ConfigError: a policy or setting is unknown, missing, or has a value outside its range.
    """
    return {name: _build(f"views.{name}", config, size) for name, config in policies.items()}


def _build(where: str, config: Any, size: int) -> View:
    if not hasattr(config, "keys") or "policy" not in config:
        raise ConfigError(f"missing {where}.policy, the name of a policy: {', '.join(_policies)}")
    settings = dict(config)
    name = settings.pop("policy")
    if name not in tuple(_policies):
        raise ConfigError(f"{where}.policy is {name!r}{hint(str(name), _policies)}")
    arguments = options(name)
    optional = [key for key, argument in arguments.items() if argument.default is not argument.empty]
    check_names(where, config, ["policy", *arguments], optional)
    for key, value in settings.items():
        (check,) = arguments[key].annotation.__metadata__
        check.of(f"{where}.{key}", value)
    return _policies[name](size, **settings)


@policy
def plain(size: int) -> View:
    """The image resized to `size` x `size`, for evaluation and for methods that need an undistorted view."""

    def view(image: jax.Array, key: jax.Array) -> jax.Array:
        del key
        height, width, _ = image.shape
        return interleave(crop_resize(to_planes(image), 0, 0, height, width, False, size))

    return view


@policy
def standardised(size: int, *, mean: Mean, std: Std) -> View:
    """The plain view less `mean`, over `std`: a number of each per channel, of images in [0, 1]."""
    resize = plain(size)
    return lambda image, key: standardise(resize(image, key), mean, std)


@policy
def centre_crop(size: int, *, crop: Pixels) -> View:
    """The central square of `crop` x `crop` pixels of the image, resized to `size` x `size`."""

    def view(image: jax.Array, key: jax.Array) -> jax.Array:
        del key
        _check_fits("crop", crop, image.shape)
        top, left = (round((side - crop) / 2) for side in image.shape[:2])
        return interleave(crop_resize(to_planes(image), top, left, crop, crop, False, size))

    return view


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

    def view(image: jax.Array, key: jax.Array) -> jax.Array:
        params = sample_simclr(key, image.shape[:2], area=area, flip=flip, strength=strength, grey=grey, blur=blur)
        planes = crop_resize(to_planes(image), *params.crop, params.flip, size)
        if strength:
            planes = colour_jitter(planes, params.jitter)
        if grey:
            planes = adjust_saturation(planes, jnp.where(params.grey, 0.0, 1.0))
        if blur:
            planes = gaussian_blur(planes, params.sigma, radius=max(1, size // 20))
        return interleave(planes)

    return view


@policy
def moco(size: int, *, area: Area, flip: Probability, jitter: Jitter, grey: Probability, mean: Mean, std: Std) -> View:
    """The augmentation of MoCo's first version (He et al., CVPR 2020, arXiv:1911.05722, section 3.3).

    In this order: random resized crop, greyscale, colour jitter, horizontal flip, standardisation.

    Args:
      size: side of the view, in pixels.
      area: smallest and largest crop, as a fraction of the image.
      flip: probability of a horizontal flip.
      jitter: the three factors are within 1 -+ brightness, contrast and saturation, and the hue shift within -+hue of
        a turn; (0, 0, 0, 0) is no jitter.
      grey: probability of greyscale.
      mean: of each channel, of images in [0, 1].
      std: likewise.

    Returns:
      The view. What a zero switches off is not in its program, nor is colour for an image of one channel.
    """

    def view(image: jax.Array, key: jax.Array) -> jax.Array:
        params = sample_moco(key, image.shape[:2], area=area, flip=flip, jitter=jitter, grey=grey)
        planes = crop_resize(to_planes(image), *params.crop, params.flip, size)  # colour knows no left and right
        if grey:
            planes = adjust_saturation(planes, jnp.where(params.grey, 0.0, 1.0))
        if any(jitter):
            planes = colour_jitter(planes, params.jitter)
        return standardise(interleave(planes), mean, std)

    return view


@policy
def mmdc(size: int, *, jitter: Jitter, grey: Probability, flip: Probability, turn: Degrees, crops: Sides) -> View:
    """MMDC's augmentation (Shiran and Weinshall, ICPR 2020, arXiv:1912.02678).

    In this order: colour jitter, greyscale, horizontal flip, rotation, random crop, resize. With all but `crops` zero
    it is a bare random crop, as for MMDC's rotation task.

    Args:
      size: side of the view, in pixels.
      jitter: the three factors are within 1 -+ brightness, contrast and saturation, and the hue shift within -+hue of
        a turn; (0, 0, 0, 0) is no jitter.
      grey: probability of greyscale.
      flip: probability of a horizontal flip.
      turn: largest rotation either way, in degrees; black comes in at the corners.
      crops: sides of the square that is cut out, in pixels of the stored image; each is as likely as the others.

    Returns:
      The view. What a zero switches off is not in its program, nor is colour for an image of one channel.
    """

    def view(image: jax.Array, key: jax.Array) -> jax.Array:
        _check_fits("crops", max(crops), image.shape)
        params = sample_mmdc(key, image.shape[:2], jitter=jitter, grey=grey, flip=flip, turn=turn, crops=crops)
        planes = to_planes(image)
        if any(jitter):
            planes = colour_jitter(planes, params.jitter)
        if grey:
            planes = adjust_saturation(planes, jnp.where(params.grey, 0.0, 1.0))
        if turn:
            planes = rotate(planes, params.angle)
        # The flip can come last: turns and places are as likely as their mirror images.
        return interleave(crop_resize(planes, *params.crop, params.flip, size))

    return view


def _check_fits(setting: str, crop: int, shape: Sequence[int]) -> None:
    if crop > min(shape[:2]):
        raise ValueError(
            f"a crop of {crop} pixels does not fit in an image of {shape[0]} x {shape[1]}; "
            f"make the view's `{setting}` smaller"
        )
