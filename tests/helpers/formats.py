"""What this version of jaxclust writes into a run's folder and reads there, name by name.

    cd tests; python -m helpers.formats

writes that into `fixtures/formats.json` under the version's number, where `run/test_formats.py` finds what every
version wrote. What 0.1.0 wrote was read off its last commit, ac869cb.
"""

import functools
import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from conftest import METHODS, ROOT, config_of
from ml_collections import ConfigDict

import jaxclust
from jaxclust import methods, views
from jaxclust.clusters import evaluate, table
from jaxclust.clusters.decisions import Decisions
from jaxclust.inference import sort
from jaxclust.inference import table as predicted
from jaxclust.inference.export import export
from jaxclust.run import config, workdir
from jaxclust.training import configs, log, looks, optim
from jaxclust.training.build import Opened
from jaxclust.training.step import init_state
from jaxclust.types import DataSpec, State

FILE = ROOT / "tests" / "fixtures" / "formats.json"
COMMAND = "cd tests; python -m helpers.formats"


@functools.cache
def today() -> dict[str, Any]:
    """All of it."""
    return {
        "format": workdir.FORMAT,
        "settings": settings(),
        "state": {method: tree(like(method)) for method in METHODS},
        "folder": sorted({name for key, name in vars(workdir).items() if key.isupper() and isinstance(name, str)}),
        "columns": {
            "clusters.csv": [*table.COLUMNS],
            "predictions.csv": [*predicted.COLUMNS],
            "metrics.jsonl": logged(),
            "progress.jsonl": [*looks.describe(np.eye(2), np.eye(2), np.arange(2))],
            "scores.json": [*evaluate.describe(np.arange(4) % 2, np.eye(4), 2, np.arange(4) % 2)],
        },
        "predict": sorted([sort.ABOUT, sort.SKIPPED, *predicted.TABLES]),
        "export": exported(),
    }


def settings() -> dict[str, list[str]]:
    """The fields of every section of a config, of every method's and of every view policy's."""
    own = {f"method.{name}": methods.load(name).Settings for name in METHODS}
    found = {name: [*cls.__dataclass_fields__] for name, cls in (configs.SCHEMAS | own).items()}
    return found | {f"views.{name}": [*views.options(name)] for name in views.known()}


@functools.cache
def small(method: str) -> ConfigDict:
    """The digits config of a method, complete; it is not to be changed."""
    return config.load(config_of(method), {}, configs.schemas)


@functools.cache
def like(method: str) -> State:
    """The state that a run of the digits config has, abstract."""
    cfg = small(method)
    made, spec = methods.load(method).make(cfg), DataSpec(1797, cfg.data.size, 1)
    return jax.eval_shape(lambda: init_state(made, spec, optim.make_all(cfg.optim, {}), 0))


def tree(state: State) -> dict[str, Any]:
    """A state's names, with the types and shapes of its arrays; what is shaped like the parameters says only that."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        *inner, last = (jax.tree_util.keystr((key,)).strip(".[]'") for key in path)
        at = nested
        for name in inner:
            at = at.setdefault(name, {})
        at[last] = " ".join([str(leaf.dtype), *map(str, leaf.shape)])
    known = {"as params": nested["params"]} | {f"as params.{name}": part for name, part in nested["params"].items()}
    return nested | {part: _short(nested[part], known) for part in ("opt", "memory") if part in nested}


def _short(part: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(part, Mapping):
        return part
    for words, whole in known.items():
        if part == whole:
            return words
    return {name: _short(inner, known) for name, inner in part.items()}


def logged() -> list[str]:
    """The keys of a record, but for the method's own."""
    with tempfile.TemporaryDirectory() as folder:
        about = {"step": 0, "steps": 1, "epochs": 1, "images": 1, "every": 1, "write": True, "bar": False}
        with log.Log(Path(folder), **about) as made:
            made.push(1, 0, {"loss": np.float32(0), "sizes": np.ones(2, np.float32)})
            made.drain()
        return sorted(json.loads((Path(folder) / workdir.METRICS).read_text("utf-8")))


def exported() -> list[str]:
    """The files of an export; the programs in them are not made."""
    state = State(np.int32(0), *[None] * 5)
    width = jax.ShapeDtypeStruct((1, 8), np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        for place, name, made in (
            (export, "predictor", None),
            (export, "traced", (None, None, width)),
            (export, "stablehlo", b""),
            (export, "weights", b""),
            (export.onnx, "convert", b""),
            (export.onnx, "check_installed", None),
        ):
            held.enter_context(mock.patch.object(place, name, return_value=made))
        images = {"images": 2, "names": None, "shape": (8, 8, 1)}
        run = Opened(small("cc"), Path(folder), methods.load("cc").make(small("cc")), images, state, Decisions(0, 2))
        return sorted(path.name for path in export.export(run, formats=export.FORMATS).iterdir())


def known() -> dict[str, dict[str, Any]]:
    """What each version wrote."""
    return json.loads(FILE.read_text("utf-8"))


def dumped(versions: Mapping[str, Any]) -> str:
    """As JSON, with the innermost lists and objects in one line each."""
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda m: " ".join(m[0].split()), json.dumps(versions, indent=1)) + "\n"


if __name__ == "__main__":
    FILE.write_text(dumped((known() if FILE.exists() else {}) | {jaxclust.__version__: today()}), "utf-8")
