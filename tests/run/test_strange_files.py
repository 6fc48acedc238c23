"""Whatever lies in place of a run's file is named in a sentence, and neither waited for nor read without end."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from jaxclust.clusters import predictions
from jaxclust.data import arrays
from jaxclust.run import files, workdir
from jaxclust.run.errors import ConfigError
from jaxclust.types import Prediction

STRANGE = {
    "another form": lambda path: path.write_text("[1]"),
    "deep": lambda path: path.write_text("[" * 100_000 + "\n"),
    "deep objects": lambda path: path.write_text('{"a":' * 100_000 + "\n"),
    "a number of many digits": lambda path: path.write_text('{"step": ' + "1" * 5000 + "}\n"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\n"),
    "nothing known": lambda path: path.write_text('{"step": null}\n'),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "an endless file": lambda path: path.symlink_to("/dev/zero"),
    "a huge file": lambda path: path.touch() or os.truncate(path, 2**40),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize(
    "read", [files.read_json, files.read_records, lambda path: workdir.check_readable(path.parent)]
)
def test_what_is_no_file_of_a_run_is_named(read, strange, tmp_path):
    path = tmp_path / workdir.VERSION
    STRANGE[strange](path)
    if read is files.read_json and strange == "nothing known":
        return  # whose reader knows what it wants
    if read is files.read_records and strange == "another form":
        path.write_text("[1]\n")
    with pytest.raises(ConfigError, match=r"run\.json"):
        read(path)


@pytest.mark.parametrize("name", ["about.json", "q.npy", "instance.npy"])
@pytest.mark.parametrize("strange", STRANGE)
def test_strange_predictions_are_made_again(name, strange, tmp_path):
    said = Prediction(np.ones((3, 2), np.float32), {"instance": np.ones((3, 4), np.float32)})
    predictions.save(tmp_path, 1, "plain", {"count": 3}, said)
    found = predictions.load(tmp_path, 1, "plain", {"count": 3})
    np.testing.assert_array_equal(found.embeddings["instance"], said.embeddings["instance"])
    path = tmp_path / workdir.PREDICTIONS / name
    path.unlink()
    STRANGE[strange](path)
    assert predictions.load(tmp_path, 1, "plain", {"count": 3}) is None


def test_a_disk_that_fills_says_so_while_arrays_are_written():
    with pytest.raises(OSError) as caught:  # noqa: PT011
        files.write_array(Path("/dev/full"), np.ones((1000, 1000)))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("x", [np.ones((3, 2), np.float32), np.ones((2, 3)).T, np.ones((0, 4)), np.float32(1)])
def test_arrays_are_written_as_numpy_reads_them(x, tmp_path):
    files.write_array(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy").reshape(np.shape(x)), x)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (4, 0, 8, 3), (4, 8, 0), (0, 0, 0, 1)])
def test_arrays_without_a_pixel_are_refused(shape, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ConfigError, match="not a single pixel"):
        arrays.read(tmp_path / "x.npy", "")


@pytest.mark.parametrize("strange", ["a folder", "a pipe", "an endless file"])
def test_what_is_no_array_file_is_refused(strange, tmp_path):
    STRANGE[strange](tmp_path / "x.npy")
    with pytest.raises(ConfigError, match=r"x\.npy is no regular file"):
        arrays.read(tmp_path / "x.npy", "")
