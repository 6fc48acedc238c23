"""Modules found by a name that a config gives: a file of ours, or any module on the import path."""

import importlib
import importlib.util
import pkgutil
import traceback
from types import ModuleType

from jaxclust.run.errors import ConfigError, hint


def known(package: str) -> list[str]:
    """The names of the modules in a package that can be imported."""
    places = getattr(importlib.import_module(package), "__path__", ())  # a module may be none that holds others
    return sorted(info.name for info in pkgutil.iter_modules(places) if not info.ispkg)


def load(package: str, name: str, setting: str) -> ModuleType:
    """The module that a setting names, which exports `make`.

    Args:
      package: whose files may be named without dots.
      name: of one of these, or the full name of any module that can be imported, which has a dot.
      setting: for messages.

    Raises:
      ConfigError: there is no such module, it cannot be imported, or it has no `make`.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{setting} is {name!r}, which is no name of a module, such as my_package.my_module")
    full = name if "." in name else f"{package}.{name}"
    try:
        module = importlib.import_module(full)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{full}.".startswith(f"{e.name}."):
            raise ConfigError(f"{setting} is {name!r}, and that module imports {e.name}, which is not there") from e
        if "." in name:
            near = hint(name, _beside(name)) if e.name == name else ""
            raise ConfigError(f"{setting} is {name!r}, but there is no module {e.name} on the import path{near}") from e
        raise ConfigError(f"{setting} is {name!r}{hint(name, _makers(package))}") from e
    except Exception as e:  # whatever somebody's file says when it is run
        raise ConfigError(f"{setting} is {name!r}, which cannot be imported: {_where(full, e)}") from e
    if not callable(getattr(module, "make", None)):
        if "." not in name:
            raise ConfigError(f"{setting} is {name!r}{hint(name, _makers(package))}")
        raise ConfigError(f"{setting} is {name!r}, but {module.__file__} defines no make()")
    return module


def _where(name: str, e: Exception) -> str:
    """What went wrong when a module was imported, and in which line of its file."""
    if isinstance(e, SyntaxError):  # which says so itself
        return f"{type(e).__name__}: {e}"
    found = importlib.util.find_spec(name)
    lines = [at.lineno for at in traceback.extract_tb(e.__traceback__) if found and at.filename == found.origin]
    return f"{type(e).__name__}{f' in line {lines[-1]}' if lines else ''}: {e}"


def _beside(name: str) -> list[str]:
    """The full names of the modules in the package that should have held `name`."""
    package = name.rpartition(".")[0]
    return [f"{package}.{found}" for found in known(package)]


def _makers(package: str) -> list[str]:
    """The names that may be given without dots."""
    modules = {name: importlib.import_module(f"{package}.{name}") for name in known(package)}
    return [name for name, module in modules.items() if hasattr(module, "make")]
