"""Whether one group of runs is better than another, by pairs of runs that share a seed.

TCC's Table 6 prints p-values for pairs of methods and names a chi-squared test, without what was counted or paired.
Scores are no counts, and seeds are what we have pairs of, so this is the two-sided paired t-test on scores of the same
seed. Its p-values are not corrected for the number of comparisons.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05


class Paired(NamedTuple):
    n: int  # seeds that both have
    difference: float | None  # mean of b - a over them; None where there is none
    low: float | None  # 95 % confidence interval of it; None below two pairs, or where the differences are all the same
    high: float | None
    p: float | None  # as `low`

    @property
    def seldom(self) -> bool:
        """Whether chance alone would seldom give such a difference."""
        return self.p is not None and self.p < LEVEL


def test(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """Compares scores `{seed: score}` of two groups on the seeds that both have."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return Paired(0, None, None, None, None)
    x, y = (np.array([scores[seed] for seed in seeds], np.float64) for scores in (a, b))
    difference = float((y - x).mean())
    # The spread of what differs by rounding alone would give a p of nearly zero.
    if len(seeds) < 2 or np.ptp(y - x) <= 1e-12:
        return Paired(len(seeds), difference, None, None, None)
    found = stats.ttest_rel(y, x)
    interval = found.confidence_interval(1 - LEVEL)
    return Paired(len(seeds), difference, float(interval.low), float(interval.high), float(found.pvalue))


def weakness(n: int) -> str:
    """How little a test on `n` pairs can show, in a sentence."""
    if n < 2:
        return "With fewer than two seeds in common nothing can be tested; train more seeds."
    needed = stats.t.ppf(1 - LEVEL / 2, n - 1) / np.sqrt(n)
    sentence = (
        f"With {n} seeds a mean difference must be {needed:.1f} times the standard deviation of the differences to "
        f"give p < {LEVEL}"
    )
    if n > 5:
        return f"{sentence}."
    return (
        f"{sentence}, so a large p says little, and a small one leans on the differences being normal: the Wilcoxon "
        f"test, which does not, cannot give less than {2 / 2**n:.3g} here."
    )
