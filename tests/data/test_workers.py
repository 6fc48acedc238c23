"""Decoding in worker processes: what the process that asks for it has to do itself."""

import numpy as np
import pytest
from helpers.images import encoded
from PIL import Image

from jaxclust.data import workers


@pytest.mark.parametrize("chunks", [1, 20])
def test_processors_are_counted_once_and_not_for_each_chunk(chunks, tmp_path, monkeypatch):
    counted, cpu_count = [], workers.cpu_count
    monkeypatch.setattr(workers, "cpu_count", lambda: counted.append(None) or cpu_count())
    pixels = tmp_path / "pixels"
    pixels.touch()
    items = [[encoded(Image.new("L", (2, 2), i), "PNG")] for i in range(chunks)]
    done = dict(workers.decode_all(str(pixels), enumerate(items), (2, 2, 1), True))
    assert done == {i: [] for i in range(chunks)}
    assert np.fromfile(pixels, np.uint8).reshape(chunks, 4).tolist() == [[i] * 4 for i in range(chunks)]
    assert len(counted) == 2  # for the pool, and for what is under way
