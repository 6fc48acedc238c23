"""STL-10, from its binary files."""

from pathlib import Path

import numpy as np

from jaxclust.data.prepare.archives import File, find
from jaxclust.data.prepare.spec import Spec, Split
from jaxclust.run.errors import ConfigError

FILES = {
    "train": ("train_X.bin", "train_y.bin"),
    "test": ("test_X.bin", "test_y.bin"),
    "unlabelled": ("unlabeled_X.bin",),
}


def locate(spec: Spec, origin: Path, scratch: Path | None) -> list[dict[str, File]]:
    return find(origin, scratch, [[name for names in FILES.values() for name in names]])


def parse(spec: Spec, files: dict[str, File]) -> dict[str, Split]:
    height, width = spec.shape
    splits = {}
    for split, (x, *y) in FILES.items():
        file = files[x]
        if not file.size or file.size % (3 * height * width):
            raise ConfigError(
                f"{file.place} has {file.size:,} bytes, no multiple of an image's {3 * height * width:,}; get it again"
            )
        # Each channel is stored column by column.
        images = file.map().reshape(-1, 3, width, height).transpose(0, 3, 2, 1)
        # Classes count from 1 there; -1 is tfds's label of an image that has none.
        labels = files[y[0]].map().astype(np.int64) - 1 if y else np.full(len(images), -1)
        splits[split] = Split(file.place, images, {"label": labels}, range(len(images)))
    return splits


STL10 = Spec(
    name="stl10",
    counts={"train": {"label": (500,) * 10}, "test": {"label": (800,) * 10}, "unlabelled": {}},
    sizes={"train": 5_000, "test": 8_000, "unlabelled": 100_000},
    shape=(96, 96),
    mean=(0.4467, 0.4398, 0.4066),
    tolerance=5e-4,
    names={"label": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")},
    titles=(),
    urls=("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",),
    wants="stl10_binary.tar.gz, or the folder unpacked from it",
    find=locate,
    parse=parse,
)
