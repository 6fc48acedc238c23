"""The loop's promises, for every method: resuming and the number of devices change nothing."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import METHODS, config_of

from jaxclust import build, log, modes, sharding, train
from jaxclust.feed import epoch_order
from jaxclust.types import DataSpec

pytestmark = pytest.mark.parametrize("method", METHODS)


def leaves(state) -> list[np.ndarray]:
    state = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def test_two_steps_and_two_more_equal_four_bit_for_bit(method, small_run, tmp_path, monkeypatch):
    straight = leaves(modes.run_training(small_run(config_of(method), tmp_path / "straight")))

    push = log.Log.push

    def stop_at_three(self, step, epoch, metrics):
        push(self, step, epoch, metrics)
        if step == 3:  # one step into the second epoch; the checkpoint is of step 2
            raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(log.Log, "push", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            modes.run_training(small_run(config_of(method), tmp_path / "stopped"))
    resumed = leaves(modes.run_training(small_run(config_of(method), tmp_path / "stopped")))

    assert int(straight[0]) == 4
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    records = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("straight", "stopped")]
    assert len(records[0]) == len(records[1]) == 4


def recording_sgd(lr: float) -> optax.GradientTransformation:
    """SGD whose state is the last gradient. (Adam turns rounding noise in a zero gradient into a full step.)"""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda grads, state, params: (jax.tree.map(lambda g: -lr * g, grads), grads),
    )


def history(run: build.Run, optimizer: optax.GradientTransformation) -> list:
    """(metrics, state) after every step of a run."""
    spec = DataSpec(len(run.sources["train"].images), run.config.data.size, run.sources["train"].images.shape[-1])
    whole = sharding.replicated(run.plan.mesh)
    state = jax.jit(lambda: train.init_state(run.plan.method, spec, optimizer, 0), out_shardings=whole)()
    feeds = build.feeds(run)
    seen = []
    for stage in run.plan.stages:
        feed = feeds[stage.todo.split]
        if stage.todo.refit:
            state = train.refit(state, run.plan, run.plan.method.refits[stage.todo.refit], feed)
        step = train.make_step(run.plan.method.tasks[stage.todo.task], run.plan.views, optimizer)
        step = jax.jit(step, out_shardings=(whole, whole))
        for chunk in feed.batches(epoch_order(0, stage.epoch, stage.part, len(feed), 16)):
            state, metrics = step(state, chunk)
            seen.append((jax.device_get(metrics), state))
    return seen


def test_eight_devices_equal_one(method, small_run, tmp_path, monkeypatch):
    """Losses, gradients, statistics and memory of every step of two epochs.

    With a smooth activation and no max pooling: a unit that rounds to the other side of a ReLU's kink changes the
    gradient of a network this narrow by percents, on one device as on eight, and would hide what is looked for.
    The learning rate is small so that rounding errors do not grow from step to step.
    """
    monkeypatch.setattr("flax.linen.relu", jax.nn.silu)
    one, eight = (
        history(small_run(config_of(method), tmp_path / str(n), n, {"net.stem": "cifar"}), recording_sgd(1e-4))
        for n in (1, 8)
    )
    for (metrics, state), (metrics_8, state_8) in zip(one, eight, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), metrics, metrics_8)
        for a, b in zip(leaves(state), leaves(state_8), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(np.abs(a).max(), 1e-2))


def test_step_lowers_for_cuda_without_host_callbacks(method, small_run, tmp_path):
    run = small_run(config_of(method), tmp_path)
    feed = build.feeds(run)["train"]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), 16)))
    for task in run.plan.method.tasks.values():
        step = jax.jit(train.make_step(task, run.plan.views, run.plan.optimizer), donate_argnums=0)
        exported = jax.export.export(step, platforms=["cuda"])(run.like, chunk)
        calls = set(re.findall(r"custom_call @(\w+)", exported.mlir_module()))
        assert not {name for name in calls if "callback" in name}
