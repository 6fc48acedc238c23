"""Everything that a report says is worked out from these facts about a run; nothing else is read for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclust import config, evaluate, progress
from jaxclust.data import Source
from jaxclust.decisions import Decisions
from jaxclust.files import read_records
from jaxclust.types import Prediction


class Facts(NamedTuple):
    name: str  # of the run
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
    group: np.ndarray  # i64[N], the number of each image's group
    confidence: np.ndarray  # f32[N], the probability of it
    q: np.ndarray  # f32[N, K], soft assignment to the network's clusters, before a person's decisions
    space: str  # what the embedding is called
    x: np.ndarray  # f32[N, D]


def gather(
    workdir: Path, settings: Mapping[str, Any], step: int, source: Source, prediction: Prediction, decided: Decisions
) -> Facts:
    """The facts about a run at one checkpoint.

    Args:
      workdir: of the run, evaluated.
      settings: its config, nested.
      step: of the checkpoint.
      source: its images.
      prediction: of all of them, as host arrays.
      decided: what a person has decided about its clusters.
    """
    q, x = assigned(prediction, settings["clusters"], settings["seed"])
    group, confidence = decided.members(q, x, source.names)
    return Facts(
        workdir.resolve().name,
        config.flatten(settings),
        step,
        config.read_json(workdir / "scores.json"),
        [record for record in read_records(workdir / "metrics.jsonl") if record["step"] <= step],
        [look for look in progress.read(workdir) if look["step"] <= step],
        {at: kept for at, kept in progress.embeddings(workdir).items() if at <= step},
        source.images,
        source.names,
        source.labels,
        source.classes,
        decided.groups(),
        group,
        confidence,
        q,
        prediction.first,
        x,
    )


def assigned(prediction: Prediction, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Soft assignments f32[N, K], and the first embedding f32[N, D].

    A method without clusters of its own gets `evaluate.means`.
    """
    x = prediction.embeddings[prediction.first]
    if prediction.q is not None:
        return prediction.q, x
    return np.asarray(evaluate.assigned(x, evaluate.means(x, clusters, seed))), x
