"""Linear probe: how much of the classes frozen features hold, whatever clusters were made of them.

A linear classifier is trained on the labels of all images but the last ones and tested on those, with the settings
that Multi-Modal Deep Clustering (Shiran and Weinshall, ICPR 2020, arXiv:1912.02678) gives for its Table IV.

Deviations:
  * Each image's features are computed once, on `eval.view`; the paper trains on features of freshly augmented images.
  * Not published, and chosen here: the classifier starts at zero, the cosine falls step by step, decay is on the bias
    too, an epoch leaves its short last batch out, and features are taken as they are, not standardised.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxclust.data import Source
from jaxclust.run.errors import ConfigError
from jaxclust.types import Array, PyTree

# Section IV of the paper, "Feature Evaluation".
LR = 0.1
MOMENTUM = 0.9
DECAY = 1e-5
BATCH = 128
EPOCHS = 100


def check(source: Source, held_out: int) -> None:
    """Whether the last `held_out` images can test a probe of the others.

    Raises:
      ConfigError: there are no labels, no images to train or to test on, or a class that is never trained on.
    """
    if source.labels is None:
        raise ConfigError("--mode=probe needs labels, and the split train has none; data.labels says where they are")
    n = len(source.images)
    if not 0 < held_out < n:
        raise ConfigError(f"eval.held_out is {held_out}; to probe {n} images it must be at least 1 and at most {n - 1}")
    unseen = np.setdiff1d(source.labels[-held_out:], source.labels[:-held_out])
    if len(unseen):  # as in a folder that is sorted by class
        raise ConfigError(
            f"class {unseen[0]} is only among the last {held_out} images, which a probe does not train on; "
            f"change eval.held_out so that every class is on both sides"
        )


def score(x: np.ndarray, labels: np.ndarray, held_out: int, seed: int) -> dict[str, float]:
    """Accuracy of a linear classifier, ready for JSON.

    Args:
      x: features, f32[N, D].
      labels: classes, i[N].
      held_out: images at the end that are tested on and not trained on, 0 < held_out < N.
      seed: of the order of the batches.

    Returns:
      `train_accuracy` on the images that it was trained on, `accuracy` on those held out.
    """
    classes, y = np.unique(labels, return_inverse=True)
    weights, bias = fit(jax.random.key(seed), x[:-held_out], y[:-held_out], len(classes))
    right = np.argmax(x @ np.asarray(weights) + np.asarray(bias), axis=-1) == y
    return {"train_accuracy": float(right[:-held_out].mean()), "accuracy": float(right[-held_out:].mean())}


@partial(jax.jit, static_argnames="classes")
def fit(key: Array, x: Array, y: Array, classes: int) -> tuple[Array, Array]:
    """Softmax regression by SGD, one compiled program from the first epoch to the last.

    Args:
      key: PRNG key of the order of the batches.
      x: features, f32[N, D].
      y: classes, i32[N], in 0..C-1.
      classes: C (static).

    Returns:
      weights f32[D, C] and bias f32[C].
    """
    n, width = x.shape
    batch = min(BATCH, n)
    steps = n // batch
    schedule = optax.cosine_decay_schedule(LR, EPOCHS * steps)
    optimizer = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(schedule, MOMENTUM))

    def loss(params: PyTree, rows: Array) -> Array:
        weights, bias = params
        return optax.softmax_cross_entropy_with_integer_labels(x[rows] @ weights + bias, y[rows]).mean()

    def step(carry: PyTree, rows: Array) -> tuple[PyTree, None]:
        params, opt = carry
        updates, opt = optimizer.update(jax.grad(loss)(params, rows), opt, params)
        return (optax.apply_updates(params, updates), opt), None

    def epoch(carry: PyTree, key: Array) -> tuple[PyTree, None]:
        order = jax.random.permutation(key, n)[: steps * batch].reshape(steps, batch)
        return jax.lax.scan(step, carry, order)

    params = jnp.zeros((width, classes)), jnp.zeros(classes)
    (params, _), _ = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, EPOCHS))
    return params
