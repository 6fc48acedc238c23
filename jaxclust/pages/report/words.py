"""Names and numbers as a finding says them."""

from collections.abc import Iterable, Sequence

from jaxclust.pages.report.clusters import title
from jaxclust.pages.report.facts import Facts

NAMED = 3  # clusters or pairs that a sentence names, at most


def named(facts: Facts, numbers: Iterable[int]) -> str:
    """Clusters: `cats, cluster 4, cluster 5 and 3 more`."""
    return listed(title(facts, int(n)) for n in numbers)


def paired(facts: Facts, pairs: Sequence[tuple[int, int]]) -> str:
    """Pairs of clusters: `cats and cluster 4; cluster 5 and cluster 6`."""
    return listed((f"{title(facts, a)} and {title(facts, b)}" for a, b in pairs), "; ")


def listed(words: Iterable[str], comma: str = ", ") -> str:
    """The first few of some words, and how many more there are."""
    words = [*words]
    if len(words) > NAMED:
        return f"{comma.join(words[:NAMED])} and {len(words) - NAMED} more"
    return f"{comma.join(words[:-1])} and {words[-1]}" if len(words) > 1 and comma == ", " else comma.join(words)


def percent(share: float) -> str:
    """A share in [0, 1] to two digits or so."""
    return f"{100 * share:.{0 if share >= 0.095 or share == 0 else 1}f} %"


def counted(some: int, of: int) -> str:
    """`2 of 10 clusters`."""
    return f"{some} of {of} clusters"


def have(count: int) -> str:
    """The verb that goes with so many."""
    return "has" if count == 1 else "have"


def look(count: int, how: str) -> str:
    """`look like`, for so many."""
    return f"{'looks' if count == 1 else 'look'} {how}"
