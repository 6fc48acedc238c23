"""The config that a command means, whole: of a file and what is given beside it, or as a run keeps it."""

import os
import types
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from jaxclust import data, methods, nets
from jaxclust.clusters import evaluate
from jaxclust.run import checkpoint, config
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded, read_json
from jaxclust.run.schema import settings
from jaxclust.run.workdir import CONFIG, check_inside, check_readable, is_run, steps
from jaxclust.training import looks, loop, optim, sizing
from jaxclust.version import __version__

SHOWN = 4  # settings in an error
MAKING = ("train", "import")  # modes that begin a run
SCHEMAS = {
    "data": data.Settings,
    "net": nets.Settings,
    "optim": optim.Settings,
    "train": loop.Settings,
    "eval": evaluate.Settings,
    "checkpoint": checkpoint.Settings,
    "report": looks.Settings,
}


def schemas(cfg: ConfigDict) -> config.Schemas:
    """What fills the sections of a config; of the method's, where its file has `Settings`.

    Raises:
      ConfigError: there is no such method.
    """
    method = cfg.get("method")
    name = method.get("name") if isinstance(method, ConfigDict) else None  # `config.check` says what is wrong
    own = getattr(methods.load(name), "Settings", None) if isinstance(name, str) else None
    return SCHEMAS | ({"method": own} if own else {})


def find(given: str | None, workdir: Path | None, mode: str, overrides: Mapping[str, str]) -> tuple[ConfigDict, Path]:
    """The config that a command names, and the workdir, whose earlier run must be one of the same settings.

    Takes what `build.build` takes, and raises what that does.
    """
    workdir = workdir or (Path("runs") / config.name(given) if given else None)
    making = mode in MAKING
    kept = saved(workdir) if workdir and (is_run(workdir) or not making) else None
    if given:
        _check_method(given, overrides.get("method.name"))
        cfg = config.load(given, overrides, schemas)
    elif kept:
        cfg = config.override(kept.copy_and_resolve_references(), overrides, str(workdir / CONFIG))
    elif workdir:
        raise ConfigError(f"there is no run in {workdir} to go on with; give --config=FILE to begin one")
    elif not making:
        raise ConfigError(f"--mode={mode} needs --workdir=RUN, or the --config=FILE that the run was made with")
    else:
        raise ConfigError(
            "give --config=FILE; for your own images: jaxclust --config=configs/folder.py --config.data.dir=PHOTOS "
            "--config.clusters=20; --help tells the rest"
        )
    if given and making and cfg.data.get("dir"):  # a run is gone on with from anywhere
        cfg.data.dir = os.path.abspath(expanded(cfg.data.dir))
    if kept and steps(workdir):
        sizing.as_kept(cfg, kept)
        changed = config.differences(kept.to_dict(), cfg.to_dict())
        if changed:
            what = "; ".join(f"{name} was {old!r} and is {new!r}" for name, old, new in changed[:SHOWN])
            more = f"; and {len(changed) - SHOWN} more" * (len(changed) > SHOWN)
            goes_on = " leave --config out, and it goes on with its own, or" * bool(given)
            raise ConfigError(
                f"the run in {workdir} was made with other settings: {what}{more};{goes_on} give another --workdir"
            )
    return cfg, workdir


def saved(workdir: Path, overrides: Mapping[str, str] = types.MappingProxyType({})) -> ConfigDict:
    """The config of the run in `workdir`, with today's defaults for what was no setting yet, and overrides.

    Raises:
      ConfigError: there is no run, it is of a newer version, has a setting that this one does not know, or what it
        keeps is damaged.
    """
    if not is_run(workdir):
        raise ConfigError(f"there is no run in {workdir} (it has no {CONFIG}); train first, or give its --workdir")
    check_inside(workdir)
    by, kept = check_readable(workdir), read_json(workdir / CONFIG)
    if strange := config.unknown(kept, schemas(ConfigDict(kept))):
        what = f"jaxclust {__version__} knows no setting {strange[0]}, which {workdir / CONFIG} has"
        other = f"; the run was written by jaxclust {by}: use that version for it"
        raise ConfigError(f"{what}{other if by != __version__ else '; restore the file'}")
    return config.from_json(workdir / CONFIG, overrides, schemas)


def data_settings(path: str | None, mode: str, overrides: Mapping[str, str]) -> data.Settings:
    """The section `data` of the config at `path`."""
    if not path:
        raise ConfigError(f"--mode={mode} needs --config=FILE, for example --config=configs/cifar10_anchor.py")
    cfg = config.load(path, overrides, schemas)
    return settings(data.Settings, cfg.data, "data")


def _check_method(given: str, name: str | None) -> None:
    """Refuses another method of ours in a config whose section `method` has the settings of one."""
    if name is None or name not in methods.known():
        return
    begun = config.load(given, {}, schemas).method.get("name")
    if begun in methods.known() and begun != name:
        other = f"configs/folder.py:{name}" if config.name(given).startswith("folder") else f"a config of {name}'s"
        raise ConfigError(
            f"method.name is {name!r}, but the settings in {given} are those of {begun}; give --config={other}"
        )
