"""What each mode costs on a run of many images: time, and the most memory that its process has resident at once."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.commands.bench import heaps
from jaxclust.commands.work.train import run_training
from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.training import build, configs

CHUNK = 10_000  # images that are made at a time
NEW = 100_000  # images to predict, at most
LOOK = 5.0  # seconds that a person looks at the page before doing anything
SIDE, NOISE = 8, 40  # of an image: pixels; grey levels by which those of a heap differ


def table(count: int, overrides: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Makes a run of generated images, and gives each mode and what it costs there.

    Args:
      count: of images, in as many heaps as the run has clusters.
      overrides: of the run's config.

    Raises:
      ConfigError: they are too few for the page to be worked in.
    """
    clusters = config.load(heaps.__file__, overrides, configs.schemas).clusters
    if clusters < 3 or count < heaps.SAMPLE * clusters:
        raise ConfigError(
            f"--modes={count} with {clusters} clusters is too small a run; give 3 clusters or more "
            f"(--config.clusters), and {heaps.SAMPLE} images for each"
        )
    with tempfile.TemporaryDirectory() as home:
        images, new, run = Path(home, "images.npz"), Path(home, "new.npz"), Path(home, "run")
        make(images, count, clusters, seed=0)
        make(new, min(count, NEW), clusters, seed=1)
        train(run, {**overrides, "data.dir": str(images)})
        for mode in ("evaluate", "report", "suggest-k"):
            yield mode, cost(f"--mode={mode}", f"--workdir={run}")
        yield "browse", browse(run)
        yield "predict", cost("--mode=predict", f"--workdir={run}", f"--images={new}")
        yield "compare", cost("--mode=compare", f"--runs={run}", f"--workdir={home}/compare")


def train(workdir: Path, overrides: dict[str, str]) -> None:
    """Makes a run that nobody has evaluated, in a process of its own, whose memory is free again."""
    code = "import json, sys; from jaxclust.commands.bench import modes as m; m.run(*map(json.loads, sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, json.dumps(str(workdir)), json.dumps(overrides)], check=True)


def run(workdir: str, overrides: dict[str, str]) -> None:
    """What the process of `train` does."""
    run_training(build.build(heaps.__file__, Path(workdir), "train", overrides))


def make(path: Path, count: int, clusters: int, seed: int) -> None:
    """Writes an .npz of images u8[N, 8, 8] around as many random ones as there are clusters, with their labels."""
    centres = np.random.default_rng(0).integers(0, 256, (clusters, SIDE, SIDE))
    rng = np.random.default_rng(seed + 1)
    labels = rng.integers(0, clusters, count)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for at in range(0, count, CHUNK):
        middle = centres[labels[at : at + CHUNK]]
        images[at : at + CHUNK] = np.clip(middle + rng.normal(0, NOISE, middle.shape), 0, 255)
    np.savez(path, images=images, labels=labels)


def cost(*flags: str) -> dict[str, float]:
    """Seconds, seconds of computing and resident memory of a command."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "jaxclust.main", *flags], stdout=subprocess.DEVNULL)
    return _ended(process, begun)


def browse(run: Path) -> dict[str, float]:
    """Those of the page to work in, the seconds until it answers, and those of each action."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "jaxclust.main", "--mode=browse", f"--workdir={run}", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seconds = {}
    try:
        page = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+/", line)))
        state = _ask(page, "api/state")
        seconds["seconds_to_answer"] = time.perf_counter() - begun
        time.sleep(LOOK)
        for name, ask in actions(page, state["groups"]):
            before = time.perf_counter()
            ask()
            seconds[f"seconds_{name}"] = time.perf_counter() - before
    finally:
        process.send_signal(signal.SIGINT)
        row = _ended(process, begun)
    return row | seconds


def actions(page: str, groups: list[dict[str, Any]]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a person does on the page: its name and a call that waits for the answer."""
    a, b, c = (group["group"] for group in groups[:3])
    rows = groups[2]["typical"]

    def decide(**entry: Any) -> None:
        seen = _ask(page, "api/version")["version"]
        _ask(page, "api/decide", {"seen": seen, "entry": entry})

    yield "cluster", lambda: _ask(page, f"api/group/{a}")
    yield "image", lambda: _ask(page, f"api/image/{rows[0]}")
    yield "next_image", lambda: _ask(page, f"api/image/{rows[1]}")
    yield "rename", lambda: decide(do="rename", group=a, name="named")
    yield "merge", lambda: decide(do="merge", groups=[a, b])
    yield "split", lambda: decide(do="split", group=c, parts=2)
    yield "move", lambda: decide(do="move", rows=rows[:4], group=a)
    yield "new", lambda: decide(do="new", rows=rows[4:], name="new")
    yield "undo", lambda: _ask(page, "api/undo", {"seen": _ask(page, "api/version")["version"]})


def _ask(page: str, path: str, sent: dict[str, Any] | None = None) -> Any:
    content = None if sent is None else json.dumps(sent).encode()
    head = {"content-type": "application/json", "origin": page.rstrip("/")} if sent else {}
    with urllib.request.urlopen(urllib.request.Request(page + path, content, head)) as answer:
        return json.load(answer)


def _ended(process: subprocess.Popen, begun: float) -> dict[str, float]:
    """Waits for a process, and gives what it has cost."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    seconds = {"seconds": time.perf_counter() - begun, "cpu_seconds": used.ru_utime + used.ru_stime}
    return seconds | {"resident_mib": used.ru_maxrss / unit}
