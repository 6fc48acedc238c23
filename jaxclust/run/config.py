"""Configs: find one, complete it, lay a command's words over it, and check it.

A config file returns an `ml_collections.ConfigDict`. What a paper says has no default in the `Settings` of its section
(`schema`); plumbing has, and `complete` writes these defaults into a config, so that what a run keeps says everything.
"""

import ast
import dataclasses
import inspect
import json
import re
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.files import read_json
from jaxclust.run.schema import check_names, is_kind, kind_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SECTIONS = {
    "seed": int,
    "clusters": int,
    "data": Mapping,
    "views": Mapping,
    "net": Mapping,
    "method": Mapping,
    "optim": Mapping,
    "train": Mapping,
    "eval": Mapping,
    "checkpoint": Mapping,
    "report": Mapping,
}

# What may differ between a checkpoint and the run that continues it. All else is the run's identity.
HARMLESS = (
    *("train.epochs", "train.log_every", "eval", "checkpoint", "report"),
    *("data.dir", "data.resident", "data.labels", "data.max_bad", "net.remat"),
)


def find(path: str) -> Path:
    """The config file at `path`, or the one of that name that ships with jaxclust.

    Raises:
      ConfigError: there is no such file; the message lists the nearest names.
    """
    if Path(path).is_file():
        return Path(path)
    if Path(path).parent.name in ("", "configs") and (found := shipped(Path(path).name)):
        return found
    names = sorted(p.name for p in _shipped().glob("*.py"))
    near = hint(Path(path).name, names, "configs/")
    if "did you mean" not in near:
        near = f"; configs/folder.py is for your own images, and configs/README.md tells of the {len(names)} there are"
    raise ConfigError(f"there is no config file {path}{near}")


def shipped(name: str) -> Path | None:
    """The config file of that name that ships with jaxclust, if there is one."""
    return path if (path := _shipped() / name).is_file() else None


def _shipped() -> Path:
    package = Path(__file__).parent.parent
    return next(d for d in (package / "configs", package.parent / "configs") if d.is_dir())


def name(given: str) -> str:
    """What a config is called: by its file and its argument, as `configs/dec.py:stl10` is dec_stl10."""
    path, argument = _split(given)
    return path.stem if argument is None else f"{path.stem}_{re.sub(r'[^A-Za-z0-9.-]+', '_', argument)}"


def _split(given: str) -> tuple[Path, str | None]:
    """The file of `FILE.py` or `FILE.py:ARG`, and the argument."""
    file, colon, argument = given.partition(".py:")
    return (find(f"{file}.py"), argument) if colon else (find(given), None)


Schemas = Mapping[str, "type[DataclassInstance]"]  # section -> the dataclass that it fills
SchemasOf = Callable[[ConfigDict], Schemas]  # those of a config, which may depend on its method


def _none(config: ConfigDict) -> Schemas:
    return {}


def load(given: Path | str, overrides: Mapping[str, str], schemas: SchemasOf = _none) -> ConfigDict:
    """Runs a config file's `get_config`, completes what it returns and lays the command line's overrides over it.

    Args:
      given: a Python file, `FILE.py`, or `FILE.py:ARG` where `get_config` takes an argument, such as the data set.
      overrides: `{"optim.lr": "1e-3", ...}`; a value is read as Python, except where the config has a string.
      schemas: of the sections, for their defaults.

    Raises:
      ConfigError: there is no such file or it does not run, it takes no argument or lacks one, an override names no
        setting, or its value cannot be read.
    """
    path, argument = _split(str(given))
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if not callable(get_config):
            raise ConfigError(f"{path} defines no get_config()")
        _check_argument(path, argument, inspect.signature(get_config))
        config = get_config() if argument is None else get_config(argument)
    except ConfigError:
        raise
    except Exception as e:
        raise ConfigError(f"{given} cannot be loaded: {type(e).__name__}: {e}") from e
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"get_config of {path} returns {type(config).__name__}; it must return a ConfigDict")
    return override(complete(config, schemas(config)), overrides, str(path))


def _check_argument(path: Path, argument: str | None, takes: inspect.Signature) -> None:
    wanted = [p.name for p in takes.parameters.values() if p.default is p.empty]
    if argument is None and wanted:
        raise ConfigError(f"{path} takes the {wanted[0]} as an argument; give --config={path}:{wanted[0].upper()}")
    if argument is not None and not takes.parameters:
        raise ConfigError(f"{path} takes no argument, and was given {argument!r}; give --config={path}")


def from_json(path: Path, overrides: Mapping[str, str], schemas: SchemasOf = _none) -> ConfigDict:
    """The config that a run keeps in its workdir, completed, with overrides."""
    config = ConfigDict(read_json(path))
    return override(complete(config, schemas(config)), overrides, str(path))


def complete(config: ConfigDict, schemas: Schemas) -> ConfigDict:
    """Gives every setting that has a default, and is missing, this default; a section of nothing else is made.

    Args:
      config: is changed.
      schemas: of the sections. A section that holds named ones (`optim`) is completed in each of them.
    """
    for name, cls in schemas.items():
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        defaults = {key: value for key, value in fields.items() if value is not dataclasses.MISSING}
        if name not in config and len(defaults) == len(fields):
            config[name] = {}
        section = config.get(name)
        if not isinstance(section, ConfigDict):
            continue  # `check` says so
        named = [part for key, part in section.items() if isinstance(part, ConfigDict) and key not in fields]
        for part in named or [section]:
            for key, value in defaults.items():
                if key not in part:
                    part[key] = value
    return config


def unknown(config: Mapping[str, Any], schemas: Schemas) -> list[str]:
    """The settings of a config that nothing knows, by their full names."""
    found = [name for name in config if name not in SECTIONS]
    for name, cls in schemas.items():
        fields = {field.name for field in dataclasses.fields(cls)}
        section = config.get(name)
        for key, value in section.items() if isinstance(section, Mapping) else ():
            if key not in fields:
                parts = value if isinstance(value, Mapping) else {}  # `optim` may hold named ones
                found += [f"{name}.{key}.{k}" for k in parts if k not in fields] if parts else [f"{name}.{key}"]
    return found


def override(config: ConfigDict, overrides: Mapping[str, str], source: str) -> ConfigDict:
    """Lays `overrides` over a config, as `load` says, and checks it.

    Args:
      config: is changed.
      overrides: `{"optim.lr": "1e-3", ...}`.
      source: where the config comes from, for messages.

    Raises:
      ConfigError: an override names no setting, or its value cannot be read.
    """
    for name, text in overrides.items():
        *sections, leaf = name.split(".")
        section, prefix = config, ""
        for part in sections:
            if not isinstance(section.get(part), ConfigDict):
                raise ConfigError(f"unknown section {prefix}{part} in {source}{hint(part, section, prefix)}")
            section, prefix = section[part], f"{prefix}{part}."
        if leaf not in section:
            raise ConfigError(f"unknown key {name} in {source}{hint(leaf, section, prefix)}")
        if isinstance(section[leaf], ConfigDict):
            raise ConfigError(f"{name} is a section; give one of {', '.join(f'{name}.{k}' for k in section[leaf])}")
        with section.ignore_type():  # the section's `Settings` know its types, and say so better
            section[leaf] = _read(name, text, section[leaf])
    check(config)
    return config


def _read(name: str, text: str, current: Any) -> Any:
    if isinstance(current, str):
        return text
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        if isinstance(current, bool):  # a switch may have named positions too, which its `Settings` know
            return text
        kind = int if current is None else type(current)  # what is left open is a number
        raise ConfigError(f"{name} is {text!r}, which is not {kind_name(kind)}") from None


def check(config: ConfigDict) -> None:
    """Checks the names and kinds of a config's sections.

    Raises:
      ConfigError: a section is missing, unknown, or of the wrong kind.
    """
    check_names("", config, SECTIONS, ())
    for name, kind in SECTIONS.items():
        if not is_kind(config[name], kind):
            raise ConfigError(f"{name} is {config[name]!r}, which is not {kind_name(kind)}")
    if config.clusters < 2:
        raise ConfigError(f"clusters is {config.clusters}; at least 2 are needed")
    if config.seed < 0:
        raise ConfigError(f"seed is {config.seed}; it must not be negative")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings that make a checkpoint of config `old` meaningless under config `new`.

    Returns:
      (name, old value, new value) of each setting that differs and is not in `HARMLESS`.
    """
    old, new = flatten(old), flatten(new)
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not any(f"{name}.".startswith(f"{h}.") for h in HARMLESS)
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as `{"optim.lr": 0.0003, ...}`, with tuples as lists, as JSON has them."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.loads(json.dumps(value))
    return flat
