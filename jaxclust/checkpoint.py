"""`State` <-> Orbax. A checkpoint is the whole state under its step, and nothing that is not a pytree of arrays.

Orbax writes to a temporary folder and renames it when it is whole, so an interrupted write is never listed.
"""

import dataclasses
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from jaxclust.config import ConfigError
from jaxclust.types import State


@dataclasses.dataclass(frozen=True)
class Settings:
    every: int  # epochs between checkpoints; there is one at the end anyway
    keep: int  # how many of the newest to keep

    def __post_init__(self):
        if self.every < 1 or self.keep < 1:
            raise ValueError(f"checkpoint.every is {self.every} and checkpoint.keep is {self.keep}; at least 1 each")


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/<step>`. Use as a context manager: leaving it waits
    for the write under way."""

    def __init__(self, workdir: Path, keep: int | None):
        """Opens them for writing, keeping the newest `keep`, or read-only when `keep` is None."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, read_only=keep is None, enable_async_checkpointing=True, create=keep is not None
        )
        self._manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, state: State) -> None:
        """Starts to write `state`; returns as soon as the arrays are copied from the devices."""
        step = int(state.step)
        if step not in self.steps:
            self._manager.save(step, args=ocp.args.StandardSave(_as_arrays(state)), force=True)

    def restore(self, like: State, step: int | None = None) -> State:
        """Reads the checkpoint of `step`, or the newest.

        Args:
          like: a state of the same shapes and dtypes, on the devices where the restored one shall lie. Its
            arrays may be abstract (`jax.ShapeDtypeStruct` with a sharding).
          step: the checkpoint to read.

        Raises:
          ConfigError: there is no such checkpoint.
        """
        if not self.steps:
            raise ConfigError(f"there is no checkpoint in {self._manager.directory}; train first")
        if step is not None and step not in self.steps:
            raise ConfigError(f"there is no checkpoint of step {step}; there are {', '.join(map(str, self.steps))}")
        step = self.steps[-1] if step is None else step
        like = _as_arrays(like)
        return _as_state(self._manager.restore(step, args=ocp.args.StandardRestore(like)))


def _as_arrays(state: State) -> State:
    """The state with its typed PRNG key as plain integers."""
    if isinstance(state.key, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, state.key)
        return state.replace(key=jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=state.key.sharding))
    return state.replace(key=jax.random.key_data(state.key))


def _as_state(state: State) -> State:
    return state.replace(key=jax.random.wrap_key_data(state.key))
