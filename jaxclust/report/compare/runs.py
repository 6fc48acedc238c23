"""Finished runs as their workdirs tell of them.

Only `config.json`, `scores.json`, `progress.jsonl`, `metrics.jsonl` and `environment.json` are read.
"""

import glob
import itertools
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxclust import config
from jaxclust.config import ConfigError

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
    return sorted((p.parent for p in place.glob("*/config.json") if p.is_file()), key=_natural)


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
