"""Finished runs as their workdirs tell of them, grouped: what differs in nothing but the seed belongs together.

Only `config.json`, `scores.json`, `progress.jsonl`, `metrics.jsonl` and `environment.json` are read.
"""

import glob
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxclust import config
from jaxclust.config import ConfigError
from jaxclust.report.table import DASH

# A run may go on with these changed, but then it comes to other scores.
TELLING = ("train.epochs", "eval.view", "eval.paper_view", "eval.restarts")
METHOD = "method.name"
# Of settings that tell groups apart equally well, the first of these names them; then the order of the config.
NAMING = (METHOD, "net.depth", "net.width", "clusters", "train.epochs", "optim.lr", "train.batch_size")
AT_MOST = 3  # settings in a name that are looked for by trying all; more are added one at a time


class Run(NamedTuple):
    name: str
    settings: Mapping[str, Any]  # the config, flat
    step: int  # of the checkpoint that was scored
    trained: int  # the last step that was logged
    scores: Mapping[str, Mapping[str, Any]]  # of each clustering, by our name
    paper: Mapping[str, Mapping[str, Any]]  # of each that the method's paper reports, by its name
    looks: Sequence[Mapping[str, Any]]
    speed: float | None  # images/s, the median of what was logged
    devices: str

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def labelled(self) -> bool:
        return any("acc" in row for row in self.scores.values())


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


def find(paths: Iterable[Path]) -> list[Path]:
    """The workdirs that paths stand for: a workdir itself, a folder of workdirs, or a pattern of either.

    Raises:
      ConfigError: a path stands for none, or a workdir is given twice.
    """
    found = []
    for path in paths:
        places = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        here = [w for place in places for w in _workdirs(place)]
        if not here:
            raise ConfigError(
                f"there is no run in {path} (no config.json in it or in a folder of it); give --runs=WORKDIR,WORKDIR, "
                f"a folder of workdirs or a pattern like 'runs/cc_*'"
            )
        found += here
    if not found:
        raise ConfigError("no runs were given; give --runs=WORKDIR,WORKDIR")
    seen = set()
    for path in found:
        if path.resolve() in seen:
            raise ConfigError(f"the run {path} is given twice; name each run once")
        seen.add(path.resolve())
    return found


def _workdirs(place: Path) -> list[Path]:
    if (place / "config.json").is_file():
        return [place]
    return sorted(p.parent for p in place.glob("*/config.json") if p.is_file())


def names(paths: Sequence[Path]) -> list[str]:
    """What each workdir is called: its folder's name, with as many of the folders above as tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    return [_least(p, parts) for p in parts]


def _least(one: tuple[str, ...], all_: list[tuple[str, ...]]) -> str:
    depth = next(d for d in itertools.count(1) if sum(p[-d:] == one[-d:] for p in all_) == 1)
    return "/".join(one[-depth:])


def read(path: Path, name: str) -> Run | None:
    """A run; None where it has no scores yet.

    Raises:
      ConfigError: a file is damaged, or is not what a run writes.
    """
    settings = config.flatten(_object(path / "config.json"))
    missing = [key for key in ("seed", "clusters", "data.name", METHOD) if key not in settings]
    if missing:
        raise ConfigError(f"{path / 'config.json'} has no {missing[0]}, so it is no run's config; leave {path} out")
    if not (path / "scores.json").exists():
        return None
    scores = _object(path / "scores.json")
    rows = {key: row for key, row in scores.items() if isinstance(row, dict) and key != "paper"}
    paper = scores.get("paper", {})
    whole = isinstance(scores.get("step"), int) and rows and isinstance(paper, dict)
    every = [*rows.values(), *paper.values()] if whole else []
    if not whole or not all(isinstance(row, dict) and _counts(row.get("sizes", [])) for row in every):
        raise ConfigError(f"{path / 'scores.json'} is not what an evaluation writes; make it anew with --mode=evaluate")
    logged = _lines(path / "metrics.jsonl")
    speeds = [record["images_per_second"] for record in logged if record.get("images_per_second")]
    about = _object(path / "environment.json") if (path / "environment.json").exists() else {}
    return Run(
        name,
        settings,
        scores["step"],
        max([record["step"] for record in logged], default=scores["step"]),
        rows,
        paper,
        [look for look in _lines(path / "progress.jsonl") if "epoch" in look and look["step"] <= scores["step"]],
        statistics.median(speeds) if speeds else None,
        _devices(about.get("devices", [])),
    )


def _counts(sizes: Any) -> bool:
    return isinstance(sizes, list) and all(isinstance(count, int) for count in sizes)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = config.read_json(path)
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}; leave that run out") from e
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is damaged (it holds no settings or scores); leave that run out")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a last one that a kill cut short is left out."""
    try:
        lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}; leave that run out") from e
    found = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            record["step"] + 0
        except (ValueError, TypeError, KeyError) as e:
            raise ConfigError(f"{path} is damaged in line {number} ({e}); leave that run out") from e
        found.append(record)
    return found


def _devices(devices: Sequence[str]) -> str:
    """`["cpu:0 cpu", ...]` as "8 x cpu"."""
    kinds = [str(device).partition(" ")[2] or str(device) for device in devices]
    counts = {kind: kinds.count(kind) for kind in kinds}
    return ", ".join(f"{n} x {kind}" if n > 1 else kind for kind, n in counts.items())


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
        f"folder {s['data.dir']}" if s["data.name"] == "folder" else "",
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
    groups = [
        Group(_name(dict(identity), naming), tuple(sorted(members, key=lambda run: run.seed)))
        for identity, members in identities.items()
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


def _name(settings: Mapping[str, str], naming: Sequence[str]) -> str:
    return ", ".join(_said(name, settings.get(name)) for name in naming)


def value(run: Run, name: str) -> str:
    """A setting of a run in words; "step" is the step at which it was scored."""
    text = _identity(run).get(name)
    return DASH if text is None else _plain(text)


def _plain(text: str) -> str:
    found = json.loads(text)
    return found if isinstance(found, str) else text


def _said(name: str, value: str | None) -> str:
    if value is None:
        return f"without {name}"
    return _plain(value) if name == METHOD else f"{name}={_plain(value)}"
