"""The estimator does as scikit-learn's do, with images, and a command's run is the same thing."""

import contextlib
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import SkipTest

import jax
import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import estimator_checks
from sklearn.utils.validation import validate_data

import jaxclust
from jaxclust import DeepCluster, main
from jaxclust.estimator import inputs, settings
from jaxclust.run import sharding
from jaxclust.run.errors import ConfigError
from jaxclust.training import compilation

DIGITS = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[:90]  # u8[90, 8, 8]
LABELS = load_digits().target[:90]
# MMDC without augmentation: most of the others' time is the compilation of their views.
SMALL = dict(
    method="mmdc",
    n_clusters=3,
    epochs=1,
    batch_size=24,
    size=16,
    depth=4,
    width=4,
    verbose=0,
    settings={"net.stem": "vgg", "method.rotation": False, "method.rotation_view": "", "method.refine_epoch": 1000},
)


def small(**changed) -> DeepCluster:
    return DeepCluster(**SMALL | changed)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """An estimator whose run is kept, and what its callback was told."""
    heard = []
    workdir = tmp_path_factory.mktemp("runs") / "run"
    estimator = small(epochs=2, workdir=workdir, callbacks=[lambda epoch, said: heard.append((epoch, said["loss"]))])
    return estimator.fit(DIGITS), heard


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many small networks are alike


@pytest.fixture(autouse=True, scope="module")
def one_device():
    """A program for one device is compiled sooner; the sorting of images stays on all of them."""
    with pytest.MonkeyPatch.context() as patch:
        make_mesh = sharding.make_mesh
        patch.setattr(sharding, "make_mesh", lambda: make_mesh(1))
        yield


def process() -> dict:
    """What a library must leave as it finds it."""
    loggers = {name: logging.getLogger(name) for name in ("", "jaxclust")}
    return {
        "jax": {name: getattr(jax.config, name) for name in ("jax_platforms", *compilation.settings())},
        "streams": (sys.stdout, sys.stderr),
        "logging": {name: (x.level, x.propagate, *x.handlers) for name, x in loggers.items()},
        "warnings": [*warnings.filters],
        "signals": {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)},
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": [*sys.path],
        "random": (random.getstate(), np.random.mtrand._rand.get_state()[1].tolist()),
    }


@pytest.mark.parametrize("verbose", [0, 1])
def test_fit_changes_nothing_of_the_process(verbose, capfd):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)  # the suite's is in use
    try:
        then = process()
        small(epochs=1, verbose=verbose).fit(DIGITS)
        assert process() == then
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert bool(capfd.readouterr().out) == bool(verbose)


def test_messages_go_through_logging(caplog):
    with caplog.at_level(logging.INFO, "jaxclust"):
        small(epochs=1).fit(DIGITS)
    assert "jaxclust.training.log" in {record.name for record in caplog.records}


def test_fit_says_nothing_and_leaves_nothing_behind(tmp_path, capfd):
    heard = []

    def stop(epoch, said):
        heard.append(epoch)
        print("heard")
        raise StopIteration

    estimator = small(epochs=50, callbacks=[stop]).fit(DIGITS)
    assert heard == [1]
    assert estimator.n_iter_ == len(estimator.history_) == 1
    assert capfd.readouterr() == ("heard\n", "")
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_images_fits_together(fitted):
    estimator, heard = fitted
    n, g = len(DIGITS), 3
    assert estimator.labels_.shape == (n,)
    assert estimator.predict(DIGITS).tolist() == estimator.labels_.tolist()
    q = estimator.predict_proba(DIGITS)
    assert q.shape == (n, g)
    np.testing.assert_allclose(q.sum(axis=1), 1, atol=1e-5)
    assert np.array([*estimator.clusters_])[q.argmax(axis=1)].tolist() == estimator.labels_.tolist()
    x = estimator.transform(DIGITS)
    assert estimator.cluster_centers_.shape == (g, x.shape[1])
    for group in set(estimator.labels_.tolist()):
        np.testing.assert_allclose(estimator.cluster_centers_[group], x[estimator.labels_ == group].mean(0), atol=1e-4)
    assert -1 <= estimator.score(DIGITS) <= 1
    assert estimator.score(DIGITS, LABELS) == pytest.approx(
        estimator.score(DIGITS, np.array(list("abcdefghij"))[LABELS])
    )
    assert estimator.novel(DIGITS).mean() < 0.1
    assert estimator.image_shape_ == (8, 8, 1)
    assert [epoch for epoch, _ in heard] == [1, 2] == [row["epoch"] for row in estimator.history_]
    assert len(estimator.get_feature_names_out()) == x.shape[1]
    # One at a time, as floats, and larger, they are the same images.
    assert estimator.predict(DIGITS[:3] / 255).tolist() == estimator.labels_[:3].tolist()
    np.testing.assert_allclose(estimator.predict_proba(DIGITS[5:6]), q[5:6], atol=1e-5)
    assert estimator.predict(np.repeat(DIGITS[:3, ..., None], 3, axis=-1)).tolist() == estimator.labels_[:3].tolist()


def test_the_name_that_version_0_1_had_for_clusters_is_read(fitted):
    with pytest.warns(DeprecationWarning, match="clusters_"):
        assert fitted[0].groups_ == fitted[0].clusters_


def test_it_is_saved_pickled_cloned_and_loaded(fitted, tmp_path):
    estimator, _ = fitted
    q = estimator.predict_proba(DIGITS)
    estimator.save(tmp_path / "model.npz")
    silent = clone(estimator).set_params(callbacks=())
    assert silent.get_params() == estimator.get_params() | {"callbacks": ()}
    estimator.set_params(callbacks=())  # functions of a test do not pickle
    joblib.dump(estimator, tmp_path / "model.joblib")
    for other in (
        jaxclust.load(tmp_path / "model.npz"),
        jaxclust.load(estimator.workdir),
        joblib.load(tmp_path / "model.joblib"),
        pickle.loads(pickle.dumps(estimator)),
    ):
        np.testing.assert_allclose(other.predict_proba(DIGITS), q, atol=1e-6)
        assert other.labels_.tolist() == estimator.labels_.tolist()
        np.testing.assert_allclose(other.cluster_centers_, estimator.cluster_centers_, atol=1e-6)
        assert other.novel(255 - DIGITS).tolist() == estimator.novel(255 - DIGITS).tolist()
        assert other.history_ == estimator.history_
        assert other.n_iter_ == 2
    (tmp_path / "bad.npz").write_bytes((tmp_path / "model.npz").read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"bad.npz is no model that DeepCluster.save has written, or is damaged"):
        jaxclust.load(tmp_path / "bad.npz")
    joblib.dump({"about": 1}, tmp_path / "pickled")
    with pytest.raises(ConfigError, match="is no model"):
        jaxclust.load(tmp_path / "pickled")
    with pytest.raises(ConfigError, match=r"was made with other images"):
        small(epochs=2, workdir=estimator.workdir).fit(255 - DIGITS)
    with pytest.raises(ConfigError, match=r"was made with seed=0, and this is 1; load it with jaxclust.load"):
        small(epochs=2, workdir=estimator.workdir, random_state=1).fit(DIGITS)
    assert small(epochs=2, workdir=estimator.workdir).fit(DIGITS).labels_.tolist() == estimator.labels_.tolist()


def test_what_was_loaded_is_trained_as_the_original_was(fitted):
    estimator, _ = fitted
    again = clone(jaxclust.load(estimator.workdir)).set_params(verbose=0).fit(DIGITS)
    assert again.labels_.tolist() == estimator.labels_.tolist()
    np.testing.assert_allclose(again.cluster_centers_, estimator.cluster_centers_, atol=1e-5)


def test_files_are_images_and_those_that_are_none_are_marked(fitted, tmp_path):
    estimator, _ = fitted
    for i in range(30):
        Image.fromarray(DIGITS[i]).save(tmp_path / f"{i:02d}.png")
    files = [tmp_path / f"{i:02d}.png" for i in range(30)]
    files[4].write_bytes(b"no image")
    files.append(files[0])
    said = estimator.predict(files)
    assert said.tolist() == [*estimator.labels_[:4], -1, *estimator.labels_[5:30], estimator.labels_[0]]
    assert np.isnan(estimator.transform(files)[4]).all()
    assert estimator.predict(np.array([str(file) for file in files])).tolist() == said.tolist()
    assert estimator.predict(tmp_path).tolist() == said[:30].tolist()
    assert estimator.names(tmp_path) == [path.name for path in files[:30]]
    one = small(settings=SMALL["settings"] | {"data.max_bad": 0.1}).fit(tmp_path)
    assert one.files_ == [path.name for path in files[:30]]
    assert np.flatnonzero(one.labels_ == -1).tolist() == [4]
    assert one.labels_.tolist() == one.predict(tmp_path).tolist()
    assert one.predict(files)[30] == one.labels_[0]
    assert not hasattr(one.fit(DIGITS[:30]), "files_")


MODES = ("evaluate", "report", "suggest-k --k=2:3", "export", "probe", "predict --images=pictures")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["array", "files"])
def test_a_run_of_images_in_no_folder_opens_in_every_mode(kind, tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").mkdir()
    files = [f"pictures/{i:02d}.png" for i in range(60)]
    for file, x in zip(files, DIGITS):
        Image.fromarray(x).save(file)
    (tmp_path / files[5]).write_bytes(b"no image")
    fitted = small(workdir="run").fit(DIGITS if kind == "array" else files)
    assert (fitted.labels_ == -1).sum() == (kind == "files")
    monkeypatch.chdir(tmp_path.parent)
    for mode in MODES:
        argv = mode.replace("pictures", str(tmp_path / "pictures")).split()
        held = ["--config.eval.held_out=10"] if mode == "probe" else []
        code = main.cli([f"--mode={argv[0]}", f"--workdir={tmp_path / 'run'}", *argv[1:], *held])
        said = capsys.readouterr().err
        assert code == 0 or (mode == "probe" and "labels" in said), (mode, said)


def test_ctrl_c_keeps_what_has_been_learnt_and_fit_goes_on(tmp_path, caplog):
    def interrupt(epoch, said):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    whole = small(epochs=4).fit(DIGITS)
    for workdir in (None, tmp_path / "run"):
        stopped = small(epochs=4, workdir=workdir, callbacks=[interrupt]).fit(DIGITS)
        assert "fitted with what 7 of 12 steps have learnt" in caplog.text
        assert len(stopped.labels_) == len(DIGITS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    went_on = small(epochs=4, workdir=tmp_path / "run").fit(DIGITS)
    assert went_on.labels_.tolist() == whole.labels_.tolist()
    assert went_on.n_iter_ == 4


@pytest.mark.slow
def test_a_pipeline_and_a_grid_search(tmp_path):
    flat = DIGITS.reshape(len(DIGITS), -1).astype(float)
    pipeline = make_pipeline(MinMaxScaler(clip=True), small(image_shape=(8, 8)))
    once = [(range(60), range(60, 90))]
    search = GridSearchCV(pipeline, {"deepcluster__epochs": [1, 2]}, cv=once).fit(flat)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()  # the silhouette, as there are no labels
    best = search.best_estimator_
    assert set(best.predict(flat)) <= set(range(best[-1].n_clusters))
    assert best.transform(flat).shape == (len(flat), 128)
    assert best[-1].n_features_in_ == 64
    with pytest.raises(ValueError, match="expecting 64 features"):
        best[-1].predict(flat[:, :32])
    assert not list(tmp_path.iterdir())


def test_floats_that_a_resize_leaves_a_little_beyond_one_are_taken():
    near = (DIGITS / DIGITS.max() * 1.0000002).astype(np.float32)
    assert near.max() > 1
    np.testing.assert_array_equal(inputs.as_pixels(near), inputs.as_pixels(np.minimum(near, 1)))


@pytest.mark.parametrize(
    ("X", "sentence"),
    [
        (DIGITS.reshape(90, 64), r"X is \(90, 64\); give images as \[N, H, W\]"),
        (DIGITS.astype(int), "X is int64; give uint8, or floats in"),
        (DIGITS * 1.0, "X has values from 0 to 255; floats must lie in"),
        (DIGITS * np.nan, "X has NaN"),
        (np.zeros((9, 3, 8, 8), np.uint8), r"numpy.moveaxis\(X, 1, -1\)"),
        (np.zeros((0, 8, 8), np.uint8), "Found array with 0 sample"),
        ([DIGITS[0], DIGITS[1, :4]], "not of one shape"),
        ("nowhere", "there is nothing at nowhere"),
        ([], "give images as"),
        (DIGITS[:2], "clusters is 3, but there are only 2 images"),
    ],
)
def test_what_is_no_image_is_refused(X, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small(batch_size=None).fit(X)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"method": "ancor"}, r"method is 'ancor' \(did you mean anchor\?\)"),
        ({"n_clusters": 1}, "clusters is 1; at least 2 are needed"),
        ({"epochs": 0}, "train.epochs is 0"),
        ({"settings": {"optim.lrr": 1}}, r"unknown key optim.lrr in settings \(did you mean optim.lr\?\)"),
        ({"learning_rate": "fast"}, "optim.lr is 'fast', which is not a number"),
        ({"batch_size": 1000}, "train.batch_size is 1000, but the split train has only 90 images"),
    ],
)
def test_a_bad_parameter_is_named(changed, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small(**changed).fit(DIGITS)


def test_before_fit_there_is_nothing_to_ask():
    for ask in ("predict", "predict_proba", "transform", "score", "novel", "names"):
        with pytest.raises(NotFittedError):
            getattr(small(), ask)(DIGITS)


@pytest.mark.parametrize("method", settings.shipped())
@pytest.mark.parametrize("shape", [(37, 8, 8, 1), (500, 30, 40, 3)])
def test_every_method_has_a_config_that_fits_the_images(method, shape):
    params = DeepCluster(method, n_clusters=5).get_params()
    cfg = settings.fitted(settings.complete(params, None), params, shape)
    assert cfg.train.batch_size <= shape[0]
    assert cfg.clusters == 5
    for view in cfg.views.values():
        assert max(np.ravel(view.get("crops", view.get("crop", 1)))) <= min(shape[1:3])
        assert len(view.get("mean", range(shape[3]))) == shape[3]


def test_importing_brings_nothing_slow_along():
    code = (
        "import sys, jaxclust; assert not {'jax', 'numpy', 'sklearn'} & {*sys.modules}; "
        "assert 'DeepCluster' in dir(jaxclust)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_class_comes_without_what_trains():
    """What is slow to import is imported where it is used: JAX and all that stands on it."""
    code = (
        "import sys; from jaxclust import DeepCluster, load; DeepCluster(n_clusters=3).get_params(); "
        "slow = {'jax', 'flax', 'optax', 'orbax', 'grain', 'matplotlib', 'tensorflow_datasets', 'pyarrow'}; "
        "assert not slow & {*sys.modules}, slow & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Flat(DeepCluster):
    """Takes any table of numbers for images of one row, so that scikit-learn's checks have something to give it."""

    def _pixels(self, X, fitting):
        X = validate_data(self, X, reset=fitting, dtype=np.float64, ensure_min_samples=2 if fitting else 1)
        if fitting:
            self.low_, self.span_ = X.min(), max(np.ptp(X), 1e-9)
        return np.round(255 * np.clip((X - self.low_) / self.span_, 0, 1)).astype(np.uint8)[:, None, :, None]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


ONE = "the check asks for one cluster, which is no clustering"
EXPECTED = {
    "check_clustering": "wants a network of one epoch to find three blobs, in images of one row",
    "check_dont_overwrite_parameters": ONE,
    "check_dict_unchanged": ONE,
    "check_fit2d_1sample": ONE,
    "check_fit2d_1feature": ONE,
    "check_fit2d_predict1d": ONE,
    "check_methods_subset_invariance": ONE,
}
# They pass, but train networks for minutes: JAXCLUST_ALL_CHECKS=1 runs them.
SLOW = {
    "check_estimators_fit_returns_self",
    "check_methods_sample_order_invariance",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_f_contiguous_array_estimator",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
    "check_transformer_preserve_dtypes",
    "check_estimators_pickle",
    "check_clustering",
}


@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn_that_apply_pass():
    settings = SMALL["settings"] | {"views.centre.crop": 1, "views.strong.crops": (1,)}  # of one row, that is
    estimator, seen = Flat(**SMALL | {"n_clusters": 2, "batch_size": None, "settings": settings}), []
    everything = "JAXCLUST_ALL_CHECKS" in os.environ
    for subject, check in estimator_checks.estimator_checks_generator(estimator):
        name = check.func.__name__
        if name in EXPECTED or (name in SLOW and not everything):
            continue
        seen.append(name)
        with contextlib.suppress(SkipTest):
            check(subject)
    assert len(seen) >= 20


@pytest.mark.slow
def test_a_users_types_are_checked(tmp_path):
    (tmp_path / "script.py").write_text(
        "import jaxclust\n"
        "from jaxclust import DeepCluster, load\n"
        "reveal_type(DeepCluster('cc', n_clusters=3).fit('photos').predict('photos'))\n"
        "reveal_type(load('run'))\n"
        "DeepCluster(n_clusters='three')\n"
        "load(3)\n"
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports", "script.py"]
    env = os.environ | {"MYPYPATH": str(Path(jaxclust.__path__[0]).parent)}
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True).stdout.splitlines()
    assert "script.py:3" in said[0]
    assert "ndarray" in said[0]
    assert 'Revealed type is "jaxclust.estimator.DeepCluster"' in said[1]
    assert [line.partition(": error: ")[0] for line in said[2:-1]] == ["script.py:5", "script.py:6"], said


def test_what_was_saved_names_devices_that_there_are_not(fitted, tmp_path, monkeypatch):
    def broken():
        raise AssertionError

    fitted[0].save(tmp_path / "model.npz")
    monkeypatch.setattr(jax, "devices", broken)
    with pytest.raises(ConfigError, match=r"JAX_PLATFORMS is 'cpu', which JAX cannot use here; unset it"):
        jaxclust.load(tmp_path / "model.npz")
