"""The command: flags and wiring only.

    python -m jaxclust.main --config=configs/cifar10_anchor.py --config.optim.lr=1e-3 --workdir=runs/mine
    python -m jaxclust.main --mode=evaluate --workdir=runs/mine
    python -m jaxclust.main --mode=probe --workdir=runs/mine

Exit codes: 0 done, 1 the run failed, 2 the command, a config or the data is wrong, 130 interrupted.
"""

import argparse
import importlib
import importlib.metadata
import pkgutil
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import absl.logging
import jax
from ml_collections import ConfigDict

from jaxclust import __version__, checkpoint, config, data, evaluate, methods, optim, probe, sharding, train, views
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError, hint, settings
from jaxclust.feed import Feed
from jaxclust.files import write_atomically, write_json
from jaxclust.log import Log, RunError
from jaxclust.types import DataSpec, Prediction, State

MODES = ("train", "evaluate", "probe")
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "scikit-learn",
    "numpy",
)


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
    resident: str


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The flags, and the `--config.a.b=value` overrides as `{"a.b": "value"}`."""
    parser = argparse.ArgumentParser(
        prog="jaxclust",
        allow_abbrev=False,
        description="Cluster unlabelled images by training a network from scratch.",
        epilog="Any setting of the config can be overridden: --config.optim.lr=1e-3. "
        "The same command again resumes from the newest checkpoint.",
    )
    parser.add_argument("--config", help="a config file, your own or one that ships with jaxclust (configs/...)")
    parser.add_argument("--workdir", type=Path, help="where the run lives (default: runs/<config name>)")
    parser.add_argument(
        "--mode",
        default="train",
        help="train (the default; it evaluates at the end), evaluate (score a checkpoint's clusters), "
        "or probe (train a linear classifier on its frozen features)",
    )
    parser.add_argument("--step", type=int, help="evaluate, probe: the checkpoint of this step (default: the newest)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"jaxclust {__version__}")
    # argparse would take `--config.a=b` for an unknown flag; they are ours.
    overrides = {}
    rest = iter(argv)
    plain = []
    for word in rest:
        if word.startswith("--config."):
            name, equals, value = word.removeprefix("--config.").partition("=")
            if not equals and (value := next(rest, None)) is None:
                raise ConfigError(f"{word} has no value; write {word}=VALUE")
            overrides[name] = value
        else:
            plain.append(word)
    args, unknown = parser.parse_known_args(plain)
    if unknown:
        flags = [o for a in parser._actions for o in a.option_strings]
        raise ConfigError(f"unknown argument {unknown[0]}{hint(unknown[0].split('=')[0], flags)}")
    if args.mode not in MODES:
        raise ConfigError(f"unknown mode {args.mode}{hint(args.mode, MODES)}")
    if args.step is not None and args.mode == "train":
        raise ConfigError("--step goes with --mode=evaluate or probe; training resumes from the newest checkpoint")
    return args, overrides


def build(args: argparse.Namespace, overrides: dict[str, str]) -> Run:
    """From flags to a checked run. Nothing is compiled and, but for the workdir, nothing is written.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    cfg, workdir = _config_and_workdir(args, overrides)
    methods_known = [m.name for m in pkgutil.iter_modules(methods.__path__)]
    name = cfg.method.get("name")
    if name not in methods_known:
        raise ConfigError(f"method.name is {name!r}{hint(str(name), methods_known)}")
    method = importlib.import_module(f"jaxclust.methods.{name}").make(cfg)

    data_s = settings(data.Settings, cfg.data, "data")
    train_s = settings(train.Settings, cfg.train, "train")
    eval_s = settings(evaluate.Settings, cfg.eval, "eval")
    optim_s = settings(optim.Settings, cfg.optim, "optim")
    checkpoint_s = settings(checkpoint.Settings, cfg.checkpoint, "checkpoint")
    try:
        policies = views.make(cfg.views, data_s.size)
    except ValueError as e:
        raise ConfigError(str(e)) from e
    used = {v for t in method.tasks.values() for v in t.views} | {r.view for r in method.refits.values()}
    for view in (*sorted(used), eval_s.view, eval_s.paper_view):
        if view not in policies:
            raise ConfigError(f"the view {view!r} is used but is not in the section views{hint(view, policies)}")

    sources = data.load(data_s)
    examples = {split: len(source.images) for split, source in sources.items()}
    mesh = sharding.make_mesh()
    _check_sizes(cfg.clusters, train_s.batch_size, examples, mesh.size)
    if args.mode == "probe":
        probe.check(sources["train"], eval_s.held_out)

    stages = tuple(train.timetable(method, examples, train_s.epochs, train_s.batch_size))
    per_epoch = sum(stage.steps for stage in stages if stage.epoch == 0)
    optimizer = optim.make(optim_s, stages[-1].start + stages[-1].steps, per_epoch)
    plan = train.Plan(method, policies, optimizer, stages, mesh, cfg.seed, train_s.batch_size, checkpoint_s.every)
    spec = DataSpec(examples["train"], data_s.size, sources["train"].images.shape[-1])
    whole = sharding.replicated(mesh)
    init = jax.jit(lambda: train.init_state(method, spec, optimizer, cfg.seed), out_shardings=whole)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), jax.eval_shape(init))
    if args.mode == "train":
        _make_writable(workdir)
    return Run(cfg, workdir, sources, plan, init, like, train_s, eval_s, checkpoint_s, data_s.resident)


def feeds(run: Run) -> dict[str, Feed]:
    """Every split of the run, ready to be drawn from."""
    return {name: Feed(source.images, run.plan.mesh, run.resident) for name, source in run.sources.items()}


def run_training(run: Run) -> State:
    """Trains to the end, from the newest checkpoint where there is one."""
    with Checkpoints(run.workdir, run.checkpoint.keep) as checkpoints:
        if checkpoints.steps:
            state = checkpoints.restore(run.like)
            print(f"resuming from step {checkpoints.steps[-1]} in {run.workdir}", flush=True)
        else:
            state = run.init()
        for name in set(run.plan.method.refits) - {stage.todo.refit for stage in run.plan.stages}:
            print(
                f"note: {run.train.epochs} epochs end before the {name} are fitted, so the clusters stay untrained",
                file=sys.stderr,
            )
        write_atomically(run.workdir / "config.json", run.config.to_json(indent=2) + "\n")
        last = run.plan.stages[-1]
        with Log(
            run.workdir,
            step=int(state.step),
            steps=last.start + last.steps,
            epochs=run.train.epochs,
            images=run.train.batch_size,
            every=run.train.log_every,
            write=jax.process_index() == 0,
        ) as log:
            return train.run(state, run.plan, feeds(run), checkpoints, log)


def run_evaluation(run: Run, state: State) -> None:
    """Scores `state`, prints the table and writes `scores.json`."""
    source, method, feed = run.sources["train"], run.plan.method, feeds(run)["train"]
    view, paper_view = run.eval.view, run.eval.paper_view
    how = (source, run.config.clusters, run.config.seed, run.eval.restarts)
    scores = rows = evaluate.score(_predict(run, state, feed, view), *how)
    if paper_view != view:
        shown = _predict(run, state, feed, paper_view)
        rows = {name: evaluate.row(name, shown, *how) for name in set(method.reported.values())}
    paper = {name: rows[row] for name, row in method.reported.items()}
    if jax.process_index() == 0:
        step, path = int(state.step), run.workdir / "scores.json"
        write_json(path, {"step": step, "seed": run.config.seed, **scores, "paper": paper})
        print(f"step {step}, {len(source.images):,} images, scores in {path}")
        print(evaluate.table(scores, paper), flush=True)


def run_probe(run: Run, state: State) -> None:
    """Trains a linear classifier on the frozen features of `state`, prints its accuracy and writes `probe.json`."""
    name, x = next(iter(_predict(run, state, feeds(run)["train"], run.eval.view).embeddings.items()))
    held_out, seed = run.eval.held_out, run.config.seed
    scores = probe.score(x, run.sources["train"].labels, held_out, seed)
    if jax.process_index() == 0:
        step, path = int(state.step), run.workdir / "probe.json"
        write_json(path, {"step": step, "seed": seed, "embedding": name, "held_out": held_out, **scores})
        print(
            f"step {step}, linear probe of {name}: accuracy {scores['accuracy']:.3f} on {held_out:,} held-out images, "
            f"{scores['train_accuracy']:.3f} on the {len(x) - held_out:,} it was trained on; scores in {path}",
            flush=True,
        )


def _predict(run: Run, state: State, feed: Feed, view: str) -> Prediction:
    """The method's prediction of every image of `feed`, shown through the policy `view`."""
    return evaluate.embed(state, run.plan.method, run.plan.views[view], feed, run.plan.mesh, run.eval.batch_size)


def announce(run: Run) -> None:
    """Prints the config, package versions and devices, and keeps them beside the run."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
    about = {"jaxclust": __version__, "python": platform.python_version(), **versions, "devices": devices}
    write_json(run.workdir / "environment.json", about)
    print("\n".join(f"{name} = {value!r}" for name, value in config.flatten(run.config.to_dict()).items()))
    print(", ".join(f"{name} {version}" for name, version in about.items() if name != "devices"))
    print(f"{len(devices)} device{'s' * (len(devices) > 1)}: {', '.join(devices)}", flush=True)


def _config_and_workdir(args: argparse.Namespace, overrides: dict[str, str]) -> tuple[ConfigDict, Path]:
    """The config that the flags name, and the workdir, whose earlier run must be one of the same settings."""
    path = config.find(args.config) if args.config else None
    workdir = args.workdir or (path and Path("runs") / path.stem)
    saved = workdir and workdir / "config.json"
    if args.mode != "train" and saved and not saved.is_file():
        raise ConfigError(f"there is no run in {workdir} (it has no config.json); train first, or give its --workdir")
    if path:
        cfg = config.load(path, overrides)
    elif args.mode != "train" and workdir:
        cfg = config.from_json(saved, overrides)
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


def _check_sizes(clusters: int, batch_size: int, examples: dict[str, int], devices: int) -> None:
    if clusters > examples["train"]:
        raise ConfigError(f"clusters is {clusters}, but there are only {examples['train']} images")
    for split, n in examples.items():
        if batch_size > n:
            raise ConfigError(f"train.batch_size is {batch_size}, but the split {split} has only {n} images")
    if batch_size % devices:
        raise ConfigError(
            f"train.batch_size is {batch_size}, which is not divisible by the {devices} devices; "
            f"the nearest that is: {max(round(batch_size / devices), 1) * devices}"
        )


def use_compilation_cache() -> None:
    """A second start of the same program reads it from disk instead of compiling it."""
    jax.config.update("jax_compilation_cache_dir", str(data.cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def main(argv: list[str]) -> None:
    """Runs the command.

    Raises:
      ConfigError, RunError: as `cli` reports them.
    """
    args, overrides = parse(argv)
    use_compilation_cache()
    run = build(args, overrides)
    if args.mode == "train":
        announce(run)
        state = run_training(run)
    else:
        with Checkpoints(run.workdir, keep=None) as checkpoints:
            state = checkpoints.restore(run.like, args.step)
    if args.mode == "probe":
        run_probe(run, state)
    else:
        run_evaluation(run, state)


def cli(argv: list[str] | None = None) -> int:
    """The console command: `main` with errors turned into a sentence and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    absl.logging.set_verbosity(absl.logging.ERROR)  # the libraries' chatter is not for our users
    try:
        main(argv)
    except (ConfigError, RunError) as e:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"jaxclust: {e}", file=sys.stderr)
        return 2 if isinstance(e, ConfigError) else 1
    except KeyboardInterrupt:
        print("jaxclust: interrupted; the same command resumes from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(cli())
