"""`DeepCluster`: deep clustering with scikit-learn's verbs.

    clusters = DeepCluster("cc", n_clusters=10).fit_predict(images)

Images are an array [N, H, W, C] or [N, H, W] of uint8 or of floats in [0, 1]; a list, array or pandas Series of files;
or a folder, archive, array file or list file, as `data.dir` of a config takes it.
"""

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxclust.estimator import pickled
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded

if TYPE_CHECKING:
    from jaxclust.inference.model import Model, Sorted, Sorter

Pictures = Any  # an array of images, a list, array or Series of files, or the path of a folder, archive, array or list


class DeepCluster(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Trains a network on images from scratch, and tells which belong together.

    Whatever is None is as in the method's shipped config, `configs/cifar10_<method>_small.py`, which is sized for a
    machine without a GPU.

    Args:
      method: one that ships with jaxclust, such as "cc", or the full name of a module of your own.
      n_clusters: K.
      epochs: of training.
      batch_size: images in a step, over all devices.
      size: side of the network's input, pixels; images of any other size are brought to it.
      depth: of the network: 18, 34 or 50 (ResNet), or 4 with `settings={"net.stem": "vgg"}`.
      width: channels of the network's first block; the embedding is 8 times as wide.
      learning_rate: of the optimizer.
      random_state: a seed, a NumPy RandomState, or None.
      verbose: 0 for silence; else progress is shown, whatever `logging` shows of it.
      callbacks: each is called as `callback(epoch, metrics)` after each epoch, the first being 1; one that raises
        StopIteration ends training.
      workdir: where the run is to be kept, as the command keeps one; nothing is kept if None.
      settings: any other setting by its name in the config, such as {"method.tau_cluster": 0.5}; or a complete config,
        which takes the shipped one's place.
      image_shape: (H, W) or (H, W, C), to take flat images [N, H W C] too, as other steps of a Pipeline make them.

    Attributes:
      labels_: i64[N], the cluster of each training image; -1 for a file that could not be used.
      cluster_centers_: f32[G, D], the mean embedding of each cluster's training images; NaN where it has none.
      clusters_: number -> name of each cluster ("" where nobody has given one), as `predict_proba` orders its columns.
      image_shape_: (H, W, C) at which training images were kept.
      files_: the names of the training images, where they were files of a folder or archive.
      n_features_in_: H W C, where the images were flat.
      n_iter_: epochs that were trained.
      history_: the metrics of each epoch.
    """

    def __init__(
        self,
        method: str = "cc",
        n_clusters: int = 10,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        size: int | None = None,
        depth: int | None = None,
        width: int | None = None,
        learning_rate: float | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 1,
        callbacks: Sequence[Callable[[int, Mapping[str, Any]], None]] = (),
        workdir: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
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

    def fit(self, X: Pictures, y: Any = None) -> Self:
        """Trains on images; `y` is not looked at.

        Raises:
          ConfigError (a ValueError): the images or a parameter make no sense.
          RunError (a RuntimeError): training failed.
        """
        from jaxclust.estimator import fitting  # JAX and all that trains, which importing this needs none of

        return fitting.fit(self, X)

    def predict(self, X: Pictures) -> np.ndarray:
        """The cluster of each image, i64[N]; -1 for a file that cannot be used."""
        said, spread = self._sort(X)
        return spread(said.group, -1)

    def predict_proba(self, X: Pictures) -> np.ndarray:
        """The probability of each cluster, f32[N, G], in `clusters_`' order; NaN for a file that cannot be used."""
        said, spread = self._sort(X)
        return spread(said.shares, np.nan)

    def transform(self, X: Pictures) -> np.ndarray:
        """The embedding of each image, f32[N, D]; NaN for a file that cannot be used."""
        said, spread = self._sort(X)
        return spread(said.embeddings[self.model_.space], np.nan)

    def novel(self, X: Pictures) -> np.ndarray:
        """Whether each image looks like nothing seen in training, bool[N]; True for a file that cannot be used.

        Of images like the training images one in a hundred is called novel; `jaxclust.clusters.novelty` says how.
        """
        said, spread = self._sort(X)
        if said.novel is None:
            raise ConfigError("too little is known of the training images to tell what is novel")
        return spread(said.novel, True)

    def score(self, X: Pictures, y: Any = None) -> float:
        """How good the clusters of X are; higher is better.

        Without `y` the silhouette of the clusters in the embedding, from -1 to 1, of at most 2,000 images; -1 where all
        of them are in one cluster. With it the accuracy, from 0 to 1, clusters being matched to classes as well as can
        be.
        """
        from jaxclust.ops import metrics

        said, spread = self._sort(X)
        labels = spread(said.group, -1)
        used = labels >= 0
        if y is not None:
            return metrics.accuracy(np.unique(np.asarray(y)[used], return_inverse=True)[1], labels[used])
        found = metrics.silhouette(spread(said.embeddings[self.model_.space], np.nan)[used], labels[used])
        return found if np.isfinite(found) else -1.0

    def names(self, X: Pictures) -> list[str]:
        """What the images of a folder, archive or list are called, in the order of what is said of them."""
        from jaxclust.estimator import fitting

        check_is_fitted(self)
        found, index = fitting.find(self, X)
        return np.array([found.name(row) for row in range(found.listing.count)], object)[index].tolist()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all that prediction takes to one file; `jaxclust.load` reads it, and executes nothing in it."""
        from jaxclust.inference import archive

        check_is_fitted(self)
        arrays = {name: getattr(self, name) for name in ("labels_", "cluster_centers_") if hasattr(self, name)}
        about = {name: getattr(self, name, None) for name in ("image_shape", "history_", "n_iter_", "files_")}
        archive.save(Path(path), self.model_, arrays, about)

    def _pixels(self, X: Any, fitting: bool) -> np.ndarray:
        """An array of images, flat or not, as u8[N, H, W, C]."""
        if self.image_shape is not None and np.ndim(X) == 2:
            X = validate_data(self, X, reset=fitting, dtype=None)
            if X.shape[1] != math.prod(self.image_shape):
                raise ConfigError(f"X has {X.shape[1]} features, which are no image of {self.image_shape}")
            X = X.reshape(len(X), *self.image_shape)
        from jaxclust.estimator import inputs

        return inputs.as_pixels(X)

    def _sort(self, X: Pictures) -> "tuple[Sorted, Callable[[np.ndarray, Any], np.ndarray]]":
        """What is said of the images of X that can be used, and a function that puts it in the places of all of X."""
        from jaxclust.estimator import fitting

        check_is_fitted(self)
        return fitting.sort(self, X)

    model_: "Model"
    clusters_: dict[int, str]
    _sorter: "Sorter | None"

    @property
    def groups_(self) -> dict[int, str]:
        """`clusters_` by the name that version 0.1 had for it."""
        warnings.warn("DeepCluster.groups_ is now clusters_", DeprecationWarning, stacklevel=2)
        return self.clusters_

    @property
    def _n_features_out(self) -> int:
        return self.cluster_centers_.shape[1]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self) -> dict[str, Any]:
        return pickled.packed(super().__getstate__())

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(pickled.unpacked(state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]  # an embedding is never of another type
        return tags


def load(path: str | os.PathLike[str], step: int | None = None) -> DeepCluster:
    """A fitted estimator.

    Args:
      path: the workdir of a run, also of the command line; or a file that `DeepCluster.save` wrote.
      step: of a checkpoint of the run that is not the newest.

    Raises:
      ConfigError: there is neither, or it is damaged.
    """
    from jaxclust.estimator import fitting

    return fitting.load(DeepCluster, expanded(path), step)
