"""The data sets of the papers from the files they were published in; importing this makes ours known to tfds, too.

    import jaxclust.data.prepare.sets
    tfds.builder("imagenet_dogs")

They are then also prepared by tfds's own `download_and_prepare` with a `manual_dir`, which needs TensorFlow where a
split has more than a gigabyte; `python -m jaxclust.main --mode=prepare` never does.
A file of this folder is found by its name, and every `Spec` in it is a data set.
"""

import importlib
import pkgutil

from jaxclust.data.prepare.spec import Spec


def specs() -> dict[str, Spec]:
    """The data sets of all files, by name."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Spec)]
    return {spec.name: spec for spec in found}


SPECS = specs()
