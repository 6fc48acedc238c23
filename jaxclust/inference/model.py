"""All that sorting new images takes, read from a run, and the compiled function that does it.

The images that the run was trained on are not needed: what must be known of them is in the workdir.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxclust import methods, views
from jaxclust.clusters import embed, evaluate, novelty
from jaxclust.clusters.decisions import PLACING, Decisions
from jaxclust.clusters.evaluate import Means
from jaxclust.clusters.novelty import Known
from jaxclust.run import sharding
from jaxclust.run.errors import ConfigError
from jaxclust.run.schema import settings
from jaxclust.training import configs
from jaxclust.training.build import Opened, open_run
from jaxclust.types import Method, Prediction, PyTree, State

T = TypeVar("T")


class Model(NamedTuple):
    """Plain values and NumPy arrays, so it pickles."""

    settings: dict[str, Any]  # the config
    step: int  # of the checkpoint
    shape: tuple[int, int, int]  # (H, W, C) at which the run keeps its images
    key: np.ndarray  # the root key's data
    params: PyTree
    stats: PyTree
    shown: PyTree  # of memory
    space: str  # the main embedding
    decided: Decisions
    means: Means | None  # of a method without clusters of its own
    known: Known | None  # None where novelty cannot be told


class Sorted(NamedTuple):
    """What is said of n images."""

    q: np.ndarray  # f32[n, K], soft assignment to the network's clusters
    group: np.ndarray  # i64[n], the number of the cluster
    shares: np.ndarray  # f32[n, G], the probability of each cluster, in the order of `Decisions.groups`
    confidence: np.ndarray  # f32[n], the probability of the image's own cluster
    margin: np.ndarray  # f32[n], how much more that is than of the next
    novel: np.ndarray | None  # bool[n], whether it looks like nothing seen in training
    embeddings: Mapping[str, np.ndarray]  # name -> f32[n, D]


def read(workdir: Path, step: int | None = None) -> Model:
    """The model of a run, as its newest checkpoint has it.

    Args:
      workdir: of the run.
      step: of another checkpoint.

    Raises:
      ConfigError: there is no run, no such checkpoint, or what is there is damaged or does not belong together.
    """
    return of(open_run(configs.saved(workdir), workdir, step))


def of(run: Opened) -> Model:
    """The model of a run that is open.

    Raises:
      ConfigError: its method has no clusters of its own, and there are no predictions that they could be made of.
    """
    return gather(run.config.to_dict(), run.state, run.images["shape"], run.decided, run.kept())


def gather(
    cfg: dict[str, Any], state: State, shape: Iterable[int], decided: Decisions, made: Prediction | None
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
    method = methods.make(ConfigDict(cfg))
    arrays = jax.device_get(embed.trained(method, state))
    x = made.embeddings[method.space] if made else None
    known = None if x is None else novelty.calibrate(x)
    means = None
    if made is None and not _has_clusters(method, arrays, cfg["data"]["size"], [*shape][-1]):
        raise ConfigError(
            f"the method {cfg['method']['name']} with these settings has no clusters of its own, and the run no "
            f"predictions of step {int(state.step)} to make them of; give --mode=evaluate first"
        )
    if made is not None and made.q is None:  # as the report has them
        means = evaluate.means(x, cfg["clusters"], cfg["seed"])
    return Model(
        settings=cfg,
        step=int(state.step),
        shape=tuple(shape),
        space=method.space,
        decided=decided,
        means=means,
        known=known,
        **arrays._asdict(),
    )


def first_space(cfg: Mapping[str, Any], trees: Mapping[str, PyTree], shape: Sequence[int]) -> str:
    """The embedding in which jaxclust 0.1 measured: the first by the alphabet.

    Args:
      cfg: the config.
      trees: `params`, `stats` and `shown` of a model.
      shape: (H, W, C) of its run's images.
    """
    arrays = embed.Trained(np.zeros(2, np.uint32), **trees)
    return min(_said(methods.make(ConfigDict(cfg)), arrays, cfg["data"]["size"], shape[-1]).embeddings)


def _has_clusters(method: Method, arrays: embed.Trained, size: int, channels: int) -> bool:
    return _said(method, arrays, size, channels).q is not None


def _said(method: Method, arrays: embed.Trained, size: int, channels: int) -> Prediction:
    """The shapes of what a method says of an image."""
    x = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    return jax.eval_shape(lambda arrays, x: embed.predict(method, arrays, x), arrays, x)


class Sorter:
    """A model, ready to be shown images. It uses all devices of this process.

    Args:
      model: whose clusters images are sorted into.
    """

    def __init__(self, model: Model):
        cfg = ConfigDict(model.settings)
        self.model, self.groups = model, model.decided.groups()
        self.batch_size = settings(evaluate.Settings, cfg.eval, "eval").batch_size
        self._numbers = np.array([*self.groups])
        own = [device for device in sharding.devices() if device.process_index == jax.process_index()]
        self._mesh = jax.sharding.Mesh(np.array(own), ("data",))
        self.batch_size = -(-self.batch_size // self._mesh.size) * self._mesh.size
        self._over = sharding.batched(self._mesh)
        method = methods.make(cfg)
        encode = embed.encoder(method, views.make(cfg.views, cfg.data.size)[cfg.eval.view])
        arrays = embed.Trained(model.key, model.params, model.stats, model.shown)
        self._names_new = method.assigned is None or _has_clusters(method, arrays, cfg.data.size, model.shape[-1])

        def forward(arrays, means, known, images):
            rows = encode(arrays, images)
            rows = jax.lax.with_sharding_constraint(rows, self._over)  # or heads would see all
            x = rows.embeddings[model.space]
            if rows.q is None:
                rows = rows._replace(q=evaluate.assigned(x, means))
            return rows, None if known is None else known.novel(x, jax.numpy)

        whole = sharding.replicated(self._mesh)
        self._fixed = jax.tree.map(lambda a: sharding.put(np.asarray(a), whole), (arrays, model.means, model.known))
        self._forward = jax.jit(forward)

    def over(self, batches: Iterable[tuple[T, np.ndarray]]) -> Iterator[tuple[T, Sorted]]:
        """Sorts batches of images, while the devices are at work on the next.

        Args:
          batches: pairs of anything and u8[n, H, W, C], with n at most `batch_size`.

        Yields:
          the same anything, and what is said of its images, in order.

        Raises:
          ConfigError: the method clusters the images that it was trained on, and no others.
        """
        if not self._names_new:
            raise ConfigError(
                f"the method {self.model.settings['method']['name']} clusters the images that it is trained on, and "
                f"cannot say where a new one belongs; train it on the new images too"
            )
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
        x = prediction.embeddings[self.model.space]
        place, confidence = self.model.decided.assign(prediction.q, x)
        shares = self.model.decided.follow(prediction.q, x)
        margin = _margin(shares, place, confidence)
        return Sorted(prediction.q, self._numbers[place], shares, confidence, margin, novel, prediction.embeddings)


def moved(decided: Decisions, said: Sorted, space: str, keys: Sequence[str] | Sequence[int]) -> Sorted:
    """`said` of images of the run itself, some of which a person may have put elsewhere.

    Args:
      decided: what was decided.
      said: of n images.
      space: the main embedding.
      keys: their files, or their rows where the run's images are no files.
    """
    if not decided.placed():
        return said
    here = set(keys)
    entries = [
        entry | {"images": [key for key in entry["images"] if key in here]} if entry["do"] in PLACING else entry
        for entry in decided.entries
    ]
    decided = decided._replace(entries=tuple(entries))
    put, x = set(decided.placed()), said.embeddings[space]
    place, confidence = decided.assign(said.q, x, keys=keys)
    shares = decided.follow(said.q, x, keys=keys)
    margin = _margin(shares, place, confidence)
    margin[[key in put for key in keys]] = 1
    group, confidence = decided.members(said.q, x, keys)
    return said._replace(group=group, shares=shares, confidence=confidence, margin=margin)


def _margin(shares: np.ndarray, place: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """How much more probable than the next cluster an image's own is, f32[n]."""
    others = shares.copy()
    np.put_along_axis(others, place[:, None], 0, axis=1)
    return confidence - others.max(axis=1)
