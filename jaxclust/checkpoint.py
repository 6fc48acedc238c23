"""`State` <-> Orbax. A checkpoint is the whole state under its step, and nothing that is not a pytree of arrays.

Orbax writes to a temporary folder and renames it when it is whole, so an interrupted write is never listed. What it
does not notice is data that changed on the disk; so a digest of every array lies beside the state.
"""

import contextlib
import dataclasses
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxclust.config import ConfigError, RunError
from jaxclust.files import FULL
from jaxclust.types import State


@dataclasses.dataclass(frozen=True)
class Settings:
    every: int  # epochs between checkpoints; there is one at the end anyway
    keep: int  # how many of the newest to keep

    def __post_init__(self):
        if self.every < 1 or self.keep < 1:
            raise ValueError(f"checkpoint.every is {self.every} and checkpoint.keep is {self.keep}; at least 1 each")


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Never. JAX's service takes the last number that it was asked with for where this process is, and it is
        `Preemption` who asks, with numbers of its own."""
        return False


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/<step>`. Use as a context manager: leaving it waits
    for the write under way. Of several processes all make the same calls.

    Raises:
      RunError: here or in a later call, a write failed for want of room; the checkpoints before it are whole.
    """

    def __init__(self, workdir: Path, keep: int | None):
        """Opens them for writing, keeping the newest `keep`, or read-only when `keep` is None."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, read_only=keep is None, enable_async_checkpointing=True, create=keep is not None
        )
        self._aside = None if keep is None else workdir / "damaged"
        self._folder = (workdir / "checkpoints").absolute()
        with _room(self._folder):
            self._manager = _Manager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc) -> None:
        with _room(self._folder):
            self._manager.close()

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, state: State) -> None:
        """Starts to write `state`; returns as soon as the arrays are copied from the devices."""
        step = int(state.step)
        if step in self.steps:
            return
        arrays = _as_arrays(state)
        parts = ocp.args.Composite(state=ocp.args.StandardSave(arrays), digest=ocp.args.JsonSave(digest(arrays)))
        with _room(self._folder):
            self._manager.save(step, args=parts, force=True)

    def restore(self, like: State, step: int | None = None) -> State:
        """Reads the checkpoint of `step`, or the newest that is whole.

        A damaged one is reported on stderr and, where these are open for writing, moved to `workdir/damaged`, so that
        its step can be saved again.

        Args:
          like: a state of the same shapes and dtypes, on the devices where the restored one shall lie. Its
            arrays may be abstract (`jax.ShapeDtypeStruct` with a sharding).
          step: the checkpoint to read.

        Raises:
          ConfigError: there is no such checkpoint, or none that is whole.
        """
        if not self.steps:
            raise ConfigError(f"there is no checkpoint in {self._folder}; train first")
        if step is not None and step not in self.steps:
            raise ConfigError(f"there is no checkpoint of step {step}; there are {', '.join(map(str, self.steps))}")
        damaged = {}
        for candidate in reversed(self.steps) if step is None else [step]:
            state, problem = self._read(candidate, _as_arrays(like))
            if not problem:
                self._report(damaged, candidate)
                return _as_state(state)
            damaged[candidate] = problem
        what = "; ".join(f"of step {bad}: {problem}" for bad, problem in damaged.items())
        raise ConfigError(
            f"no checkpoint in {self._folder} that could be used is whole ({what}); "
            + (
                f"give another --step of {', '.join(map(str, self.steps))}"
                if step
                else "move the folder away, or restore it"
            )
        )

    def _read(self, step: int, like: State) -> tuple[State | None, str]:
        """A checkpoint's arrays, and what is wrong with them in the eyes of any process."""
        state, problem = None, ""
        try:
            parts = ocp.args.Composite(state=ocp.args.StandardRestore(like), digest=ocp.args.JsonRestore())
            read = self._manager.restore(step, args=parts)
            state = read["state"]
            changed = [name for name, value in digest(state).items() if read["digest"].get(name) != value]
            if changed:
                problem = f"{changed[0]} is not what was saved"
        except jax.errors.JaxRuntimeError:  # of the devices, not of the files
            raise
        except Exception as e:  # whatever a damaged file makes its parser say
            problem = (str(e) or type(e).__name__).strip().splitlines()[0][:200]
        if jax.process_count() > 1 and multihost_utils.process_allgather(np.array(bool(problem))).any():
            problem = problem or "another process cannot read it"
        return state, problem

    def _report(self, damaged: dict[int, str], used: int) -> None:
        for step, problem in damaged.items():
            if jax.process_index() == 0:
                print(f"warning: the checkpoint of step {step} is damaged ({problem})", end="", file=sys.stderr)
                if self._aside:
                    self._aside.mkdir(exist_ok=True)
                    os.replace(self._folder / str(step), tempfile.mkdtemp(prefix=f"{step}.", dir=self._aside))
                print(f"; using that of step {used}", file=sys.stderr, flush=True)
        if damaged and self._aside:
            multihost_utils.sync_global_devices("damaged checkpoints are out of the way")
            self._manager.reload()


def digest(arrays: State) -> dict[str, str]:
    """SHA-256 of each array, with its shape and type, by its name."""
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(arrays):
        x = np.ascontiguousarray(x)
        hashed = hashlib.sha256(f"{x.dtype}{x.shape}".encode())
        hashed.update(x.reshape(-1).view(np.uint8).data)
        found[jax.tree_util.keystr(path)] = hashed.hexdigest()
    return found


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore say on a full disk into a sentence."""
    try:
        yield
    except (OSError, ValueError) as e:
        said = next((text for text in map(os.strerror, FULL) if text in str(e)), None)
        if said is None:
            raise
        raise RunError(
            f"a checkpoint could not be written to {folder}: {said}; the ones before it are kept; make room, and the "
            f"same command goes on from the newest"
        ) from e


def _as_arrays(state: State) -> State:
    """The state with its typed PRNG key as plain integers."""
    if isinstance(state.key, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, state.key)
        return state.replace(key=jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=state.key.sharding))
    return state.replace(key=jax.random.key_data(state.key))


def _as_state(state: State) -> State:
    return state.replace(key=jax.random.wrap_key_data(state.key))
