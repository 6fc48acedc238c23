"""What can go wrong with a run, done to real processes; prints what came of it, one line for each fault.

    cd tests; python -m helpers.faults                  all of them, about half an hour on two cores
    cd tests; python -m helpers.faults --kills=5 killed terminated

Every run is small: the digits, a network of four layers, six epochs with a checkpoint after each. "Same" means that
the parameters at the end equal those of a run that was left alone, bit for bit.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import absl.logging
import jax
import numpy as np
from conftest import ROOT, environment

from jaxclust import main as cli
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.training import build

SETTINGS = {
    "net.depth": "4",
    "net.stem": "vgg",
    "net.width": "4",
    "data.size": "16",
    "optim.name": "sgd",
    "optim.lr": "1e-3",
    "optim.schedule": "constant",  # the number of epochs changes on the way
    "train.batch_size": "256",
    "train.epochs": "6",
    "train.log_every": "1",
    "method.init_epoch": "2",
    "checkpoint.every": "1",
    "checkpoint.keep": "9",
    "eval.restarts": "1",
    "report.looks": "0",
    "report.page": "False",
}
SLOW = {"optim.lr": "1e-6"}  # for runs that are compared up to rounding, which must not grow from step to step
EPOCH = 7  # steps
STEPS = 6 * EPOCH
DEAD = 60  # seconds within which the other processes have to end


def command(workdir: Path, **settings: str) -> list[str]:
    flags = [f"--config.{name}={value}" for name, value in (SETTINGS | settings).items()]
    return [
        sys.executable,
        "-m",
        "jaxclust.main",
        f"--config={ROOT}/configs/digits_anchor.py",
        f"--workdir={workdir}",
        *flags,
    ]


def start(argv: list[str], processes: int = 1, devices: int = 1, **how) -> list[subprocess.Popen]:
    """Starts a command in one process, or in several that find each other on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meet = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"] if processes > 1 else []
    how = {"env": environment(devices), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | how
    return [subprocess.Popen([*argv, *meet, *([f"--process_id={i}"] if meet else [])], **how) for i in range(processes)]


def ends(running: list[subprocess.Popen], seconds: float = 300) -> tuple[list[int], str]:
    """Waits for processes; their exit codes, and what they said on stderr."""
    end = time.monotonic() + seconds
    said = [p.communicate(timeout=max(end - time.monotonic(), 1))[1] or "" for p in running]
    return [p.returncode for p in running], "".join(said)


def logged(workdir: Path) -> int:
    """The last step in the run's log."""
    with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
        return json.loads((workdir / "metrics.jsonl").read_text("utf-8").splitlines()[-1])["step"]
    return 0


def wait_for(step: int, workdir: Path, running: list[subprocess.Popen]) -> None:
    while logged(workdir) < step and all(p.poll() is None for p in running):
        time.sleep(0.01)


def digests(workdir: Path, step: int = STEPS) -> dict[str, str]:
    """SHA-256 of every array of the checkpoint of `step`, as it was saved."""
    return json.loads((workdir / "checkpoints" / str(step) / "digest" / "metadata").read_text("utf-8"))


class Faults:
    """The faults, each a method that yields (what was done, what came of it, whether that is right)."""

    def __init__(self, home: Path, kills: int):
        self.home, self.kills, self.random = home, kills, random.Random(0)
        self.alone = home / "alone"
        begin = time.monotonic()
        codes, said = ends(start(command(self.alone)))
        assert codes == [0], said
        self.seconds = time.monotonic() - begin

    def same(self, workdir: Path, reference: Path | None = None) -> bool:
        return digests(workdir) == digests(reference or self.alone)

    def same_or_not(self, workdir: Path, reference: Path | None = None) -> str:
        return "the same" if self.same(workdir, reference) else "not the same"

    def killed(self) -> Iterator[tuple[str, str, bool]]:
        """SIGKILL, in turn at any moment and inside a save."""
        yield self._again_and_again("SIGKILL", -signal.SIGKILL)

    def terminated(self) -> Iterator[tuple[str, str, bool]]:
        """SIGTERM and SIGUSR1 likewise."""
        yield self._again_and_again("SIGTERM", 75)
        yield self._again_and_again("SIGUSR1", 75)

    def _again_and_again(self, name: str, code: int) -> tuple[str, str, bool]:
        number, runs, same, sent, saves, lost = signal.Signals[name], 0, 0, 0, 0, 0
        while sent < self.kills:
            workdir = self.home / f"{name} {runs}"
            while True:
                [process] = start(command(workdir), stderr=subprocess.DEVNULL)
                if sent < self.kills:
                    at, in_save = time.monotonic() + self.random.uniform(0, self.seconds), sent % 2 == 1
                    nth = self.random.randrange(1, 6) if in_save else 0
                    self._until(process, workdir, at, nth)
                    saves += _saving(workdir) is not None
                    if process.poll() is None:
                        process.send_signal(number)
                        sent += 1
                process.wait()
                if process.returncode == 0:
                    break
                # A signal in the first moments meets Python as it starts, which dies of it.
                lost += process.returncode not in (code, -number)
            runs += 1
            same += self.same(workdir)
            shutil.rmtree(workdir)
        result = (
            f"{runs} runs, {same} ended the same; {saves} of the signals came inside a save; {lost} ended otherwise"
        )
        return f"{name}, {sent} times", result, same == runs and lost == 0

    def _until(self, process: subprocess.Popen, workdir: Path, at: float, nth: int) -> None:
        """Waits for a moment, or for the `nth` save."""
        seen = None
        while process.poll() is None and (nth or time.monotonic() < at):
            saving = _saving(workdir)
            if nth and saving and saving != seen:
                seen, nth = saving, nth - 1
                if not nth:
                    return
            time.sleep(0.001)

    def processes(self) -> Iterator[tuple[str, str, bool]]:
        """One process of two is killed, and one is told to stop."""
        reference, workdir = self.home / "two", self.home / "two, disturbed"
        ends(start(command(reference), processes=2))
        for victim, step in ((1, 10), (0, 20)):
            running = start(command(workdir), processes=2)
            wait_for(step, workdir, running)
            running[victim].kill()
            begin = time.monotonic()
            codes, _ = ends(running)
            spent = time.monotonic() - begin
            result = f"the other ended with {codes[1 - victim]} after {spent:.1f} s"
            yield f"process {victim} of 2 killed", result, codes[1 - victim] not in (0, 75) and spent < DEAD
        running = start(command(workdir), processes=2)
        wait_for(30, workdir, running)
        running[1].terminate()
        codes, _ = ends(running)
        yield "SIGTERM to process 1 of 2", f"exit codes {codes} at step {logged(workdir)}", codes == [75, 75]
        running = start(command(workdir), processes=2)
        wait_for(STEPS, workdir, running)
        running[0].send_signal(signal.SIGUSR1)
        codes, _ = ends(running)
        yield "SIGUSR1 to process 0, evaluating", f"exit codes {codes}", codes == [75, 75]
        codes, _ = ends(start(command(workdir), processes=2))
        right = codes == [0, 0] and self.same(workdir, reference)
        yield "the same command again", f"exit codes {codes}, {self.same_or_not(workdir, reference)}", right

    def layouts(self) -> Iterator[tuple[str, str, bool]]:
        """A run goes from two processes of four devices to one of one device, and back."""
        workdir = self.home / "moved"
        reference = self.home / "not moved"
        ends(start(command(reference, **SLOW)))
        for epochs, processes, devices in ((2, 2, 4), (4, 1, 1), (6, 2, 4)):
            codes, said = ends(start(command(workdir, **SLOW, **{"train.epochs": str(epochs)}), processes, devices))
            what = f"{processes} x {devices} up to epoch {epochs}"
            yield what, f"exit codes {codes} {said if any(codes) else ''}", not any(codes)
        apart = difference(workdir, reference)
        yield "beside 1 x 1 all along", f"learned {apart:.0e} apart", apart < 1e-3

    def disk(self) -> Iterator[tuple[str, str, bool]]:
        """A disk fills up while a run saves."""
        small = self.home / "small disk"
        small.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], capture_output=True)
        if made.returncode:
            yield "full disk", "not tried: only root can mount a small disk", True
            return
        try:
            workdir = small / "run"
            running = start(command(workdir))
            wait_for(2 * EPOCH + 1, workdir, running)
            filler = (small / "filler").open("wb", buffering=0)
            while running[0].poll() is None:
                with contextlib.suppress(OSError):
                    filler.write(bytes(1000))
            codes, said = ends(running)
            kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())
            last = said.strip().splitlines()[-1:]
            yield "full disk", f"exit code {codes[0]}, {last}, checkpoints {kept}", codes == [1] and len(kept) >= 1
            filler.close()
            (small / "filler").unlink()
            codes, said = ends(start(command(workdir)))
            right = codes == [0] and self.same(workdir)
            yield "room again", f"exit code {codes[0]}, {self.same_or_not(workdir)}", right
        finally:
            subprocess.run(["umount", "-l", small], check=True)

    def damage(self) -> Iterator[tuple[str, str, bool]]:
        """The newest checkpoint loses half of its largest file, or has 40 of its bytes changed."""
        for how in ("truncated", "flipped"):
            workdir = self.home / how
            shutil.copytree(self.alone, workdir)
            newest = workdir / "checkpoints" / str(STEPS)
            victim = max(newest.rglob("d/*"), key=lambda p: p.stat().st_size)
            content = bytearray(victim.read_bytes())
            middle = len(content) // 2
            content[middle : middle + 40] = (
                b"" if how == "truncated" else bytes(b ^ 0x55 for b in content[middle : middle + 40])
            )
            victim.write_bytes(content[:middle] if how == "truncated" else content)
            codes, said = ends(start(command(workdir)))
            noticed = f"step {STEPS} is damaged" in said and f"that of step {STEPS - EPOCH}" in said
            result = f"{'' if noticed else 'not '}reported, exit code {codes[0]}, {self.same_or_not(workdir)}"
            yield f"newest checkpoint {how}", result, noticed and not codes[0] and self.same(workdir)

    def elsewhere(self) -> Iterator[tuple[str, str, bool]]:
        """The second half of a run has another clock, host name and working directory."""
        workdir = self.home / "elsewhere"
        ends(start(command(workdir, **{"train.epochs": "3"})))
        yesterday = "import sys, time, runpy; now = time.time; time.time = lambda: now() - 1e8; sys.argv.pop(0); "
        shifted = [
            sys.executable,
            "-c",
            f"{yesterday}runpy.run_module('jaxclust.main', run_name='__main__')",
            "jaxclust",
        ]
        renamed = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"] if os.geteuid() == 0 else []
        other = self.home / "other folder"
        other.mkdir()
        codes, said = ends(start([*renamed, *shifted, *command(workdir)[3:]], cwd=other))
        what = f"exit code {codes[0]}, {self.same_or_not(workdir)} {said if any(codes) else ''}"
        yield f"other clock{', host name' * bool(renamed)} and folder", what, not codes[0] and self.same(workdir)

    def twice(self) -> Iterator[tuple[str, str, bool]]:
        """A second run in the same workdir."""
        workdir = self.home / "twice"
        first = start(command(workdir))
        wait_for(2, workdir, first)
        codes, said = ends(start(command(workdir)))
        yield "a second run in a workdir", f"exit code {codes[0]}: {said.strip()}", codes == [2]
        codes, _ = ends(first)
        right = codes == [0] and self.same(workdir)
        yield "the first one", f"exit code {codes[0]}, {self.same_or_not(workdir)}", right


def _saving(workdir: Path) -> str | None:
    """The step that is being written."""
    with contextlib.suppress(FileNotFoundError):
        return next((p.name for p in (workdir / "checkpoints").iterdir() if "tmp" in p.name), None)
    return None


def difference(a: Path, b: Path) -> float:
    """How far what two runs of `SLOW` have learned lies apart, relative to what one has: of the worst tensor.

    Layouts round differently; steps of other images, or another step too many, would show in the first digit.
    """
    (start, x), (_, y) = (_first_and_last_parameters(workdir) for workdir in (a, b))
    apart = jax.tree.map(lambda x, y, start: np.linalg.norm(x - y) / np.linalg.norm(y - start), x, y, start)
    return float(max(jax.tree.leaves(apart)))


def _first_and_last_parameters(workdir: Path):
    args, overrides, _ = cli.parse(command(workdir, **SLOW)[3:])
    run = build.build(args.config, args.workdir, args.mode, overrides)
    with Checkpoints(workdir, keep=None) as checkpoints:
        return jax.device_get((run.init().params, checkpoints.restore(run.like, STEPS).params))


FAULTS: dict[str, Callable] = {
    name: f for name, f in vars(Faults).items() if not name.startswith("_") and not name.startswith("same")
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"some of {', '.join(FAULTS)} (default: all)")
    parser.add_argument("--kills", type=int, default=50, help="signals of each kind")
    args = parser.parse_args(argv)
    if unknown := set(args.faults) - FAULTS.keys():
        parser.error(f"unknown fault {min(unknown)}; there are {', '.join(FAULTS)}")
    wrong = 0
    absl.logging.set_verbosity(absl.logging.ERROR)
    with tempfile.TemporaryDirectory() as home:
        faults = Faults(Path(home), args.kills)
        print(f"a run that is left alone takes {faults.seconds:.1f} s")
        for name in args.faults or FAULTS:
            for what, result, right in FAULTS[name](faults):
                wrong += not right
                print(f"{'ok   ' if right else 'WRONG'}  {what:32} {result}", flush=True)
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
