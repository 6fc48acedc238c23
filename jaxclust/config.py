"""Configs: find one, check it, and turn its sections into typed settings.

A config file returns a complete `ml_collections.ConfigDict`; nothing in the package has a default for a key.
Each module declares the section it reads as a frozen dataclass called `Settings`, and `settings` fills it in.
"""

import ast
import difflib
import json
import runpy
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

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


class ConfigError(ValueError):
    """The user's input is wrong; the message is one sentence that says what to do."""


class RunError(RuntimeError):
    """The run cannot go on; the message is one sentence that says what happened and what to do."""


def find(path: str) -> Path:
    """The config file at `path`, or the one of that name that ships with jaxclust.

    Raises:
      ConfigError: there is no such file; the message lists the nearest names.
    """
    package = Path(__file__).parent
    shipped = next(d for d in (package / "configs", package.parent / "configs") if d.is_dir())
    if Path(path).is_file():
        return Path(path)
    if (shipped / Path(path).name).is_file() and Path(path).parent.name in ("", "configs"):
        return shipped / Path(path).name
    names = sorted(p.name for p in shipped.glob("*.py"))
    raise ConfigError(f"there is no config file {path}{hint(Path(path).name, names)}")


def load(path: Path, overrides: Mapping[str, str]) -> ConfigDict:
    """Runs a config file's `get_config()` and lays the command line's overrides over it.

    Args:
      path: a Python file.
      overrides: `{"optim.lr": "1e-3", ...}`; a value is read as Python, except where the config has a string.

    Raises:
      ConfigError: the file does not run, an override names no setting, or its value cannot be read.
    """
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except KeyError as e:
        raise ConfigError(f"{path} defines no {e}") from e
    except Exception as e:
        raise ConfigError(f"{path} cannot be loaded: {type(e).__name__}: {e}") from e
    return override(config, overrides, str(path))


def from_json(path: Path, overrides: Mapping[str, str]) -> ConfigDict:
    """The config that a run keeps in its workdir, with overrides."""
    return override(ConfigDict(read_json(path)), overrides, str(path))


def read_json(path: Path) -> dict[str, Any]:
    """What a run keeps in its workdir.

    Raises:
      ConfigError: it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise ConfigError(f"{path} is damaged ({e}); move it away, or give another --workdir") from e


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
        raise ConfigError(f"{name} is {text!r}, which is not {_name(type(current))}") from None


def hint(word: str, words: Iterable[str], prefix: str = "") -> str:
    """`" (did you mean ...?)"`, or the list of what there is when nothing is near."""
    words = sorted(words)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.65)
    if near:
        return f" (did you mean {prefix}{near[0]}?)"
    return f" (there are: {', '.join(words)})" if words else ""


def check(config: ConfigDict) -> None:
    """Checks the names and kinds of a config's sections.

    Raises:
      ConfigError: a section is missing, unknown, or of the wrong kind.
    """
    _names("", config, SECTIONS)
    for name, kind in SECTIONS.items():
        if not _is(config[name], kind):
            raise ConfigError(f"{name} is {config[name]!r}, which is not {_name(kind)}")
    if config.clusters < 2:
        raise ConfigError(f"clusters is {config.clusters}; at least 2 are needed")
    if config.seed < 0:
        raise ConfigError(f"seed is {config.seed}; it must not be negative")


def settings(cls: type, section: Mapping[str, Any], path: str) -> Any:
    """Fills the dataclass `cls` from a config section.

    Args:
      cls: a frozen dataclass; its fields and annotations are the section's schema, and its `__post_init__`
        may raise ValueError for values that make no sense.
      section: the section of the config.
      path: the section's name, for messages.

    Raises:
      ConfigError: a key is unknown or missing, or its value has the wrong type or makes no sense.
    """
    kinds = typing.get_type_hints(cls)
    _names(path, section, kinds)
    values = {}
    for name, kind in kinds.items():
        value = section[name]
        if kind is float and _is(value, int):
            value = float(value)
        if not _is(value, kind):
            raise ConfigError(f"{path}.{name} is {value!r}, which is not {_name(kind)}")
        values[name] = value
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as e:
        raise ConfigError(str(e)) from e


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
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.loads(json.dumps(value))
    return flat


def _names(path: str, section: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    prefix = f"{path}." if path else ""
    for name in section:
        if name not in known:
            raise ConfigError(f"unknown key {prefix}{name}{hint(name, known, prefix)}")
    missing = [f"{prefix}{name}" for name in known if name not in section]
    if missing:
        raise ConfigError(f"the config has no {', '.join(missing)}")


def _is(value: Any, kind: Any) -> bool:
    """Whether `value` is of the annotation `kind`, where a bool is no int and a list is a tuple."""
    if isinstance(kind, types.UnionType):
        return any(_is(value, k) for k in typing.get_args(kind))
    kind = typing.get_origin(kind) or kind
    if kind in (Mapping, typing.get_origin(Mapping[str, Any])):
        return isinstance(value, Mapping | ConfigDict)
    if kind is tuple:
        return isinstance(value, tuple | list)
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _name(kind: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number",
        str: "a string",
        bool: "True or False",
        tuple: "a tuple",
    }
    if isinstance(kind, types.UnionType):
        return " or ".join(_name(k) for k in typing.get_args(kind))
    return words.get(typing.get_origin(kind) or kind, "a section")
