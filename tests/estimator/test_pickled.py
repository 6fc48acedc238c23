"""Estimators as pickles and files: what one version wrote every later one reads; made by fixtures/make_pickles.py."""

import json
import pickle
import pickletools
import subprocess
import sys
import tarfile
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits

import jaxclust
from jaxclust import DeepCluster
from jaxclust.run.errors import ConfigError

FIXTURES = Path(__file__).parent.parent / "fixtures"
DIGITS = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
KEPT = [("0.1", "tcc"), ("0.1", "mmdc"), ("0.4", "mmdc")]
READERS = {"pickle": lambda path: pickle.loads(path.read_bytes()), "joblib": joblib.load, "npz": jaxclust.load}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What each version wrote, in a folder of its own."""
    folder = tmp_path_factory.mktemp("pickles")
    for version in {version for version, _ in KEPT}:
        with tarfile.open(FIXTURES / f"pickles_{version}.tar.xz") as tar:
            tar.extractall(folder / version, filter="data")
    return folder


@pytest.fixture
def old(folder):
    """Of 0.1, by k-means and with decisions."""
    return READERS["pickle"](folder / "0.1" / "mmdc.pickle")


def said(fitted: DeepCluster) -> dict[str, np.ndarray]:
    asked = ("predict", "predict_proba", "transform", "novel")
    return {"labels_": fitted.labels_} | {name: getattr(fitted, name)(DIGITS[60:72]) for name in asked}


def same(found, expected, atol: float = 0) -> None:
    np.testing.assert_equal([*found], [*expected])
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=atol, atol=atol, err_msg=name)


def content(fitted: DeepCluster) -> str:
    """All of a model, to be compared; to JSON lists and tuples are the same."""
    model = fitted.model_
    return repr(model._replace(settings=json.dumps(model.settings), decided=json.dumps(model.decided)))


@pytest.mark.parametrize(("version", "method"), KEPT)
def test_what_an_earlier_version_wrote_says_what_it_said(version, method, folder):
    read = {kind: reader(folder / version / f"{method}.{kind}") for kind, reader in READERS.items()}
    same(said(read["pickle"]), np.load(folder / version / f"{method}_said.npz"), atol=1e-5)
    for kind, fitted in read.items():
        assert fitted.clusters_ == {0: "", 1: "ones"}, kind
        assert content(fitted) == content(read["pickle"]), kind
        assert len(fitted.history_) == fitted.n_iter_ == 1


def test_modules_of_earlier_versions_are_seen_only_by_a_pickle_that_names_them(folder):
    code = (
        "import pickle, sys; from jaxclust import DeepCluster; old = {'jaxclust.predict.model', 'jaxclust.evaluate'}; "
        "assert not old & {*sys.modules}; fitted = pickle.load(open(sys.argv[1], 'rb')); assert old <= {*sys.modules}; "
        "assert type(fitted.model_.means).__module__ == 'jaxclust.clusters.evaluate'"
    )
    subprocess.run([sys.executable, "-c", code, folder / "0.1" / "mmdc.pickle"], check=True)


def test_a_pickle_names_the_class_and_no_other_module(old):
    plain = pickle.dumps(old, protocol=2)  # in which a name is one instruction
    named = {arg for op, arg, _ in pickletools.genops(plain) if op.name == "GLOBAL"}
    assert {name for name in named if name.startswith("jaxclust")} == {"jaxclust.estimator DeepCluster"}
    assert b"jaxclust.inference" not in pickle.dumps(old)


def test_a_fitted_estimator_comes_back_with_what_was_decided(old):
    before = said(old)
    again = pickle.loads(pickle.dumps(old))
    assert old.predict(DIGITS[:2]).shape == (2,)  # pickling takes nothing from it
    assert content(again) == content(old)
    assert again.clusters_ == {0: "", 1: "ones"}
    same(said(again), before)
    same(said(pickle.loads(pickle.dumps(again))), before)


def test_an_unfitted_estimator_and_a_clone_come_back_unfitted(old):
    for estimator in (DeepCluster("tcc", 7, settings={"method.tau": 0.5}), clone(old)):
        again = pickle.loads(pickle.dumps(estimator))
        assert again.get_params() == estimator.get_params()
        assert not hasattr(again, "model_")
        assert not again.__sklearn_is_fitted__()


@pytest.mark.parametrize("model", [b"", b"PK\3\4", None, 7, "cut", "changed"])
def test_a_pickle_without_a_whole_model_is_refused(model, old):
    state = old.__getstate__()
    whole = state["model_"]
    damaged = {"cut": whole[: len(whole) // 2], "changed": whole.replace(b"format", b"fermat")}
    with pytest.raises(ConfigError, match=r"^(what )?the pickle holds (no model of|is no model that) DeepCluster"):
        DeepCluster().__setstate__(state | {"model_": damaged.get(model, model)})
