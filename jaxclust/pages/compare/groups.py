"""Runs by data set, and within one in groups: what differs in nothing but the seed belongs together."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxclust.pages.compare.runs import METHOD, Run
from jaxclust.pages.table import DASH
from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded

# A run may go on with these changed, but then it comes to other scores.
TELLING = ("train.epochs", "eval.view", "eval.paper_view", "eval.restarts")
# Of settings that tell groups apart equally well, the first of these names them; then the order of the config.
NAMING = (METHOD, "net.depth", "net.width", "clusters", "train.epochs", "optim.lr", "train.batch_size")
LONGEST = 40  # characters of a value in a name, where that tells the groups apart
AT_MOST = 3  # settings in a name that are looked for by trying all; more are added one at a time


class Group(NamedTuple):
    name: str
    runs: tuple[Run, ...]  # in order of their seeds, of which no two are the same


class DataSet(NamedTuple):
    title: str
    labelled: bool
    groups: tuple[Group, ...]
    naming: tuple[str, ...]  # the settings that the groups are named by
    differing: tuple[str, ...]  # all settings in which they differ

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]


def group(runs: Sequence[Run]) -> list[DataSet]:
    """The runs by data set, and within one by settings.

    Raises:
      ConfigError: two runs differ in nothing at all.
    """
    by_data = {}
    for run in runs:
        by_data.setdefault(_data(run), []).append(run)
    titles = _titles(list(by_data))
    return [_data_set(titles[key], members) for key, members in by_data.items()]


def _data(run: Run) -> tuple[str, ...]:
    """What makes scores comparable, the same images and the same labels or none, in words."""
    s = run.settings
    count = next((sum(row["sizes"]) for row in run.scores.values() if row.get("sizes")), None)
    return (
        str(s["data.name"]),
        # Runs of before 0.4 have it as it was typed.
        f"folder {os.path.abspath(expanded(str(s['data.dir'])))}" if s["data.name"] == "folder" else "",
        f"labels: {s.get('data.labels')}" if run.labelled else "no labels",
        f"split {s.get('data.splits.train')}",
        f"{count:,} images" if count else "images not counted",
    )


def _titles(keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A data set's name, and what tells it from others of that name."""
    titles = {}
    for key in keys:
        same = [k for k in keys if k[0] == key[0]]
        told = [word for i, word in enumerate(key) if i and len({k[i] for k in same}) > 1]
        titles[key] = f"{key[0]} ({', '.join(told)})" if told else key[0]
    return titles


def _data_set(title: str, runs: Sequence[Run]) -> DataSet:
    identities = {}
    for run in runs:
        identities.setdefault(frozenset(_identity(run).items()), []).append(run)
    for same in identities.values():
        for a, b in itertools.combinations(same, 2):
            if a.seed == b.seed:
                raise ConfigError(
                    f"the runs {a.name} and {b.name} have the same settings and the seed {a.seed}, so they are one "
                    f"run; leave one out"
                )
    settings = [dict(identity) for identity in identities]
    keys = {key: None for run in runs for key in _identity(run)}
    differing = [key for key in keys if len({s.get(key) for s in settings}) > 1]
    naming = _shortest(settings, differing)
    called = [_name(s, naming, LONGEST) for s in settings]
    if len(set(called)) < len(called):
        called = [_name(s, naming, None) for s in settings]
    groups = [
        Group(name, tuple(sorted(members, key=lambda run: run.seed)))
        for name, members in zip(called, identities.values())
    ]
    return DataSet(title, runs[0].labelled, tuple(groups), naming, tuple(differing))


def _identity(run: Run) -> dict[str, str]:
    """All that tells a run from others but its seed, in the order of the config, as JSON text."""
    known = {
        name: json.dumps(value, ensure_ascii=False)
        for name, value in run.settings.items()
        if name in TELLING or (name != "seed" and not any(f"{name}.".startswith(f"{h}.") for h in config.HARMLESS))
    }
    return known | {"step": str(run.step)}


def _shortest(settings: Sequence[Mapping[str, str]], differing: Sequence[str]) -> tuple[str, ...]:
    """The fewest settings that tell all groups apart, with the method where that differs; of one group, its method."""
    if len(settings) == 1:
        return (METHOD,)
    fixed = (METHOD,) if METHOD in differing else ()
    ordered = [name for name in NAMING if name in differing] + [name for name in differing if name not in NAMING]
    # Settings that divide the groups alike are worth the same; the first speaks for them.
    speaking = {}
    for name in ordered:
        values = [s.get(name) for s in settings]
        speaking.setdefault(tuple(map(values.index, values)), name)
    others = [name for name in speaking.values() if name not in fixed]
    for count in range(AT_MOST + 1):
        for chosen in itertools.combinations(others, count):
            if _told_apart(settings, fixed + chosen) == len(settings):
                return fixed + chosen
    chosen = fixed
    while _told_apart(settings, chosen) < len(settings):
        chosen += (max(others, key=lambda name: _told_apart(settings, (*chosen, name))),)
    return chosen


def _told_apart(settings: Sequence[Mapping[str, str]], names_: Sequence[str]) -> int:
    return len({tuple(s.get(name) for name in names_) for s in settings})


def _name(settings: Mapping[str, str], naming: Sequence[str], longest: int | None) -> str:
    return ", ".join(_said(name, settings.get(name), longest) for name in naming)


def value(run: Run, name: str) -> str:
    """A setting of a run in words; "step" is the step at which it was scored."""
    text = _identity(run).get(name)
    return DASH if text is None else _plain(text)


def _plain(text: str) -> str:
    found = json.loads(text)
    return (found or "''") if isinstance(found, str) else text


def _said(name: str, value: str | None, longest: int | None) -> str:
    if value is None:
        return f"without {name}"
    word = _plain(value)
    word = f"{word[:longest]}…" if longest and len(word) > longest else word
    return word if name == METHOD else f"{name}={word}"
