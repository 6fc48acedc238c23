"""Sections of a config as typed settings: their fields, kinds and ranges, and what is wrong with a value.

Each module declares the section that it reads as a frozen dataclass called `Settings`, and `settings` fills it in.
"""

import dataclasses
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

from jaxclust.run.errors import ConfigError, hint

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class Check(NamedTuple):
    """What a value must be, beside of its kind; it is declared beside the setting."""

    holds: Callable[[Any], bool]
    words: str  # for a value of which it does not hold: the end of a sentence

    def of(self, name: str, value: Any) -> None:
        """Raises a ConfigError where it does not hold of the value of the setting `name`."""
        if not self.holds(value):
            raise ConfigError(f"{name} is {value!r}; {self.words}")


def option(
    default: Any = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Iterable[Any] = (),
    check: Check | None = None,
) -> Any:
    """A field of a settings dataclass whose value is checked by `settings`.

    Args:
      default: what a config stands for that does not name it; none for what a paper says.
      at_least, above, at_most, below: the range of a number.
      choices: all values that it may have.
      check: any other one.
    """
    if choices := tuple(choices):
        check = Check(lambda value: value in choices, f"choose one of {', '.join(map(str, choices))}")
    known: tuple[tuple[str, float | None, Callable[[Any, Any], bool]], ...] = (
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    )
    if limits := [(word, limit, holds) for word, limit, holds in known if limit is not None]:
        words = " and ".join(f"{word} {limit}" for word, limit, _ in limits)
        check = Check(
            lambda value: not isinstance(value, int | float) or all(holds(value, limit) for _, limit, holds in limits),
            f"it must be {words}",  # NaN holds none
        )
    return dataclasses.field(default=default, metadata={"check": check} if check else {})


def settings(cls: type[T], section: Mapping[str, Any], path: str) -> T:
    """Fills the dataclass `cls` from a config section.

    Args:
      cls: a frozen dataclass; its fields and annotations are the section's schema, `option` their checks, and its
        `__post_init__` may raise ValueError, as ConfigError is one, for values that make no sense together.
      section: the section of the config.
      path: the section's name, for messages.

    Raises:
      ConfigError: a key is unknown or missing, or its value has the wrong type or makes no sense.
    """
    kinds = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    check_names(path, section, kinds, [name for name, f in fields.items() if f.default is not dataclasses.MISSING])
    values = {}
    for name, kind in kinds.items():
        if name not in section:
            continue
        value = section[name]
        if kind is float and is_kind(value, int):
            value = float(value)
        if not is_kind(value, kind):
            raise ConfigError(f"{path}.{name} is {value!r}, which is not {kind_name(kind)}")
        if check := fields[name].metadata.get("check"):
            check.of(f"{path}.{name}", value)
        values[name] = value
    try:
        return cls(**values)
    except ValueError as e:
        raise ConfigError(str(e)) from e


def check_names(path: str, section: Mapping[str, Any], known: Iterable[str], optional: Iterable[str]) -> None:
    """Raises a ConfigError where a section, at `path`, has a key that is not `known`, or lacks one not `optional`."""
    prefix = f"{path}." if path else ""
    for name in section:
        if name not in known:
            raise ConfigError(f"unknown key {prefix}{name}{hint(name, known, prefix)}")
    missing = [f"{prefix}{name}" for name in known if name not in section and name not in optional]
    if missing:
        raise ConfigError(f"the config has no {', '.join(missing)}")


def is_kind(value: Any, kind: Any) -> bool:
    """Whether `value` is of the annotation `kind`, where a bool is no int and a list is a tuple."""
    if isinstance(kind, types.UnionType):
        return any(is_kind(value, k) for k in typing.get_args(kind))
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


def kind_name(kind: Any) -> str:
    """What an annotation is called."""
    words = {
        int: "a whole number",
        float: "a number",
        str: "a string",
        bool: "True or False",
        tuple: "a tuple",
    }
    if isinstance(kind, types.UnionType):
        return " or ".join(kind_name(k) for k in typing.get_args(kind))
    return words.get(typing.get_origin(kind) or kind, "a section")
