"""From a command's words to a checked run: everything a mode needs, built before anything is compiled."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from jaxclust import data, methods, views
from jaxclust.clusters import evaluate, journal, predictions, probe
from jaxclust.clusters.decisions import Decisions
from jaxclust.data.feed import Feed
from jaxclust.run import checkpoint, sharding
from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.schema import settings
from jaxclust.run.workdir import begin as begin_in
from jaxclust.run.workdir import check_inside, steps
from jaxclust.training import began, checks, configs, looks, loop, optim, sizing
from jaxclust.training.step import init_state
from jaxclust.training.timetable import timetable, updates
from jaxclust.types import DataSpec, Method, Prediction, State

TRIAL = 50_000  # images, of which the number is not known yet
logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """Everything a mode needs, checked and built before anything is compiled."""

    config: ConfigDict
    workdir: Path
    sources: dict[str, data.Source]
    plan: loop.Plan
    init: Callable[[], State]
    like: State  # abstract, on every device of the mesh
    train: loop.Settings
    eval: evaluate.Settings
    checkpoint: checkpoint.Settings
    report: looks.Settings
    resident: str
    gone: int  # images that the run began with and that are no longer there


class Opened(NamedTuple):
    """A run without its images."""

    config: ConfigDict
    workdir: Path
    method: Method
    images: Mapping[str, Any]  # what the run keeps of its train split, as `began.kept_images` has it
    state: State  # of a checkpoint, on every device of the mesh
    decided: Decisions  # by a person, about the clusters of that checkpoint

    def kept(self) -> Prediction | None:
        """What this checkpoint's network says of the images, where an evaluation has kept it."""
        images = {name: self.images[name] for name in ("images", "names")}
        return predictions.load(self.workdir, int(self.state.step), self.config.eval.view, images)


def build(path: str | None, workdir: Path | None, mode: str, overrides: Mapping[str, str]) -> Run:
    """From a command to a checked run. Nothing is compiled and, but for the workdir, nothing is written.

    Args:
      path: a config file, as `config.load` takes it; where none is given, that of the run in `workdir`.
      workdir: where the run lives; where none is given, `runs/` and the config's name.
      mode: what the run is for.
      overrides: of single settings, as the command line has them.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    return assemble(*configs.find(path, workdir, mode, overrides), mode)


def begin(run: Run) -> None:
    """Makes the workdir a run, with what it must know again when it goes on."""
    about = {split: source.about() for split, source in run.sources.items()}
    begin_in(run.workdir, run.config.to_json(indent=2), about, run.sources["train"].names)


def restore(run: Run, step: int | None) -> State:
    """The state of a checkpoint of the run, the newest where no step is given.

    Raises:
      ConfigError: there is none, or it is damaged.
    """
    with checkpoint.Checkpoints(run.workdir, keep=None) as checkpoints:
        return checkpoints.restore(run.like, step)


def assemble(cfg: ConfigDict, workdir: Path, mode: str, sources: dict[str, data.Source] | None = None) -> Run:
    """From a config to a checked run.

    Args:
      cfg: complete.
      workdir: where the run lives; with `mode` "train" it is made.
      mode: what the run is for.
      sources: images that are in memory already, by split; else the config's section `data` says where they are.

    Raises:
      ConfigError: the config or the data is wrong.
    """
    check_inside(workdir)
    sizing.by_device(cfg)
    trial = cfg.copy_and_resolve_references()  # what is wrong with a method's settings is said before images are read
    sizing.by_images(trial, TRIAL)
    _, method = _method(trial)

    data_s = settings(data.Settings, cfg.data, "data")
    eval_s = settings(evaluate.Settings, cfg.eval, "eval")
    checkpoint_s = settings(checkpoint.Settings, cfg.checkpoint, "checkpoint")
    report_s = settings(looks.Settings, cfg.report, "report")
    policies = views.make(cfg.views, data_s.size)
    for view in (*sorted(checks.used(method)), eval_s.view, eval_s.paper_view):
        if view not in policies:
            raise ConfigError(f"the view {view!r} is used but is not in the section views{hint(view, policies)}")

    sources = data.load(data_s) if sources is None else sources
    sources, gone = began.as_before(workdir, sources, mode)
    examples = {split: len(source.images) for split, source in sources.items()}
    sizing.by_images(cfg, examples["train"])
    train_s, method = _method(cfg)
    mesh = sharding.make_mesh()
    checks.sizes(cfg.clusters, train_s.batch_size, examples)
    if mode == "train":  # alone has batches of that size
        checks.filled(cfg.clusters, train_s.batch_size)
        checks.memory_of_first_layer(cfg, sources["train"].images.shape[-1], mesh.size)
        checks.among(mesh.size, train_s, min(examples.values()), lambda size: _takes(cfg, workdir, size))
    if mode == "probe":
        probe.check(sources["train"], eval_s.held_out)

    stages = tuple(timetable(method, examples, train_s.epochs, train_s.batch_size))
    checks.separable(method, stages, train_s.accumulate)
    optimizers = optim.make_all(cfg.optim, updates(method, stages))
    how = cfg.seed, train_s.batch_size, train_s.accumulate, checkpoint_s.every, checkpoint_s.minutes
    plan = loop.Plan(method, policies, optimizers, stages, mesh, *how)
    spec = DataSpec(examples["train"], data_s.size, sources["train"].images.shape[-1])
    params, _, memory = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))
    checks.memory(method, memory)
    optim.check(optimizers, {name: method.tasks[name].optim for stage in stages for name in stage.todo.tasks}, params)
    whole = sharding.replicated(mesh)
    init = jax.jit(lambda: init_state(method, spec, optimizers, cfg.seed), out_shardings=whole)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), jax.eval_shape(init))
    if mode == "train":
        _make_writable(workdir)
    return Run(cfg, workdir, sources, plan, init, like, train_s, eval_s, checkpoint_s, report_s, data_s.resident, gone)


def _method(cfg: ConfigDict) -> tuple[loop.Settings, Method]:
    """The section `train`, which methods read too, and the method."""
    train_s = settings(loop.Settings, cfg.train, "train")
    return train_s, methods.make(cfg)


def open_run(cfg: ConfigDict, workdir: Path, step: int | None = None) -> Opened:
    """A run, for what needs none of its images.

    Args:
      cfg: of the run, of `configs`.
      workdir: of the run.
      step: of the checkpoint; the newest where none is given.

    Raises:
      ConfigError: there is no run, no such checkpoint, or what is there is damaged or does not belong together.
    """
    method, whole = methods.make(cfg), sharding.replicated(sharding.make_mesh())
    images = began.kept_images(workdir, cfg)
    spec = DataSpec(images["images"], cfg.data.size, images["shape"][-1])
    optimizers = optim.make_all(cfg.optim, {})  # the shapes of their states do not depend on how long a run is
    like = jax.eval_shape(lambda: init_state(method, spec, optimizers, cfg.seed))
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), like)
    with checkpoint.Checkpoints(workdir, keep=None) as checkpoints:
        state = checkpoints.restore(like, step)
    return Opened(cfg, workdir, method, images, state, journal.load(workdir, int(state.step), cfg.clusters))


def feeds(run: Run) -> dict[str, Feed]:
    """Every split of the run, ready to be drawn from."""
    return {name: Feed(source.images, run.plan.mesh, run.resident) for name, source in run.sources.items()}


def _make_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except OSError as e:
        raise ConfigError(f"the workdir {workdir} cannot be written: {e.strerror}; give another --workdir") from e


def _takes(cfg: ConfigDict, workdir: Path, batch_size: int) -> bool:
    """Whether the run can have batches of another size: it has not begun, and its method takes them."""
    if steps(workdir):
        return False
    other = cfg.copy_and_resolve_references()
    other.train.batch_size = batch_size
    try:
        methods.make(other)
    except ConfigError:
        return False
    return True
