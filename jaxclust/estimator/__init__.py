"""`DeepCluster`: deep clustering with scikit-learn's verbs.

    groups = DeepCluster("cc", n_clusters=10).fit_predict(images)

Images are an array [N, H, W, C] or [N, H, W] of uint8 or of floats in [0, 1]; a list of files; or a folder, archive or
array file, as `data.dir` of a config takes it.
"""

import contextlib
import io
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxclust import build, config, data, evaluate, metrics, predict, predictions
from jaxclust.config import ConfigError
from jaxclust.data import Source
from jaxclust.decisions import Decisions
from jaxclust.estimator import inputs, settings, training
from jaxclust.predict import archive, model
from jaxclust.predict.images import Images
from jaxclust.predict.model import Model, Sorted, Sorter
from jaxclust.types import Prediction


class DeepCluster(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Trains a network on images from scratch, and tells which belong together.

    Whatever is None is as in the method's shipped config, `configs/cifar10_<method>_small.py`, which is sized for a
    machine without a GPU.

    Args:
      method: "anchor", "cc", "mmdc" or "tcc".
      n_clusters: K.
      epochs: of training.
      batch_size: images in a step, over all devices.
      size: side of the network's input, pixels; images of any other size are brought to it.
      depth: of the network: 18, 34 or 50 (ResNet), or 4 with `settings={"net.stem": "vgg"}`.
      width: channels of the network's first block; the embedding is 8 times as wide.
      learning_rate: of the optimizer.
      random_state: a seed, a NumPy RandomState, or None.
      verbose: 0 for silence.
      callbacks: each is called as `callback(epoch, metrics)` after each epoch, the first being 1; one that raises
        StopIteration ends training.
      workdir: where the run is to be kept, as the command keeps one; nothing is kept if None.
      settings: any other setting by its name in the config, such as {"method.tau_cluster": 0.5}; or a complete config,
        which takes the shipped one's place.
      image_shape: (H, W) or (H, W, C), to take flat images [N, H W C] too, as other steps of a Pipeline make them.

    Attributes:
      labels_: i64[N], the group of each training image; -1 for a file that could not be used.
      cluster_centers_: f32[G, D], the mean embedding of each group's training images; NaN where it has none.
      groups_: number -> name of each group ("" where nobody has given one), in the order of `predict_proba`'s columns.
      image_shape_: (H, W, C) at which training images were kept.
      files_: the names of the training images, where they were files of a folder or archive.
      n_features_in_: H W C, where the images were flat.
      n_iter_: epochs that were trained.
      history_: the metrics of each epoch.
    """

    def __init__(
        self,
        method="cc",
        n_clusters=10,
        *,
        epochs=None,
        batch_size=None,
        size=None,
        depth=None,
        width=None,
        learning_rate=None,
        random_state=0,
        verbose=1,
        callbacks=(),
        workdir=None,
        settings=None,
        image_shape=None,
    ):
        self.method = method
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.batch_size = batch_size
        self.size = size
        self.depth = depth
        self.width = width
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks
        self.workdir = workdir
        self.settings = settings
        self.image_shape = image_shape

    def fit(self, X, y=None):
        """Trains on images; `y` is not looked at.

        Raises:
          ConfigError (a ValueError): the images or a parameter make no sense.
          RunError (a RuntimeError): training failed.
        """
        out, err = sys.stdout, sys.stderr

        def tell(epoch: int, said: Mapping[str, Any]) -> None:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # a callback may speak
                for callback in self.callbacks:
                    callback(epoch, said)

        with contextlib.ExitStack() as held:
            held.enter_context(training.libraries_silent())
            if not self.verbose:
                held.enter_context(contextlib.redirect_stdout(io.StringIO()))
                held.enter_context(contextlib.redirect_stderr(io.StringIO()))
            if jax.config.jax_compilation_cache_dir is None:
                build.use_compilation_cache()
            params = self.get_params(deep=False)
            cfg = settings.complete(params, X if inputs.is_path(X) else None)
            source, found, index = self._source(X, cfg)
            cfg = settings.fitted(cfg, params, source.images.shape)
            if self.workdir is None:
                workdir = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="jaxclust-")))
            else:
                workdir = Path(self.workdir)
                if (workdir / "config.json").exists():
                    raise ConfigError(
                        f"there is a run in {workdir} already; load it with jaxclust.load, or give another workdir"
                    )
            run = build.assemble(cfg, workdir, "train", {"train": source})
            state, self.history_ = training.run(run, tell, keep=self.workdir is not None)
            feed = build.feeds(run)["train"]
            how = run.plan.method, run.plan.views[run.eval.view], feed, run.plan.mesh, run.eval.batch_size
            made = evaluate.embed(state, *how)
            step = int(state.step)
            if self.workdir is not None:
                predictions.save(workdir, step, run.eval.view, source.fingerprint(), made)
            shape = source.images.shape[1:]
            self._adopt(model.gather(cfg.to_dict(), state, shape, Decisions(step, cfg.clusters), made))
        said, rows = self._describe(made), range(len(source.images))
        if found.listing.names:  # the cache has filled the gaps that bad files left
            row = {name: row for row, name in enumerate(found.listing.names)}
            rows = [row[name] for name in source.names]
            if inputs.is_path(X):
                self.files_ = found.listing.names
        self.labels_ = _spread(said, rows, found.listing.count, -1)[index]
        self.n_iter_ = len(self.history_)
        return self

    def predict(self, X):
        """The group of each image, i64[N]; -1 for a file that cannot be used."""
        said, spread = self._sort(X)
        return spread(said.group, -1)

    def predict_proba(self, X):
        """The probability of each group, f32[N, G], in the order of `groups_`; NaN for a file that cannot be used."""
        said, spread = self._sort(X)
        return spread(said.shares, np.nan)

    def transform(self, X):
        """The embedding of each image, f32[N, D]; NaN for a file that cannot be used."""
        said, spread = self._sort(X)
        return spread(said.embeddings[said.first], np.nan)

    def novel(self, X):
        """Whether each image looks like nothing seen in training, bool[N]; True for a file that cannot be used.

        Of images like the training images one in a hundred is called novel; `jaxclust.predict.novelty` says how.
        """
        said, spread = self._sort(X)
        if said.novel is None:
            raise ConfigError("too little is known of the training images to tell what is novel")
        return spread(said.novel, True)

    def score(self, X, y=None):
        """How good the groups of X are; higher is better.

        Without `y` the silhouette of the groups in the embedding, from -1 to 1, of at most 2,000 images; -1 where all
        of them are in one group. With it the accuracy, from 0 to 1, groups being matched to classes as well as can be.
        """
        said, spread = self._sort(X)
        labels = spread(said.group, -1)
        used = labels >= 0
        if y is not None:
            return metrics.accuracy(np.unique(np.asarray(y)[used], return_inverse=True)[1], labels[used])
        found = metrics.silhouette(spread(said.embeddings[said.first], np.nan)[used], labels[used])
        return found if np.isfinite(found) else -1.0

    def names(self, X):
        """What the images of a folder, archive or list are called, in the order of what is said of them."""
        check_is_fitted(self)
        found, index = self._find(X, self.model_.shape, self.model_.settings["data"]["size"])
        return np.array([found.name(row) for row in range(found.listing.count)], object)[index].tolist()

    def save(self, path):
        """Writes all that prediction takes to one file; `jaxclust.load` reads it, and executes nothing in it."""
        check_is_fitted(self)
        arrays = {name: getattr(self, name) for name in ("labels_", "cluster_centers_") if hasattr(self, name)}
        about = {name: getattr(self, name, None) for name in ("image_shape", "history_", "n_iter_", "files_")}
        archive.save(Path(path), self.model_, arrays, about)

    def _source(self, X, cfg: ConfigDict) -> tuple[Source, Images, Any]:
        """Images to be trained on; all that there are, usable or not; and where those of X are among them."""
        size = cfg.data.stored or cfg.data.size
        found, index = self._find(X, (size, size, 3), size, fitting=True)
        section = config.settings(data.Settings, cfg.data, "data")
        if found.listing.names:
            return data.cached(section, found.listing), found, index
        if not inputs.is_path(X):
            return Source(self._pixels(X, fitting=True), None), found, index
        source = data.load(section)["train"]
        if source.skipped:
            raise ConfigError(f"{len(source.skipped)} images in {X} cannot be used, such as {source.skipped[0]}")
        return source, found, index

    def _find(self, X, shape: tuple[int, int, int], size: int, fitting: bool = False) -> tuple[Images, Any]:
        return inputs.find(X, shape, size, lambda X: self._pixels(X, fitting))

    def _pixels(self, X, fitting: bool) -> np.ndarray:
        """An array of images, flat or not, as u8[N, H, W, C]."""
        if self.image_shape is not None and np.ndim(X) == 2:
            X = validate_data(self, X, reset=fitting, dtype=None)
            if X.shape[1] != math.prod(self.image_shape):
                raise ConfigError(f"X has {X.shape[1]} features, which are no image of {self.image_shape}")
            X = X.reshape(len(X), *self.image_shape)
        return inputs.as_pixels(X)

    def _sort(self, X) -> tuple[Sorted, Callable[[np.ndarray, Any], np.ndarray]]:
        """What is said of the images of X that can be used, and a function that puts it in the places of all of X."""
        check_is_fitted(self)
        if self._sorter is None:  # it has been pickled
            self._sorter = Sorter(self.model_)
        found, index = self._find(X, self.model_.shape, self.model_.settings["data"]["size"])
        count = found.listing.count
        with tempfile.TemporaryDirectory(prefix="jaxclust-") as scratch:
            chunks = predict.images.chunks(found, [range(count)], Path(scratch) / "pixels.u8")
            parts = [*self._sorter.over(predict.images.batches(chunks, self._sorter.batch_size))]
        if not parts:
            raise ConfigError(f"none of {count:,} images can be used")
        rows = np.concatenate([rows for rows, _ in parts])
        said = jax.tree.map(lambda *fields: np.concatenate(fields), *(said for _, said in parts))
        return said, lambda values, fill: _spread(values, rows, count, fill)[index]

    def _adopt(self, m: Model) -> None:
        self.model_, self._sorter = m, Sorter(m)
        self.groups_, self.image_shape_ = m.decided.groups(), tuple(m.shape)

    def _describe(self, made: Prediction, names: list[str] | None = None) -> np.ndarray:
        """The groups of the training images, i64[N]; and their centres, which are kept."""
        q, x = made.q, made.embeddings[made.first]
        if q is None:
            q = np.asarray(evaluate.assigned(x, self.model_.means))
        labels, _ = self.model_.decided.members(q, x, names)
        nothing = np.full(x.shape[1], np.nan, np.float32)
        members = [labels == group for group in self.groups_]
        self.cluster_centers_ = np.stack([x[of].mean(axis=0) if of.any() else nothing for of in members])
        return labels

    @property
    def _n_features_out(self) -> int:
        return self.cluster_centers_.shape[1]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self):
        state = dict(super().__getstate__())
        return state | {"_sorter": None} if "_sorter" in state else state  # compiled programs stay where they are

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]  # an embedding is never of another type
        return tags


def load(path, step=None) -> DeepCluster:
    """A fitted estimator.

    Args:
      path: the workdir of a run, also of the command line; or a file that `DeepCluster.save` wrote.
      step: of a checkpoint of the run that is not the newest.

    Raises:
      ConfigError: there is neither, or it is damaged.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _from_run(path, step)
    if not path.exists():
        raise ConfigError(f"there is nothing at {path}; give the workdir of a run, or a file that save has written")
    m, arrays, about = archive.load(path)
    fitted = _estimator(m, about.pop("image_shape"))
    for name, value in (arrays | about).items():
        if value is not None:
            setattr(fitted, name, value)
    return fitted


def _from_run(workdir: Path, step: int | None) -> DeepCluster:
    with training.libraries_silent():
        m = model.read(workdir, step)
    fitted = _estimator(m, None)
    fitted.history_ = training.history(workdir)
    fitted.n_iter_ = len(fitted.history_) and fitted.history_[-1]["epoch"]
    made = model.predictions_of(workdir, m)
    if made is not None:
        moves = any(entry["do"] == "move" for entry in m.decided.entries)
        section = config.settings(data.Settings, ConfigDict(m.settings).data, "data")
        fitted.labels_ = fitted._describe(made, data.load(section)["train"].names if moves else None)
    return fitted


def _estimator(m: Model, image_shape: tuple[int, ...] | None) -> DeepCluster:
    """An estimator that would be trained as the model was, and has been."""
    cfg = m.settings
    chosen = {"method": cfg["method"]["name"], "n_clusters": cfg["clusters"], "random_state": cfg["seed"]}
    fitted = DeepCluster(**chosen, settings=cfg, image_shape=image_shape and tuple(image_shape))
    fitted._adopt(m)
    return fitted


def _spread(values: np.ndarray, rows: Sequence[int], count: int, fill: Any) -> np.ndarray:
    """`values` [n, ...] in their places among `count`, and `fill` elsewhere."""
    out = np.full((count, *values.shape[1:]), fill, values.dtype)
    out[rows] = values
    return out
