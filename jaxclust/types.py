"""The nouns of jaxclust, and the interface between a method and the loop that trains it.

Axis letters in shape comments, one letter each:

    B  images in a batch (over all devices)     H W C  an image's height, width, channels
    N  images in a split                        D      width of an embedding
    K  clusters                                 V      views of an image in one step

A method is data, not a class to inherit from: a file in `jaxclust/methods/` exports `make(config) -> Method`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
from flax import struct

Array = jax.Array
PyTree = Any


class State(struct.PyTreeNode):
    """Everything that a run is: losing any of it changes the result, so a checkpoint holds exactly this."""

    step: Array  # i32[], optimizer steps taken
    key: Array  # the root PRNG key: folded by stream name and step, never replaced
    params: PyTree
    stats: PyTree  # running batch-normalisation statistics
    opt: PyTree
    memory: PyTree  # belongs to the method: momentum networks, queues, targets


class DataSpec(NamedTuple):
    """What a method may know of the data before it sees any."""

    examples: int  # N of the train split
    size: int  # side of the square views, pixels
    channels: int


class Batch(NamedTuple):
    ids: Array  # i32[B], row of each image in its split
    views: tuple[Array, ...]  # V times f32[B, H, W, C] in [0, 1]
    step: Array  # i32[]


class Out(NamedTuple):
    """What a loss returns beside its value."""

    stats: PyTree
    carry: PyTree  # what `Task.commit` needs after the optimizer step
    metrics: Mapping[str, Array]  # name -> f32[], logged and watched for non-finite values; "sizes" is f32[K]


class Prediction(NamedTuple):
    q: Array | None  # f32[B, K], soft assignment, rows sum to one; None for a method without clusters of its own
    embeddings: Mapping[str, Array]  # name -> f32[B, D], each clustered by k-means in an evaluation

    @property
    def first(self) -> str:
        """The embedding that clusters are looked at and split in. By name: `jit` does not keep a dict's own order."""
        return min(self.embeddings)


class Task(NamedTuple):
    """One kind of training step; it is compiled once."""

    views: tuple[str, ...]  # names of the view policies that the config defines, one per view
    loss: Callable[..., tuple[Array, Out]]  # (params, stats, memory, batch, key) -> (f32[], Out)
    commit: Callable[..., PyTree]  # (params, memory, ids, carry) -> memory, after the optimizer step
    # What the backbone must compute in a step: each pass, and over how many times B images at once. "gradient" is
    # forward and back, "forward" has batch statistics and no gradient, "predict" running statistics and no gradient.
    # Empty stands for a "gradient" for each view. Only `bench` reads it, to say what a step costs beyond that.
    backbone_passes: tuple[tuple[Literal["gradient", "forward", "predict"], int], ...] = ()
    # The loss is a mean over images, or over groups of them, so that a batch may be taken a part at a time
    # (`train.accumulate`). Arrays in its carry then have a leading axis of images.
    separable: bool = False


class Refit(NamedTuple):
    """A sweep over a split whose embeddings rewrite parameters or memory."""

    view: str
    embed: Callable[..., Array]  # (params, stats, memory, images f32[B, H, W, C], key) -> f32[B, D]
    update: Callable[..., tuple[PyTree, PyTree]]  # (params, memory, f32[N, D], key) -> (params, memory)
    sample: int = 0  # images to embed, drawn at random, in row order; 0 is all of them


class Pass(NamedTuple):
    """One trip through a split: the refit first, where there is one, then a step for each whole batch."""

    task: str
    split: str = "train"
    refit: str | None = None


class Method(NamedTuple):
    init: Callable[..., tuple[PyTree, PyTree, PyTree]]  # (key, DataSpec) -> (params, stats, memory)
    tasks: Mapping[str, Task]
    refits: Mapping[str, Refit]
    plan: Callable[[int], tuple[Pass, ...]]  # epoch -> its passes
    predict: Callable[..., Prediction]  # (params, stats, images f32[B, H, W, C]) -> Prediction
    reported: Mapping[str, str]  # what the paper calls a score -> our row of it: "cluster" or "kmeans_<embedding>"


def keep_memory(params: PyTree, memory: PyTree, ids: Array, carry: PyTree) -> PyTree:
    """`Task.commit` of a method that remembers nothing from step to step."""
    return memory
