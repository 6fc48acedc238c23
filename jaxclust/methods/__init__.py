"""Methods, one paper a file: one is found by its name, in this folder or anywhere on the import path."""

from types import ModuleType

from ml_collections import ConfigDict

from jaxclust.run import plugins
from jaxclust.run.errors import ConfigError
from jaxclust.types import Method, Published


def known() -> list[str]:
    """The names of the methods that ship with jaxclust."""
    return plugins.known(__name__)


def load(name: str) -> ModuleType:
    """The module of a method, which exports `make(config) -> Method`.

    Args:
      name: of a file in this folder, or with dots the full name of any module that can be imported.

    Raises:
      ConfigError: there is no such method, or the module is none.
    """
    return plugins.load(__name__, name, "method.name")


def make(config: ConfigDict) -> Method:
    """The method that a complete config names, with its settings.

    Raises:
      ConfigError: there is no such method, or its settings are wrong.
    """
    return load(str(config.method.get("name"))).make(config)


def published(name: str, data: str, clusters: int) -> list[Published]:
    """What a method's paper prints for a data set, as its file lists it in `PUBLISHED`.

    Nothing where it lists nothing, and of a method that is not here: a run can be looked at without it.

    Args:
      name: as `load` takes it.
      data: as `data.name` calls it.
      clusters: K of the run.
    """
    try:
        listed = getattr(load(name), "PUBLISHED", ())
    except ConfigError:
        return []
    return [p for p in listed if (p.data, p.clusters) == (data, clusters)]
