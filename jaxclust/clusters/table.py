"""`clusters.csv`: the cluster of every image of a run, as a person has decided it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.run import cells
from jaxclust.run.files import encoded, write_bytes
from jaxclust.run.workdir import CLUSTERS

COLUMNS = ("file", "cluster", "name", "confidence")


def text(files: Sequence[str] | None, groups: Mapping[int, str], group: np.ndarray, confidence: np.ndarray) -> str:
    """The table as CSV that no spreadsheet runs (see `cells`), in the order of the files' names.

    Args:
      files: of each image; None where there are none, and images are called by their rows.
      groups: number -> name, of the clusters.
      group: i64[N], the number of each image's cluster.
      confidence: f[N], how sure the network is of it; 1 for an image that a person has put where it is.
    """
    called: Sequence[Any] = range(len(group)) if files is None else files
    names = (groups[number] for number in group.tolist())
    rows = zip(called, group.tolist(), names, (f"{c:.4f}" for c in confidence.tolist()), strict=True)
    return cells.text([COLUMNS, *sorted(rows, key=lambda row: row[0])])


def write(
    workdir: Path, files: Sequence[str] | None, groups: Mapping[int, str], group: np.ndarray, confidence: np.ndarray
) -> Path:
    """Writes the table of `text` into the folder of a run, atomically, unless it is there; returns where it is."""
    path, content = workdir / CLUSTERS, encoded(text(files, groups, group, confidence))
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
    return path
