"""Cluster unlabelled images by training a network from scratch, in JAX.

DeepCluster     a scikit-learn estimator
load            a trained run, or a model that `DeepCluster.save` wrote, as such an estimator
"""

__version__ = "0.1.0"
__all__ = ["DeepCluster", "load"]


def __getattr__(name: str):
    """Loads the estimator, and JAX with it, when it is asked for: importing jaxclust is quick."""
    if name in __all__:
        from jaxclust import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module 'jaxclust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
