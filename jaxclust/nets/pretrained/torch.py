"""Reads what `torch.save` wrote, without PyTorch and without running anything that the file holds.

A saved object is a pickle, read by `pickles`. It can name only what `NAMES` lists, and every such name stands for
something of this file that builds a plain value. Tensors are a
storage's key with an offset and strides; their bytes lie beside the pickle, uncompressed:

    since 1.6   a zip archive, whose `data.pkl` is the object and `data/<key>` the storages
    before      a number, a version, facts about the machine, the object and the storages' keys, each a pickle of its
                own in one stream; then each storage's length and bytes

The file is mapped into memory, and only the tensors that are asked for are read.
"""

import dataclasses
import io
import mmap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import jax.numpy as jnp
import numpy as np

from jaxclust.run import pickles
from jaxclust.run.errors import ConfigError
from jaxclust.run.pickles import Broken, Built, Call, Refused, printable

MAGIC = 0x1950A86A20F9469CFC6C  # what a stream begins with
VERSION = 1001
HUGE = 2**48  # numbers in a tensor, and more
MAX_SIDES = 64
DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# What training leaves beside the weights, NumPy's arrays and counters among it. None of it is looked at.
SKIPPED = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("_codecs", "encode"),
    ("collections", "Counter"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A tensor's memory, which others may share; `read` finds its bytes."""

    dtype: np.dtype
    count: int
    read: Callable[[int], memoryview]  # how many bytes there should be -> they


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """Where a tensor's numbers lie; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype

    def read(self) -> np.ndarray:
        """The numbers, read-only and in place.

        Raises:
          Broken: they are not whole.
        """
        dtype = self.dtype
        flat = np.frombuffer(self.storage.read(self.storage.count * dtype.itemsize), dtype)
        stride = [s * dtype.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, stride, writeable=False)


def load(path: Path) -> Any:
    """The saved object: dicts, lists, tuples, numbers and strings, with a `Tensor` for each tensor.

    Raises:
      ConfigError: there is no such file, `torch.save` did not write it, it is not whole, or it names something that
        might run code.
    """
    try:
        with path.open("rb") as f:
            memory = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise ConfigError(f"{path} is empty; fetch it again") from e
    try:
        return _load_zip(memory) if memory[:2] == b"PK" else _load_stream(memory)
    except Refused as e:
        raise ConfigError(
            f"{path} names {printable(str(e))}, which is no part of weights and might run code, so nothing was loaded; "
            f"where you trust the file, save its weights alone: torch.save(model.state_dict(), ...) or safetensors"
        ) from None
    except Broken as e:
        raise ConfigError(f"{path} is no whole PyTorch file ({printable(str(e))}); fetch it or save it again") from e


def _tensor(storage: Storage, offset: int, shape: tuple, stride: tuple, *rest: Any) -> Tensor:
    """Checked, so that reading it stays within its storage."""
    if not (isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) <= MAX_SIDES):
        raise Broken("a tensor is described wrongly")
    whole = all(isinstance(n, int) and 0 <= n < HUGE for n in (offset, *shape, *stride))
    if not (whole and isinstance(storage, Storage) and len(shape) == len(stride)):
        raise Broken("a tensor is described wrongly")
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride))
    if 0 not in shape and last >= storage.count:
        raise Broken(f"a tensor wants number {last:,} of a storage of {storage.count:,}")
    return Tensor(storage, min(offset, storage.count), tuple(shape), tuple(stride))


def _size(*args: Any) -> tuple:
    if len(args) > 1 or not all(isinstance(x, tuple) for x in args):
        raise Broken("a shape is described wrongly")
    return args[0] if args else ()


def _dict(*args: Any) -> dict:
    """An OrderedDict; what it was told to remember beside its items, such as `_metadata`, is dropped."""
    return {pickles.check_key(key): value for key, value in (args[0] if args else ())}


def _parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


# Storages are named bare, and their names are looked up where a tensor refers to one.
NAMES: dict[tuple[str, str], Any] = {
    **{("torch", name): name for name in DTYPES},
    **{name: Call(lambda *args: Built()) for name in SKIPPED},
    ("collections", "OrderedDict"): Call(_dict),
    ("torch", "Size"): Call(_size),
    ("torch._utils", "_rebuild_tensor"): Call(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): Call(_parameter),
}


def _unpickle(stream: Any, storage: Callable[[str, np.dtype, int], Storage]) -> Any:
    """The object pickled next in `stream`.

    Raises:
      Broken: it is no pickle.
      Refused: it names what `NAMES` does not.
    """

    def persistent(pid: Any) -> Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(count), *view) if kind in DTYPES and 0 <= count < HUGE:
                if any(v is not None for v in view):
                    raise Broken("a storage is a view of another, which PyTorch has not written since 0.4")
                return storage(key, np.dtype(DTYPES[kind]), count)
        raise Broken("its reference to a storage is none")

    return pickles.load(stream, NAMES, persistent, lambda content: content.decode())


def _load_zip(memory: mmap.mmap) -> Any:
    try:
        entries = {i.filename: i for i in zipfile.ZipFile(cast(IO[bytes], memory)).infolist()}
    except Exception as e:  # zipfile has a dozen for what it cannot read
        raise Broken(f"its zip archive cannot be read: {e}") from e
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Broken("it is a zip archive without a data.pkl")
    folder = pickles[0].removesuffix("data.pkl")

    def read(name: str, size: int | None = None) -> memoryview:
        """An entry's bytes, which the archive holds as they are."""
        entry = entries.get(folder + name)
        if entry is None:
            raise Broken(f"its {name} is missing")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise Broken(f"its {name} is compressed, as PyTorch never writes it")
        header = entry.header_offset
        # The entry's own header, which ends with the lengths of two fields that come before the bytes.
        skip = 30 + sum(int.from_bytes(memory[header + at : header + at + 2], "little") for at in (26, 28))
        content = memoryview(memory)[header + skip : header + skip + entry.file_size]
        if len(content) != entry.file_size or (size is not None and size != entry.file_size):
            raise Broken(f"its {name} has {len(content):,} bytes where {size or entry.file_size:,} are declared")
        if zlib.crc32(content) != entry.CRC:
            raise Broken(f"its {name} is not what was saved")
        return content

    order = bytes(read("byteorder")) if f"{folder}byteorder" in entries else b"little"

    def storage(key: str, dtype: np.dtype, count: int) -> Storage:
        return Storage(
            dtype if order == b"little" else dtype.newbyteorder(), count, lambda size: read(f"data/{key}", size)
        )

    content = read("data.pkl")
    return _unpickle(io.BytesIO(content), storage)


def _load_stream(memory: mmap.mmap) -> Any:
    """The format before 1.6."""
    if memory[257:262] == b"ustar":
        raise Broken("it is a tar archive, as PyTorch wrote before 0.2 and no longer reads")
    if memory[:1] != b"\x80":
        raise Broken("it is neither a zip archive nor a pickle")
    places: dict[str, tuple[int, int]] = {}  # key: where the bytes begin, how many there are
    counts: dict[str, tuple[int, int]] = {}  # key: numbers, bytes of each

    def read(key: str, size: int) -> memoryview:
        if key not in places or places[key][1] != size:
            raise Broken(f"its storage {key} is missing")
        return memoryview(memory)[places[key][0] :][:size]

    def storage(key: str, dtype: np.dtype, count: int) -> Storage:
        if counts.setdefault(key, (count, dtype.itemsize)) != (count, dtype.itemsize):
            raise Broken(f"its storage {key} is described twice")
        return Storage(dtype if little else dtype.newbyteorder(), count, lambda size: read(key, size))

    little = True
    magic, version, machine = (_unpickle(memory, storage) for _ in range(3))
    if magic != MAGIC or version != VERSION or not isinstance(machine, dict):
        raise Broken("it is a pickle, but not one of torch.save")
    little = machine.get("little_endian") is not False
    saved = _unpickle(memory, storage)
    keys = _unpickle(memory, storage)
    for key in keys if isinstance(keys, list) else (None,):
        if not isinstance(key, str) or key not in counts:
            raise Broken("it has a storage that no tensor is of")
        count, size = counts[key]
        declared = int.from_bytes(memory.read(8), "little" if little else "big")
        places[key] = memory.tell(), count * size
        if declared != count or memory.tell() + count * size > len(memory):
            raise Broken(f"it ends or goes wrong within its storage {key}")
        memory.seek(count * size, io.SEEK_CUR)
    return saved
