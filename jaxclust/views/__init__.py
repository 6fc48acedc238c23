"""Views of an image: random augmentations as pure functions of one image and one key.

    views = make({"plain": {"policy": "plain"}, "strong": {"policy": "simclr", "area": (0.08, 1.0), ...}}, size=32)
    strong = jax.vmap(views["strong"])(images, jax.random.split(key, len(images)))   # u8[B, H, W, C] -> f32[B, S, S, C]

A policy is a function `(size, *, settings) -> View` under `@policy`; its keyword-only arguments are the settings
a config gives, all of them. It draws its parameters (`sampling`) and then applies them (`operations`), so that each
half is tested alone.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxclust.config import hint
from jaxclust.views.operations import adjust_saturation, crop_resize, gaussian_blur, interleave, jitter
from jaxclust.views.sampling import sample_simclr

View = Callable[[jax.Array, jax.Array], jax.Array]  # (image u8[H, W, C], key) -> f32[size, size, C] in [0, 1]


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


@policy
def plain(size: int) -> View:
    """The image resized to `size` x `size`, for evaluation and for methods that need an undistorted view."""

    def view(image, key):
        del key
        height, width, _ = image.shape
        return interleave(crop_resize(image, 0, 0, height, width, False, size))

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

    def view(image, key):
        params = sample_simclr(key, image.shape[:2], area=area, flip=flip, strength=strength, grey=grey, blur=blur)
        planes = crop_resize(image, *params.crop, params.flip, size)
        if strength:
            planes = jitter(planes, params.jitter)
        if grey:
            planes = adjust_saturation(planes, jnp.where(params.grey, 0.0, 1.0))
        if blur:
            planes = gaussian_blur(planes, params.sigma, radius=max(1, size // 20))
        return interleave(planes)

    return view
