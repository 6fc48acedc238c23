"""`State` <-> Orbax. A checkpoint is the whole state under its step, and nothing that is not a pytree of arrays.

Orbax writes to a temporary folder and renames it when it is whole, so an interrupted write is never listed. What it
does not notice is data that changed on the disk; so a digest of every array lies beside the state.
"""

import contextlib
import dataclasses
import errno
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import PolicyCheckpointInfo, PreservationContext, PreservationPolicy

from jaxclust.run.errors import ConfigError, RunError
from jaxclust.run.files import FULL, read_json
from jaxclust.run.schema import option
from jaxclust.run.workdir import CHECKPOINTS, DAMAGED, DECISIONS, FORMAT
from jaxclust.types import State

logger = logging.getLogger(__name__)

# What a system says that does not give a file, whose bytes nobody has seen then.
PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES)
MAIN = "main"  # the optimizer of a config that names none


@dataclasses.dataclass(frozen=True)
class Settings:
    every: int = option(5, at_least=1)  # epochs between checkpoints; there is one at the end anyway
    minutes: float = option(5.0, above=0)  # between checkpoints of a process that is alone, where epochs take longer
    keep: int = option(3, at_least=1)  # how many of the newest to keep


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Never. JAX's service takes the last number that it was asked with for where this process is, and it is
        `Preemption` who asks, with numbers of its own."""
        return False


@dataclasses.dataclass
class _Kept(PreservationPolicy):
    """The newest, and the one whose clusters a person has decided about: their work is worth nothing without it."""

    workdir: Path
    newest: int

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> Sequence[bool]:
        decided = decided_on(self.workdir)
        first = len(checkpoints) - self.newest
        return [i >= first or info.step == decided for i, info in enumerate(checkpoints)]


def decided_on(workdir: Path) -> int | None:
    """The step whose clusters somebody has decided about; None where nobody has, or the file is damaged."""
    with contextlib.suppress(ConfigError, KeyError, TypeError):
        if (workdir / DECISIONS).exists() and (content := read_json(workdir / DECISIONS))["entries"]:
            return int(content["step"])
    return None


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/<step>`. Use as a context manager: leaving it waits
    for the write under way. Of several processes all make the same calls.

    Raises:
      ConfigError: what Orbax keeps about one of them is damaged, and is to be moved away.
      RunError: here or in a later call, a write failed for want of room; the checkpoints before it are whole.
    """

    def __init__(self, workdir: Path, keep: int | None):
        """Opens them for writing, keeping the newest `keep` (and see `_Kept`), or read-only when `keep` is None."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if keep is None else _Kept(workdir, keep),
            read_only=keep is None,
            enable_async_checkpointing=True,
            create=keep is not None,
        )
        self._aside = None if keep is None else workdir / DAMAGED
        self._folder = (workdir / CHECKPOINTS).absolute()
        self._open = contextlib.ExitStack()
        with _room(self._folder):
            if keep is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.glob("[0-9]*/_CHECKPOINT_METADATA"):
                if path.parent.name.isdecimal():  # others are not whole, and known to be
                    read_json(path)  # the manager takes it for what it should be; without one, it asks the file system
            self._plain = self._open.enter_context(plainly_called(self._folder))
            self._manager = _Manager(self._plain, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc: object) -> None:
        with self._open, _room(self._folder):
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

    def wait(self) -> None:
        """Returns when what is being written is on the disk."""
        with _room(self._folder):
            self._manager.wait_until_finished()

    def restore(self, like: State, step: int | None = None) -> State:
        """Reads the checkpoint of `step`, or the newest that is whole.

        A damaged one is reported and, where these are open for writing, moved to `workdir/damaged`, so that
        its step can be saved again. One that a disk or a file server does not give is not damaged, and stays.

        Args:
          like: a state of the same shapes and dtypes, on the devices where the restored one shall lie. Its
            arrays may be abstract (`jax.ShapeDtypeStruct` with a sharding).
          step: the checkpoint to read.

        Raises:
          ConfigError: there is no such checkpoint, or none that is whole.
          RunError: the system, not its bytes, keeps a process from reading the newest.
        """
        if not self.steps:
            raise ConfigError(f"there is no checkpoint in {self._folder}; train first")
        if step is not None and step not in self.steps:
            raise ConfigError(f"there is no checkpoint of step {step}; there are {', '.join(map(str, self.steps))}")
        damaged: dict[int, str] = {}
        for candidate in reversed(self.steps) if step is None else [step]:
            state, problem = self._read(candidate, _as_arrays(like))
            if state is not None and not problem:
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
        state, problem, passing = None, "", False
        try:
            for path in (self._folder / str(step)).rglob("*"):
                if not (path.is_file() or path.is_dir()):  # a pipe would be waited for
                    raise ValueError(f"{path.name} is no file")
            written = self._format(step, like)
            older = ocp.args.StandardRestore(as_written(like, written))
            parts = ocp.args.Composite(state=older, digest=ocp.args.JsonRestore())
            read = self._manager.restore(step, args=parts)
            state = read["state"]
            changed = [name for name, value in digest(state).items() if read["digest"].get(name) != value]
            if changed:
                problem = f"{changed[0]} is not what was saved"
            state = _upgraded(state, written)
        except jax.errors.JaxRuntimeError:  # of the devices, not of the files
            raise
        except Exception as e:  # whatever a damaged file makes its parser say
            problem = (str(e) or type(e).__name__).strip().splitlines()[0][:200]
            passing = isinstance(e, MemoryError) or any(os.strerror(number) in str(e) for number in PASSING)
        worst = np.array([bool(problem), passing])
        if jax.process_count() > 1:
            worst = multihost_utils.process_allgather(worst).any(axis=0)
        if worst.any():
            problem = problem or "another process cannot read it"
        if worst[1]:
            raise RunError(
                f"the checkpoint of step {step} in {self._folder} cannot be read now ({problem}), which need not be a "
                f"fault of it, so it stays; give the same command again, or, where that does not help, move "
                f"{self._folder / str(step)} away: the one before it is then used"
            )
        return state, problem

    def _format(self, step: int, like: State) -> int:
        """The format that a checkpoint is of; a run that was gone on with may have some of several."""
        if set(like.opt) != {MAIN}:
            return FORMAT
        saved = ocp.PyTreeCheckpointer().metadata(self._plain / str(step) / "state").item_metadata.tree
        return FORMAT if isinstance(saved["opt"], dict) and MAIN in saved["opt"] else 1

    def _report(self, damaged: dict[int, str], used: int) -> None:
        for step, problem in damaged.items():
            if jax.process_index() == 0:
                if self._aside:
                    self._aside.mkdir(exist_ok=True)
                    os.replace(self._folder / str(step), tempfile.mkdtemp(prefix=f"{step}.", dir=self._aside))
                said = "warning: the checkpoint of step %d is damaged (%s); using that of step %d"
                logger.warning(said, step, problem, used)
        if damaged and self._aside:
            multihost_utils.sync_global_devices("damaged checkpoints are out of the way")
            self._manager.reload()


def as_written(like: State, number: int) -> State:
    """A state of today as checkpoints of format `number` have it: the first has its only optimizer under no name."""
    return like.replace(opt=like.opt[MAIN]) if number < 2 else like


def _upgraded(state: State, number: int) -> State:
    """A state that was read as format `number` has it, as it is today."""
    return state.replace(opt={MAIN: state.opt}) if number < 2 else state


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
def plainly_called(folder: Path) -> Iterator[Path]:
    """`folder`, by a name that Orbax and TensorStore take for a name.

    They read a pattern into *, ?, [ and a backslash, also in the folders above, and do not know bytes that are not
    UTF-8. What was saved below such a name could never be read again, or another folder in its place.
    """
    if not set(str(folder)) & set("*?[\\") and str(folder).isprintable():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxclust-") as beside:
        link = Path(beside) / folder.name
        link.symlink_to(folder)
        yield link


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
