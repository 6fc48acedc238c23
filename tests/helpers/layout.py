"""Every method's first steps on the devices of this process, or of several; process 0 writes what came of them.

cd tests; python -m helpers.layout FOLDER [HOST:PORT PROCESSES INDEX]
"""

import sys
import tempfile
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from conftest import METHODS, SHORT, build_small, config_of, load_fake

from jaxclust import data, nets
from jaxclust.clusters import embed, evaluate
from jaxclust.data.feed import epoch_order
from jaxclust.run import distributed, sharding
from jaxclust.training import build, compilation
from jaxclust.training.optim import Optimizer
from jaxclust.training.refit import make_refit
from jaxclust.training.step import init_state, make_step
from jaxclust.types import DataSpec

# Three epochs of two steps. With a smooth activation and no max pooling: a unit that rounds to the other side of a
# ReLU's kink changes the gradient of a network this narrow by percents, on one device as on eight, and would hide what
# is looked for. The learning rate is small so that rounding errors do not grow from step to step.
OVERRIDES = {"net.stem": "cifar", "train.epochs": "3"}
RATE = 1e-4
# As few programs, and small ones, as show all that crosses devices: losses, statistics, queues, groups, k-means between
# steps. CC's shows that views, which are of one image each, are the same on all.
PLAIN = {"method.views": '("plain","plain","plain")'}
FEWER = {
    "anchor": PLAIN | {"method.init_epoch": "0"},
    "tcc": PLAIN | {"method.init_epoch": "0"},
    "mmdc": {"method.rotation": "False"},
}


def recording_sgd() -> optax.GradientTransformation:
    """SGD whose state is the last gradient. (Adam turns rounding noise in a zero gradient into a full step.)"""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda grads, state, params: (jax.tree.map(lambda g: -RATE * g, grads), grads),
    )


def history(run: build.Run) -> list[np.ndarray]:
    """Every array of the metrics and the state after every step, and of the last state's predictions and scores."""
    optimizers, batch_size = {"main": Optimizer(recording_sgd())}, run.train.batch_size
    spec = DataSpec(len(run.sources["train"].images), run.config.data.size, run.sources["train"].images.shape[-1])
    whole = sharding.replicated(run.plan.mesh)
    state = jax.jit(lambda: init_state(run.plan.method, spec, optimizers, 0), out_shardings=whole)()
    feeds = build.feeds(run)
    steps = {
        name: jax.jit(make_step(task, run.plan.views, optimizers), out_shardings=(whole, whole))
        for name, task in run.plan.method.tasks.items()
    }
    seen = []
    for stage in run.plan.stages:
        feed = feeds[stage.todo.split]
        if stage.todo.refit:
            refit = make_refit(run.plan.method.refits[stage.todo.refit], run.plan.views, run.plan.mesh, batch_size)
            state = refit(state, feed)
        for chunk in feed.batches(epoch_order(0, stage.epoch, stage.part, len(feed), batch_size)):
            state, metrics = steps[stage.todo.tasks[0]](state, chunk)
            seen += jax.tree.leaves((metrics, state.replace(key=())))
    method, view = run.plan.method, run.plan.views[run.eval.view]
    prediction = embed.train_split(state, method, view, feeds["train"], run.plan.mesh, 16)
    scores = evaluate.row("cluster", prediction, method.space, run.sources["train"], run.config.clusters, 0, 1)
    seen += [*jax.tree.leaves(prediction), *(scores[name] for name in ("acc", "nmi", "ari"))]
    return [np.asarray(x) for x in seen]


def assert_close(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    """Equal to 1e-4: a scalar of its value, a tensor also of its largest."""
    for a, b in zip(one, other, strict=True):
        atol = 1e-4 * max(np.abs(a).max(initial=0), 1e-2) if a.ndim else 1e-6
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


def write(folder: Path) -> None:
    """The history of every method, `<method>.npz`; a single process also that on one device, `<method> 1.npz`."""
    data.load, flax.linen.relu, nets.BLOCKS[18] = load_fake, jax.nn.silu, SHORT
    make_mesh = sharding.make_mesh
    for devices in (None, 1) if jax.process_count() == 1 else (None,):
        sharding.make_mesh = lambda devices=devices: make_mesh(devices)
        for method in METHODS:
            run = build_small(config_of(method), Path(tempfile.mkdtemp()), OVERRIDES | FEWER.get(method, {}))
            seen = history(run)
            if jax.process_index() == 0:
                np.savez(folder / (f"{method} 1.npz" if devices else f"{method}.npz"), *seen)


if __name__ == "__main__":
    folder, *meet = sys.argv[1:]
    if meet:
        distributed.join(distributed.Processes(meet[0], *map(int, meet[1:])), {})
    compilation.use_cache()
    write(Path(folder))
