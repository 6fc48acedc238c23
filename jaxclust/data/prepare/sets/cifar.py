"""CIFAR-10 and CIFAR-100, from their binary or their Python files."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.data.prepare.archives import File, find
from jaxclust.data.prepare.spec import Spec, Split
from jaxclust.run import pickles
from jaxclust.run.errors import ConfigError
from jaxclust.run.pickles import Broken, Built, Call, Refused, printable

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


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
    content = file.read()
    try:
        batch = pickles.load(io.BytesIO(content), _names(len(content)))
        if not isinstance(batch, dict):
            raise Broken("it holds no names and values")
        batch = {k.decode(errors="replace") if isinstance(k, bytes) else k: v for k, v in batch.items()}
        missing = [key for key in ("data", *form.keys) if key not in batch]
        if missing:
            raise Broken(f"it has no {missing[0]!r}")
        images, labels = _of(batch["data"]), np.stack([_labels(batch[key]) for key in form.keys], 1)
    except Refused as e:
        raise ConfigError(
            f"{file.place} asks for {printable(str(e))}, which no CIFAR file does, and was not read further; get it "
            f"again from a source that you trust"
        ) from e
    except (Broken, ValueError) as e:
        said = printable(str(e))
        raise ConfigError(f"{file.place} is no batch of CIFAR's Python version ({said}); get it again") from e
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (len(labels), PIXELS):
        raise ConfigError(f"{file.place} does not hold {len(labels):,} images of {PIXELS:,} bytes; get it again")
    return images, labels


def _labels(value: Any) -> np.ndarray:
    """i64[N]; lists are looked at first, since NumPy would follow lists of lists without end."""
    value = _of(value)
    if isinstance(value, list) and all(type(x) is int and 0 <= x < 256 for x in value):
        return np.array(value, np.int64)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.astype(np.int64)
    raise Broken("its labels are no list of numbers from 0 to 255")


def _of(value: Any) -> Any:
    return value.array if isinstance(value, _Array) else value


class _Dtype(Built):
    """One of `KINDS`, in an order of bytes that comes as its state."""

    KINDS = ("u1", "i4", "i8")

    def __init__(self, kind: Any, *rest: Any):
        if kind not in self.KINDS:
            raise Broken("an array is not of whole numbers")
        self.dtype = np.dtype(kind)

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=", b"<", b">", b"|")):
            raise Broken("an array's type is described wrongly")
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array(Built):
    """An array over the bytes that come as its state, once."""

    array: np.ndarray | None = None

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or self.array is not None:
            raise Broken("an array is described wrongly")
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> None:
        whole = isinstance(content, bytes | bytearray) and isinstance(dtype, _Dtype) and isinstance(shape, tuple)
        if not whole or len(shape) > 2 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
            raise Broken("an array is described wrongly")
        if len(content) != math.prod(shape) * dtype.dtype.itemsize:
            raise Broken("an array has another number of bytes than its shape")
        self.array = np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _names(size: int) -> dict[tuple[str, str], Any]:
    """What a pickled array names, in a file of `size` bytes; everything else that a pickle can name, it could run."""
    left = size

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        """How protocol 2 writes the bytes of Python 3, each once."""
        nonlocal left
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise Broken("it encodes what are no bytes")
        left -= len(text)
        if left < 0:
            raise Broken("it has the same bytes again and again")
        return text.encode("latin1")

    def from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = _Array()
        array.fill(content, dtype, shape, order)
        return array

    cores = ("core", "_core")
    return {
        ("numpy", "ndarray"): "ndarray",  # an argument, never called
        ("numpy", "dtype"): Call(_Dtype),
        ("_codecs", "encode"): Call(encode),
        **{(f"numpy.{core}.multiarray", "_reconstruct"): Call(lambda *args: _Array()) for core in cores},
        **{(f"numpy.{core}.numeric", "_frombuffer"): Call(from_buffer) for core in cores},
    }


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
