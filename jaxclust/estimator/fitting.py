"""What an estimator does that is slow to import: training, sorting images, and coming back from a run or a file."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxclust import data
from jaxclust.clusters import embed, evaluate, predictions
from jaxclust.clusters.decisions import Decisions
from jaxclust.data import Source, arrays, new_images
from jaxclust.data.new_images import Images
from jaxclust.estimator import inputs, settings, training
from jaxclust.inference import archive, model
from jaxclust.inference.model import Model, Sorted, Sorter
from jaxclust.run import config, messages, schema
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_array, write_bytes
from jaxclust.run.workdir import GIVEN_FILES, GIVEN_IMAGES, is_run
from jaxclust.training import build, compilation, configs
from jaxclust.types import Prediction

if TYPE_CHECKING:
    from jaxclust.estimator import DeepCluster, Pictures

logger = logging.getLogger(__name__)

E = TypeVar("E", bound="DeepCluster")


def fit(estimator: E, X: "Pictures") -> E:
    """Trains `estimator` on the images; as `DeepCluster.fit` says."""

    def tell(epoch: int, said: Mapping[str, Any]) -> None:
        for callback in estimator.callbacks:
            callback(epoch, said)

    with contextlib.ExitStack() as held:
        held.enter_context(training.libraries_silent())
        if estimator.verbose:
            held.enter_context(messages.shown())
        held.enter_context(compilation.cached())
        params = estimator.get_params(deep=False)
        cfg = settings.complete(params, X if inputs.is_path(X) else None)
        source, found, index = _source(estimator, X, cfg)
        cfg = settings.fitted(cfg, params, source.images.shape)
        named = source.names
        if estimator.workdir is None:
            workdir = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="jaxclust-")))
        else:
            workdir = Path(estimator.workdir)
            source = _kept(X, source, cfg, workdir)
        run = build.assemble(cfg, workdir, "train", {"train": source})
        if run.sources["train"] is not source:
            raise ConfigError(f"the run in {workdir} was made with other images; give another workdir")
        keep, bar = estimator.workdir is not None, bool(estimator.verbose)
        state, estimator.history_ = training.run(run, tell, keep, bar)
        feed = build.feeds(run)["train"]
        how = run.plan.method, run.plan.views[run.eval.view], feed, run.plan.mesh, run.eval.batch_size
        made = embed.train_split(state, *how)
        step = int(state.step)
        if keep:
            predictions.save(workdir, step, run.eval.view, source.fingerprint(), made)
        shape = source.images.shape[1:]
        _adopt(estimator, model.gather(cfg.to_dict(), state, shape, Decisions(step, cfg.clusters), made))
    said = _describe(estimator, made)
    rows: Sequence[int] = range(len(source.images))
    if found.listing.names:  # the cache has filled the gaps that bad files left
        row = {name: row for row, name in enumerate(found.listing.names)}
        rows = [row[name] for name in named or ()]
    if hasattr(estimator, "files_"):  # of what was fitted before
        del estimator.files_
    if found.listing.names and inputs.is_path(X):
        estimator.files_ = found.listing.names
    estimator.labels_ = _spread(said, rows, found.listing.count, -1)[index]
    if bad := found.listing.count - len(rows):
        logger.warning("%d of %d files cannot be used; their label is -1", bad, found.listing.count)
    estimator.n_iter_ = len(estimator.history_)
    return estimator


def _kept(X: "Pictures", source: Source, cfg: ConfigDict, workdir: Path) -> Source:
    """Puts images that are in no folder of their own into the workdir, so that the command finds them.

    Args:
      X: what the estimator was given.
      source: the images.
      cfg: is told where they are.
      workdir: may have a run with the same settings and images, which is then gone on with.

    Returns:
      the images, by names that do not depend on the current folder.

    Raises:
      ConfigError: the run there is of other settings or images.
    """
    begun = is_run(workdir)
    other = f"load it with jaxclust.load, or give another workdir, or remove {workdir}"
    if not inputs.is_path(X):
        listed = source.names is not None
        path = workdir.resolve() / (GIVEN_FILES if listed else GIVEN_IMAGES)
        cfg.data.dir = str(path)
        source = source._replace(names=[os.path.abspath(name) for name in source.names or ()] if listed else None)
        if begun and not listed and not np.array_equal(arrays.read(path, "")[0], source.images):
            raise ConfigError(f"the run in {workdir} was made with other images; {other}")
        if not begun:
            workdir.mkdir(parents=True, exist_ok=True)
            if listed:
                listed_files = "".join(f"{os.path.abspath(file)}\n" for file in X)
                write_bytes(path, listed_files.encode(errors="surrogateescape"))
            else:
                write_array(path, source.images)
    if begun:
        changed = config.differences(configs.saved(workdir).to_dict(), cfg.to_dict())
        if changed:
            name, old, new = changed[0]
            raise ConfigError(f"the run in {workdir} was made with {name}={old!r}, and this is {new!r}; {other}")
    return source


def sort(estimator: "DeepCluster", X: "Pictures") -> tuple[Sorted, Callable[[np.ndarray, Any], np.ndarray]]:
    """What is said of the images of X that can be used, and a function that puts it in the places of all of X.

    Raises:
      ConfigError: none of them can be used.
    """
    if estimator._sorter is None:  # it has been pickled
        estimator._sorter = Sorter(estimator.model_)
    sorter = estimator._sorter
    found, index = find(estimator, X)
    count = found.listing.count
    with tempfile.TemporaryDirectory(prefix="jaxclust-") as scratch:
        chunks = new_images.chunks(found, [range(count)], Path(scratch) / "pixels.u8")
        parts = [*sorter.over(new_images.batches(chunks, sorter.batch_size))]
    if not parts:
        raise ConfigError(f"none of {count:,} images can be used")
    rows = np.concatenate([rows for rows, _ in parts])
    said = jax.tree.map(lambda *fields: np.concatenate(fields), *(said for _, said in parts))
    return said, lambda values, fill: _spread(values, rows.tolist(), count, fill)[index]


def find(estimator: "DeepCluster", X: "Pictures") -> tuple[Images, Any]:
    """The images of X, and where those of X are among them, for a fitted estimator."""
    m = estimator.model_
    return inputs.find(X, m.shape, m.settings["data"]["size"], lambda X: estimator._pixels(X, fitting=False))


def load(cls: type[E], path: Path, step: int | None) -> E:
    """As `jaxclust.load` says; an estimator of the class `cls`."""
    if path.is_dir():
        return _from_run(cls, path, step)
    if not path.exists():
        raise ConfigError(f"there is nothing at {path}; give the workdir of a run, or a file that save has written")
    m, arrays, about = archive.load(path)
    fitted = _estimator(cls, m, about.pop("image_shape"))
    for name, value in (arrays | about).items():
        if value is not None:
            setattr(fitted, name, value)
    return fitted


def _from_run(cls: type[E], workdir: Path, step: int | None) -> E:
    with training.libraries_silent():
        run = build.open_run(configs.saved(workdir), workdir, step)
        m = model.of(run)
    fitted = _estimator(cls, m, None)
    fitted.history_ = training.history(workdir)
    fitted.n_iter_ = len(fitted.history_) and fitted.history_[-1]["epoch"]
    if (made := run.kept()) is not None:
        section = schema.settings(data.Settings, ConfigDict(m.settings).data, "data")
        fitted.labels_ = _describe(fitted, made, data.load(section)["train"].names if m.decided.placed() else None)
    return fitted


def _estimator(cls: type[E], m: Model, image_shape: tuple[int, ...] | None) -> E:
    """An estimator that would be trained as the model was, and has been."""
    cfg = m.settings
    chosen = {"method": cfg["method"]["name"], "n_clusters": cfg["clusters"], "random_state": cfg["seed"]}
    fitted = cls(**chosen, settings=cfg, image_shape=image_shape and tuple(image_shape))
    _adopt(fitted, m)
    return fitted


def _adopt(estimator: "DeepCluster", m: Model) -> None:
    estimator.model_, estimator._sorter = m, Sorter(m)
    estimator.clusters_, estimator.image_shape_ = m.decided.groups(), tuple(m.shape)


def _describe(estimator: "DeepCluster", made: Prediction, names: list[str] | None = None) -> np.ndarray:
    """The clusters of the training images, i64[N]; and their centres, which are kept."""
    m = estimator.model_
    x = np.asarray(made.embeddings[m.space])
    q = np.asarray(evaluate.assigned(x, m.means) if made.q is None else made.q)
    labels, _ = m.decided.members(q, x, names)
    nothing = np.full(x.shape[1], np.nan, np.float32)
    members = [labels == group for group in estimator.clusters_]
    estimator.cluster_centers_ = np.stack([x[of].mean(axis=0) if of.any() else nothing for of in members])
    return labels


def _source(estimator: "DeepCluster", X: "Pictures", cfg: ConfigDict) -> tuple[Source, Images, Any]:
    """Images to be trained on; all that there are, usable or not; and where those of X are among them."""
    size = cfg.data.stored or cfg.data.size
    found, index = inputs.find(X, (size, size, 3), size, lambda X: estimator._pixels(X, fitting=True))
    section = schema.settings(data.Settings, cfg.data, "data")
    if found.listing.names:
        return data.cached(section, found.listing), found, index
    if not inputs.is_path(X):
        return Source(estimator._pixels(X, fitting=True), None), found, index
    source = data.load(section)["train"]
    if source.skipped:
        raise ConfigError(f"{len(source.skipped)} images in {X} cannot be used, such as {source.skipped[0]}")
    return source, found, index


def _spread(values: np.ndarray, rows: Sequence[int], count: int, fill: Any) -> np.ndarray:
    """`values` [n, ...] in their places among `count`, and `fill` elsewhere."""
    out = np.full((count, *values.shape[1:]), fill, values.dtype)
    out[rows] = values
    return out
