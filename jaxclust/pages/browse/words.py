"""Decisions as sentences, for a window in which they were not made. Names in them are a user's: text, never markup."""

from collections.abc import Mapping
from typing import Any

from jaxclust.clusters.decisions import Decisions

TOLD = 4  # decisions, at most; the rest are counted


def title(group: int, names: Mapping[int, str]) -> str:
    return f"“{names[group]}”" if names.get(group) else f"cluster {group}"


def tell(decided: Decisions, at: int) -> str:
    """What entry number `at` did, with the names that clusters had before it."""
    entry = decided.entries[at]
    return sentence(entry, decided._replace(entries=decided.entries[:at]).groups())


def sentence(entry: Mapping[str, Any], names: Mapping[int, str]) -> str:
    if entry["do"] == "rename":
        which = title(entry["group"], names)
        return f"{which} was renamed “{entry['name']}”" if entry["name"] else f"{which} lost its name"
    if entry["do"] == "merge":
        into, *others = (title(group, names) for group in entry["groups"])
        return f"{' and '.join(others)} {'was' if len(others) == 1 else 'were'} merged into {into}"
    if entry["do"] == "split":
        return f"{title(entry['group'], names)} was split into {len(entry['into'])} parts"
    count = len(entry["images"])
    what = "1 image was" if count == 1 else f"{count:,} images were"
    if entry["do"] == "new":
        return f"{what} made a new cluster{f', “{named}”' if (named := entry['name']) else ''}"
    return f"{what} moved to {title(entry['group'], names)}"


def news(seen: Decisions | None, now: Decisions) -> list[str]:
    """What has happened since a window saw `seen`; None is too long ago to say."""
    if seen is None:
        return ["the clusters were changed in another window"]
    same = 0
    for before, after in zip(seen.entries, now.entries):
        if before != after:
            break
        same += 1
    said = [f"taken back: {tell(seen, at)}" for at in reversed(range(same, len(seen.entries)))]
    said += [tell(now, at) for at in range(same, len(now.entries))]
    return said if len(said) <= TOLD else [*said[:TOLD], f"and {len(said) - TOLD:,} more"]
