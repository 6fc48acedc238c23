"""What stands out about a run, in words, with numbers and what to do about it.

Nothing here looks at a label. Thresholds are below with their reasons; on a run without trouble there is nothing but
the good news.
"""

import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import linregress
from threadpoolctl import threadpool_limits

from jaxclust.ops.metrics import balance_entropy
from jaxclust.pages.report import shapes as shapes_of
from jaxclust.pages.report.clusters import members, sizes_of
from jaxclust.pages.report.facts import Facts
from jaxclust.pages.report.shapes import Shapes
from jaxclust.pages.report.words import counted, have, listed, look, named, paired, percent

# A cluster with less than this of an even share is there in name only.
TINY = 0.1
# A cluster with more than this of all images has swallowed others, unless there are only two or three clusters.
HUGE = 0.5
# Copies of this share are half an even cluster's where there are ten clusters.
REPEATED = 0.05
# Sizes with less than this entropy (1 is even) are uneven: the runs of the papers' methods on the digits that went well
# have 0.97 and more, and one cluster twice and one half the size of eight others still has 0.97.
EVEN = 0.9
# Mean confidence, on a scale from chance (1 / K) to certain. Student's t is never certain: Anchor's good runs on the
# digits have 0.46 to 0.50 and the heads of the other methods 0.9; runs with poor clusters had 0.2 and 0.1.
SURE = 0.35
VERY_SURE = 0.75  # on that scale, from which it is worth a word of praise
# A cluster is unsure where others are not: at less than this share of the run's mean confidence above chance.
UNSURE = 0.6
# Images that changed cluster since the look before, a twentieth of training earlier. A run that has settled has 2 %.
MOVING, SETTLED = 0.05, 0.02
# The loss's last fifth, a straight line: it falls where that explains the points (t value), and where it matters.
LAST, FALLING, MATTERS = 0.2, 4.0, 0.02
# k-means on the same features has a better silhouette by this: the head lags. Heads that have learnt differ by 0.02.
LAGS = 0.05

ORDER = ("bad", "look", "good")


class Finding(NamedTuple):
    kind: str
    severity: str  # "bad", "look" (worth a look) or "good"
    text: str
    groups: tuple[int, ...] = ()  # that it is about


def findings(facts: Facts) -> list[Finding]:
    """What stands out, the most important first."""
    with threadpool_limits(1):  # for problems this small it is faster, and sums in one order say the same anywhere
        shapes = Shapes(facts)
        found = [
            *repeated(facts),
            *collapsed(facts),
            *unbalanced(facts),
            *unsure(facts),
            *alike(facts, shapes),
            *divided(facts, shapes),
            *lagging(facts),
            *improving(facts),
        ]
    trouble = {finding.kind for finding in found if finding.severity != "good"}
    ranked = sorted([*found, *praise(facts, shapes, trouble)], key=lambda finding: ORDER.index(finding.severity))
    return [
        f._replace(text=f.text.replace("cluster", "Cluster", 1)) if f.text.startswith("cluster ") else f for f in ranked
    ]


def repeated(facts: Facts) -> list[Finding]:
    """Exact copies, where clusters are empty or one has most images: what is repeated draws clusters to itself."""
    if not collapsed(facts):
        return []
    times = Counter(hashlib.blake2b(np.ascontiguousarray(x), digest_size=16).digest() for x in facts.images)
    copies, most = len(facts.images) - len(times), max(times.values())
    if copies < REPEATED * len(facts.images):
        return []
    return [
        Finding(
            "repeated",
            "bad",
            f"{copies:,} of the {len(facts.images):,} images are exact copies of others, one image is there "
            f"{most:,} times. Clusters form around what is repeated: before you train again, keep one of each.",
        )
    ]


def collapsed(facts: Facts) -> list[Finding]:
    """Clusters without images, or hardly any; and one with most of them."""
    numbers, sizes = sizes_of(facts)
    even, found = sizes.sum() / len(sizes), []
    largest = int(sizes.argmax())
    if len(sizes) > 1 and sizes[largest] > HUGE * sizes.sum() and sizes[largest] > 1.5 * even:
        found.append(
            Finding(
                "collapsed",
                "bad",
                f"{named(facts, numbers[[largest]])} holds {percent(sizes[largest] / sizes.sum())} of all images: "
                f"the clusters have collapsed. Train a new run with another seed (--config.seed); if it happens again, "
                f"with a lower learning rate (--config.optim.lr).",
                (int(numbers[largest]),),
            )
        )
    empty = numbers[sizes == 0]
    if len(empty):
        found.append(
            Finding(
                "unused",
                "bad",
                f"{counted(len(empty), len(sizes))} {have(len(empty))} no images: {named(facts, empty)}. Train longer "
                f"or with another seed. If it stays so, your images may be of fewer kinds: --mode=suggest-k says of "
                f"how many.",
                tuple(map(int, empty)),
            )
        )
    tiny = numbers[(sizes > 0) & (sizes < TINY * even)]
    if len(tiny):
        least = int(sizes[np.isin(numbers, tiny)].min())
        found.append(
            Finding(
                "tiny",
                "look",
                f"{counted(len(tiny), len(sizes))} {have(len(tiny))} hardly any images, the smallest {least:,} where "
                f"an even share is {even:,.0f}: {named(facts, tiny)}. Look at them: if they are no rare kind, merge "
                f"each with the cluster that it looks like (--mode=browse).",
                tuple(map(int, tiny)),
            )
        )
    return found


def unbalanced(facts: Facts) -> list[Finding]:
    """Sizes that are far from even."""
    numbers, sizes = sizes_of(facts)
    used = np.flatnonzero(sizes)  # that others are empty is said of them, and that one has all images, too
    evenness = balance_entropy(sizes[used])
    if evenness >= EVEN:
        return []
    share = sizes / sizes.sum()
    high, low = int(share.argmax()), int(used[share[used].argmin()])
    return [
        Finding(
            "unbalanced",
            "look",
            f"Sizes are uneven: {named(facts, numbers[[high]])} holds {percent(share[high])} of the images and "
            f"{named(facts, numbers[[low]])} only {percent(share[low])}. Look at the largest: if it mixes several "
            f"kinds, split it (--mode=browse); if your images are that uneven, all is well.",
            (int(numbers[high]), int(numbers[low])),
        )
    ]


def unsure(facts: Facts) -> list[Finding]:
    """Low confidence, of the whole run or of some clusters. Clusters that are k-means's have none to speak of."""
    if "cluster" not in facts.scores:
        return []
    chance, mean, level = 1 / facts.q.shape[1], float(np.mean(facts.confidence)), _level(facts)
    if level < SURE:
        return [
            Finding(
                "unsure",
                "bad" if level < SURE / 2 else "look",
                f"The network is not sure of its clusters: its confidence is {mean:.2f} on average, where a guess has "
                f"{chance:.2f} and certainty 1. Train longer; until then trust only each cluster's typical images.",
            )
        ]
    numbers, _ = sizes_of(facts)
    means = np.array([facts.confidence[rows].mean() if len(rows) else 1 for rows in members(facts)])
    weak = np.flatnonzero((means - chance) / (1 - chance) < UNSURE * level)
    weak = weak[np.argsort(means[weak])]
    if not len(weak):
        return []
    return [
        Finding(
            "unsure cluster",
            "look",
            f"The network is less sure of {named(facts, numbers[weak])} than of the rest: confidence "
            f"{listed(f'{c:.2f}' for c in means[weak])} on average, {mean:.2f} over all images (1 is certain). Look at "
            f"the least certain images: what belongs elsewhere can be moved (--mode=browse).",
            tuple(map(int, numbers[weak])),
        )
    ]


def alike(facts: Facts, shapes: Shapes) -> list[Finding]:
    """Pairs of clusters that look like one: no gap between their embeddings, or the head cannot tell them apart."""
    found, pairs = [], shapes.alike()
    if pairs:
        found.append(
            Finding(
                "alike",
                "look",
                f"{paired(facts, pairs)} look like one cluster{' each' * (len(pairs) > 1)}: there is no gap "
                f"between them. Compare their images: if they show the same, merge them (--mode=browse), or train for "
                f"fewer clusters (--mode=suggest-k).",
                tuple(dict.fromkeys(sum(pairs, ()))),
            )
        )
    # Where nothing is sure, no pair stands out.
    confused = [] if "cluster" not in facts.scores or _level(facts) < SURE else shapes_of.confused(facts)
    if confused:
        pairs = [(a, b) for a, b, _ in confused]
        found.append(
            Finding(
                "confused",
                "look",
                f"The network hardly tells {paired(facts, pairs)} apart: between the two it gives "
                f"{percent(confused[0][2])}{' (at most)' * (len(pairs) > 1)} to the wrong one, and tossing a coin "
                f"would give 50 %. Compare their images: if they show the same, merge them (--mode=browse).",
                tuple(dict.fromkeys(sum(pairs, ()))),
            )
        )
    return found


def divided(facts: Facts, shapes: Shapes) -> list[Finding]:
    """Clusters that look like two."""
    two = shapes.divided()
    if not two:
        return []
    first = next(iter(two.values()))
    return [
        Finding(
            "divided",
            "look",
            f"{named(facts, [*two])} {look(len(two), 'like')} two clusters{' each' * (len(two) > 1)}: "
            f"{'the first' if len(two) > 1 else 'it'} falls apart into about {percent(1 - first.share)} and "
            f"{percent(first.share)} of its images, with few in between. Look at them: if they show two kinds, split "
            f"the cluster (--mode=browse), or train for more clusters.",
            tuple(two),
        )
    ]


def lagging(facts: Facts) -> list[Finding]:
    """The head's clusters are much less clear than those of k-means on the features that it reads."""
    head, features = facts.scores.get("cluster"), facts.scores.get(f"kmeans_{facts.space}")
    if not head or not features or None in (head["silhouette"], features["silhouette"]):
        return []
    a, b = head["silhouette"], features["silhouette"]
    if b - a <= LAGS:
        return []
    return [
        Finding(
            "head lags",
            "look",
            f"The network has learnt more than its clusters show: k-means on its features ({facts.space}) makes "
            f"clearer ones (silhouette {a:.2f} against {b:.2f}; higher is clearer). Train longer, or for fewer "
            f"clusters.",
        )
    ]


def improving(facts: Facts) -> list[Finding]:
    """Images still change cluster, or the loss still falls while nobody knows of images, at the end of training."""
    moved, fall = moving(facts.placed), falling([(m["step"], m.get("loss")) for m in facts.metrics])
    if moved is None:
        if fall is None:
            return []
        what = f"the last fifth of it brought {percent(fall)} of its whole fall of the loss"
    elif moved > MOVING or (moved > SETTLED and fall is not None):
        what = f"{percent(moved)} of the images changed cluster near its end"
        what += ", and the loss was still falling" if fall else ""
    else:
        return []
    epochs = facts.settings.get("train.epochs")
    more = f" --config.train.epochs={2 * epochs}" if isinstance(epochs, int) else ""
    return [
        Finding(
            "improving",
            "look",
            f"Training may have stopped too early: {what}. It goes on from here with: "
            f"jaxclust --workdir={shlex.quote(str(facts.workdir))}{more}",
        )
    ]


def moving(placed: Mapping[int, Mapping[str, np.ndarray]]) -> float | None:
    """The share of the images that changed cluster between the last two looks; None where nobody looked."""
    looks = [placed[step] for step in sorted(placed)][-2:]
    if len(looks) < 2 or any("clusters" not in look for look in looks):
        return None
    a, b = looks
    return float(np.mean(a["clusters"] != b["clusters"])) if np.array_equal(a["rows"], b["rows"]) else None


def falling(losses: list[tuple[int, Any]]) -> float | None:
    """How much of its fall since the start the loss made in the last fifth of the steps; None where that is noise."""
    points = np.array([(step, loss) for step, loss in losses if loss is not None and np.isfinite(loss)], float)
    last = points[points[:, 0] >= (1 - LAST) * points[-1, 0]] if len(points) else points
    if len(last) < 5:
        return None
    line = linregress(last[:, 0], last[:, 1])
    fall = -line.slope * (last[-1, 0] - last[0, 0])
    # The start is the highest of a few first ones: a loss may rise when a new task joins.
    whole = points[: max(len(points) // 5, 1), 1].max() - last[:, 1].min()
    if whole <= 0 or fall < MATTERS * whole or line.slope > -FALLING * line.stderr:
        return None
    return float(fall / whole)


def praise(facts: Facts, shapes: Shapes, trouble: set[str]) -> list[Finding]:
    """What is well, of the things that could be otherwise."""
    numbers, sizes = sizes_of(facts)
    share, found = sizes / sizes.sum(), []
    if not trouble & {"collapsed", "unused", "tiny", "unbalanced"}:
        found.append(
            Finding(
                "balanced",
                "good",
                f"All {len(numbers)} clusters are in use; each holds {percent(share.min())} to "
                f"{percent(share.max())} of the images.",
            )
        )
    if "cluster" in facts.scores and _level(facts) > VERY_SURE and "unsure cluster" not in trouble:
        found.append(
            Finding(
                "sure",
                "good",
                f"The network is sure of its clusters: confidence {facts.confidence.mean():.2f} on average, where 1 is "
                f"certain.",
            )
        )
    if not trouble & {"alike", "confused", "divided"} and shapes.apart():
        found.append(
            Finding("apart", "good", "Each cluster holds together, and there is a gap between it and its neighbours.")
        )
    if "improving" not in trouble and moving(facts.placed) is not None:
        found.append(
            Finding(
                "settled",
                "good",
                f"The clusters have settled: {percent(moving(facts.placed))} of the images changed cluster near the "
                f"end of training.",
            )
        )
    return found


def _level(facts: Facts) -> float:
    """Mean confidence on a scale from chance, 0, to certain, 1."""
    chance = 1 / facts.q.shape[1]
    return (float(np.mean(facts.confidence)) - chance) / (1 - chance)
