"""SimCLR's views by Pillow, one image at a time: what a data loader's worker process does. Imports no JAX."""

import math
import random
import time

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter


def simclr(image: Image.Image, size: int, area, flip, strength, grey, blur) -> np.ndarray:
    """One view of `image`, f32[size, size, C] in [0, 1]; the settings are those of `views.simclr`."""
    image = _resized_crop(image, size, area)
    if random.random() < flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if strength and random.random() < 0.8:
        image = _jitter(image, 0.8 * strength, 0.2 * strength)
    if random.random() < grey and image.mode == "RGB":
        image = image.convert("L").convert("RGB")
    if random.random() < blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    return np.asarray(image, np.float32) / 255


def _resized_crop(image, size, area):
    w, h = image.size
    for _ in range(10):
        pixels = w * h * random.uniform(*area)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        cw, ch = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < cw <= w and 0 < ch <= h:
            left, top = random.randint(0, w - cw), random.randint(0, h - ch)
            image = image.crop((left, top, left + cw, top + ch))
            break
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _jitter(image, spread, hue):
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast]
    operations = [lambda im, e=e: e(im).enhance(random.uniform(max(0, 1 - spread), 1 + spread)) for e in enhancers]
    if image.mode == "RGB":
        operations.append(lambda im: ImageEnhance.Color(im).enhance(random.uniform(max(0, 1 - spread), 1 + spread)))
        operations.append(lambda im: _shift_hue(im, random.uniform(-hue, hue)))
    random.shuffle(operations)
    for operation in operations:
        image = operation(image)
    return image


def _shift_hue(image, turn):
    h, s, v = image.convert("HSV").split()
    h = Image.fromarray(np.asarray(h) + np.uint8(int(turn * 255) % 256))
    return Image.merge("HSV", (h, s, v)).convert("RGB")


def work(images: np.ndarray, size: int, settings: dict, seconds: float) -> float:
    """Makes views of `images`, u8[N, H, W, C], for about `seconds`; returns views per second."""
    pictures = [Image.fromarray(x.squeeze()) for x in images]
    start, made = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        for picture in pictures:
            simclr(picture, size, **settings)
        made += len(pictures)
    return made / spent
