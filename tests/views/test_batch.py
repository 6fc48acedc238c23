"""A batch of views made few at a time, as a CPU makes large ones."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclust import views
from jaxclust.run import sharding
from jaxclust.views import batch

SIDE, DEVICES = 16, 8  # of conftest
HOW = {"policy": "simclr", "area": (0.2, 1.0), "flip": 0.5, "strength": 0.5, "grey": 0.2, "blur": 0.0}


def few_at_a_time(monkeypatch, count: int) -> None:
    monkeypatch.setattr(batch.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(batch, "ROOM", count * 4 * SIDE**2)


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8), rng.permutation(count).astype(np.int32)


def shown(image, i):
    """A view that is quick to compile, of this image and id."""
    return image.astype(jnp.float32)[::2, ::2] * (1 + i)


def test_views_made_few_at_a_time_are_the_same_to_the_last_bit(monkeypatch):
    view, (images, ids) = views.make({"strong": HOW}, SIDE)["strong"], drawn(6 * DEVICES)

    def one(image, i):
        return view(image, jax.random.fold_in(jax.random.key(0), i))

    together = jax.jit(jax.vmap(one))(images, ids)
    few_at_a_time(monkeypatch, 2)
    made = jax.jit(lambda images, ids: batch.views_of(one, images, ids))
    assert "while" in made.lower(images, ids).as_text()
    np.testing.assert_array_equal(made(images, ids), together)


@pytest.mark.parametrize("count", [5, DEVICES, 7 * DEVICES, 12 * DEVICES, 12 * DEVICES + 1])
def test_each_image_of_a_batch_of_any_size_has_its_own_view(count, monkeypatch):
    few_at_a_time(monkeypatch, 5)
    images, ids = drawn(count)
    made = jax.jit(lambda images, ids: batch.views_of(shown, images, ids))(images, ids)
    np.testing.assert_array_equal(made, jax.vmap(shown)(images, ids))


def test_an_image_stays_on_its_device(monkeypatch):
    few_at_a_time(monkeypatch, 2)
    over = sharding.batched(sharding.make_mesh())
    images, ids = (sharding.put(x, over) for x in drawn(6 * DEVICES))
    made = jax.jit(lambda images, ids: batch.views_of(shown, images, ids)).lower(images, ids).compile()
    assert "while" in made.as_text()
    assert not re.findall(r"all-\w+|collective-\w+|reduce-scatter", made.as_text())
    assert made(images, ids).sharding.is_equivalent_to(over, 4)


def test_a_gpu_makes_all_at_once(monkeypatch):
    few_at_a_time(monkeypatch, 2)
    traced = jax.jit(lambda images, ids: batch.views_of(shown, images, ids)).trace(*drawn(6 * DEVICES))
    assert "while" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "while" not in traced.lower(lowering_platforms=("cuda",)).as_text()
