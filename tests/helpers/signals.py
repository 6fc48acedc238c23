"""Signals at random moments of every mode: it ends soon, with its code and a sentence, and nothing is half-written.

    cd tests; python -m helpers.signals --number=400 --seed=1

Prints a line for each signal that did something else, and the count at the end.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from conftest import environment
from helpers.faults import command, ends, start
from PIL import Image

SOON = 60  # seconds, on a machine that is busy with other tests, too; the command allows itself five
STOPPED = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGHUP: 75, signal.SIGINT: 130}
SENTENCE = {75: "stopped as asked", 130: "interrupted"}


class Signals:
    """A finished run, in copies of which modes are started and sent signals.

    Args:
      home: a folder for all of it.
      seed: of the moments.
    """

    def __init__(self, home: Path, seed: int):
        self.home, self.random, self.run = home, random.Random(seed), home / "run"
        codes, said = ends(start(command(self.run, **{"train.epochs": "3", "eval.held_out": "297"})))
        assert codes == [0], said
        (home / "photos").mkdir()
        noise = np.random.default_rng(0)
        for i in range(200):
            Image.fromarray(noise.integers(0, 256, (64, 64), np.uint8)).save(home / "photos" / f"{i}.png")
        modes = {
            "evaluate": [],
            "report": [],
            "export": [],
            "probe": [],
            "suggest-k": ["--k=2:6"],
            "predict": [f"--images={home / 'photos'}"],
        }
        self.modes = {
            name: [sys.executable, "-m", "jaxclust.main", f"--mode={name}", *more] for name, more in modes.items()
        }
        self.seconds = {}

    def send(self, number: int) -> Iterator[tuple[str, str]]:
        """Sends as many signals, mode after mode; yields (what was done, what was wrong with what came of it)."""
        for i in range(number):
            mode = [*self.modes][i % len(self.modes)]
            workdir = self.home / f"{mode} {i}"
            shutil.copytree(self.run, workdir)
            if mode not in self.seconds:
                self.seconds[mode] = self._undisturbed(mode)
            sent = self.random.choice([signal.SIGTERM, signal.SIGTERM, *STOPPED])
            after = self.random.uniform(
                1.0, max(2.0, self.seconds[mode])
            )  # not before Python has come to our first line
            process = self._start(mode, workdir)
            time.sleep(after)
            process.send_signal(sent)
            begin = time.monotonic()
            try:
                said = process.communicate(timeout=4 * SOON)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                said = process.communicate()[0]
            wrong = self._wrong(process.returncode, sent, said, time.monotonic() - begin) or _half(workdir)
            yield f"{sent.name} {after:.2f} s into {mode}", wrong
            shutil.rmtree(workdir)

    def _start(self, mode: str, workdir: Path) -> subprocess.Popen:
        env = environment() | {"JAXCLUST_CACHE": str(self.home / "cache" / workdir.name)}
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": env}
        return subprocess.Popen([*self.modes[mode], f"--workdir={workdir}"], **how)

    def _undisturbed(self, mode: str) -> float:
        workdir, begin = self.home / mode, time.monotonic()
        shutil.copytree(self.run, workdir)
        process = self._start(mode, workdir)
        said = process.communicate()[0]
        assert process.returncode == 0, said
        return time.monotonic() - begin

    @staticmethod
    def _wrong(code: int, sent: signal.Signals, said: str, seconds: float) -> str:
        ended = code in (0, -sent)  # it was done by then; or Python had not begun, and died of it
        if not ended and (code != STOPPED[sent] or said.count(SENTENCE[code]) != 1):
            return f"code {code}: {said[-2000:]}"
        if ("Traceback" in said and code != -sent) or "Exception ignored" in said:
            return f"code {code}, and a traceback: {said[-2000:]}"
        return f"ended {seconds:.1f} s later: {said[-2000:]}" if seconds > SOON else ""


def _half(workdir: Path) -> str:
    """What cannot be read of a run's files, if any."""
    for path in workdir.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(workdir).parts) or "checkpoints" in path.parts:
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".npy":
                np.load(path)
            elif path.suffix == ".png":
                Image.open(path).load()
        except (ValueError, OSError) as e:
            return f"{path} is half-written: {e}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=400, help="of signals")
    parser.add_argument("--seed", type=int, default=0, help="of their moments")
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        for done, what in Signals(Path(home), args.seed).send(args.number):
            wrong += bool(what)
            if what:
                print(f"{done}: {what}", flush=True)
    print(f"{args.number} signals, {wrong} of them without the right end")
    return int(wrong > 0)


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", "")
    sys.exit(main())
