"""The equations of the papers, called by themselves as from a notebook, on arrays that no network made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.oracles import dec_target_oracle, nt_xent_oracle
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from jaxclust.methods import anchor, cc, mmdc, tcc

B, K, D = 8, 3, 5
rng = np.random.default_rng(0)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def kl(p, q):
    return np.mean(np.sum(p * np.log(p / q), axis=1))


def entropy(p):
    return -np.sum(p * np.log(p), axis=-1)


@pytest.mark.parametrize("self_term", [False, True])
def test_cc(self_term):
    z_a, z_b = rng.normal(size=(2, B, D))
    y_a, y_b = softmax(rng.normal(size=(2, B, K)))
    instance, cluster = cc.instance_loss(z_a, z_b, 0.5, self_term), cc.cluster_loss(y_a, y_b, 1.0, self_term)
    np.testing.assert_allclose(instance, nt_xent_oracle(z_a, z_b, 0.5, self_term), rtol=1e-5)
    even = sum(np.log(K) - entropy(y.mean(axis=0)) for y in (y_a, y_b))
    np.testing.assert_allclose(cluster, nt_xent_oracle(y_a.T, y_b.T, 1.0, self_term) + even, rtol=1e-5)


@pytest.mark.parametrize("kind", anchor.ANCHORS)
def test_anchor(kind):
    q = softmax(rng.normal(size=(3, B, K)))
    p = np.stack([dec_target_oracle(one) for one in q])
    m = (q[1] + q[2]) / 2
    want = {
        "q0_q": lambda: kl(q[0], q[1]) + kl(q[0], q[2]),
        "p0_q": lambda: kl(p[0], q[1]) + kl(p[0], q[2]),
        "p_q": lambda: kl(p[1], q[2]) + kl(p[2], q[1]),
    }.get(kind, lambda: 0.5 * (kl(q[1], m) + kl(q[2], m)))()
    np.testing.assert_allclose(anchor.anchor_loss(q, p, np.log(q), kind), want, rtol=1e-5)
    np.testing.assert_allclose(anchor.cluster_loss(p[0], np.log(q[0])), kl(p[0], q[0]), rtol=1e-5)


def test_tcc_assignment_and_aggregation():
    f, mu = rng.normal(size=(B, D)), rng.normal(size=(K, D))
    pi = softmax(f @ mu.T)
    np.testing.assert_allclose(tcc.log_pi(f, mu), np.log(pi), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        tcc.log_pi(f, mu, scale=10.0), np.log(softmax(10 * unit(f) @ unit(mu).T)), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(tcc.total(f, np.log(pi)), pi.T @ f, rtol=1e-5, atol=1e-6)
    hard = np.stack([f[pi.argmax(axis=1) == k].sum(axis=0) for k in range(K)])
    np.testing.assert_allclose(tcc.total(f, np.log(pi), hard=True), hard, rtol=1e-5, atol=1e-6)


def test_tcc_losses():
    r, r_hat, e, e_hat = (unit(rng.normal(size=shape)) for shape in ((K, D), (K, D), (1, B, D), (1, B, D)))
    P, Q = unit(rng.normal(size=(4 * K, D))), unit(rng.normal(size=(7, D)))
    want = 0.0
    for k in range(K):
        positive = np.exp(r_hat[k] @ r[k] / 0.5)
        want -= np.log(positive / (positive + sum(np.exp(P[l] @ r[k] / 0.5) for l in range(4 * K) if l % K != k))) / K
    np.testing.assert_allclose(tcc.l1(r, r_hat, P, 0.5), want, rtol=1e-5)

    pi = softmax(rng.normal(size=(B, K)))
    own, mean = entropy(pi).mean(), entropy(pi.mean(axis=0))
    for bonus, value in (("sample", own), ("marginal", mean), ("mutual", mean - 0.3 * own)):
        want = np.log(K) - value
        for i in range(B):
            positive = np.exp(e_hat[0, i] @ e[0, i] / 0.5)
            want -= np.log(positive / (positive + np.exp(Q @ e[0, i] / 0.5).sum())) / B
        np.testing.assert_allclose(tcc.l2(e, e_hat, np.log(pi), Q, 0.5, bonus, 0.3), want, rtol=1e-5)


def test_tcc_samples_are_assignments_and_their_arg_max_follows_pi():
    log_pi = jnp.log(jnp.asarray([[0.7, 0.2, 0.1]]))
    c = tcc.gumbel_softmax(jax.random.key(0), log_pi, lam=0.8, samples=4000)
    np.testing.assert_allclose(c.sum(axis=-1), 1, rtol=1e-5)
    share = np.bincount(np.asarray(c.argmax(axis=-1)).ravel(), minlength=3) / 4000
    np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.03)


@pytest.mark.parametrize("among_means", [False, True])
def test_mmdc_permutation_is_the_cheapest_of_each_group(among_means):
    mu = np.eye(D)[:K].astype(np.float32)
    z = unit(rng.normal(size=(B, D))).astype(np.float32)
    t = mu[rng.integers(0, K, B)] if among_means else unit(rng.normal(size=(B, D))).astype(np.float32)
    y = np.asarray(mmdc.permute(jnp.asarray(z), jnp.asarray(t), 4, jnp.asarray(mu) if among_means else None))
    for group in (slice(0, 4), slice(4, 8)):
        cost = cdist(z[group], t[group])
        np.testing.assert_array_equal(np.sort(y[group], axis=0), np.sort(t[group], axis=0))
        least = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(np.linalg.norm(z[group] - y[group], axis=1).sum(), least, rtol=1e-5)


def test_mmdc_nearest_mean_and_turned_crops():
    mu, z = unit(rng.normal(size=(K, D))), unit(rng.normal(size=(B, D)))
    np.testing.assert_array_equal(mmdc.nearest(z, mu), cdist(z, mu).argmin(axis=1))
    x = rng.uniform(size=(4, 2, 3, 3, 1))
    turned = np.asarray(mmdc.turned(x)).reshape(2, 4, 3, 3, 1)
    for i in range(2):
        for quarters in range(4):
            np.testing.assert_allclose(turned[i, quarters], np.rot90(x[quarters, i], quarters), rtol=1e-6)
