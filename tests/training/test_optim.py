"""Optimizers against their definitions."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclust.run import schema
from jaxclust.training import optim


def settings(**change) -> optim.Settings:
    values = {"name": "adam", "lr": 0.1, "momentum": 0.9, "decay": 0.0, "schedule": "constant", "warmup_epochs": 0.0}
    return schema.settings(optim.Settings, values | change, "optim")


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


def trajectory(s, grads, params):
    """Where the optimizer takes `params` on the gradients."""
    rule = optim.make(s, steps=len(grads), steps_per_epoch=1)
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    state = rule.init(params)
    for grad in grads:
        updates, state = rule.update({name: jnp.asarray(g, jnp.float32) for name, g in grad.items()}, state, params)
        params = optax.apply_updates(params, updates)
    return {name: np.asarray(value) for name, value in params.items()}


LR, STEPS = 0.1, 4


def adam(p, grads, s, decay):
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        inside, beside = (0.0, decay) if s.name == "adamw" else (decay, 0.0)
        g = g + inside * p
        m, v = s.momentum * m + (1 - s.momentum) * g, s.b2 * v + (1 - s.b2) * g**2
        step = m / (1 - s.momentum**t) / (np.sqrt(v / (1 - s.b2**t)) + s.eps)
        p = p - LR * (step + beside * p)
    return p


def sgd(p, grads, s, decay):
    velocity = 0.0
    for g in grads:
        g = g + decay * p
        velocity = s.momentum * velocity + g
        p = p - LR * (g + s.momentum * velocity if s.nesterov else velocity)
    return p


def rmsprop(p, grads, s, decay):
    """As PyTorch's: the root first, then eps."""
    square = velocity = 0.0
    for g in grads:
        g = g + decay * p
        square = s.b2 * square + (1 - s.b2) * g**2
        velocity = s.momentum * velocity + g / (np.sqrt(square) + s.eps)
        p = p - LR * velocity
    return p


def lars(p, grads, s, decay):
    velocity = 0.0
    for g in grads:
        g = g + decay * p
        trust = 1e-3 * np.linalg.norm(p) / np.linalg.norm(g) if p.ndim >= 2 else 1.0
        velocity = s.momentum * velocity + LR * trust * g
        p = p - velocity
    return p


def muon(p, grads, s, decay):
    """With Nesterov's momentum; a kernel is a matrix from all that goes in to what comes out, others are AdamW's."""
    if p.ndim < 2:
        return nadamw(p, grads, s, decay)
    m = 0.0
    for t, g in enumerate(grads, start=1):
        m = s.momentum * m + (1 - s.momentum) * g
        ahead = s.momentum * m / (1 - s.momentum ** (t + 1)) + (1 - s.momentum) * g / (1 - s.momentum**t)
        x = ahead.reshape(-1, p.shape[-1])
        x = x / (np.linalg.norm(x) + s.eps)
        for _ in range(5):  # Newton and Schulz, to the nearest matrix with orthogonal rows or columns
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        x = x * np.sqrt(max(1.0, x.shape[1] / x.shape[0]))
        p = p - LR * (x.reshape(p.shape) + decay * p)
    return p


def nadamw(p, grads, s, decay):
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        m, v = s.momentum * m + (1 - s.momentum) * g, s.b2 * v + (1 - s.b2) * g**2
        ahead = s.momentum * m / (1 - s.momentum ** (t + 1)) + (1 - s.momentum) * g / (1 - s.momentum**t)
        p = p - LR * (ahead / (np.sqrt(v / (1 - s.b2**t)) + s.eps) + decay * p)
    return p


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (adam, {"name": "adam"}),
        (adam, {"name": "adam", "momentum": 0.5, "b2": 0.9, "eps": 0.1}),
        (adam, {"name": "adamw", "b2": 0.95}),
        (sgd, {"name": "sgd"}),
        (sgd, {"name": "sgd", "momentum": 0.0}),
        (sgd, {"name": "sgd", "nesterov": True}),
        (rmsprop, {"name": "rmsprop", "momentum": 0.0, "b2": 0.99, "eps": 0.1}),
        (rmsprop, {"name": "rmsprop", "momentum": 0.9}),
        (lars, {"name": "lars"}),
        (muon, {"name": "muon", "b2": 0.95, "eps": 1e-3}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_rules_equal_their_recurrences(rule, change, decay_all):
    s = settings(lr=LR, decay=0.2, decay_all=decay_all, **change)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "convolution": (2, 2, 3, 5), "bias": (4,)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    grads = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(STEPS)]
    got = trajectory(s, grads, params)
    for name, p in params.items():
        decay = s.decay if decay_all or p.ndim >= 2 else 0.0
        want = rule(p, [grad[name] for grad in grads], s, decay)
        np.testing.assert_allclose(got[name], want, rtol=2e-4, atol=1e-5, err_msg=name)


def test_schedules_of_steps_inverse_and_with_a_floor():
    def rates(**change):
        rate = optim.learning_rate(settings(lr=LR, **change), steps=100, steps_per_epoch=10)
        return [float(rate(step)) for step in (0, 19, 20, 45, 100)]

    np.testing.assert_allclose(rates(schedule=("step", 20, 0.5)), [0.1, 0.1, 0.05, 0.025, 0.1 / 32], rtol=1e-6)
    inverse = [0.1 * (1 + 0.5 * t) ** -0.75 for t in (0, 19, 20, 45, 100)]
    np.testing.assert_allclose(rates(schedule=("inverse", 0.5, 0.75)), inverse, rtol=1e-6)
    cosine = [0.1 * (0.2 + 0.8 * (1 + np.cos(np.pi * t / 100)) / 2) for t in (0, 19, 20, 45, 100)]
    np.testing.assert_allclose(rates(schedule="cosine", floor=0.2), cosine, rtol=1e-6)


@pytest.mark.parametrize("schedule", [("step", 0, 0.5), ("step", 10, 0.0), ("inverse", -1, 1.0), ("inverse", 1)])
def test_a_rule_for_the_rate_that_makes_no_sense_is_refused(schedule):
    with pytest.raises(ValueError, match=r"optim\.schedule is"):
        settings(schedule=schedule)


def test_a_named_optimizer_counts_its_own_updates():
    """Of a hundred steps in ten epochs the second makes five in each of the last two, and its cosine spans those."""
    flat = {"name": "sgd", "lr": LR, "momentum": 0.0, "decay": 0.0, "schedule": "cosine", "warmup_epochs": 0.0}
    section = {"first": flat | {"trains": ("f",)}, "second": flat | {"trains": ("g",)}}
    made = optim.make_all(section, {"first": [10] * 10, "second": [0] * 8 + [5, 5]})
    for name, trained, updates in (("first", "f", 100), ("second", "g", 10)):
        params = {"f": jnp.ones(()), "g": jnp.ones(())}
        state, moved = made[name].rule.init(made[name].of(params)), 0.0
        for t in range(4):
            new, state = made[name].updated(params, params | {trained: jnp.ones(())}, state)
            moved += LR * (1 + np.cos(np.pi * t / updates)) / 2
            assert {key for key in params if new[key] != params[key]} == {trained}
            params = new
        np.testing.assert_allclose(1 - params[trained], moved, rtol=1e-5)


@pytest.mark.parametrize("change", [{"name": "lamb"}, {"lr": 0.0}, {"momentum": 1.0}, {"schedule": "step"}])
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=f"optim.{next(iter(change))} is"):
        settings(**change)
