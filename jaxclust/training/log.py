"""What a run says while it trains: scalars in `metrics.jsonl` and TensorBoard, a progress bar on the terminal.

Metrics stay on the device until they are a few steps old, so that reading them never makes the devices wait.
"""

import collections
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar
from tqdm import tqdm

from jaxclust.run.errors import RunError
from jaxclust.run.files import in_place, read_records, write_atomically
from jaxclust.run.workdir import METRICS, TENSORBOARD
from jaxclust.training.pace import Pace, forecast
from jaxclust.training.watch import Watch, largest_cluster

logger = logging.getLogger(__name__)

# Steps between a step's dispatch and the reading of its metrics; of slow ones, so that a stop never waits for many.
LAG, SLOW_LAG, SLOW = 4, 1, 0.25  # seconds
EVERY_TTY, EVERY_FILE = 1.0, 30.0  # seconds between what is shown on a terminal, and in a file


class Log:
    """Takes every step's metrics. Use as a context manager.

    Args:
      workdir: the run's folder.
      step: the step that the run starts from; later records of an earlier run are dropped.
      steps: the step at which it ends.
      epochs: the number of epochs, for the progress bar.
      images: images in a step.
      every: steps between records; a record is the mean over the steps since the last one.
      write: whether this process writes and says anything.
      bar: whether it shows a progress bar, where standard error is a terminal.
    """

    def __init__(
        self,
        workdir: Path,
        step: int,
        steps: int,
        epochs: int,
        images: int,
        every: int,
        write: bool,
        bar: bool = True,
    ):
        self._epochs, self._images, self._every, self._write = epochs, images, every, write
        self._pending = collections.deque()
        self._window, self._since = [], time.perf_counter()
        self._shown, self._shown_at = -1, -float("inf")  # the epoch, and the time
        self._watch, self._pace, self._told = Watch(), Pace(), False
        self._file = self._board = None
        if write:
            path = workdir / METRICS
            _truncate(path, step)
            self._file = open(path, "a", encoding="utf-8", opener=in_place)  # noqa: SIM115
            (workdir / TENSORBOARD).mkdir(exist_ok=True)
            # Its SummaryWriter writes in a thread, which a full disk ends; then the run would wait for it for ever.
            # TensorBoard reads the files in the order of their names, which have the time in them; but clocks go back.
            start = f"start.{len(os.listdir(workdir / TENSORBOARD)):06d}"
            self._board = EventsWriter(str(workdir / TENSORBOARD / start), f".{os.getpid()}.{step}")
            # It then forgets what an earlier start wrote from this step on.
            self._board.write_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
        # In a notebook, too, a line may be written over.
        self._tty = write and bar and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._bar = tqdm(
            total=steps,
            initial=step,
            disable=not self._tty,
            dynamic_ncols=True,
            smoothing=0.05,
            bar_format="{desc} {percentage:3.0f}% |{bar}| step {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}]",
        )

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exc) -> None:
        self._bar.close()
        if self._write:
            self._file.close()
            self._board.close()

    def say(self, text: str) -> None:
        """Shows a line of text without breaking the progress bar."""
        if self._write:
            logger.info("%s", text)

    @contextlib.contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """For the first use of a program, which is compiled then: says so, and its time counts for no rate."""
        begin = time.perf_counter()
        if self._tty:
            self._bar.set_description_str(f"compiling {what}")
        elif not self._pace.seconds:
            self.say(f"compiling {what}")
        with _ticking(self._bar) if self._tty else contextlib.nullcontext():
            yield
        spent = time.perf_counter() - begin
        self._since += spent
        self._pace.leave_out(spent)
        if self._tty:
            self._bar.start_t += spent
            self._bar.last_print_t += spent

    def push(self, step: int, epoch: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes the metrics of the step that was just dispatched, f32[] each but for "sizes", f32[K].

        Raises:
          RunError: a metric of an earlier step, arrived by now, is not finite.
        """
        self._pending.append((step, epoch, metrics))
        each = self._pace.seconds
        while len(self._pending) > (SLOW_LAG if each is None or each > SLOW else LAG):
            self._read()

    def drain(self) -> None:
        """Reads all that is outstanding, so that what is saved next is known to be finite."""
        while self._pending:
            self._read()

    def _read(self) -> None:
        step, epoch, metrics = self._pending.popleft()
        metrics = jax.device_get(metrics)
        bad = [name for name, value in metrics.items() if not np.isfinite(value).all()]
        if bad:
            terms = [name for name in bad if name not in ("loss", "grad_norm")] or bad
            raise RunError(
                f"{' and '.join(terms)} became {metrics[terms[0]]} at step {step} (epoch {epoch + 1}); the checkpoints "
                f"from before it are kept; try a smaller optim.lr"
            )
        for line in self._watch.see(epoch, metrics):
            self.say(line)
        self._window.append(metrics)
        self._pace.step()
        self._show(step, epoch)
        self._bar.update()
        if step % self._every == 0 or step == self._bar.total:
            self._record(step, epoch)
        if step == self._bar.total:
            for line in self._watch.judge():
                self.say(line)

    def _record(self, step: int, epoch: int) -> None:
        now = time.perf_counter()
        # A window may hold steps of two tasks; each name is averaged over the steps that have it.
        names = dict.fromkeys(name for metrics in self._window for name in metrics if name != "sizes")
        mean = {name: float(np.mean([m[name] for m in self._window if name in m])) for name in names}
        sizes = sum(m["sizes"] for m in self._window if "sizes" in m)
        if np.ndim(sizes):
            mean["used_clusters"] = int(np.count_nonzero(sizes))
            mean["largest_cluster"] = largest_cluster(sizes)[1]
        mean["images_per_second"] = len(self._window) * self._images / (now - self._since)
        self._window, self._since = [], now
        if not self._write:
            return
        record = {"step": step, "epoch": epoch, **mean}
        if np.ndim(sizes):
            record["sizes"] = sizes.astype(int).tolist()
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        values = [value for name, number in mean.items() for value in scalar(f"train/{name}", number).value]
        self._board.write_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))
        self._board.flush()

    def _show(self, step: int, epoch: int) -> None:
        """What a person who waits is told: on a terminal every second, in a file once an epoch, or half a minute."""
        now, each = time.perf_counter(), self._pace.seconds
        every = EVERY_TTY if self._tty else EVERY_FILE
        if not self._write or (epoch == self._shown and now - self._shown_at < every):
            return
        self._shown, self._shown_at = epoch, now
        losses = [m["loss"] for m in self._window if "loss" in m]
        said = f"loss {np.mean(losses):.3f}" if losses else ""
        said += f", {self._images / each:,.0f} images/s" if each else ""
        self._bar.set_description_str(f"epoch {epoch + 1}/{self._epochs}", refresh=False)
        self._bar.set_postfix_str(said, refresh=False)
        if not self._tty:
            logger.info("epoch %d/%d  step %d  %s", epoch + 1, self._epochs, step, said)
        if self._pace.known and not self._told:
            self._told = True
            steps = self._bar.total - step
            logger.info("%s", forecast(each, steps, self._epochs, self._images))


def _truncate(path: Path, step: int) -> None:
    """Drops the records after `step`, and a line cut short by a kill, from an earlier run's file."""
    if not path.exists():
        return
    kept = [json.dumps(record) for record in read_records(path) if record["step"] <= step]
    write_atomically(path, "".join(f"{line}\n" for line in kept))


@contextlib.contextmanager
def _ticking(bar: tqdm) -> Iterator[None]:
    """While nothing is done that a bar could count, its clock goes on."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1):
            bar.refresh()

    thread = threading.Thread(target=tick, name="clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
