"""What a checkpoint's network says of every image of a run, kept beside the run so that it can be looked at.

predictions/about.json        step, view, the images' fingerprint, names of the embeddings
predictions/q.npy             f32[N, K], soft assignment; absent for a method without clusters of its own
predictions/<embedding>.npy   f32[N, D]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.run.files import read_json, replace_folder, write_array, write_json
from jaxclust.run.workdir import PREDICTIONS
from jaxclust.types import Prediction


def save(workdir: Path, step: int, view: str, images: Mapping[str, Any], prediction: Prediction) -> None:
    """Replaces what was said at another step.

    Args:
      workdir: of the run.
      step: of the checkpoint.
      view: the policy that the images were shown through.
      images: their `Source.fingerprint()`.
      prediction: of all of them, as host arrays.
    """
    with replace_folder(workdir / PREDICTIONS) as folder:
        for name, x in prediction.embeddings.items():
            write_array(folder / f"{name}.npy", x)
        if prediction.q is not None:
            write_array(folder / "q.npy", prediction.q)
        about = {"step": step, "view": view, "images": images, "embeddings": [*prediction.embeddings]}
        write_json(folder / "about.json", about)


def load(workdir: Path, step: int, view: str, images: Mapping[str, Any]) -> Prediction | None:
    """What `save` was given, mapped into memory; None where that was of another step, view or other images."""
    folder = workdir / PREDICTIONS
    try:
        about = read_json(folder / "about.json")
        if (about["step"], about["view"], about["images"]) != (step, view, dict(images)):
            return None
        q = _map(folder / "q.npy") if (folder / "q.npy").exists() else None
        embeddings = {str(name): _map(folder / f"{name}.npy") for name in about["embeddings"]}
        if len({len(x) for x in (*embeddings.values(), *([] if q is None else [q]))}) != 1:
            return None
        return Prediction(q, embeddings)
    except (OSError, ValueError, KeyError, TypeError, EOFError):  # none, or a damaged one: it is made again
        return None


def _map(path: Path) -> Any:
    """A matrix of numbers, mapped into memory."""
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no file")
    try:
        x = np.load(path, mmap_mode="r")
    except Exception as e:  # a damaged header makes NumPy raise whatever Python's own parser does
        raise ValueError(f"{path} is damaged") from e
    if not isinstance(x, np.ndarray) or x.ndim != 2 or not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{path} is no matrix of numbers")
    return x
