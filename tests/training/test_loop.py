"""The loop's promises, for every method: resuming changes nothing, and a step needs no host."""

import re

import jax
import numpy as np
import pytest
from conftest import BY_METHOD, METHODS, config_of

from jaxclust.commands.work.train import run_training
from jaxclust.data.feed import epoch_order
from jaxclust.training import build, log
from jaxclust.training.step import make_step


def leaves(state) -> list[np.ndarray]:
    state = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(x) for x in jax.tree.leaves(state)]


@pytest.mark.parametrize("method", BY_METHOD)
def test_two_steps_and_two_more_equal_four_bit_for_bit(method, small_run, tmp_path, monkeypatch):
    straight = leaves(run_training(small_run(config_of(method), tmp_path / "straight")))

    push = log.Log.push

    def stop_at_three(self, step, epoch, metrics):
        push(self, step, epoch, metrics)
        if step == 3:  # one step into the second epoch; the checkpoint is of step 2
            raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(log.Log, "push", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            run_training(small_run(config_of(method), tmp_path / "stopped"))
    resumed = leaves(run_training(small_run(config_of(method), tmp_path / "stopped")))

    assert int(straight[0]) == 4
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    records = [(tmp_path / name / "metrics.jsonl").read_text("utf-8").splitlines() for name in ("straight", "stopped")]
    assert len(records[0]) == len(records[1]) == 4


@pytest.mark.parametrize("method", METHODS)
def test_step_lowers_for_cuda_without_host_callbacks(method, small_run, tmp_path):
    run = small_run(config_of(method), tmp_path)
    feed = build.feeds(run)["train"]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), 16)))
    for task in run.plan.method.tasks.values():
        step = jax.jit(make_step(task, run.plan.views, run.plan.optimizers), donate_argnums=0)
        exported = jax.export.export(step, platforms=["cuda"])(run.like, chunk)
        calls = set(re.findall(r"custom_call @(\w+)", exported.mlir_module()))
        assert not {name for name in calls if "callback" in name}
