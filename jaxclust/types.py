"""The nouns of jaxclust, and the interface between a method and the loop that trains it.

Axis letters in shape comments, one letter each:

    B  images in a batch (over all devices)     H W C  an image's height, width, channels
    N  images in a split                        D      width of an embedding
    K  clusters                                 V      views of an image in one step
    M  partners of an image in one step

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

    step: Array  # i32[], steps taken; a pass that is a refit alone counts as one
    key: Array  # the root PRNG key: folded by stream name and step, never replaced
    params: PyTree
    stats: PyTree  # running batch-normalisation statistics
    opt: Mapping[str, PyTree]  # the state of each optimizer, by its name
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
    partner_ids: Array | None = None  # i32[B, M], rows of each image's partners
    partners: tuple[Array, ...] = ()  # for each of the partners' views f32[B, M, H, W, C]


class Out(NamedTuple):
    """What a loss returns beside its value."""

    stats: PyTree
    carry: PyTree  # what `Task.commit` needs after the optimizer step
    metrics: Mapping[str, Array]  # name -> f32[], logged and watched for non-finite values; "sizes" is f32[K]


class Prediction(NamedTuple):
    q: Array | None  # f32[B, K], soft assignment, rows sum to one; None for a method without clusters of its own
    embeddings: Mapping[str, Array]  # name -> f32[B, D], each clustered by k-means in an evaluation


class Published(NamedTuple):
    """What a paper prints of its method for a data set: a method's file may list these as `PUBLISHED`."""

    source: str  # the paper and its table
    data: str  # as `data.name` calls it
    clusters: int  # K; with another one there is nothing to compare
    quantity: str  # which clustering, by the name that `Method.reported` gives to its score
    nmi: float | None
    acc: float | None
    ari: float | None = None
    detail: str = ""  # how it came about

    @property
    def best_of_several(self) -> bool:
        """Whether it is the luckiest of several runs, which no mean can be compared with."""
        return self.detail.startswith("best")


class Partners(NamedTuple):
    """Other images of a batch's rows, such as neighbours: drawn anew in each step from a table in memory."""

    table: str  # the entry of memory, i32[N, k], which only refits write
    views: tuple[str, ...]  # names of the view policies that a partner is shown through
    draws: int = 1  # M, partners of an image in a step, drawn from its row with repetition


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
    # The loss compares all images of a batch, and makes their embeddings in `train.accumulate` parts (`nets.embed`).
    in_parts: bool = False
    # The optimizers of the config's section `optim` that a step updates. Parameters that none of them trains stay as
    # they are, to the bit, and so do the states of all others.
    optim: tuple[str, ...] = ("main",)
    partners: Partners | None = None


class Refit(NamedTuple):
    """A rewriting of parameters, statistics and memory between steps, mostly from a sweep over a split.

    `update` is compiled, and gets the sweep's embeddings h f32[N, D], or None where there is no sweep:
    (params, stats, memory, h, key) -> (params, stats, memory). With `on_host` it is not: it gets and returns NumPy
    arrays, its key is a `numpy.random.Generator`, and a sixth argument, `due`, says when to give up, by raising
    `Preempted`; equal arguments must give equal results, to the bit.
    """

    view: str
    embed: Callable[..., Array] | None  # (params, stats, memory, images f32[B, H, W, C], key) -> f32[B, D]; no sweep
    update: Callable[..., tuple[PyTree, PyTree, PyTree]]
    sample: int = 0  # images to embed, drawn at random, in row order; 0 is all of them
    on_host: bool = False
    # Images that are embedded at a time, where `embed` uses the statistics of its batch: batches are then drawn at
    # random, since one of neighbouring rows may be a single class. 0 is a training batch of them, in row order.
    batch: int = 0


class Pass(NamedTuple):
    """One trip through a split: the refit first, where there is one, then a step for each whole batch."""

    task: str | tuple[str, ...] | None  # several are taken in turn, batch by batch; None is a refit alone, one step
    split: str = "train"
    refit: str | None = None
    batches: int = 0  # at most so many; 0 is all

    @property
    def tasks(self) -> tuple[str, ...]:
        """All of its tasks, in turn."""
        return (self.task,) if isinstance(self.task, str) else self.task or ()


class Method(NamedTuple):
    init: Callable[..., tuple[PyTree, PyTree, PyTree]]  # (key, DataSpec) -> (params, stats, memory)
    tasks: Mapping[str, Task]
    refits: Mapping[str, Refit]
    plan: Callable[[int], tuple[Pass, ...]]  # epoch -> its passes
    predict: Callable[..., Prediction]  # (params, stats, shown, images f32[B, H, W, C]) -> Prediction
    space: str  # the main embedding, in which clusters are looked at and split, and distances are measured
    reported: Mapping[str, str]  # what the paper calls a score -> our row of it: "cluster" or "kmeans_<embedding>"
    shown: tuple[str, ...] = ()  # the entries of memory that `predict` is shown, such as a twin
    # Of memory: i32[N], clusters of the train split that no function of an image gives. `predict` may then have no q.
    assigned: Callable[[PyTree], Array] | None = None
    # Of memory, asked after each refit: true ends training. It must depend only on what refits write.
    done: Callable[[PyTree], Any] | None = None
    pictured: str = ""  # the embedding that the paper's t-SNE figure is of; "" is `space`


def keep_memory(params: PyTree, memory: PyTree, ids: Array, carry: PyTree) -> PyTree:
    """`Task.commit` of a method that remembers nothing from step to step."""
    return memory
