"""From a command's words to a checked run: everything a mode needs, built before anything is compiled."""

import argparse
import importlib
import pkgutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from jaxclust import checkpoint, config, data, evaluate, methods, optim, probe, progress, sharding, train, views
from jaxclust.config import ConfigError, hint, settings
from jaxclust.feed import Feed
from jaxclust.types import DataSpec, Method, State

MAKING = ("train", "import")  # modes that begin a run


class Run(NamedTuple):
    """Everything a mode needs, checked and built before anything is compiled."""

    config: ConfigDict
    workdir: Path
    sources: dict[str, data.Source]
    plan: train.Plan
    init: Callable[[], State]
    like: State  # abstract, on every device of the mesh
    train: train.Settings
    eval: evaluate.Settings
    checkpoint: checkpoint.Settings
    report: progress.Settings
    resident: str


def build(args: argparse.Namespace, overrides: dict[str, str]) -> Run:
    """From flags to a checked run. Nothing is compiled and, but for the workdir, nothing is written.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    cfg, workdir = _config_and_workdir(args, overrides)
    return assemble(cfg, workdir, args.mode)


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
    methods_known = [m.name for m in pkgutil.iter_modules(methods.__path__)]
    name = cfg.method.get("name")
    if name not in methods_known:
        raise ConfigError(f"method.name is {name!r}{hint(str(name), methods_known)}")
    train_s = settings(train.Settings, cfg.train, "train")  # methods read it too
    method = importlib.import_module(f"jaxclust.methods.{name}").make(cfg)

    data_s = settings(data.Settings, cfg.data, "data")
    eval_s = settings(evaluate.Settings, cfg.eval, "eval")
    optim_s = settings(optim.Settings, cfg.optim, "optim")
    checkpoint_s = settings(checkpoint.Settings, cfg.checkpoint, "checkpoint")
    report_s = settings(progress.Settings, cfg.report, "report")
    try:
        policies = views.make(cfg.views, data_s.size)
    except ValueError as e:
        raise ConfigError(str(e)) from e
    used = {v for t in method.tasks.values() for v in t.views} | {r.view for r in method.refits.values()}
    for view in (*sorted(used), eval_s.view, eval_s.paper_view):
        if view not in policies:
            raise ConfigError(f"the view {view!r} is used but is not in the section views{hint(view, policies)}")

    sources = data.load(data_s) if sources is None else sources
    _check_same_images(workdir, sources)
    examples = {split: len(source.images) for split, source in sources.items()}
    mesh = sharding.make_mesh()
    _check_sizes(cfg.clusters, train_s, examples, mesh.size)
    if mode == "probe":
        probe.check(sources["train"], eval_s.held_out)

    stages = tuple(train.timetable(method, examples, train_s.epochs, train_s.batch_size))
    _check_separable(method, stages, train_s.accumulate)
    per_epoch = sum(stage.steps for stage in stages if stage.epoch == 0)
    optimizer = optim.make(optim_s, stages[-1].start + stages[-1].steps, per_epoch)
    how = cfg.seed, train_s.batch_size, train_s.accumulate, checkpoint_s.every
    plan = train.Plan(method, policies, optimizer, stages, mesh, *how)
    spec = DataSpec(examples["train"], data_s.size, sources["train"].images.shape[-1])
    whole = sharding.replicated(mesh)
    init = jax.jit(lambda: train.init_state(method, spec, optimizer, cfg.seed), out_shardings=whole)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), jax.eval_shape(init))
    if mode == "train":
        _make_writable(workdir)
    return Run(cfg, workdir, sources, plan, init, like, train_s, eval_s, checkpoint_s, report_s, data_s.resident)


def data_settings(args: argparse.Namespace, overrides: dict[str, str]) -> data.Settings:
    """The section `data` of the config that the flags name."""
    if not args.config:
        raise ConfigError(f"--mode={args.mode} needs --config=FILE, for example --config=configs/cifar10_anchor.py")
    cfg = config.load(config.find(args.config), overrides)
    return settings(data.Settings, cfg.data, "data")


def feeds(run: Run) -> dict[str, Feed]:
    """Every split of the run, ready to be drawn from."""
    return {name: Feed(source.images, run.plan.mesh, run.resident) for name, source in run.sources.items()}


def _config_and_workdir(args: argparse.Namespace, overrides: dict[str, str]) -> tuple[ConfigDict, Path]:
    """The config that the flags name, and the workdir, whose earlier run must be one of the same settings."""
    path = config.find(args.config) if args.config else None
    workdir = args.workdir or (path and Path("runs") / path.stem)
    saved = workdir and workdir / "config.json"
    if args.mode not in MAKING and saved and not saved.is_file():
        raise ConfigError(f"there is no run in {workdir} (it has no config.json); train first, or give its --workdir")
    if path:
        cfg = config.load(path, overrides)
    elif args.mode not in MAKING and workdir:
        cfg = config.from_json(saved, overrides)
    elif args.mode not in MAKING:
        raise ConfigError(f"--mode={args.mode} needs --workdir=RUN, or the --config=FILE that the run was made with")
    else:
        raise ConfigError("give --config=FILE, for example --config=configs/digits_anchor.py")
    if saved.is_file() and any((workdir / "checkpoints").glob("[0-9]*")):
        changed = config.differences(config.from_json(saved, {}).to_dict(), cfg.to_dict())
        if changed:
            what = "; ".join(f"{name} was {old!r} and is {new!r}" for name, old, new in changed)
            raise ConfigError(f"the run in {workdir} was made with other settings: {what}; give another --workdir")
    return cfg, workdir


def _make_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except OSError as e:
        raise ConfigError(f"the workdir {workdir} cannot be written: {e.strerror}; give another --workdir") from e


def _check_same_images(workdir: Path, sources: dict[str, data.Source]) -> None:
    """Rows of the state belong to rows of the data, so a run cannot go on with other images than it began with."""
    path = workdir / "data.json"
    if not path.is_file() or not any((workdir / "checkpoints").glob("[0-9]*")):
        return
    for split, then in config.read_json(path).items():
        now = sources[split].fingerprint()
        if any(now[key] != then[key] for key in now):
            count = f"{then['images']:,} then, {now['images']:,} now"
            what = count if now["images"] != then["images"] else f"{count}, with other names"
            raise ConfigError(
                f"the images of the split {split} are not those that the run in {workdir} was made with ({what}); "
                f"restore them, or give another --workdir"
            )


def _check_sizes(clusters: int, train_s: train.Settings, examples: dict[str, int], devices: int) -> None:
    batch_size, parts = train_s.batch_size, train_s.accumulate
    if clusters > examples["train"]:
        raise ConfigError(f"clusters is {clusters}, but there are only {examples['train']} images")
    for split, n in examples.items():
        if batch_size > n:
            raise ConfigError(f"train.batch_size is {batch_size}, but the split {split} has only {n} images")
    if batch_size % (devices * parts):
        among = f"{devices} devices" + f" times train.accumulate, {parts}" * (parts > 1)
        raise ConfigError(
            f"train.batch_size is {batch_size}, which is not divisible by the {among}; "
            f"the nearest that is: {max(round(batch_size / (devices * parts)), 1) * devices * parts}"
        )


def _check_separable(method: Method, stages: tuple[train.Stage, ...], accumulate: int) -> None:
    whole = sorted({stage.todo.task for stage in stages if not method.tasks[stage.todo.task].separable})
    if accumulate > 1 and whole:
        raise ConfigError(
            f"train.accumulate is {accumulate}, but the loss of the task {whole[0]} compares all images of a batch and "
            f"cannot be taken in parts; set it to 1, and to save memory set net.remat=True, net.dtype=bfloat16 or a "
            f"smaller train.batch_size"
        )


def use_compilation_cache() -> None:
    """A second start of the same program reads it from disk instead of compiling it."""
    jax.config.update("jax_compilation_cache_dir", str(data.cache.directory() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
