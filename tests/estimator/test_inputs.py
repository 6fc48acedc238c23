"""What a user may give for images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxclust.estimator import inputs
from jaxclust.run.errors import ConfigError


class Series:
    """As pandas has it, labelled by what is no position."""

    def __init__(self, values):
        self.values, self.index, self.ndim = values, range(7, 7 + len(values)), 1

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, label):
        return self.values[self.index.index(label)]

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype or object)


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda x: np.array(x, object), Series])
@pytest.mark.parametrize("path", [str, Path])
def test_paths_in_any_sequence_are_files(kind, path, tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "a.png"]
    for file in files:
        Image.new("RGB", (8, 8)).save(file)
    found, index = inputs.find(kind([path(file) for file in files]), (8, 8, 3), 8, inputs.as_pixels)
    assert found.listing.names == [str(file) for file in files[:2]]
    assert [type(name) for name in found.listing.names] == [str, str]
    assert index.tolist() == [0, 1, 0]


def test_what_is_no_path_among_paths_is_named():
    with pytest.raises(ConfigError, match="nan among the files is no path"):
        inputs.find(["a.png", float("nan")], (8, 8, 3), 8, inputs.as_pixels)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8)), np.zeros(3), [[[0.0]]], np.array([]), 3, []])
def test_numbers_are_no_files(images):
    assert not inputs.is_list(images)
