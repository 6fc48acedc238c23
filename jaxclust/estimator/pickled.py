"""A fitted `DeepCluster` as a pickle: its model is the bytes that `save` writes, so that no pickle names a module.

Those of jaxclust 0.1 hold the model as it was then, by the names of modules that have moved. Where a pickle asks for
one of them, it finds what stands in for it here.
"""

import sys
from collections.abc import Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

from jaxclust.run.errors import ConfigError

Kept = Mapping[str, Any]  # of an estimator's attributes


class Model01(NamedTuple):
    """`Model` of jaxclust 0.1."""

    settings: Any
    step: Any
    shape: Any
    key: Any
    params: Any
    stats: Any
    decided: Any
    means: Any
    known: Any


class Decisions01(NamedTuple):
    """`Decisions` of jaxclust 0.1."""

    step: Any
    clusters: Any
    entries: Any = ()


class Means01(NamedTuple):
    """`Means` of jaxclust 0.1."""

    centres: Any
    scale: Any


class Known01(NamedTuple):
    """`Known` of jaxclust 0.1."""

    mean: Any
    whitening: Any
    units: Any
    threshold: Any


MOVED: Mapping[str, Mapping[str, type]] = {
    "jaxclust.predict": {},
    "jaxclust.predict.model": {"Model": Model01},
    "jaxclust.predict.novelty": {"Known": Known01},
    "jaxclust.decisions": {"Decisions": Decisions01},
    "jaxclust.evaluate": {"Means": Means01},
}


class Moved(MetaPathFinder, Loader):
    """Finds the modules of `MOVED`, and only when nothing else does."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(MOVED[module.__name__])


sys.meta_path.append(Moved())


def packed(state: Kept) -> dict[str, Any]:
    """The attributes of an estimator as they are pickled; compiled programs stay where they are."""
    if "model_" not in state:
        return {**state}
    from jaxclust.inference import archive

    return {**state, "model_": archive.packed(state["model_"], {}, {}), "_sorter": None}


def unpacked(state: Kept) -> dict[str, Any]:
    """The attributes of an estimator that were pickled, by whichever version.

    Raises:
      ConfigError: the model among them is damaged, or none.
    """
    if "model_" not in state:
        return {**state}
    from jaxclust.inference import archive
    from jaxclust.inference.model import Model

    kept, made = state["model_"], {**state}
    if "groups_" in made:  # as 0.1 called them
        made["clusters_"] = made.pop("groups_")
    if isinstance(kept, bytes):
        made["model_"], _, _ = archive.unpacked(kept, "what the pickle holds")
    elif isinstance(kept, Model01):
        made["model_"] = _model(kept)
    elif not isinstance(kept, Model):  # as 0.4 pickled it
        raise ConfigError(f"the pickle holds no model of DeepCluster, but {type(kept).__name__}")
    return made


def _model(kept: Model01) -> Any:
    from jaxclust.clusters.decisions import Decisions
    from jaxclust.clusters.evaluate import Means
    from jaxclust.clusters.novelty import Known
    from jaxclust.inference.model import Model, first_space

    trees = {"params": kept.params, "stats": kept.stats, "shown": {}}
    return Model(
        settings=kept.settings,
        step=kept.step,
        shape=kept.shape,
        key=kept.key,
        **trees,
        space=first_space(kept.settings, trees, kept.shape),
        decided=Decisions(*kept.decided),
        means=kept.means and Means(*kept.means),
        known=kept.known and Known(*kept.known),
    )
