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
    python -m jaxclust.main --mode=bench --config=configs/cifar10_anchor.py

Exit codes: 0 done, 1 the run failed, 2 the command, a config or the data is wrong, 75 stopped by SIGTERM, SIGUSR1
or SIGHUP and ready to go on, 130 interrupted.
"""

from jaxclust.run import beginning  # before what takes seconds to import

# isort: split
import argparse
import contextlib
import os
import sys
import traceback
from typing import Any

from jaxclust import commands
from jaxclust.commands import Command, usage
from jaxclust.run import messages
from jaxclust.run.errors import ConfigError, RunError, hint
from jaxclust.run.files import FULL, expanded
from jaxclust.run.preemption import EXIT_CODE, INTERRUPTED, SENTENCES, Preempted, Preemption

beginning.over()


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str], Command]:
    """The flags, the `--config.a.b=value` overrides as `{"a.b": "value"}`, and the command that is asked for.

    Raises:
      ConfigError: a flag, a mode or their combination is unknown.
    """
    modes = commands.find()
    parser, belongs = usage.parser(modes)
    # argparse would take `--config.a=b` for an unknown flag; they are ours.
    overrides = {}
    rest = iter(argv)
    plain = []
    for word in rest:
        if word.startswith("--config."):
            name, equals, value = word.removeprefix("--config.").partition("=")
            given = value if equals else next(rest, None)
            if given is None:
                raise ConfigError(f"{word} has no value; write {word}=VALUE")
            overrides[name] = given
        else:
            flag, equals, value = word.partition("=")
            plain.append(f"{flag}={expanded(value)}" if equals and value.startswith("~") else word)
    args, unknown = parser.parse_known_args(plain)
    if unknown:
        usage.refuse(unknown, [o for a in parser._actions for o in a.option_strings], modes, args.config)
    if args.mode not in modes:
        raise ConfigError(f"unknown mode {args.mode}{hint(args.mode, modes)}")
    for flag, (dest, names) in belongs.items():
        if getattr(args, dest) is not None and args.mode not in names:
            raise ConfigError(f"{flag} goes with --mode={' or '.join(names)}, not with --mode={args.mode}")
    return args, overrides, modes[args.mode]


def main(argv: list[str], preemption: Preemption | None = None) -> None:
    """Runs the command.

    Args:
      argv: its flags.
      preemption: hears the signals; None where nobody stops it.

    Raises:
      ConfigError, RunError, Preempted: as `cli` reports them.
    """
    preemption = preemption or Preemption()
    args, overrides, command = parse(argv)
    import absl.logging  # what follows takes seconds to import, and words need none of it

    absl.logging.set_verbosity(absl.logging.ERROR)  # the libraries' chatter is not for our users
    if command.devices:
        from jaxclust.run import distributed
        from jaxclust.training import compilation

        if processes := distributed.find(args.coordinator, args.num_processes, args.process_id, os.environ):
            distributed.join(processes, os.environ)
            preemption.joined()
        compilation.use_cache()
    command.run(args, overrides, preemption)


def cli(argv: list[str] | None = None) -> int:
    """The console command: `main` with errors turned into a sentence and an exit code.

    Args:
      argv: what to do; None where the process is there for this alone, and ends after it.
    """
    leaving = argv is None
    if leaving:
        beginning.in_utf8()
    with Preemption(leaving=leaving) as preemption, messages.shown():
        argv = sys.argv[1:] if argv is None else argv
        if "" not in sys.path:  # the console script lacks the current folder, where a user's own method may be
            sys.path.insert(0, "")
        code = _ended(argv, preemption)
    if leaving and code in SENTENCES and not _joined():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, AttributeError):  # it is gone
                stream.flush()
        os._exit(code)  # what was broken off may go on in a native thread, and crash while Python takes itself down
    return code


def _ended(argv: list[str], preemption: Preemption) -> int:
    debug = "--debug" in argv
    try:
        main(argv, preemption)
        preemption.over(0)
        return 0
    except BaseException as e:
        if isinstance(e, SystemExit) and not preemption.code:  # argparse's
            raise
        code, sentence = _told(e, preemption)
        preemption.over(code)
        jax = _joined()
        lead = code != EXIT_CODE or not jax or jax.process_index() == 0
        if debug and code in (1, 2):
            print(messages.printable(traceback.format_exc(), sys.stderr), file=sys.stderr)
        with contextlib.suppress(OSError):  # a terminal that is gone
            if lead:
                print(messages.printable(f"jaxclust: {sentence}", sys.stderr), file=sys.stderr, flush=True)
        if code != EXIT_CODE and jax:
            os._exit(code)  # a proper exit would wait for the other processes, who may wait for this one
        return code


def _joined() -> Any:
    """JAX, where this is one of several processes; it is not imported for this."""
    jax = sys.modules.get("jax")
    return jax if jax and hasattr(jax, "distributed") and jax.distributed.is_initialized() else None


def _told(error: BaseException, preemption: Preemption) -> tuple[int, str]:
    """The exit code and the sentence of what ended the command.

    Args:
      error: the exception; one that nobody foresaw is raised again.
      preemption: what signals have asked for.
    """
    stopped = preemption.code
    if isinstance(error, Preempted):
        return preemption.preempted
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, SENTENCES[INTERRUPTED]
    if stopped:  # libraries make other errors of it on its way
        return stopped, SENTENCES[stopped]
    if isinstance(error, ConfigError | RunError):
        return 2 if isinstance(error, ConfigError) else 1, str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return 1, f"{error.strerror}{where}; make room, and give the same command again"
    jax = _joined()
    if jax and isinstance(error, jax.errors.JaxRuntimeError):
        what = str(error).splitlines()[0]
        return 1, f"the processes have lost each other ({what}); the same command resumes from the newest checkpoint"
    raise error


if __name__ == "__main__":
    sys.exit(cli())
