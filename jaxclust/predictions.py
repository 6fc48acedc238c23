"""What a checkpoint's network says of every image of a run, kept beside the run so that it can be looked at.

predictions/about.json        step, view, the images' fingerprint, names of the embeddings
predictions/q.npy             f32[N, K], soft assignment; absent for a method without clusters of its own
predictions/<embedding>.npy   f32[N, D]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.config import read_json
from jaxclust.files import replace_folder, write_json
from jaxclust.types import Prediction

FOLDER = "predictions"


def save(workdir: Path, step: int, view: str, images: Mapping[str, Any], prediction: Prediction) -> None:
    """Replaces what was said at another step.

    Args:
      workdir: of the run.
      step: of the checkpoint.
      view: the policy that the images were shown through.
      images: their `Source.fingerprint()`.
      prediction: of all of them, as host arrays.
    """
    with replace_folder(workdir / FOLDER) as folder:
        for name, x in prediction.embeddings.items():
            np.save(folder / f"{name}.npy", x)
        if prediction.q is not None:
            np.save(folder / "q.npy", prediction.q)
        about = {"step": step, "view": view, "images": images, "embeddings": [*prediction.embeddings]}
        write_json(folder / "about.json", about)


def load(workdir: Path, step: int, view: str, images: Mapping[str, Any]) -> Prediction | None:
    """What `save` was given, mapped into memory; None where that was of another step, view or other images."""
    folder = workdir / FOLDER
    try:
        about = read_json(folder / "about.json")
        if (about["step"], about["view"], about["images"]) != (step, view, dict(images)):
            return None
        q = np.load(folder / "q.npy", mmap_mode="r") if (folder / "q.npy").exists() else None
        return Prediction(q, {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in about["embeddings"]})
    except (OSError, ValueError, KeyError):  # none, or a damaged one: it is made again
        return None
