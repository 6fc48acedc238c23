"""A run's own images in a folder for each cluster, as a person has decided them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxclust.data import new_images
from jaxclust.inference import folders
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import is_inside


def arrange(
    path: Path,
    shape: tuple[int, int, int],
    size: int,
    into: Path,
    files: Sequence[str] | None,
    group: np.ndarray,
    groups: Mapping[int, str],
    copy: bool,
) -> tuple[int, int]:
    """Makes the folders as `--mode=predict --into` does; what has come to the data since training is left out.

    Args:
      path: of the run's data.
      shape, size: as `new_images.find` takes them.
      into: where; made if it is not there.
      files: of each image; None where there are none.
      group: i64[N], the number of each image's cluster.
      groups: number -> name, of the clusters.
      copy: whether to copy files, and not to link to them.

    Returns:
      the numbers of links and of files that are there.

    Raises:
      ConfigError: the images are gone, or the folders cannot be made there.
    """
    if not path.exists():
        raise ConfigError(f"the images are not at {path} any more; put them back, or sort others with --mode=predict")
    if path.is_dir() and is_inside(into, path):
        raise ConfigError(f"{into} is inside the images, and would be among them next time; give another folder")
    found = new_images.find(path, shape, size)
    if files is None:
        pairs = enumerate(group.tolist())
    else:
        cluster = dict(zip(files, group.tolist(), strict=True))
        names = (found.name(row) for row in range(found.listing.count))
        pairs = ((row, cluster[name]) for row, name in enumerate(names) if name in cluster)
    return folders.make(into, found, path, pairs, groups, copy)
