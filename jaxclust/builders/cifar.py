"""CIFAR-10 and CIFAR-100, from their binary or their Python files."""

import codecs
import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.builders.archives import File, find
from jaxclust.builders.spec import Spec, Split
from jaxclust.config import ConfigError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32

# What a pickled array names; everything else that a pickle can name, it could run.
ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # how protocol 2 writes the bytes of Python 3
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0] for core in ("core", "_core")},
}


@dataclasses.dataclass(frozen=True)
class Format:
    binary: dict[str, tuple[str, ...]]  # split -> files
    python: dict[str, tuple[str, ...]]
    columns: tuple[str, ...]  # label features, in the order of a binary record
    keys: tuple[str, ...]  # what the Python files call them
    extra: tuple[str, ...]  # another Python file, where the others' names say little


def locate(spec: Spec, origin: Path, scratch: Path | None) -> list[dict[str, File]]:
    form = FORMATS[spec.name]
    binary = [name for names in form.binary.values() for name in names]
    python = [name for names in form.python.values() for name in names]
    return find(origin, scratch, [binary, [*python, *form.extra]])


def parse(spec: Spec, files: dict[str, File]) -> dict[str, Split]:
    form = FORMATS[spec.name]
    binary = all(name in files for names in form.binary.values() for name in names)
    splits = {}
    for split, names in (form.binary if binary else form.python).items():
        parts = [(_binary if binary else _python)(files[name], form) for name in names]
        images = np.concatenate([images for images, _ in parts]).reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
        labels = np.concatenate([labels for _, labels in parts])
        columns = {"id": [f"{split}_{i:05d}" for i in range(len(images))]}
        columns |= {name: labels[:, j] for j, name in enumerate(form.columns)}
        splits[split] = Split(files[names[0]].place, images, columns, range(len(images)))
    return splits


def _binary(file: File, form: Format) -> tuple[np.ndarray, np.ndarray]:
    """u8[N, 3072] and i64[N, labels] of a file of records: a byte for each label, red, green, blue."""
    n = len(form.columns)
    if not file.size or file.size % (n + PIXELS):
        raise ConfigError(
            f"{file.place} has {file.size:,} bytes, no multiple of a record's {n + PIXELS:,}; get it again"
        )
    records = file.map().reshape(-1, n + PIXELS)
    return records[:, n:], records[:, :n].astype(np.int64)


def _python(file: File, form: Format) -> tuple[np.ndarray, np.ndarray]:
    """u8[N, 3072] and i64[N, labels] of a pickled dict."""
    try:
        batch = _Unpickler(io.BytesIO(file.read()), encoding="bytes").load()
        batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        images = batch["data"]
        labels = np.array([batch[key] for key in form.keys], np.int64).T
    except ConfigError as e:
        raise ConfigError(f"{file.place} {e}") from e
    except Exception as e:  # a damaged pickle can raise anything
        raise ConfigError(f"{file.place} is no batch of CIFAR's Python version ({e!r}); get it again") from e
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (len(labels), PIXELS):
        raise ConfigError(f"{file.place} does not hold {len(labels):,} images of {PIXELS:,} bytes; get it again")
    return images, labels


class _Unpickler(pickle.Unpickler):
    """Reads arrays, plain containers and values, and nothing else: unpickling anything at all runs what it likes."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise ConfigError(
                f"asks for {module}.{name}, which no CIFAR file does, and was not read further; get it again from a "
                f"source that you trust"
            )
        return ADMITTED[module, name]


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COARSE = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
FINE = sorted(" ".join(COARSE.values()).split())  # which is their order in the data
BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
FORMATS = {
    "cifar10": Format(
        binary={"train": tuple(f"{name}.bin" for name in BATCHES), "test": ("test_batch.bin",)},
        python={"train": tuple(BATCHES), "test": ("test_batch",)},
        columns=("label",),
        keys=("labels",),
        extra=(),
    ),
    "cifar100": Format(
        binary={"train": ("train.bin",), "test": ("test.bin",)},
        python={"train": ("train",), "test": ("test",)},
        columns=("coarse_label", "label"),
        keys=("coarse_labels", "fine_labels"),
        extra=("meta",),
    ),
}
CIFAR10 = Spec(
    name="cifar10",
    counts={"train": {"label": (5000,) * 10}, "test": {"label": (1000,) * 10}},
    sizes={"train": 50_000, "test": 10_000},
    shape=SHAPE[1:],
    mean=(0.4914, 0.4822, 0.4465),
    tolerance=2e-4,
    names={"label": CLASSES},
    titles=(),
    urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    wants="cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the folder unpacked from it",
    find=locate,
    parse=parse,
)
CIFAR100 = dataclasses.replace(
    CIFAR10,
    name="cifar100",
    counts={
        "train": {"label": (500,) * 100, "coarse_label": (2500,) * 20},
        "test": {"label": (100,) * 100, "coarse_label": (500,) * 20},
    },
    mean=(0.5071, 0.4865, 0.4409),
    names={"label": tuple(FINE), "coarse_label": tuple(COARSE)},
    urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
    wants="cifar-100-binary.tar.gz or cifar-100-python.tar.gz, or the folder unpacked from it",
)
