"""Finished runs as their workdirs tell of them.

Only `config.json`, `scores.json`, `progress.jsonl`, `metrics.jsonl` and `environment.json` are read.
"""

import glob
import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import read_json, read_records
from jaxclust.run.workdir import CONFIG, ENVIRONMENT, METRICS, PROGRESS, SCORES, check_readable
from jaxclust.training import configs

METHOD = "method.name"


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


def find(paths: Iterable[Path]) -> list[Path]:
    """The workdirs that paths stand for: a workdir itself, a folder of workdirs, or a pattern of either.

    Raises:
      ConfigError: a path stands for none, or a workdir is given twice.
    """
    found = []
    for path in paths:
        places = [path] if path.exists() else [Path(p) for p in glob.glob(str(path), recursive=True)]
        places.sort(key=_natural)
        here = [w for place in places for w in _workdirs(place)]
        if not here:
            raise ConfigError(
                f"there is no run in {path} (no {CONFIG} in it or in a folder of it); give --runs=WORKDIR,WORKDIR, "
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
    if (place / CONFIG).is_file():
        return [place]
    return sorted((p.parent for p in place.glob(f"*/{CONFIG}") if p.is_file()), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts run_2 before run_10."""
    words = re.split(r"(\d+)", str(path))
    return [(int(word) if word.isdecimal() else -1, word) for word in words]


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
      ConfigError: a file is damaged, is not what a run writes, or is of a newer version.
    """
    check_readable(path)
    try:  # an older run has no newer setting's default
        settings = config.flatten(config.complete(ConfigDict(read_json(path / CONFIG)), configs.SCHEMAS))
    except (TypeError, AttributeError, KeyError, RecursionError) as e:
        raise ConfigError(f"{path / CONFIG} is no run's config ({e}); leave {path} out") from e
    missing = [key for key in ("seed", "clusters", "data.name", METHOD) if key not in settings]
    if missing:
        raise ConfigError(f"{path / CONFIG} has no {missing[0]}, so it is no run's config; leave {path} out")
    if not all(type(settings[key]) is int for key in ("seed", "clusters")):
        raise ConfigError(f"{path / CONFIG} has a seed or clusters that are no number; leave {path} out")
    if not all(isinstance(settings[key], str) for key in ("data.name", METHOD)):
        raise ConfigError(f"{path / CONFIG} has a data set or method without a name; leave {path} out")
    if not (path / SCORES).exists():
        return None
    scores = read_json(path / SCORES)
    rows = {key: row for key, row in scores.items() if isinstance(row, dict) and key != "paper"}
    paper = scores.get("paper", {})
    whole = type(scores.get("step")) is int and rows and isinstance(paper, dict)
    every = [*rows.values(), *paper.values()] if whole else []
    if not whole or not all(isinstance(row, dict) and _is_row(row) for row in every):
        raise ConfigError(f"{path / SCORES} is not what an evaluation writes; make it anew with --mode=evaluate")
    logged = read_records(path / METRICS)
    speeds = [speed for record in logged if _is_number(speed := record.get("images_per_second")) and speed]
    about = read_json(path / ENVIRONMENT) if (path / ENVIRONMENT).exists() else {}
    devices = about.get("devices", [])
    return Run(
        name,
        settings,
        scores["step"],
        max([record["step"] for record in logged], default=scores["step"]),
        rows,
        paper,
        [
            look
            for look in read_records(path / PROGRESS)
            if _is_number(look.get("epoch")) and look["step"] <= scores["step"]
        ],
        statistics.median(speeds) if speeds else None,
        _devices(devices if isinstance(devices, list) else []),
    )


def _is_row(row: Mapping[str, Any]) -> bool:
    """Whether every score is a number, or none, or one for each cluster; and the sizes of the clusters are counts."""
    sizes = row.get("sizes", [])
    if not isinstance(sizes, list) or not all(type(count) is int for count in sizes):
        return False
    every = [x for score in row.values() for x in (score if isinstance(score, list) else [score])]
    return all(x is None or isinstance(x, str) or _is_number(x) for x in every)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _devices(devices: Sequence[str]) -> str:
    """`["cpu:0 cpu", ...]` as "8 x cpu"."""
    kinds = [str(device).partition(" ")[2] or str(device) for device in devices]
    counts = {kind: kinds.count(kind) for kind in kinds}
    return ", ".join(f"{n} x {kind}" if n > 1 else kind for kind, n in counts.items())
