"""A refit: which images share a batch, in which order their embeddings come back, and one after a stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from jaxclust.commands.work.train import run_training
from jaxclust.training import build
from jaxclust.training.refit import make_refit
from jaxclust.types import Refit


def swept(run, sample: int, batch: int) -> np.ndarray:
    """f32[n, 2]: of each row that a refit sees, the mean of its image, and of all images in its batch."""

    def embed(params, stats, memory, x, key):
        own = jnp.mean(x, axis=(1, 2, 3))
        return jnp.stack([own, jnp.full_like(own, jnp.mean(own))], axis=1)

    todo = Refit("plain", embed, lambda params, stats, memory, h, key: (params, stats, {"h": h}), sample, batch=batch)
    refit = make_refit(todo, run.plan.views, run.plan.mesh, 12)
    return np.asarray(refit(run.init(), build.feeds(run)["train"]).memory["h"])


@pytest.mark.parametrize("sample", [0, 12])
def test_a_refit_with_a_batch_of_its_own_mixes_rows_and_returns_them_in_order(sample, small_run, tmp_path):
    run = small_run(config_of("anchor"), tmp_path)
    in_order, mixed = (swept(run, sample, batch) for batch in (0, 6))
    np.testing.assert_allclose(mixed[:, 0], in_order[:, 0], rtol=1e-6)
    groups = [np.flatnonzero(mixed[:, 1] == mean) for mean in np.unique(mixed[:, 1])]
    assert [len(rows) for rows in groups] == [6] * (len(mixed) // 6)
    assert any((np.diff(rows) > 1).any() for rows in groups)
    for rows in groups:
        np.testing.assert_allclose(mixed[rows, 1], mixed[rows, 0].mean(), rtol=1e-5)
    np.testing.assert_array_equal(swept(run, sample, 6), mixed)
    np.testing.assert_allclose(swept(small_run(config_of("anchor"), tmp_path, 2), sample, 6), mixed, rtol=1e-6)


@pytest.mark.slow
def test_mmdc_may_stop_before_refinement_and_refine_by_a_second_command(small_run, tmp_path):
    """As Table V needs it: the scores in between are those before refinement."""

    def trained(name, **more):
        few = {"method.rotation": "False", "method.refine_epoch": "1"}
        state = run_training(small_run(config_of("mmdc"), tmp_path / name, overrides=few | more))
        return jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))

    straight = trained("straight")
    trained("two", **{"train.epochs": "1"})
    for a, b in zip(straight, trained("two"), strict=True):
        np.testing.assert_array_equal(a, b)
