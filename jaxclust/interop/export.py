"""A run's predictor as files that work without jaxclust.

    predictor.stablehlo   what `jax.export` makes, for CPU, CUDA and TPU: images u8[b, H, W, C] ->
                          probabilities f32[b, G], groups i32[b] (their numbers), embedding f32[b, D]
    predictor.onnx        the same, computed in float32
    weights.safetensors   parameters and batch statistics by name, params.f.stem.conv.kernel
    groups.json           the groups' numbers and names, in the order of the probabilities
    example_*.py          how to run them
    README.md             the model card

Images are as training's are stored, and what `eval.view` does to them is part of the program. So are a person's
decisions, but for moves of single images.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from jaxclust.build import Run
from jaxclust.config import ConfigError, hint, read_json
from jaxclust.decisions import Decisions
from jaxclust.files import replace_folder, write_atomically, write_json
from jaxclust.interop import card, onnx
from jaxclust.types import Method, State

FORMATS = ("stablehlo", "onnx")
OUTPUTS = ("probabilities", "groups", "embedding")
PLATFORMS = ("cpu", "cuda", "tpu")
EXAMPLES = {"stablehlo": "example_jax.py", "onnx": "example_onnx.py"}
OURS = ("README.md", "groups.json", "weights.safetensors")  # an earlier export has these


def export(
    run: Run, state: State, decided: Decisions, folder: Path | None = None, formats: Sequence[str] | None = None
) -> Path:
    """Writes all files, or none; what was exported earlier stays until then.

    Args:
      run: the run.
      state: one of its checkpoints.
      decided: what has been decided about the clusters of that checkpoint.
      folder: to be made, or an earlier export; `export` in the workdir where none is given.
      formats: of the predictor, of `FORMATS`; where none are given, all that can be made here.

    Returns:
      The folder.

    Raises:
      ConfigError: the run has no clusters, a format is unknown or needs what is not installed, or the folder holds
        something else or cannot be written.
      RunError: the network cannot be said in ONNX.
    """
    folder = (folder or run.workdir / "export").resolve()
    _check_free(folder)
    formats = _formats(formats)
    about = read_json(run.workdir / "scores.json") if (run.workdir / "scores.json").exists() else None
    images = jax.ShapeDtypeStruct(_shape(run), np.uint8)
    predict = predictor(run, run.plan.method, state, decided)
    width = jax.eval_shape(predict, images)[2].shape[1]
    with replace_folder(folder) as new:
        if "stablehlo" in formats:
            (new / "predictor.stablehlo").write_bytes(stablehlo(predict, images))
        if "onnx" in formats:
            in_float32 = predictor(run, _in_float32(run), state, decided)
            (new / "predictor.onnx").write_bytes(onnx.convert(in_float32, images, OUTPUTS))
        (new / "weights.safetensors").write_bytes(weights(run, state))
        write_json(new / "groups.json", {str(group): name for group, name in decided.groups().items()})
        for name in formats:
            text = (Path(__file__).parent / "examples" / EXAMPLES[name]).read_text()
            baked = text.replace("np.ones(512", f"np.ones({width}")
            baked = baked.replace("b, 32, 32, 3", ", ".join(map(str, images.shape)))
            write_atomically(new / EXAMPLES[name], baked)
        text = card.card(run, int(state.step), decided, formats, width, about)
        write_atomically(new / "README.md", text)
    return folder


def predictor(run: Run, method: Method, state: State, decided: Decisions) -> Callable[[jax.Array], tuple]:
    """Images u8[B, H, W, C] -> probabilities f32[B, G], groups i32[B], embedding f32[B, D].

    Raises:
      ConfigError: when traced, where the method has no clusters of its own.
    """
    view, numbers = run.plan.views[run.eval.view], np.array([*decided.groups()], np.int32)
    params, stats, key = jax.device_get((state.params, state.stats, jax.random.key_data(state.key)))

    def predict(images):
        x = jax.vmap(lambda image: view(image, jax.random.wrap_key_data(key)))(images)
        said = method.predict(params, stats, x)
        if said.q is None:
            raise ConfigError(
                f"the run in {run.workdir} has no clusters of its own, only embeddings, so there is nothing to sort "
                f"images with; export a run whose method assigns clusters"
            )
        h = said.embeddings[said.first]
        place, _ = decided.assign(said.q, h, jnp)
        return decided.follow(said.q, h, jnp), jnp.asarray(numbers)[place], h

    return predict


def stablehlo(predict: Callable[[jax.Array], tuple], images: jax.ShapeDtypeStruct) -> bytes:
    """`predict` with a symbolic batch, as `jax.export.deserialize` reads it."""
    before = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no paths of this machine, and the same bytes every time
    try:
        return bytes(jax_export.export(jax.jit(predict), platforms=PLATFORMS)(images).serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def weights(run: Run, state: State) -> bytes:
    """Parameters and batch statistics as safetensors."""
    from safetensors.numpy import save

    arrays = {"params": state.params, "stats": state.stats}
    named = {
        ".".join(str(key.key) for key in path): np.ascontiguousarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(jax.device_get(arrays))
    }
    return save(named, {"jaxclust": card.metadata(run, int(state.step))})


def _shape(run: Run) -> tuple[Any, ...]:
    """Of a batch of images as they are stored."""
    return jax_export.symbolic_shape(", ".join(("b", *map(str, run.sources["train"].images.shape[1:]))))


def _in_float32(run: Run) -> Method:
    """The method without bfloat16, for which ONNX Runtime has no convolution on CPUs."""
    config = run.config.copy_and_resolve_references()
    config.net.dtype = "float32"
    return importlib.import_module(f"jaxclust.methods.{config.method.name}").make(config)


def _formats(formats: Sequence[str] | None) -> tuple[str, ...]:
    if formats is None:
        if onnx.installed():
            return FORMATS
        print("note: no predictor.onnx, as jax2onnx is not installed: pip install 'jaxclust[onnx]'", file=sys.stderr)
        return tuple(name for name in FORMATS if name != "onnx")
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"there is no format {name!r}{hint(name, FORMATS)}")
    if "onnx" in formats:
        onnx.check_installed()
    return tuple(formats)


def _check_free(folder: Path) -> None:
    """Nothing is replaced but an earlier export."""
    if folder.is_dir():
        found = {path.name for path in folder.iterdir()}
        if not found or found.issuperset(OURS):
            return
    if folder.exists():
        raise ConfigError(f"{folder} is there and is no earlier export; give another folder, or move it away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as e:
        raise ConfigError(f"{folder} cannot be written: {e.strerror}; give another folder") from e
