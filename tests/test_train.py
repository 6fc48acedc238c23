"""The loop's promises, for every method: resuming and the number of devices change nothing."""

import jax
import numpy as np
import pytest
from conftest import METHODS, config_of

from jaxclust import log, main, sharding, train
from jaxclust.feed import Feed, epoch_order

pytestmark = pytest.mark.parametrize("method", METHODS)


def leaves(state) -> list[np.ndarray]:
    state = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def test_two_steps_and_two_more_equal_four_bit_for_bit(method, small_run, tmp_path, monkeypatch):
    straight = leaves(main.run_training(small_run(config_of(method), tmp_path / "straight")))

    push = log.Log.push

    def stop_at_three(self, step, epoch, metrics):
        push(self, step, epoch, metrics)
        if step == 3:  # one step into the second epoch; the checkpoint is of step 2
            raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(log.Log, "push", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            main.run_training(small_run(config_of(method), tmp_path / "stopped"))
    resumed = leaves(main.run_training(small_run(config_of(method), tmp_path / "stopped")))

    assert int(straight[0]) == 4
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    records = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("straight", "stopped")]
    assert len(records[0]) == len(records[1]) == 4


def test_eight_devices_equal_one(method, small_run, tmp_path):
    """Losses, parameters under SGD (so: gradients), statistics and memory of three steps."""
    results = {}
    for devices in (1, 8):
        run = small_run(
            config_of(method),
            tmp_path,
            devices,
            {"optim.name": "sgd", "optim.lr": "0.01", "train.epochs": "2"},
        )
        state, metrics = run.init(), []
        mesh = run.mesh
        whole = sharding.replicated(mesh)
        feeds = {n: Feed(source.images, mesh, "always") for n, source in run.sources.items()}
        for stage in run.stages:
            feed = feeds[stage.todo.split]
            if stage.todo.refit:
                state = train.refit(state, run.method.refits[stage.todo.refit], run.views, feed, mesh, 16)
            task = train.make_step(run.method.tasks[stage.todo.task], run.views, run.optimizer)
            step = jax.jit(task, out_shardings=(whole, whole))
            for chunk in feed.batches(epoch_order(0, stage.epoch, stage.part, len(feed), 16)):
                state, m = step(state, chunk)
                metrics.append(jax.device_get(m))
        results[devices] = jax.device_get(metrics[:3]), leaves(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *(results[d][0] for d in (1, 8)))
    for a, b in zip(results[1][1], results[8][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_step_lowers_for_cuda_without_host_callbacks(method, small_run, tmp_path):
    run = small_run(config_of(method), tmp_path)
    feed = Feed(run.sources["train"].images, run.mesh, "always")
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), 16)))
    for task in run.method.tasks.values():
        step = jax.jit(train.make_step(task, run.views, run.optimizer), donate_argnums=0)
        exported = jax.export.export(step, platforms=["cuda"])(run.like, chunk)
        text = exported.mlir_module()
        assert "callback" not in text
        assert "cuda" in exported.platforms
