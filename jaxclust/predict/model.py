"""All that sorting new images takes, read from a run, and the compiled function that does it.

The images that the run was trained on are not needed: what must be known of them is in the workdir.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxclust import config, data, decisions, evaluate, optim, predictions, sharding, train, views
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError, settings
from jaxclust.decisions import Decisions
from jaxclust.evaluate import Means
from jaxclust.predict import novelty
from jaxclust.predict.novelty import Known
from jaxclust.types import DataSpec, Method, Prediction, PyTree

T = TypeVar("T")


class Model(NamedTuple):
    """Plain values and NumPy arrays, so it pickles."""

    settings: dict[str, Any]  # the config
    step: int  # of the checkpoint
    shape: tuple[int, int, int]  # (H, W, C) at which the run keeps its images
    key: np.ndarray  # the root key's data
    params: PyTree
    stats: PyTree
    decided: Decisions
    means: Means | None  # of a method without clusters of its own
    known: Known | None  # None where novelty cannot be told


class Sorted(NamedTuple):
    """What is said of n images."""

    q: np.ndarray  # f32[n, K], soft assignment to the network's clusters
    group: np.ndarray  # i64[n], the number of the group
    shares: np.ndarray  # f32[n, G], the probability of each group, in the order of `Decisions.groups`
    confidence: np.ndarray  # f32[n], the probability of the image's own group
    margin: np.ndarray  # f32[n], how much more that is than of the next
    novel: np.ndarray | None  # bool[n], whether it looks like nothing seen in training
    embeddings: Mapping[str, np.ndarray]  # name -> f32[n, D]

    first = Prediction.first


def read(workdir: Path, step: int | None = None) -> Model:
    """The model of a run, as its newest checkpoint has it.

    Args:
      workdir: of the run.
      step: of another checkpoint.

    Raises:
      ConfigError: there is no run, no such checkpoint, or what is there is damaged or does not belong together.
    """
    if not (workdir / "config.json").is_file():
        raise ConfigError(f"there is no run in {workdir} (it has no config.json); train first, or give its --workdir")
    cfg = config.from_json(workdir / "config.json", {})
    images = config.read_json(workdir / "data.json")["train"]
    # Runs from before the shape was written down have to look at their images.
    shape = images.get("shape") or data.load(settings(data.Settings, cfg.data, "data"))["train"].images.shape[1:]
    method, mesh = method_of(cfg), sharding.make_mesh()
    spec = DataSpec(images["images"], cfg.data.size, shape[-1])
    # Its shapes do not depend on how long it runs.
    optimizer = optim.make(settings(optim.Settings, cfg.optim, "optim"), 1, 1)
    like = jax.eval_shape(lambda: train.init_state(method, spec, optimizer, cfg.seed))
    whole = sharding.replicated(mesh)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), like)
    with Checkpoints(workdir, keep=None) as checkpoints:
        state = checkpoints.restore(like, step)
    step = int(state.step)
    decided = decisions.load(workdir, step, cfg.clusters)
    return gather(cfg.to_dict(), state, shape, decided, _predictions(workdir, step, cfg.eval.view, images))


def predictions_of(workdir: Path, m: Model) -> Prediction | None:
    """What the run keeps of its own images, as the model's checkpoint has them; None if it does not."""
    images = config.read_json(workdir / "data.json")["train"]
    return _predictions(workdir, m.step, m.settings["eval"]["view"], images)


def _predictions(workdir: Path, step: int, view: str, images: Mapping[str, Any]) -> Prediction | None:
    return predictions.load(workdir, step, view, {name: images[name] for name in ("images", "names")})


def gather(
    cfg: dict[str, Any], state: train.State, shape: Iterable[int], decided: Decisions, made: Prediction | None
) -> Model:
    """A model from its parts.

    Args:
      cfg: the config.
      state: of the run.
      shape: (H, W, C) of its images as they are kept.
      decided: what a person has decided about its clusters.
      made: the prediction of all its images, as host arrays, if it has been made.

    Raises:
      ConfigError: the method has no clusters of its own, and `made` is missing, of which they could be made.
    """
    x = made.embeddings[made.first] if made else None
    host = jax.device_get((jax.random.key_data(state.key), state.params, state.stats))
    known = None if x is None else novelty.calibrate(x)
    means = None
    if made is None and not _has_clusters(cfg, host, shape):
        raise ConfigError(
            f"the method {cfg['method']['name']} with these settings has no clusters of its own, and the run no "
            f"predictions of step {int(state.step)} to make them of; give --mode=evaluate first"
        )
    if made is not None and made.q is None:  # as the report has them
        means = evaluate.means(x, cfg["clusters"], cfg["seed"])
    return Model(cfg, int(state.step), tuple(shape), *host, decided, means, known)


def method_of(cfg: Mapping[str, Any]) -> Method:
    return importlib.import_module(f"jaxclust.methods.{cfg['method']['name']}").make(ConfigDict(cfg))


def _has_clusters(cfg: dict[str, Any], host: PyTree, shape: Iterable[int]) -> bool:
    size = cfg["data"]["size"]
    x = jax.ShapeDtypeStruct((1, size, size, [*shape][-1]), np.float32)
    return jax.eval_shape(method_of(cfg).predict, *host[1:], x).q is not None


class Sorter:
    """A model, ready to be shown images. It uses all devices of this process.

    Args:
      model: whose groups images are sorted into.
    """

    def __init__(self, model: Model):
        cfg = ConfigDict(model.settings)
        self.model, self.groups = model, model.decided.groups()
        self.batch_size = settings(evaluate.Settings, cfg.eval, "eval").batch_size
        self._numbers = np.array([*self.groups])
        self._mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",))
        self.batch_size = -(-self.batch_size // self._mesh.size) * self._mesh.size
        self._over = sharding.batched(self._mesh)
        view, method = views.make(cfg.views, cfg.data.size)[cfg.eval.view], method_of(cfg)

        def forward(key, params, stats, means, known, images):
            x = jax.vmap(lambda image: view(image, jax.random.wrap_key_data(key)))(images)  # f32[B, H, W, C]
            rows = method.predict(params, stats, x)
            rows = jax.lax.with_sharding_constraint(rows, self._over)  # or heads would see all
            x = rows.embeddings[rows.first]
            if rows.q is None:
                rows = rows._replace(q=evaluate.assigned(x, means))
            return rows, None if known is None else known.novel(x, jax.numpy)

        whole = sharding.replicated(self._mesh)
        fixed = (model.key, model.params, model.stats, model.means, model.known)
        self._fixed = jax.tree.map(lambda a: sharding.put(np.asarray(a), whole), fixed)
        self._forward = jax.jit(forward)

    def over(self, batches: Iterable[tuple[T, np.ndarray]]) -> Iterator[tuple[T, Sorted]]:
        """Sorts batches of images, while the devices are at work on the next.

        Args:
          batches: pairs of anything and u8[n, H, W, C], with n at most `batch_size`.

        Yields:
          the same anything, and what is said of its images, in order.
        """
        waiting = None
        for tag, images in batches:
            under_way = tag, len(images), self._start(images)
            if waiting:
                yield waiting[0], self._finish(*waiting[1:])
            waiting = under_way
        if waiting:
            yield waiting[0], self._finish(*waiting[1:])

    def all(self, images: np.ndarray) -> Iterator[Sorted]:
        """Sorts images u8[N, H, W, C] of one shape, a batch at a time."""
        parts = ((None, images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size))
        return (said for _, said in self.over(parts))

    def _start(self, images: np.ndarray) -> PyTree:
        # Filled up to a power of two, or there would be a program to compile for every number of images.
        n = min(self.batch_size, self._mesh.size * (1 << (-(-len(images) // self._mesh.size) - 1).bit_length()))
        if n > len(images):
            images = np.concatenate([images, np.zeros((n - len(images), *images.shape[1:]), np.uint8)])
        return self._forward(*self._fixed, sharding.put(images, self._over))

    def _finish(self, n: int, result: PyTree) -> Sorted:
        prediction, novel = jax.tree.map(lambda a: np.asarray(a)[:n], result)
        x = prediction.embeddings[prediction.first]
        place, confidence = self.model.decided.assign(prediction.q, x)
        shares = self.model.decided.follow(prediction.q, x)
        others = shares.copy()
        np.put_along_axis(others, place[:, None], 0, axis=1)
        margin = confidence - others.max(axis=1)
        return Sorted(prediction.q, self._numbers[place], shares, confidence, margin, novel, prediction.embeddings)


def moved(decided: Decisions, said: Sorted, keys: Sequence[str] | Sequence[int]) -> Sorted:
    """`said` of images of the run itself, some of which a person may have put elsewhere.

    Args:
      decided: what was decided.
      said: of n images.
      keys: their files, or their rows where the run's images are no files.
    """
    here = set(keys)
    entries = [
        {**entry, "images": [key for key in entry["images"] if key in here]} if entry["do"] == "move" else entry
        for entry in decided.entries
    ]
    put = {key for entry in entries if entry["do"] == "move" for key in entry["images"]}
    if not put:
        return said
    x = said.embeddings[said.first]
    group, confidence = decided._replace(entries=tuple(entries)).members(said.q, x, keys)
    margin = said.margin.copy()
    margin[[key in put for key in keys]] = 1
    return said._replace(group=group, confidence=confidence, margin=margin)
