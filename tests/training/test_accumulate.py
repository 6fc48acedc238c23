"""A step that takes its batch in parts: what it computes, and for which methods."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import BY_METHOD, config_of

from jaxclust import nets
from jaxclust.commands.bench import memory
from jaxclust.commands.work.train import run_training
from jaxclust.data.feed import epoch_order
from jaxclust.methods import cc
from jaxclust.run import sharding
from jaxclust.run.errors import ConfigError
from jaxclust.training import build
from jaxclust.training.optim import Optimizer
from jaxclust.training.step import augment, make_step, stream
from jaxclust.types import Batch

PARTS = 2


def by_hand(task, views, state, ids, images):
    """(mean gradient, statistics, carry by id, metrics of each part), from one part after another."""

    @jax.jit
    def part(stats, ids, images, number):
        x = [
            augment(views[name], stream(state.key, "views", state.step, v), ids, images)
            for v, name in enumerate(task.views)
        ]
        batch, key = Batch(ids, tuple(x), state.step), stream(state.key, "loss", state.step, number)
        return jax.grad(task.loss, has_aux=True)(state.params, stats, state.memory, batch, key)

    stats, grads, carry, metrics = state.stats, [], {}, []
    for number in range(PARTS):
        mine = slice(number, None, PARTS)
        g, out = part(stats, ids[mine], images[mine], number)
        stats = out.stats
        grads.append(g)
        metrics.append(out.metrics)
        if len(jax.tree.leaves(out.carry)):
            carry |= dict(zip(ids[mine].tolist(), np.asarray(out.carry)))
    return jax.tree.map(lambda *g: sum(g) / PARTS, *grads), stats, carry, metrics


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(np.abs(b).max(), 1e-2))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "resident"), [("assignment", "always"), ("refine", "never")])
def test_a_step_in_parts_is_the_mean_of_the_parts_by_hand(name, resident, small_run, tmp_path, monkeypatch):
    """The step on eight devices, by hand on one; with a smooth activation, as in test_train.py."""
    monkeypatch.setattr("flax.linen.relu", jax.nn.silu)
    few = {"train.accumulate": str(PARTS), "net.stem": "cifar", "data.resident": resident}
    alone, run = (small_run(config_of("mmdc"), tmp_path, n, few) for n in (1, 8))
    feed, task = build.feeds(run)["train"], run.plan.method.tasks[name]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), 16)))
    optimizer, state = optax.sgd(1.0), run.init()
    step = jax.jit(
        make_step(task, run.plan.views, {"main": Optimizer(optimizer)}, PARTS),
        out_shardings=sharding.replicated(run.plan.mesh),
    )
    new, metrics = step(state.replace(opt={"main": optimizer.init(state.params)}), chunk)

    ids, state = np.asarray(chunk.ids), alone.init()
    grads, stats, carry, parts = by_hand(task, run.plan.views, state, ids, run.sources["train"].images[ids])
    jax.tree.map(lambda new, old, g: close(new - old, -g), jax.device_get(new.params), state.params, grads)
    jax.tree.map(close, new.stats, stats)
    close(metrics["grad_norm"], optax.tree.norm(grads))
    for key in parts[0]:
        close(metrics[key], sum(part[key] for part in parts) / (1 if key == "sizes" else PARTS))
    assert sorted(carry) == (sorted(ids.tolist()) if name == "assignment" else [])
    targets = np.asarray(state.memory["targets"]).copy()
    for i, target in carry.items():
        targets[i] = target
    np.testing.assert_array_equal(new.memory["targets"], targets)


def test_a_run_takes_its_batches_in_parts(small_run, tmp_path):
    one = {"method.rotation": "False", "method.refine_epoch": "2", "train.epochs": "1"}
    run = small_run(config_of("mmdc"), tmp_path, overrides=one | {"train.accumulate": str(PARTS)})
    run_training(run)
    record = json.loads((tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()[0])
    ids = epoch_order(0, 0, 0, 36, 16)[0]
    task = run.plan.method.tasks["assignment"]
    grads, *_, parts = by_hand(task, run.plan.views, run.init(), ids, run.sources["train"].images[ids])
    close(record["grad_norm"], float(optax.tree.norm(grads)))
    close(record["sizes"], sum(part["sizes"] for part in parts))
    assert sum(record["sizes"]) == 16


def plainly(net, params, stats, x, train, parts=1):
    """What `nets.embed` does, one part after the other and all of them kept."""
    h = jnp.zeros((len(x), net.features))
    for number in range(parts):
        variables = {"params": params, "batch_stats": stats}
        part, new = net.apply(variables, x[number::parts], train=train, mutable=["batch_stats"])
        h, stats = h.at[number::parts].set(part), new["batch_stats"]
    return h, stats


@pytest.mark.parametrize("method", [m for m in BY_METHOD if m.values != ("mmdc",)])
def test_a_loss_over_the_whole_batch_sees_all_of_it_with_the_statistics_of_the_parts(
    method, small_run, tmp_path, monkeypatch
):
    """The step on eight devices, whole, and its loss with `plainly` made embeddings on one."""
    monkeypatch.setattr("flax.linen.relu", jax.nn.silu)
    few = {"train.accumulate": str(PARTS), "net.stem": "cifar"}
    alone, run = (small_run(config_of(method), tmp_path, n, few) for n in (1, 8))
    name, optimizer, state = run.plan.stages[-1].todo.tasks[0], optax.sgd(1.0), run.init()
    state = state.replace(params=moved(state.params), opt={"main": optimizer.init(state.params)})
    feed = build.feeds(run)["train"]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), 16)))
    step = make_step(run.plan.method.tasks[name], run.plan.views, {"main": Optimizer(optimizer)}, PARTS)
    new, metrics = jax.jit(step, out_shardings=sharding.replicated(run.plan.mesh))(state, chunk)

    monkeypatch.setattr(nets, "embed", plainly)
    ids, start = np.asarray(chunk.ids), alone.init()
    task, start = alone.plan.method.tasks[name], start.replace(params=moved(start.params))
    (grads, out) = whole_by_hand(task, alone.plan.views, start, ids, alone.sources["train"].images[ids])
    jax.tree.map(lambda new, old, g: close(new - old, -g), jax.device_get(new.params), start.params, grads)
    jax.tree.map(close, new.stats, out.stats)
    for key in out.metrics:
        close(metrics[key], out.metrics[key])


def moved(params):
    """Centres at 0 have no gradient to compare."""
    return jax.tree.map(lambda p: jnp.where(jnp.any(p != 0), p, jnp.linspace(-1, 1, p.size).reshape(p.shape)), params)


def whole_by_hand(task, views, state, ids, images):
    """(gradient, Out) of the loss of a whole batch."""

    @jax.jit
    def whole(ids, images):
        x = [
            augment(views[name], stream(state.key, "views", state.step, v), ids, images)
            for v, name in enumerate(task.views)
        ]
        batch, key = Batch(ids, tuple(x), state.step), stream(state.key, "loss", state.step)
        return jax.grad(task.loss, has_aux=True)(state.params, state.stats, state.memory, batch, key)

    return whole(ids, images)


def test_in_parts_less_lies_in_memory(small_run, tmp_path):
    def temporary(parts):
        few = {"train.accumulate": str(parts), "net.stem": "cifar"}
        run = small_run(config_of("tcc"), tmp_path, 1, few | {"train.batch_size": "32"})
        return memory.kept(run, run.plan.method.tasks["both"], 32)

    assert temporary(4) < 0.5 * temporary(1)


def test_a_loss_that_takes_no_parts_is_refused(small_run, tmp_path, monkeypatch):
    make = cc.make

    def without(config):
        made = make(config)
        return made._replace(tasks={name: task._replace(in_parts=False) for name, task in made.tasks.items()})

    monkeypatch.setattr(cc, "make", without)
    with pytest.raises(ConfigError, match=r"accumulate is 2, but the loss of the task \w+ compares all .* net.remat"):
        small_run(config_of("cc"), tmp_path, overrides={"train.accumulate": "2"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.accumulate": "0"}, "train.accumulate is 0; it must be at least 1"),
        ({"train.accumulate": "3"}, "train.accumulate is 3, which does not divide train.batch_size, 16"),
        ({"train.accumulate": "4"}, "method.group is 8, which does not divide train.batch_size / train.accumulate, 4"),
        (
            {"train.accumulate": "4", "method.group": "4"},
            "train.batch_size is 16, which is not divisible by the 8 devices times train.accumulate, 4; .*: 32",
        ),
    ],
)
def test_parts_that_do_not_come_out_even_are_refused(settings, message, small_run, tmp_path):
    with pytest.raises(ConfigError, match=message):
        small_run(config_of("mmdc"), tmp_path, 8, settings)
