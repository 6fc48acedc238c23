"""What each mode costs on a made run: the run, and the page that is measured."""

import numpy as np
import pytest

from jaxclust.commands.bench import modes
from jaxclust.run.errors import ConfigError


def test_images_lie_around_as_many_as_there_are_clusters(tmp_path):
    modes.make(tmp_path / "a.npz", 300, 4, seed=0)
    modes.make(tmp_path / "b.npz", 200, 4, seed=1)
    a, b = (np.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert a["images"].shape == (300, 8, 8)
    assert a["images"].dtype == np.uint8
    for k in range(4):  # new images are of the same heaps, and others
        middle = [f["images"][f["labels"] == k].mean(axis=0) for f in (a, b)]
        assert np.abs(middle[0] - middle[1]).mean() < 15
    assert not np.array_equal(a["images"][:200], b["images"])


@pytest.mark.parametrize(("count", "clusters"), [(100, "10"), (100, "2")])
def test_too_small_a_run_is_refused(count, clusters):
    with pytest.raises(ConfigError, match=rf"--modes={count} with {clusters} clusters is too small a run; give 3"):
        next(modes.table(count, {"clusters": clusters}))


@pytest.mark.slow
def test_every_mode_costs_something():
    rows = dict(modes.table(300, {"clusters": "4"}))
    assert {"evaluate", "report", "suggest-k", "browse", "predict", "compare"} == rows.keys()
    for row in rows.values():
        assert row["cpu_seconds"] > 0
        assert 100 < row["resident_mib"] < 4000
    assert rows["browse"]["seconds_to_answer"] < rows["browse"]["seconds"]
