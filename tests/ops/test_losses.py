"""Shared formulas against slow, obvious NumPy written from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.oracles import dec_target_oracle, nt_xent_oracle, numerical_gradient, student_t_oracle

from jaxclust.ops import losses


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("self_term", [False, True])
@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_nt_xent_and_its_gradient_equal_the_oracle(rng, tau, self_term):
    z1, z2 = rng.normal(size=(2, 6, 5)).astype(np.float32)
    value, gradient = jax.value_and_grad(losses.nt_xent)(z1, z2, tau, self_term)
    np.testing.assert_allclose(value, nt_xent_oracle(z1, z2, tau, self_term), rtol=1e-5)
    expected = numerical_gradient(lambda z: nt_xent_oracle(z, z2, tau, self_term), z1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_nt_xent_does_not_care_which_view_comes_first(rng):
    z1, z2 = rng.normal(size=(2, 16, 8)).astype(np.float32)
    np.testing.assert_allclose(losses.nt_xent(z1, z2, 0.5), losses.nt_xent(z2, z1, 0.5), rtol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_student_t_and_its_gradient_equal_the_oracle(rng, alpha):
    h = rng.normal(size=(7, 4)).astype(np.float32)
    mu = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(jnp.exp(losses.student_t(h, mu, alpha)), student_t_oracle(h, mu, alpha), rtol=1e-5)
    weight = rng.normal(size=(7, 3))
    gradient = jax.grad(lambda mu: jnp.sum(weight * losses.student_t(h, mu, alpha)))(mu)
    expected = numerical_gradient(lambda m: np.sum(weight * np.log(student_t_oracle(h, m, alpha))), mu)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_student_t_keeps_its_precision_far_from_the_origin(rng):
    h = rng.normal(size=(5, 4)).astype(np.float32)
    mu = rng.normal(size=(3, 4)).astype(np.float32)
    shifted = losses.student_t(h + 1000, mu + 1000)
    np.testing.assert_allclose(shifted, losses.student_t(h, mu), atol=1e-3)


def test_dec_target_equals_the_oracle(rng):
    q = rng.dirichlet(np.ones(4), size=9).astype(np.float32)
    np.testing.assert_allclose(losses.dec_target(q), dec_target_oracle(q), rtol=1e-5)


def test_dec_target_of_an_unused_cluster_is_finite():
    q = jnp.asarray([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(losses.dec_target(q), q)


def test_kl_equals_the_definition_and_ignores_zeros(rng):
    p, q = rng.dirichlet(np.ones(5), size=(2, 6)).astype(np.float32)
    np.testing.assert_allclose(losses.kl(p, np.log(q)), np.sum(p * np.log(p / q), axis=1), rtol=1e-4)
    one = jnp.asarray([[1.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda log_q: losses.kl(one, log_q)[0])(jnp.log(jnp.asarray([[0.5, 0.5]])))
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-1.0, 0.0]])


def test_a_zero_embedding_has_a_finite_gradient():
    z = jnp.zeros((2, 3))
    assert np.isfinite(jax.grad(lambda z: losses.nt_xent(z, z + 1, 0.5))(z)).all()
