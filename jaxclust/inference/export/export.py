"""A run's predictor as files that work without jaxclust.

    predictor.stablehlo   what `jax.export` makes, for CPU, CUDA and TPU: images u8[b, H, W, C] ->
                          probabilities f32[b, G], clusters i32[b] (their numbers), embedding f32[b, D]
    predictor.onnx        the same, computed in float32
    weights.safetensors   parameters and batch statistics by name, params.f.stem.conv.kernel
    clusters.json         the clusters' numbers and names, in the order of the probabilities
    example_*.py          how to run them on photos, which photos.py reads
    README.md             the model card

Images are as training's are stored, and what `eval.view` does to them is part of the program. So are a person's
decisions, but for moves of single images; what a new cluster gets beside those that it was made of, it gets here.
"""

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jax.errors import InconclusiveDimensionOperation

from jaxclust import methods, views
from jaxclust.clusters import embed
from jaxclust.inference.export import card, onnx
from jaxclust.run.errors import ConfigError, RunError, hint
from jaxclust.run.files import read_json, replace_folder, write_atomically, write_json
from jaxclust.run.workdir import EXPORT, SCORES
from jaxclust.training.build import Opened
from jaxclust.types import Method

logger = logging.getLogger(__name__)

FORMATS = ("stablehlo", "onnx")
OUTPUTS = ("probabilities", "clusters", "embedding")
PLATFORMS = ("cpu", "cuda", "tpu")
EXAMPLES = {"stablehlo": "example_jax.py", "onnx": "example_onnx.py"}
# An earlier export has the first of these, or the second if version 0.1 made it.
OURS = ({"README.md", "weights.safetensors", "clusters.json"}, {"README.md", "weights.safetensors", "groups.json"})


def export(run: Opened, folder: Path | None = None, formats: Sequence[str] | None = None) -> Path:
    """Writes all files, or none; what was exported earlier stays until then.

    Args:
      run: with one of its checkpoints, and what has been decided about the clusters of that.
      folder: to be made, or an earlier export; `export` in the workdir where none is given.
      formats: of the predictor, of `FORMATS`; where none are given, all that can be made here.

    Returns:
      The folder.

    Raises:
      ConfigError: the run has no clusters, a format is unknown or needs what is not installed, or the folder holds
        something else or cannot be written.
      RunError: the network cannot be said in ONNX, or for any number of images.
    """
    folder = (folder or run.workdir / EXPORT).resolve()
    _check_free(folder)
    formats = _formats(formats)
    about = read_json(run.workdir / SCORES) if (run.workdir / SCORES).exists() else None
    images = jax.ShapeDtypeStruct(_shape(run), np.uint8)
    predict = predictor(run, run.method)
    width = traced(predict, images)[2].shape[1]
    with replace_folder(folder) as new:
        if "stablehlo" in formats:
            (new / "predictor.stablehlo").write_bytes(stablehlo(predict, images))
        if "onnx" in formats:
            in_float32 = predictor(run, _in_float32(run))
            (new / "predictor.onnx").write_bytes(onnx.convert(in_float32, images, OUTPUTS))
        (new / "weights.safetensors").write_bytes(weights(run))
        write_json(new / "clusters.json", {str(group): name for group, name in run.decided.groups().items()})
        shape = ", ".join(map(str, images.shape[1:]))
        for name in [*(EXAMPLES[form] for form in formats), *(["photos.py"] if formats else [])]:
            text = (Path(__file__).parent / "examples" / name).read_text("utf-8")
            write_atomically(new / name, text.replace("repeat(512", f"repeat({width}").replace("32, 32, 3", shape))
        text = card.card(run, formats, width, about)
        write_atomically(new / "README.md", text)
    return folder


def predictor(run: Opened, method: Method) -> Callable[[jax.Array], tuple]:
    """Images u8[B, H, W, C] -> probabilities f32[B, G], clusters i32[B], embedding f32[B, D].

    Raises:
      ConfigError: when traced, where the method has no clusters of its own.
    """
    view = views.make(run.config.views, run.config.data.size)[run.config.eval.view]
    encode, decided = embed.encoder(method, view), run.decided
    numbers = np.array([*decided.groups()], np.int32)
    arrays = jax.device_get(embed.trained(method, run.state))

    def predict(images):
        said = encode(arrays, images)
        if said.q is None:
            raise ConfigError(
                f"the run in {run.workdir} has no clusters of its own, only embeddings, so there is nothing to sort "
                f"images with; export a run whose method assigns clusters"
            )
        h = said.embeddings[method.space]
        place, _ = decided.assign(said.q, h, jnp)
        return decided.follow(said.q, h, jnp), jnp.asarray(numbers)[place], h

    return predict


def traced(predict: Callable[[jax.Array], tuple], images: jax.ShapeDtypeStruct) -> tuple:
    """The shapes that `predict` gives for any number of images.

    Raises:
      RunError: it asks for their number as a plain one.
    """
    try:
        return jax.eval_shape(predict, images)
    except (TypeError, InconclusiveDimensionOperation) as e:
        said = str(e).partition("\n")[0].rstrip(".")
        raise RunError(
            f"the network cannot be exported for any number of images ({type(e).__name__}: {said}); where its module "
            f"takes that number for a plain one, as len(x) and int(x.shape[0]) do, use x.shape[0] or -1"
        ) from e


def stablehlo(predict: Callable[[jax.Array], tuple], images: jax.ShapeDtypeStruct) -> bytes:
    """`predict` with a symbolic batch, as `jax.export.deserialize` reads it."""
    before = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no paths of this machine, and the same bytes every time
    try:
        return bytes(jax_export.export(jax.jit(predict), platforms=PLATFORMS)(images).serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def weights(run: Opened) -> bytes:
    """Parameters, batch statistics and what else the method's predictions are made from, as safetensors."""
    from safetensors.numpy import save

    kept = embed.trained(run.method, run.state)
    arrays = {"params": kept.params, "stats": kept.stats} | ({"shown": kept.shown} if kept.shown else {})
    named = {
        ".".join(str(key.key) for key in path): np.ascontiguousarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(jax.device_get(arrays))
    }
    return save(named, {"jaxclust": card.metadata(run)})


def _shape(run: Opened) -> tuple[Any, ...]:
    """Of a batch of images as they are stored."""
    return jax_export.symbolic_shape(", ".join(("b", *map(str, run.images["shape"]))))


def _in_float32(run: Opened) -> Method:
    """The method without bfloat16, for which ONNX Runtime has no convolution on CPUs."""
    config = run.config.copy_and_resolve_references()
    config.net.dtype = "float32"
    return methods.make(config)


def _formats(formats: Sequence[str] | None) -> tuple[str, ...]:
    if formats is None:
        if onnx.installed():
            return FORMATS
        logger.warning("note: no predictor.onnx, as jax2onnx is not installed: pip install 'jaxclust[onnx]'")
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
        if not found or any(found >= ours for ours in OURS):
            return
    if folder.exists():
        raise ConfigError(f"{folder} is there and is no earlier export; give another folder, or move it away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as e:
        raise ConfigError(f"{folder} cannot be written: {e.strerror}; give another folder") from e
