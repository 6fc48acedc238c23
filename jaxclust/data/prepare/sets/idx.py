"""MNIST and Fashion-MNIST, in the idx files of LeCun et al. (gzipped or not)."""

import functools
from pathlib import Path

import numpy as np

from jaxclust.data.prepare.archives import File, find
from jaxclust.data.prepare.spec import Spec, Split
from jaxclust.run.errors import ConfigError

PREFIXES = {"train": "train", "test": "t10k"}
FILES = [f"{prefix}-{what}-ubyte" for prefix in PREFIXES.values() for what in ("images-idx3", "labels-idx1")]
FASHION = (6000,) * 10, (1000,) * 10
DIGITS = (
    (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
)


def locate(spec: Spec, origin: Path, scratch: Path | None) -> list[dict[str, File]]:
    return find(origin, scratch, [FILES])


def parse(spec: Spec, files: dict[str, File]) -> dict[str, Split]:
    splits = {}
    for name, prefix in PREFIXES.items():
        file = files[f"{prefix}-images-idx3-ubyte"]
        images = _array(file, 3)[..., None]
        labels = _array(files[f"{prefix}-labels-idx1-ubyte"], 1).astype(np.int64)
        if images.shape[1:3] != spec.shape:
            found, expected = (" x ".join(map(str, shape)) for shape in (images.shape[1:3], spec.shape))
            raise ConfigError(
                f"{file.place} has images of {found} pixels, not {expected}; get the files of {spec.name} again"
            )
        splits[name] = Split(file.place, images, {"label": labels}, range(len(images)))
    return splits


def _array(file: File, axes: int) -> np.ndarray:
    """The content of an idx file: 0, 0, the type (8 is u8), the number of axes, their lengths, the values."""
    data = file.map()
    header = 4 * (1 + axes)
    shape = tuple(int(n) for n in data[4:header].view(">u4")) if len(data) >= header else ()
    if bytes(data[:4]) != bytes((0, 0, 8, axes)) or len(data) != header + np.prod(shape, dtype=np.int64):
        raise ConfigError(f"{file.place} is no whole idx file of {axes} axes; get it again")
    return data[header:].reshape(shape)


_spec = functools.partial(
    Spec,
    sizes={"train": 60_000, "test": 10_000},
    shape=(28, 28),
    tolerance=2e-4,
    names={},
    titles=(),
    wants=f"{', '.join(FILES)}, as .gz or not",
    find=locate,
    parse=parse,
)

# The means, here and in the other files, are the ones that PyTorch's examples and countless papers normalise with,
# to four digits.
MNIST = _spec(
    name="mnist",
    counts={"train": {"label": DIGITS[0]}, "test": {"label": DIGITS[1]}},
    mean=(0.1307,),
    urls=tuple(f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}.gz" for name in FILES),
)
FASHION_MNIST = _spec(
    name="fashion_mnist",
    counts={"train": {"label": FASHION[0]}, "test": {"label": FASHION[1]}},
    mean=(0.2860,),
    urls=tuple(f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}.gz" for name in FILES),
)
