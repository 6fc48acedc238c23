"""The command's words: how they are explained, and what somebody may have meant who used others."""

import argparse
import shlex
from collections.abc import Mapping, Sequence

from jaxclust.commands import Command
from jaxclust.run import config
from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.files import expanded
from jaxclust.run.workdir import is_run
from jaxclust.version import __version__

OWN = "configs/folder.py"  # the config for one's own images
EXAMPLES = f"""Clusters unlabelled images by training a network from scratch.

  jaxclust --config={OWN} --config.data.dir=PHOTOS --config.clusters=20
      trains on your own images; any setting of a config can be given like these, --config.optim.lr=1e-3
  jaxclust --workdir=runs/folder
      goes on where that has stopped
  jaxclust --mode=browse --workdir=runs/folder
      looks through the clusters and puts them right
  jaxclust --mode=predict --workdir=runs/folder --images=NEW_PHOTOS --into=SORTED
      sorts other images into them
"""
SECTIONS = ("train", "optim", "data", "net", "method")  # in which a name is looked for
# What people call a setting, if not by its name.
OTHERS = {
    "k": "clusters",
    "n_clusters": "clusters",
    "num_clusters": "clusters",
    "epoch": "train.epochs",
    "batch": "train.batch_size",
    "learning_rate": "optim.lr",
    "data": "data.dir",
    "data_dir": "data.dir",
    "photos": "data.dir",
    "image_size": "data.size",
    "img_size": "data.size",
    "method": "method.name",
    "optimizer": "optim.name",
}


def parser(modes: Mapping[str, Command]) -> tuple[argparse.ArgumentParser, dict[str, tuple[str, list[str]]]]:
    """The parser of all flags; and where the modes' own are kept, with the modes that each goes with."""
    made = argparse.ArgumentParser(
        prog="jaxclust",
        usage="jaxclust [--mode=MODE] [--config=FILE] [--workdir=RUN] [--config.SETTING=VALUE ...] [...]",
        allow_abbrev=False,
        add_help=False,
        description=EXAMPLES,
        epilog="modes:\n" + "\n".join(f"  {name:<10} {mode.help}" for name, mode in modes.items()),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=100),
    )
    first = made.add_argument_group("what to do, and with what")
    first.add_argument("--mode", default="train", help="one of those below (default: train)")
    told = "a config file, your own or one that ships with jaxclust (configs/...); FILE.py:ARG gives it an argument"
    first.add_argument("--config", metavar="FILE", help=told)
    told = "where the run lives (default: runs/<config name>); without --config it goes on with its own"
    first.add_argument("--workdir", metavar="RUN", type=expanded, help=told)
    restoring = [name for name, mode in modes.items() if mode.restores]
    step = first.add_argument("--step", type=int, help=f"{', '.join(restoring)}: the checkpoint (default: the newest)")
    belongs = {"--step": (step.dest, restoring)}
    for flag in dict.fromkeys(flag for mode in modes.values() for flag in mode.flags):
        belongs[flag] = "", [name for name, mode in modes.items() if flag in mode.flags]
    for names in dict.fromkeys(tuple(names) for flag, (_, names) in belongs.items() if flag != "--step"):
        group = made.add_argument_group(" and ".join(f"--mode={name}" for name in names))
        for flag in [flag for flag, (_, of) in belongs.items() if tuple(of) == names and flag != "--step"]:
            how = modes[names[0]].flags[flag]
            said = dict.fromkeys(modes[name].flags[flag]["help"] for name in names)
            action = group.add_argument(flag, **{**how, "help": "; ".join(said)})
            belongs[flag] = action.dest, [*names]
    several = made.add_argument_group("several processes")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--num_processes", metavar="N", type=int, help="how many there are")
    several.add_argument("--process_id", metavar="I", type=int, help="which of them this one is, from 0")
    other = made.add_argument_group("other")
    other.add_argument("-h", "--help", action="help", help="show this")
    other.add_argument("--version", action="version", version=f"jaxclust {__version__}")
    other.add_argument("--debug", action="store_true", help="show tracebacks")
    return made, belongs


def refuse(unknown: Sequence[str], flags: Sequence[str], modes: Mapping[str, Command], given: str | None) -> None:
    """Raises a ConfigError that says what may have been meant.

    Args:
      unknown: the words that are none of the command's.
      flags: that there are.
      modes: that there are.
      given: the --config, if one was given.
    """
    word, *rest = unknown
    if word.startswith("-"):
        name, _, value = word.partition("=")
        value = value or (rest[0] if rest and not rest[0].startswith("-") else "VALUE")
        meant = _setting(name.lstrip("-").replace("-", "_"), given)
        if meant:
            raise ConfigError(f"unknown argument {name}; a setting is given as --config.{meant}={shlex.quote(value)}")
        near = hint(name, flags)
        raise ConfigError(f"unknown argument {name}{near if 'did you mean' in near else '; --help lists them'}")
    if word in modes and word != "train":
        run = rest[0] if rest and not rest[0].startswith("-") else "RUN"
        images = " --images=PHOTOS" * (word == "predict")
        raise ConfigError(f"{word} is a mode: jaxclust --mode={word} --workdir={shlex.quote(run)}{images}")
    if word == "train" and rest:
        word = rest[0]
    if ".py" in word:
        raise ConfigError(f"{word} is given as --config={shlex.quote(word)}")
    if is_run(expanded(word)):
        run = shlex.quote(word)
        raise ConfigError(f"{word} is a run: jaxclust --mode=browse --workdir={run} looks through its clusters")
    photos = "PHOTOS" if word == "train" else shlex.quote(word)
    raise ConfigError(
        f"{word} stands alone; to train on your own images: jaxclust --config={OWN} --config.data.dir={photos} "
        f"--config.clusters=20"
    )


def _setting(word: str, given: str | None) -> str | None:
    """The full name of the one setting that is called so."""
    try:
        known = config.flatten(config.load(given or OWN, {}).to_dict())
    except ConfigError:
        return None
    meant = OTHERS.get(word, word)
    if meant in known:
        return meant
    found = [name for name in known if name.rpartition(".")[2] == meant]
    return next((name for section in SECTIONS for name in found if name.startswith(f"{section}.")), None)
