"""A model as one file: an .npz of plain arrays, in which nothing can be executed."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.clusters.decisions import Decisions
from jaxclust.clusters.evaluate import Means
from jaxclust.clusters.novelty import Known
from jaxclust.inference.model import Model, first_space
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_bytes

FORMAT = 1
TREES = ("params", "stats", "shown")


def save(path: Path, model: Model, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Writes what `packed` makes to a file, atomically."""
    write_bytes(path, packed(model, arrays, about))


def packed(model: Model, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """The content of a file.

    Args:
      model: what is kept.
      arrays: what else is kept.
      about: what else is, as JSON can say it.
    """
    kept = {f"more/{name}": array for name, array in arrays.items()} | {"key": model.key}
    for tree in TREES:
        kept |= {f"{tree}/{name}": leaf for name, leaf in _leaves(getattr(model, tree))}
    if model.means:
        kept["centres"] = model.means.centres
    if model.known:
        kept |= {f"known/{name}": np.asarray(value) for name, value in model.known._asdict().items()}
    said = {
        "format": FORMAT,
        "settings": model.settings,
        "step": model.step,
        "shape": model.shape,
        "space": model.space,
        "decided": [model.decided.step, model.decided.clusters, model.decided.entries],
        "scale": model.means and model.means.scale,
        "about": about,
    }
    content = io.BytesIO()
    np.savez(content, about=np.frombuffer(json.dumps(said).encode(), np.uint8), **kept)
    return content.getvalue()


def load(path: Path) -> tuple[Model, dict[str, np.ndarray], dict[str, Any]]:
    """What `save` was given.

    Raises:
      ConfigError: it is no such file, or damaged.
    """
    return unpacked(path, str(path))


def unpacked(source: Path | bytes, name: str) -> tuple[Model, dict[str, np.ndarray], dict[str, Any]]:
    """What `packed` was given.

    Args:
      source: its bytes, or the file that they are in.
      name: of the source, for messages.

    Raises:
      ConfigError: it is nothing that `packed` has made, or damaged.
    """
    try:
        with np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False) as content:
            arrays = dict(content)
        said = json.loads(arrays.pop("about").tobytes())
        if said["format"] != FORMAT:
            raise ConfigError(f"{name} was saved by another version of jaxclust (format {said['format']})")
        trees = {tree: _tree({k: v for k, v in _below(arrays, tree)}) for tree in TREES}
        known = dict(_below(arrays, "known"))
        step, clusters, entries = said["decided"]
        model = Model(
            settings=said["settings"],
            step=said["step"],
            shape=tuple(said["shape"]),
            key=arrays["key"],
            **trees,
            space=said["space"] if "space" in said else first_space(said["settings"], trees, said["shape"]),
            decided=Decisions(step, clusters, tuple(entries)),
            means=Means(arrays["centres"], said["scale"]) if "centres" in arrays else None,
            known=Known(**known | {"threshold": float(known["threshold"])}) if known else None,
        )
        return model, dict(_below(arrays, "more")), said["about"]
    except ConfigError:
        raise
    except Exception as e:  # whatever a damaged archive makes its reader say
        raise ConfigError(f"{name} is no model that DeepCluster.save has written, or is damaged: {e}") from e


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> list[tuple[str, np.ndarray]]:
    return [(name.removeprefix(f"{prefix}/"), a) for name, a in arrays.items() if name.startswith(f"{prefix}/")]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, np.ndarray]]:
    found = []
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        found += _leaves(value, f"{prefix}{name}/") if inner else [(f"{prefix}{name}", np.asarray(value))]
    return found


def _tree(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree = {}
    for path, leaf in leaves.items():
        *inner, last = path.split("/")
        at = tree
        for name in inner:
            at = at.setdefault(name, {})
        at[last] = leaf
    return tree
