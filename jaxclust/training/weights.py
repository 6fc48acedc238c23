"""A run's first state from weights that are there already: a whole checkpoint of others, or a backbone to train from.

Only the state differs from that of a run that starts from scratch: same config, same data, step 0. Every process reads
the file, and all is checked before anything is compiled.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxclust.nets.pretrained import layouts
from jaxclust.run import sharding
from jaxclust.run.checkpoint import Checkpoints, digest, plainly_called
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded
from jaxclust.run.workdir import CHECKPOINTS, steps
from jaxclust.training.build import Run, begin
from jaxclust.types import PyTree, State

logger = logging.getLogger(__name__)


def start(path: str, init: Callable[[], State], like: State) -> State:
    """The state before the first step of a run whose `net.init_from` is `path`.

    Args:
      path: a file as `layouts` knows them, of which only the backbone is taken; the workdir of a run of ours, of whose
        newest checkpoint likewise; or "" for no other state than init's.
      init: of the run.
      like: abstract, of the same structure.

    Raises:
      ConfigError: the file is none of these, not whole, or of another network than the config's.
    """
    if not path:
        return init()
    found = expanded(path)
    file = Ours(found) if found.is_dir() else layouts.File(found)
    return _replaced(init, layouts.fill(file, (like.params, like.stats, like.memory), heads=False))


def imported(path: Path, init: Callable[[], State], like: State) -> State:
    """The state that another's checkpoint makes of a run, at step 0: all parameters and statistics are the file's.

    A file that has a backbone alone leaves the rest as `init` draws it, and a note about that goes to stderr. The
    optimizer and the method's memory start anew: moments and targets belong to the order of the images there.

    Args:
      path: a file as `layouts` knows them.
      init: of the run.
      like: abstract, of the same structure.

    Raises:
      ConfigError: the file is none of these, not whole, or of another network than the config's.
    """
    file = layouts.File(path)
    if file.layout.heads:
        filled = *layouts.fill(file, (like.params, like.stats), heads=True), None
    else:
        filled = layouts.fill(file, (like.params, like.stats, like.memory), heads=False)
        if jax.process_index() == 0:
            logger.warning("note: %s has a backbone alone, so all else starts untrained; train the run", path)
    return _replaced(init, filled)


def run_import(run: Run, origin: Path) -> None:
    """Makes the workdir of a run at step 0 whose weights are those of `origin`.

    Raises:
      ConfigError: there is a run already, or what `imported` says; nothing is then written.
    """
    if steps(run.workdir):
        raise ConfigError(f"there is a run in {run.workdir} already; give another --workdir")
    state = imported(origin, run.init, run.like)
    try:
        run.workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            begin(run)
    except OSError as e:
        raise ConfigError(f"the workdir {run.workdir} cannot be written: {e.strerror}; give another --workdir") from e
    with Checkpoints(run.workdir, run.checkpoint.keep) as checkpoints:
        checkpoints.save(state)
    if jax.process_index() == 0:
        logger.info("imported %s into %s, at step 0", origin, run.workdir)


def _replaced(init: Callable[[], State], filled: tuple[PyTree, PyTree, PyTree]) -> State:
    def put(new, old):
        return old if new is None else sharding.put(new, old.sharding)

    state = init()
    parts = dict(zip(("params", "stats", "memory"), filled))
    return state.replace(
        **{
            part: jax.tree.map(put, new, getattr(state, part), is_leaf=lambda x: x is None)
            for part, new in parts.items()
            if new is not None
        }
    )


class Ours:
    """The backbone in the newest checkpoint of a run of ours, under the names that torchvision gives it."""

    def __init__(self, workdir: Path):
        """Raises a ConfigError where there is no checkpoint, or the newest is not whole."""
        self.path, self.layout = workdir, layouts.OWN
        if not steps(workdir):
            raise ConfigError(f"{workdir} is no workdir with a checkpoint; give one, or a file of weights")
        folder = (workdir / CHECKPOINTS / str(steps(workdir)[-1])).absolute()
        try:
            params, stats = _read(folder)
        except Exception as e:  # whatever a damaged file makes its parser say
            why = (str(e) or type(e).__name__).strip().splitlines()[0][:200]
            raise ConfigError(f"the checkpoint {folder} is damaged ({why}); give another --config.net.init_from") from e
        named = layouts.named((params, stats), heads=False)
        self._found = {layouts.theirs(name, self.layout): x for name, x in named if name}
        self.shapes = {name: layouts.their_shape(x.shape) for name, x in self._found.items()}

    def read(self, name: str) -> np.ndarray:
        """f32, with axes as torchvision has them."""
        x = self._found[name]
        return x.transpose(layouts.THEIR_AXES.get(x.ndim, range(x.ndim)))


def _read(folder: Path) -> tuple[PyTree, PyTree]:
    """Parameters and statistics of a checkpoint, as host arrays and no others, held against their digests."""
    reader = ocp.PyTreeCheckpointer()
    with plainly_called(folder) as plain:
        tree = reader.metadata(plain / "state").item_metadata.tree
        wanted = {part: tree[part] for part in ("params", "stats")}
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        read = reader.restore(plain / "state", args=ocp.args.PyTreeRestore(wanted, how, partial_restore=True))
    saved = json.loads((folder / "digest" / "metadata").read_text("utf-8"))
    state = State(None, None, read["params"], read["stats"], None, None)
    changed = [name for name, value in digest(state).items() if saved.get(name) != value]
    if changed:
        raise ValueError(f"{changed[0]} is not what was saved")
    return read["params"], read["stats"]
