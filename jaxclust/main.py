"""The command: flags and wiring only.

    python -m jaxclust.main --config=configs/cifar10_anchor.py --config.optim.lr=1e-3 --workdir=runs/mine
    python -m jaxclust.main --mode=evaluate --workdir=runs/mine
    python -m jaxclust.main --mode=probe --workdir=runs/mine
    python -m jaxclust.main --mode=suggest-k --workdir=runs/mine --k=2:30
    python -m jaxclust.main --mode=report --workdir=runs/mine
    python -m jaxclust.main --mode=browse --workdir=runs/mine
    python -m jaxclust.main --mode=compare --runs=runs/a,runs/b,runs/c
    python -m jaxclust.main --mode=predict --workdir=runs/mine --images=PHOTOS
    python -m jaxclust.main --mode=export --workdir=runs/mine
    python -m jaxclust.main --mode=import --config=configs/cifar10_cc.py --from=checkpoint_1000.tar
    python -m jaxclust.main --mode=prepare --config=configs/stl10_cc.py --from=DOWNLOADS

Exit codes: 0 done, 1 the run failed, 2 the command, a config or the data is wrong, 75 stopped by SIGTERM or SIGUSR1
and ready to go on, 130 interrupted.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

import absl.logging
import jax

from jaxclust import __version__, build, distributed, modes
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError, RunError, hint
from jaxclust.files import FULL
from jaxclust.preemption import EXIT_CODE, Preempted, Preemption

MODES = {
    "train": "the default; it evaluates and reports at the end",
    "evaluate": "score a checkpoint's clusters",
    "report": "a page about the run: scores, curves, clusters, findings",
    "browse": "a local page to work in: look through clusters, name, merge, split them, move images",
    "predict": "sort new images into a run's clusters",
    "compare": "several runs in one table and on one page",
    "suggest-k": "which number of clusters a checkpoint's embeddings speak for",
    "probe": "train a linear classifier on a checkpoint's frozen features",
    "export": "the network as StableHLO and ONNX, with its weights and a model card",
    "import": "make a run of other people's weights",
    "prepare": "make the config's data set, from the network or from files",
}
RESTORING = ("evaluate", "report", "browse", "predict", "suggest-k", "probe", "export")


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
        help="; ".join(f"{name}: {what}" for name, what in MODES.items()),
    )
    parser.add_argument("--step", type=int, help=f"{', '.join(RESTORING)}: the checkpoint (default: the newest)")
    parser.add_argument("--k", metavar="LOW:HIGH", help="suggest-k: the numbers of clusters to try (default: 2:30)")
    parser.add_argument("--port", type=int, help="browse: where to listen, on this machine alone (default: 8321)")
    parser.add_argument("--runs", metavar="A,B,...", help="compare: workdirs, folders of workdirs, or patterns")
    parser.add_argument("--images", type=Path, help="predict: a folder, list of files (.txt), archive, array or image")
    parser.add_argument("--into", type=Path, metavar="DIR", help="predict: make a folder of links for each cluster")
    parser.add_argument("--copy", action="store_const", const=True, help="predict: copies instead of links")
    parser.add_argument("--embeddings", action="store_const", const=True, help="predict: vectors in the Parquet file")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="predict, export: where to write (default: the workdir)"
    )
    parser.add_argument(
        "--from",
        dest="origin",
        type=Path,
        help="prepare: a folder or archive that holds the data set's files; import: a checkpoint",
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of several processes: where process 0 listens")
    parser.add_argument("--num_processes", type=int, help="how many there are")
    parser.add_argument("--process_id", type=int, help="which of them this one is, from 0")
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
    for flag, value, goes_with in (
        ("--step", args.step, RESTORING),
        ("--k", args.k, ("suggest-k",)),
        ("--port", args.port, ("browse",)),
        ("--runs", args.runs, ("compare",)),
        ("--images", args.images, ("predict",)),
        ("--into", args.into, ("predict",)),
        ("--copy", args.copy, ("predict",)),
        ("--embeddings", args.embeddings, ("predict",)),
        ("--out", args.out, ("predict", "export")),
        ("--from", args.origin, ("prepare", "import")),
    ):
        if value is not None and args.mode not in goes_with:
            raise ConfigError(f"{flag} goes with --mode={' or '.join(goes_with)}, not with --mode={args.mode}")
    return args, overrides


def main(argv: list[str]) -> None:
    """Runs the command.

    Raises:
      ConfigError, RunError, Preempted: as `cli` reports them.
    """
    args, overrides = parse(argv)
    if args.mode == "prepare":
        modes.run_prepare(build.data_settings(args, overrides), args.origin)
        return
    if args.mode == "compare":
        modes.run_compare(args.runs, args.workdir)
        return
    if processes := distributed.find(args.coordinator, args.num_processes, args.process_id, os.environ):
        distributed.join(processes, os.environ)
    preemption = Preemption()
    build.use_compilation_cache()
    if args.mode == "predict":
        modes.run_predict(args, overrides)
        return
    ks = modes.range_of(args.k) if args.mode == "suggest-k" else None
    run = build.build(args, overrides)
    if args.mode == "train":
        with modes.alone(run):
            modes.announce(run)
            with preemption.held():
                state = modes.run_training(run, preemption.due)
            modes.run_evaluation(run, state, preemption.due)
            if run.report.page:
                modes.run_report(run, state, preemption.due)
        return
    if args.mode == "import":
        modes.run_import(run, args.origin)
        return
    if args.mode == "browse":
        modes.run_browse(run, args.step, 8321 if args.port is None else args.port)
        return
    with Checkpoints(run.workdir, keep=None) as checkpoints:
        state = checkpoints.restore(run.like, args.step)
    if args.mode == "probe":
        modes.run_probe(run, state, preemption.due)
    elif args.mode == "suggest-k":
        modes.run_suggest_k(run, state, ks, preemption.due)
    elif args.mode == "export":
        modes.run_export(run, state, args.out)
    elif args.mode == "report":
        modes.run_report(run, state, preemption.due)
    else:
        modes.run_evaluation(run, state, preemption.due)


def cli(argv: list[str] | None = None) -> int:
    """The console command: `main` with errors turned into a sentence and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    absl.logging.set_verbosity(absl.logging.ERROR)  # the libraries' chatter is not for our users
    try:
        main(argv)
    except Preempted:
        if jax.process_index() == 0:
            print("jaxclust: stopped as asked; the same command goes on from here", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        return _end(130, "interrupted; the same command resumes from the newest checkpoint")
    except ConfigError as e:
        return _end(2, e, "--debug" in argv)
    except RunError as e:
        return _end(1, e, "--debug" in argv)
    except OSError as e:
        if e.errno not in FULL:
            raise
        where = f" while writing {e.filename}" if e.filename else ""
        return _end(1, f"{e.strerror}{where}; make room, and give the same command again")
    except jax.errors.JaxRuntimeError as e:
        if not jax.distributed.is_initialized():
            raise
        what = str(e).splitlines()[0]
        return _end(
            1, f"the processes have lost each other ({what}); the same command resumes from the newest checkpoint"
        )
    return 0


def _end(code: int, sentence: Exception | str, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"jaxclust: {sentence}", file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        os._exit(code)  # a proper exit would wait for the other processes, who may wait for this one
    return code


if __name__ == "__main__":
    sys.exit(cli())
