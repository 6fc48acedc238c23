"""Cluster unlabelled images by training a network from scratch, in JAX.

DeepCluster     a scikit-learn estimator
load            a trained run, or a model that `DeepCluster.save` wrote, as such an estimator

Its messages go through `logging`, by the names of its rooms: what it does at INFO, what is wrong at WARNING.
"""

from typing import TYPE_CHECKING, Any

from jaxclust.version import __version__

if TYPE_CHECKING:
    from jaxclust.estimator import DeepCluster, load

__all__ = ["DeepCluster", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Loads the estimator, and JAX with it, when it is asked for: importing jaxclust is quick."""
    if name in __all__:
        from jaxclust import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module 'jaxclust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
