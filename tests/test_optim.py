"""Optimizers against their definitions."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclust import optim


def settings(**change) -> optim.Settings:
    values = {"name": "adam", "lr": 0.1, "momentum": 0.9, "decay": 0.0, "schedule": "constant", "warmup_epochs": 0.0}
    return optim.Settings(**values | change)


def test_learning_rate_warms_up_and_falls_to_zero():
    rate = optim.learning_rate(settings(schedule="cosine", warmup_epochs=2.0), steps=100, steps_per_epoch=10)
    assert rate(0) == 0
    np.testing.assert_allclose(rate(10), 0.05, rtol=1e-6)
    np.testing.assert_allclose(rate(20), 0.1, rtol=1e-6)
    np.testing.assert_allclose(rate(60), 0.05, rtol=1e-6)
    np.testing.assert_allclose(rate(100), 0, atol=1e-9)


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_learning_rate_drops_at_the_start_of_each_epoch_named(warmup):
    s = settings(schedule=((3, 0.2), (5.5, 0.5)), warmup_epochs=warmup)
    rate = optim.learning_rate(s, steps=100, steps_per_epoch=10)
    for step, want in ((20, 0.1), (29, 0.1), (30, 0.02), (54, 0.02), (55, 0.01), (99, 0.01)):
        np.testing.assert_allclose(rate(step), want, rtol=1e-6, err_msg=f"step {step}")


@pytest.mark.parametrize("schedule", [(), (350, 0.2), ((350,),), ((2, 0.1), (2, 0.1)), ((0, 0.1),), ((2, 0.0),)])
def test_a_schedule_of_drops_that_makes_no_sense_is_refused(schedule):
    with pytest.raises(ValueError, match="rising epochs from 1 and positive factors"):
        settings(schedule=schedule)


def test_sgd_adds_decay_to_the_gradient_of_matrices_before_momentum():
    rule = optim.make(settings(name="sgd", decay=0.5), steps=10, steps_per_epoch=1)
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full((2,), 2.0)}
    state, velocity = rule.init(params), {"kernel": 0.0, "bias": 0.0}
    expected = {"kernel": 2.0, "bias": 2.0}
    for _ in range(3):
        grads = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))}
        updates, state = rule.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, decay in (("kernel", 0.5), ("bias", 0.0)):
            velocity[name] = 0.9 * velocity[name] + 1.0 + decay * expected[name]
            expected[name] -= 0.1 * velocity[name]
    np.testing.assert_allclose(params["kernel"], expected["kernel"], rtol=1e-6)
    np.testing.assert_allclose(params["bias"], expected["bias"], rtol=1e-6)


@pytest.mark.parametrize("change", [{"name": "lamb"}, {"lr": 0.0}, {"momentum": 1.0}, {"schedule": "step"}])
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=f"optim.{next(iter(change))} is"):
        settings(**change)
