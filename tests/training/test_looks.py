"""Looks at a run while it trains: they change nothing, survive a stop, and say what is there."""

import jax
import numpy as np
import pytest
from conftest import config_of

from jaxclust.clusters import predictions
from jaxclust.commands.work.train import run_training
from jaxclust.ops import metrics
from jaxclust.run import workdir
from jaxclust.run.errors import ConfigError
from jaxclust.run.preemption import Preempted
from jaxclust.run.schema import settings
from jaxclust.training import log, looks
from jaxclust.types import Prediction

VGG = {"net.stem": "vgg", "method.views": '("plain","plain")', "report.looks": "2", "report.sample": "30"}


def bits(state) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


@pytest.fixture
def run(small_run, tmp_path):
    """A function that trains to the end under a name, -> the last state."""

    def train(name, due=lambda: False, **more):
        return run_training(small_run(config_of("cc"), tmp_path / name, overrides=VGG | more), due)

    return train


@pytest.mark.slow
def test_a_run_with_looks_is_the_run_without_and_goes_on_with_them(run, tmp_path, monkeypatch):
    looked = run("looked")
    for a, b in zip(bits(looked), bits(run("unseen", **{"report.looks": "0"})), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "unseen" / workdir.PROGRESS).exists()

    seen = looks.read(tmp_path / "looked")
    assert [(look["step"], look["epoch"]) for look in seen] == [(0, 0), (2, 1), (4, 2)]
    for look in seen:
        assert sum(look["sizes"]) == look["images"] == 30
        assert {"acc", "nmi", "ari", "entropy", "confidence", "centre_distance", "used_clusters"} <= look.keys()
        assert look["pairs"].keys() == {"backbone", "projection", "clusters"}
    kept = looks.embeddings(tmp_path / "looked")
    assert [*kept] == [0, 2, 4]
    assert kept[4]["x"].shape[0] == len(kept[4]["placed"]) == 30
    np.testing.assert_array_equal(kept[0]["rows"], kept[4]["rows"])
    assert str(kept[4]["space"]) == "projection"  # CC, Figure 4
    np.testing.assert_allclose(np.linalg.norm(kept[4]["x"].astype(np.float32), axis=1), 1, rtol=2e-3)

    push = log.Log.push

    def stop_at_three(self, step, epoch, metrics):
        push(self, step, epoch, metrics)
        if step == 3:  # the checkpoint and the look before are of step 2
            raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(log.Log, "push", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    run("stopped")
    assert looks.read(tmp_path / "stopped") == seen

    # A look that is stopped is taken when the run goes on. The sample is two batches: due after the first of them.
    with pytest.raises(Preempted):
        run("preempted", due=lambda: True)
    assert looks.read(tmp_path / "preempted") == []
    run("preempted")
    assert looks.read(tmp_path / "preempted") == seen


def test_pairs_against_the_obvious():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3)).astype(np.float32)
    cosine = [[x @ y / np.sqrt(x @ x) / np.sqrt(y @ y) for y in b] for x in a]
    positive = [cosine[i][i] for i in range(5)]
    negative = [cosine[i][j] for i in range(5) for j in range(5) if i != j]
    found = looks.pairs(a, b)
    np.testing.assert_allclose(found["positive"], [np.mean(positive), np.std(positive)], rtol=1e-5)
    np.testing.assert_allclose(found["negative"], [np.mean(negative), np.std(negative)], rtol=1e-5)


def test_describe_without_labels_says_nothing_of_them():
    q = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]
    x = np.array([[0.0, 0], [0, 2], [3, 1], [3, 1]])
    found = looks.describe(q, x, None)
    assert found["used_clusters"] == 2
    assert found["sizes"] == [2, 2, 0]
    assert found["centre_distance"] == pytest.approx(3)
    assert found["entropy"] == pytest.approx(0, abs=1e-6)
    assert not {"acc", "nmi", "ari"} & found.keys()
    assert looks.describe(q, x, np.array([0, 0, 0, 1]))["acc"] == metrics.accuracy([0, 0, 0, 1], [0, 0, 1, 1])


def test_a_line_cut_short_is_left_out(tmp_path):
    (tmp_path / workdir.PROGRESS).write_text('{"step": 0}\n{"step": 1')
    assert looks.read(tmp_path) == [{"step": 0}]


@pytest.mark.parametrize(("values", "said"), [((-1, 9, True), "looks is -1"), ((1, 1, True), "sample is 1")])
def test_settings_that_make_no_sense(values, said):
    with pytest.raises(ConfigError, match=said):
        settings(looks.Settings, dict(zip(("looks", "sample", "page"), values)), "report")


def test_predictions_are_of_a_step_a_view_and_images(tmp_path):
    images = {"images": 2, "names": None}
    said = Prediction(np.eye(2, dtype=np.float32), {"h": np.ones((2, 3), np.float32)})
    assert predictions.load(tmp_path, 4, "plain", images) is None
    predictions.save(tmp_path, 3, "plain", images, Prediction(None, said.embeddings))
    assert predictions.load(tmp_path, 3, "plain", images).q is None
    predictions.save(tmp_path, 4, "plain", images, said)
    found = predictions.load(tmp_path, 4, "plain", images)
    np.testing.assert_array_equal(found.q, said.q)
    np.testing.assert_array_equal(found.embeddings["h"], said.embeddings["h"])
    for other in ((3, "plain", images), (4, "centre", images), (4, "plain", images | {"images": 3})):
        assert predictions.load(tmp_path, *other) is None
    (tmp_path / workdir.PREDICTIONS / "q.npy").write_bytes(b"\x93NUMPY")
    assert predictions.load(tmp_path, 4, "plain", images) is None
    assert [p.name for p in tmp_path.iterdir()] == [workdir.PREDICTIONS]
