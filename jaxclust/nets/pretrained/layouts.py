"""Which tensor of another's checkpoint is which of ours. A layout is told by the names of the tensors in the file.

    cc          the released code of CC: `resnet.`, `instance_projector.`, `cluster_projector.`
    mmdc        that of MMDC: its ResNet-18 or VGG without a prefix, `top_layer.`, and mostly `rotnet_head.`
    resnet      torchvision's and timm's ResNet-18, 34 and 50, whose last layer `fc.` has no place here
    lite        EfficientNet-Lite0 as efficientnet_lite_pytorch names it: `_conv_stem.`, `_blocks.`; without `_fc.`

Backbones are torchvision's in all but the last. A convolution's kernel is [out, in, H, W] there and [H, W, in, out]
here, a linear layer's [out, in] and [in, out].
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors

from jaxclust.nets.efficientnet import STAGES
from jaxclust.nets.pretrained import torch
from jaxclust.run.errors import ConfigError
from jaxclust.run.pickles import Broken, printable
from jaxclust.types import PyTree

NESTS = ("net", "model_state_dict", "state_dict", "model")  # where in a checkpoint the weights may be
UNUSED = "num_batches_tracked"  # torch counts batches, and no one reads it
THEIR_AXES, OUR_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}, {4: (2, 3, 1, 0), 2: (1, 0)}  # by how many there are
BACKBONE = re.compile(r"stem|stage\d(_block\d+)?|block\d")  # where a path enters a backbone, see `nets`


def _torchvision(layer: str) -> str:
    """stage2_block1/shortcut_bn -> layer2.0.downsample.1"""
    layer = re.sub(r"^stem/(conv|bn)", r"\g<1>1", layer)
    layer = re.sub(r"^stage(\d)_block(\d+)/", lambda m: f"layer{m[1]}.{int(m[2]) - 1}.", layer)
    layer = layer.replace("shortcut_conv", "downsample.0").replace("shortcut_bn", "downsample.1")
    # In the VGG each convolution is followed by its normalisation, a ReLU and a pool.
    return re.sub(r"^block(\d)/(conv|bn)", lambda m: f"features.{4 * (int(m[1]) - 1) + (m[2] == 'bn')}", layer)


LITE_BLOCKS = [f"stage{i}_block{j + 1}" for i, stage in enumerate(STAGES, 1) for j in range(stage.blocks)]
LITE_LAYERS = {"stem/conv": "_conv_stem", "stem/bn": "_bn0", "stage8/conv": "_conv_head", "stage8/bn": "_bn1"}
LITE_LAYERS |= {
    f"{block}/{ours}": f"_blocks.{i}._{theirs}"
    for i, block in enumerate(LITE_BLOCKS)
    for ours, theirs in (
        *((f"{name}_conv", f"{name}_conv") for name in ("expand", "depthwise", "project")),
        *((f"{name}_bn", f"bn{n}") for n, name in enumerate(("expand", "depthwise", "project"))),
    )
}


class Layout(NamedTuple):
    title: str
    prefix: str  # of the backbone's names
    heads: Mapping[str, str]  # our layer: theirs
    dropped: tuple[str, ...] = ()  # what else is there, and is of no use
    backbone: Callable[[str], str | None] = _torchvision  # our layer -> theirs


CC = Layout(
    "CC",
    "resnet.",
    {
        "g_i/linear1": "instance_projector.0",
        "g_i/linear2": "instance_projector.2",
        "g_c/linear1": "cluster_projector.0",
        "g_c/linear2": "cluster_projector.2",
    },
)
MMDC = Layout("MMDC", "", {"output": "top_layer", "rotation": "rotnet_head"})
OWN = Layout("jaxclust", "", {})
RESNET = Layout("a ResNet", "", {}, ("fc.",))
LITE = Layout("EfficientNet-Lite0", "", {}, ("_fc.",), LITE_LAYERS.get)


class File:
    """The tensors of a checkpoint by name, whichever kind of file it is; numbers are read when asked for."""

    def __init__(self, path: Path):
        """Raises a ConfigError where it is no checkpoint, or one of no network that is known."""
        self.path = path
        try:
            with path.open("rb") as f:
                safe = f.read(9)[8:] == b"{"
            opened = safetensors.safe_open(path, "numpy") if safe else None
        except (OSError, safetensors.SafetensorError) as e:
            raise ConfigError(f"{path} cannot be read: {printable(getattr(e, 'strerror', None) or str(e))}") from e
        if opened:
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            self._read = opened.get_tensor
        else:
            found = _state_dict(path, torch.load(path))
            shapes = {name: tensor.shape for name, tensor in found.items()}
            self._read = lambda name: found[name].read()
        # What `DataParallel` wraps has a name of its own.
        wrapped = all(name.startswith("module.") for name in shapes)
        self._own = {name.removeprefix("module.") if wrapped else name: name for name in shapes}
        self.shapes = {name: shapes[own] for name, own in self._own.items()}
        self.layout = _find(path, self.shapes)

    def read(self, name: str) -> np.ndarray:
        """A tensor as f32.

        Raises:
          ConfigError: its bytes are not whole, or its numbers are no numbers.
        """
        try:
            x = self._read(self._own[name])
        except (Broken, safetensors.SafetensorError) as e:
            raise ConfigError(f"{self.path} is not whole ({printable(str(e))}); fetch it again") from e
        if not np.issubdtype(x.dtype, np.floating) and x.dtype != jax.numpy.bfloat16:
            raise ConfigError(f"{name} in {self.path} is of {x.dtype}; weights are of a floating type")
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ConfigError(f"{name} in {self.path} has values that are not finite; take an earlier checkpoint")
        return x


def _state_dict(path: Path, saved: Any) -> dict[str, torch.Tensor]:
    """The tensors by name, wherever in a checkpoint they are."""
    for _ in NESTS:  # at most: a dict may be its own member
        if not isinstance(saved, dict) or any(isinstance(x, torch.Tensor) for x in saved.values()):
            break
        nest = next((n for n in NESTS if isinstance(saved.get(n), dict)), None)
        if nest is None:
            break
        saved = saved[nest]
    items = saved.items() if isinstance(saved, dict) else ()
    tensors = {n: x for n, x in items if isinstance(n, str) and isinstance(x, torch.Tensor)}
    if not tensors:
        what = listed(n for n, _ in items if isinstance(n, str))
        raise ConfigError(f"{path} has no tensors by name, nor under {', '.join(NESTS)}; it holds {what or 'no names'}")
    return tensors


def _find(path: Path, names: Iterable[str]) -> Layout:
    if any(name.startswith(("instance_projector.", "cluster_projector.")) for name in names):
        return CC
    if "top_layer.weight" in names:
        return MMDC
    if "conv1.weight" in names and any(name.startswith("layer1.0.") for name in names):
        return RESNET
    if "_conv_stem.weight" in names:
        return LITE
    raise ConfigError(
        f"{path} is of no network that is known, by its tensors {listed(names)}; known are the checkpoints of CC and "
        f"MMDC, torchvision's and timm's ResNets, and EfficientNet-Lite0"
    )


def fill(file: File, trees: Sequence[PyTree], heads: bool) -> PyTree:
    """The file's numbers where they belong.

    Args:
      file: or what else has its `path`, `layout`, `shapes` and `read`; read only where all fits.
      trees: parameters, statistics and what else may hold a backbone or a copy of it; of each leaf only its shape
        is looked at.
      heads: whether what is outside the backbone is to come from the file too.

    Returns:
      `trees` with f32 arrays, each its own, for what came from the file; other leaves are None.

    Raises:
      ConfigError: a tensor is missing, left over or of another shape, or not whole.
    """
    paths, leaves = zip(*named(trees, heads))
    vgg = any(path and path.startswith("block") for path in paths)
    names = [path and theirs(path, file.layout) for path in paths]
    unknown = sorted({path for path, name in zip(paths, names) if path and not name})
    if unknown:
        raise ConfigError(
            f"the config's network has {listed(unknown)}, for which a checkpoint of {file.layout.title} has nothing; "
            f"give the config of the method that made {file.path}"
        )
    _check(file, {n: their_shape(leaf.shape) for n, leaf in zip(names, leaves) if n}, heads)
    read = {name: file.read(name) for name in {*names} if name is not None}
    filled = [name and _ours(read[name], vgg) for name in names]
    return jax.tree.unflatten(jax.tree.structure(trees), filled)


def named(trees: Sequence[PyTree], heads: bool) -> list[tuple[str | None, Any]]:
    """Every leaf in order, and what it is called: "stem/conv/kernel", and where heads count "g_i/linear1/bias"."""
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return [(_within([str(getattr(k, "key", "")) for k in keys], heads), leaf) for keys, leaf in leaves]


def _within(keys: Sequence[str], heads: bool) -> str | None:
    """A leaf's path from where its backbone begins; None for what is none of our business."""
    for i, key in enumerate(keys):
        if BACKBONE.fullmatch(key):
            return "/".join(keys[i:])
    return "/".join(keys[1:]) if heads else None


def theirs(path: str, layout: Layout) -> str | None:
    """stage2_block1/shortcut_bn/mean -> layer2.0.downsample.1.running_mean; None where there is no such tensor."""
    layer, _, leaf = path.rpartition("/")
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}.get(leaf, leaf)
    if not BACKBONE.match(layer):
        return f"{layout.heads[layer]}.{leaf}" if layer in layout.heads else None
    named = layout.backbone(layer)
    return named and f"{layout.prefix}{named}.{leaf}"


def their_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What an array of our shape has there."""
    return tuple(shape[i] for i in THEIR_AXES.get(len(shape), range(len(shape))))


def _ours(x: np.ndarray, vgg: bool) -> np.ndarray:
    """A tensor of theirs as ours, in memory of its own."""
    if vgg and x.ndim == 2:  # of its last map, 2 x 2, theirs flattens [C, H, W] and ours [H, W, C]
        x = x.reshape(len(x), -1, 2, 2).transpose(0, 2, 3, 1).reshape(x.shape)
    return np.array(x.transpose(OUR_AXES.get(x.ndim, range(x.ndim))), order="C")


def _check(file: File, wanted: Mapping[str, tuple[int, ...]], heads: bool) -> None:
    layout = file.layout
    dropped = layout.dropped if heads else (*layout.dropped, *(f"{name}." for name in layout.heads.values()))
    missing = [name for name in wanted if name not in file.shapes]
    extra = [
        name
        for name in file.shapes
        if name not in wanted and not name.startswith(dropped) and not name.endswith(UNUSED)
    ]
    wrong = [
        f"{name} ({sides(file.shapes[name])} in the file, {sides(shape)} in the network)"
        for name, shape in wanted.items()
        if name in file.shapes and file.shapes[name] != shape
    ]
    problems = [
        f"{what} {listed(which)}"
        for what, which in (("it lacks", missing), ("it has besides", extra), ("of another shape are", wrong))
        if which
    ]
    if problems:
        raise ConfigError(
            f"{file.path}, a checkpoint of {layout.title}, is not of this config's network, which net.depth, net.stem "
            f"and clusters make: {'; '.join(problems)}"
        )


def sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few, and how many more."""
    names = [printable(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
