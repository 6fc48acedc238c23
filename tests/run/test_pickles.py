"""Pickles of anybody's: what is honest is read, whatever else has a reason, soon and in little memory."""

import io
import itertools
import pickle
import time
import tracemalloc

import numpy as np
import pytest

from jaxclust.data.prepare.archives import File
from jaxclust.data.prepare.sets import cifar
from jaxclust.run import pickles
from jaxclust.run.errors import ConfigError

DTYPE = b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
HOSTILE = {
    "state of a type": DTYPE + b"(I3\nU\x01|NNNI-1\nI-1\nI63\ntb.",
    "objects in an array": ARRAY + b"(I1\n(I1\nt" + DTYPE.replace(b"u1", b"O8") + b"I0\nU\x08AAAAAAAAtb.",
    "state of a name": b"cnumpy\ndtype\n}b.",
    "state of a class": b"cnumpy\nndarray\n}b.",
    "members of one hash": pickle.dumps({p for p in itertools.product((-1, -2), repeat=10)}, 4),
    "nested frozensets": b"\x80\x04(\x91q\x00" + b"(h\x00(h\x00\x91\x91q\x00" * 60 + b".",
    "tuples as names": b"}(" + b"tq\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"N" + b"s.",
    "nested labels": b"}(U\x04dataNU\x06labels]q\x00" + b"](h\x00h\x00h\x00h\x00eq\x00" * 40 + b"u.",
    "endless steps": b"]" * (pickles.MAX_STEPS + 2) + b".",
    "the same bytes": b"c_codecs\nencode\nq\x00X\x40\x42\x0f\x00"
    + b"a" * 1_000_000
    + b"q\x01"
    + b"h\x00h\x01\x85R" * 5000
    + b".",
    "a number in text": b"L" + b"9" * 5000 + b"L\n.",
    "code": b"cos\nsystem\n(U\x04truetR.",
    "no end": b"}",
    "nothing": b"",
    "another object": b"I1\n.",
}


def read(content: bytes, tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    return cifar._python(File(path.name, str(path), path, 0, len(content)), cifar.FORMATS["cifar10"])


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_of_every_protocol_are_read(protocol, order, tmp_path):
    images = np.asarray(np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8), order=order)
    for labels in ([1, 2, 255], np.array([1, 2, 255]), np.array([1, 2, 255], ">i4")):
        found = read(pickle.dumps({b"data": images, b"labels": labels, "filenames": ["a"]}, protocol), tmp_path)
        np.testing.assert_array_equal(found[0], images)
        assert found[1].tolist() == [[1], [2], [255]]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_batch_does_has_a_reason_soon_and_in_little_memory(name, tmp_path):
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="data_batch_1"):
            read(HOSTILE[name], tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 60  # tracing makes it several times slower
    assert peak < 2**30


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_values_are_what_python_makes_of_them(protocol):
    same = [1.5, "é", b"\xff", None, True]
    value = {"a": [same, same, (1, -(2**70), ())], 3: {1, 2}, ("a", "b"): (1, 2, 3, 4), None: {}}
    if protocol < 4:
        value[3] = b""
    names = {("_codecs", "encode"): pickles.Call(lambda text, how: text.encode(how))}
    names[("__builtin__", "bytes")] = pickles.Call(bytes)
    found = pickles.load(io.BytesIO(pickle.dumps(value, protocol)), names)
    assert found == value
    assert found["a"][0] is found["a"][1]
