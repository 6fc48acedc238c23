"""Everything that a report says is worked out from these facts about a run; nothing else is read for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclust.clusters import evaluate
from jaxclust.clusters.decisions import Decisions
from jaxclust.data import Source
from jaxclust.data.originals import Originals
from jaxclust.run import config
from jaxclust.run.files import read_json, read_records
from jaxclust.run.workdir import METRICS, SCORES
from jaxclust.training import looks
from jaxclust.types import Prediction


class Facts(NamedTuple):
    name: str  # of the run
    workdir: Path  # of it, as the command had it
    settings: Mapping[str, Any]  # the config, flat: {"optim.lr": 0.001, ...}
    step: int
    scores: Mapping[str, Any]  # scores.json; without labels it has no acc, nmi ...
    metrics: list[Mapping[str, Any]]  # metrics.jsonl: losses over steps
    looks: list[Mapping[str, Any]]  # progress.jsonl: clusters over epochs
    placed: Mapping[int, Mapping[str, np.ndarray]]  # step -> `progress.embeddings`
    images: np.ndarray  # u8[N, H, W, C], perhaps mapped into memory
    files: list[str] | None  # of each image
    labels: np.ndarray | None  # i32[N]
    classes: tuple[str, ...]  # names of the labels; () where they have none
    groups: Mapping[int, str]  # number -> the name that a person gave, or ""
    group: np.ndarray  # i64[N], the number of each image's cluster
    confidence: np.ndarray  # f32[N], the probability of it
    q: np.ndarray  # f32[N, K], soft assignment to the network's clusters, before a person's decisions
    space: str  # what the embedding is called
    x: np.ndarray  # f32[N, D]
    originals: Originals | None = None  # the files that the images come from


def gather(
    workdir: Path,
    settings: Mapping[str, Any],
    step: int,
    source: Source,
    prediction: Prediction,
    space: str,
    decided: Decisions,
    originals: Originals | None = None,
) -> Facts:
    """The facts about a run at one checkpoint.

    Args:
      workdir: of the run, evaluated.
      settings: its config, nested.
      step: of the checkpoint.
      source: its images.
      prediction: of all of them, as host arrays.
      space: the main embedding.
      decided: what a person has decided about its clusters.
      originals: the files that the images come from, where they are files of the user's.
    """
    q, x = assigned(prediction, space, settings["clusters"], settings["seed"])
    group, confidence = decided.members(q, x, source.names)
    return Facts(
        workdir.resolve().name,
        workdir,
        config.flatten(settings),
        step,
        read_json(workdir / SCORES),
        [record for record in read_records(workdir / METRICS) if record["step"] <= step],
        [look for look in looks.read(workdir) if look["step"] <= step],
        {at: kept for at, kept in looks.embeddings(workdir).items() if at <= step},
        source.images,
        source.names,
        source.labels,
        source.classes,
        decided.groups(),
        group,
        confidence,
        q,
        space,
        x,
        originals,
    )


def assigned(prediction: Prediction, space: str, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Soft assignments f32[N, K], and the main embedding f32[N, D].

    A method without clusters of its own gets `evaluate.means`.
    """
    x = prediction.embeddings[space]
    if prediction.q is not None:
        return prediction.q, x
    return evaluate.all_assigned(x, evaluate.means(x, clusters, seed)), x
