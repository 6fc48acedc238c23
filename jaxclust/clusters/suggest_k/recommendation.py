"""What the criteria amount to: a number of clusters, or that there is none, and why."""

from collections.abc import Mapping

import numpy as np

from jaxclust.clusters.suggest_k.criteria import Table

FEWEST = 100  # images; of the digits' ten clusters 20 images show three or four, 100 show nine to eleven
CLEAR = 0.05  # silhouette above the reference's, from which there are clusters; one cloud has 0.00 to 0.02


def corner(ks: np.ndarray, values: np.ndarray) -> int:
    """The K from which more clusters stop buying a better value.

    Args:
      ks: i64[R], ascending.
      values: f64[R], higher is better.

    Returns:
      Where two straight lines, the first steeper, meet that fit best what is reached with at most K clusters.
    """
    reached = np.maximum.accumulate(values)
    last = int(np.argmax(reached))
    best, error = ks[last], np.inf
    for k in ks[last:0:-1]:  # of equally good corners the last: a straight line has none before its end
        lines = np.stack([np.ones(len(ks)), ks, np.minimum(ks, k)], axis=1)
        fit, *_ = np.linalg.lstsq(lines, reached, rcond=None)
        squares = np.sum((lines @ fit - reached) ** 2)
        if fit[2] > 0 and squares < error - 1e-9 * np.ptp(reached) ** 2:
            best, error = k, squares
    return int(best)


def turns(values: np.ndarray) -> bool:
    """Whether a falling curve f64[R] rises again: past two points at least, and by more than any bump on its way."""
    lowest = int(np.argmin(values))
    bump = np.diff(values[: lowest + 1]).max(initial=0)
    return bool(lowest < len(values) - 2 and values[-1] - values[lowest] > bump)


def steadiest(table: Table, low: int, high: int) -> int:
    """The smallest K from low to high whose stability above the reference is within one sd of the best there."""
    rows = np.flatnonzero((low <= table.k) & (table.k <= high))
    above = (table.stability - table.reference_stability)[rows]
    best = int(np.argmax(above))
    return int(table.k[rows[np.argmax(above >= above[best] - table.stability_sd[rows[best]])]])


def preferences(table: Table) -> dict[str, int]:
    """The K that each criterion prefers: "silhouette", "davies_bouldin", "stability", "bic"."""
    return {
        "silhouette": corner(table.k, table.silhouette),
        "davies_bouldin": corner(table.k, -table.davies_bouldin),
        "stability": steadiest(table, table.k[0], table.k[-1]),
        "bic": int(table.k[table.bic.argmin()]) if turns(table.bic) else corner(table.k, -table.bic),
    }


def clearness(table: Table, k: int) -> float:
    """How far the silhouette at k exceeds that of one Gaussian of the same covariance."""
    return float((table.silhouette - table.reference_silhouette)[table.k == k][0])


def vote(table: Table) -> int:
    """What stability favours between the middle two of the four preferences, so that no extreme one decides."""
    low, high = sorted(preferences(table).values())[1:3]
    return steadiest(table, low, high)


def clearest(tables: Mapping[str, Table]) -> str:
    """Which of several embeddings to believe: the one whose clusters at its own best K are the clearest."""
    return max(tables, key=lambda name: clearness(tables[name], vote(tables[name])))


def headline(table: Table, k: int | None) -> str:
    """What was found, in a few words: `k` of `recommend`, or why there is none."""
    return f"{k} clusters" if k else "no clear clusters" if table.images >= FEWEST else "too few images to tell"


def recommend(table: Table, trained: int | None = None) -> tuple[int | None, list[str]]:
    """A number of clusters, and why.

    Args:
      table: from `score`.
      trained: the number of clusters that the run was told of, if it was; networks shape their embeddings to it.

    Returns:
      K, or None where the points are one cloud, or too few to tell; and sentences that say what each criterion
      prefers, how they were weighed, and what speaks against trusting the answer.
    """
    wanted, k = preferences(table), vote(table)
    recommended: int | None = k
    at = {int(k): i for i, k in enumerate(table.k)}
    first, last = int(table.k[0]), int(table.k[-1])
    steady = at[wanted["stability"]]

    def stops(name: str, values: np.ndarray, best: int, what: str) -> str:
        here = wanted[name]
        beyond = f"; its best is {values[best]:.2f}, at {table.k[best]}" if table.k[best] != here else ""
        return f"{what} at K = {here} ({values[at[here]]:.2f}{beyond})."

    reasons = [
        stops("silhouette", table.silhouette, int(table.silhouette.argmax()), "The silhouette stops rising"),
        stops(
            "davies_bouldin", table.davies_bouldin, int(table.davies_bouldin.argmin()), "Davies-Bouldin stops falling"
        ),
        f"Stability favours K = {wanted['stability']}: subsamples agree to {table.stability[steady]:.2f} (adjusted "
        f"Rand index), and would in one shapeless cloud to {table.reference_stability[steady]:.2f}.",
        f"BIC is lowest at K = {wanted['bic']}."
        if turns(table.bic)
        else f"BIC falls throughout, as it does where clusters are not Gaussian; its corner is at K = {wanted['bic']}.",
    ]

    def unlike_cloud(what: str, values: np.ndarray, reference: np.ndarray) -> str:
        return (
            f"There are no clear clusters: even at K = {k} {what} {values[at[k]]:.2f}, and one shapeless cloud has "
            f"{reference[at[k]]:.2f}.{cloud} What follows means little."
        )

    cloud = " A single Gaussian has the lowest BIC." if table.single_bic <= table.bic.min() else ""
    refused = ""
    if table.images < FEWEST:
        refused = (
            f"There are too few images to tell: {table.images} here, and it takes {FEWEST} at least, better several "
            f"for each kind of thing. What follows means little."
        )
    elif clearness(table, k) < CLEAR:
        refused = unlike_cloud("the silhouette is", table.silhouette, table.reference_silhouette)
    elif table.stability[at[k]] <= table.reference_stability[at[k]]:
        refused = unlike_cloud("subsamples agree to", table.stability, table.reference_stability)
    if refused:
        reasons.insert(0, refused)
        recommended = None
    else:
        ranked = sorted(wanted.values())
        low, high = ranked[1:3]
        between = f"both {low}" if low == high else f"{low} and {high}, and between them stability favours {k}"
        reasons.append(f"Of the four, {', '.join(map(str, ranked))}, the middle two are {between}.")
        if ranked[-1] - ranked[0] > max(2, k // 3):
            reasons.append("The criteria disagree, so K is a rough guide: look at the clusters of its neighbours, too.")
        if trained is not None and abs(k - trained) <= 1:
            reasons.append(
                f"The run was trained for {trained} clusters, and may show what it was told: see whether a run for "
                f"{trained // 2 or 2} or {2 * trained} gives this answer, too."
            )
        if k == last and first < last:
            reasons.append(f"K = {k} is the largest that was scored, so there may be more; widen the range.")
        elif k == first > 2:
            reasons.append(f"K = {k} is the smallest that was scored, so there may be fewer; widen the range.")
    if last < table.asked:
        reasons.append(f"K above {last} was left out: {table.sampled:,} images are too few for {table.asked} clusters.")
    return recommended, reasons
