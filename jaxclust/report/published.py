"""What the four papers print for their data sets, to stand beside the scores of a run.

Each method's numbers come from its own paper; others may print different ones for it (TCC's Table 2 gives .572 and .700
for MMDC on CIFAR-10, MMDC's Table I .703 and .820). Ablations are left out. TCC prints per cent, here as fractions with
as many digits. What a paper does not print is not here: MMDC has no ARI.
"""

from typing import NamedTuple


class Published(NamedTuple):
    source: str  # the paper and its table
    quantity: str  # which clustering, by the name that the method's `reported` gives to its score
    detail: str  # how it came about, or ""
    nmi: float | None
    acc: float | None
    ari: float | None

    @property
    def best_of_several(self) -> bool:
        """Whether it is the luckiest of several runs, which no mean can be compared with."""
        return self.detail.startswith("best")


# (data.name, clusters): the papers take CIFAR-100's 20 superclasses for its classes.
_CC = {  # Table 2: NMI, ACC, ARI
    ("cifar10", 10): (0.705, 0.790, 0.637),
    ("cifar100", 20): (0.431, 0.429, 0.266),
    ("stl10", 10): (0.764, 0.850, 0.726),
    ("imagenet10", 10): (0.859, 0.893, 0.822),
    ("imagenet_dogs", 15): (0.445, 0.429, 0.274),
    ("tiny_imagenet", 200): (0.340, 0.140, 0.071),
}
_ANCHOR = {  # Table 1: "Ours(Cluster)", then "Ours(Representation)"
    ("cifar10", 10): ((0.772, 0.805, 0.698), (0.766, 0.805, 0.703)),
    ("imagenet10", 10): ((0.804, 0.674, 0.588), (0.776, 0.598, 0.536)),
    ("imagenet_dogs", 15): ((0.326, 0.281, 0.069), (0.525, 0.534, 0.275)),
    ("tiny_imagenet", 200): ((0.292, 0.100, 0.042), (0.346, 0.158, 0.069)),
}
_TCC = {  # Table 2, and Table 4 of the appendix for Tiny-ImageNet
    ("cifar10", 10): ("Table 2", 0.790, 0.906, 0.733),
    ("cifar100", 20): ("Table 2", 0.479, 0.491, 0.312),
    ("stl10", 10): ("Table 2", 0.732, 0.814, 0.689),
    ("imagenet10", 10): ("Table 2", 0.848, 0.897, 0.825),
    ("imagenet_dogs", 15): ("Table 2", 0.554, 0.595, 0.417),
    ("tiny_imagenet", 200): ("Table 4", 0.435, 0.306, 0.152),
}
# NMI and ACC, means of five runs before refinement and after it (Table V), and of the best run (Table I). Table I's
# mean is the one after refinement for MNIST, and the one before it for all others.
_MMDC = {
    ("mnist", 10): ((0.950, 0.981), (0.971, 0.990), (0.973, 0.991)),
    ("cifar10", 10): ((0.703, 0.820), (0.715, 0.829), (0.720, 0.843)),
    ("cifar100", 20): ((0.418, 0.446), (0.422, 0.446), (0.423, 0.464)),
    ("stl10", 10): ((0.593, 0.694), (0.596, 0.696), (0.609, 0.741)),
    ("imagenet10", 10): ((0.719, 0.811), (0.725, 0.815), (0.732, 0.830)),
    ("tiny_imagenet", 200): ((0.274, 0.119), (0.254, 0.095), (0.277, 0.121)),
}
_MMDC_FEATURES = {  # Table IV, "K-means"
    ("cifar10", 10): (0.428, 0.397),
    ("cifar100", 20): (0.395, 0.347),
}


def rows(data: str, method: str, clusters: int) -> list[Published]:
    """What the method's paper prints for a data set; nothing where it prints nothing.

    Args:
      data: as `data.name` calls it.
      method: as `method.name` calls it.
      clusters: K of the run. Only numbers for that many clusters are to be compared with.
    """
    key = data, clusters
    found = []
    if method == "anchor" and key in _ANCHOR:
        cluster, representation = _ANCHOR[key]
        found += [
            Published("Anchor, Table 1", "cluster", "", *cluster),
            Published("Anchor, Table 1", "representation", "", *representation),
        ]
    if method == "cc" and key in _CC:
        found.append(Published("CC, Table 2", "cluster head", "", *_CC[key]))
    if method == "tcc" and key in _TCC:
        table, *scores = _TCC[key]
        found.append(Published(f"TCC, {table}", "arg max of pi", "", *scores))
    if method == "mmdc" and key in _MMDC:
        before, after, best = _MMDC[key]
        main, other = ("Table V", "Table I") if data == "mnist" else ("Table I", "Table V")
        quantity = "cluster assignment (nearest mean)"
        found += [
            Published(f"MMDC, {main}", quantity, "mean of 5 runs, not refined", *before, None),
            Published(f"MMDC, {other}", quantity, "mean of 5 runs, refined", *after, None),
            Published("MMDC, Table I", quantity, "best of 5 runs", *best, None),
        ]
    if method == "mmdc" and key in _MMDC_FEATURES:
        features = _MMDC_FEATURES[key]
        found.append(Published("MMDC, Table IV", "k-means on penultimate features", "mean", *features, None))
    return found
