"""Formulas as slow and obvious loops, for tests to compare with."""

import numpy as np


def nt_xent_oracle(z1, z2, tau, self_term=False):
    n = len(z1)
    z = np.concatenate([z1, z2]).astype(np.float64)
    total = 0.0
    for i in range(2 * n):
        cosine = [z[i] @ z[j] / np.linalg.norm(z[i]) / np.linalg.norm(z[j]) for j in range(2 * n)]
        others = sum(np.exp(cosine[j] / tau) for j in range(2 * n) if self_term or j != i)
        total -= np.log(np.exp(cosine[(i + n) % (2 * n)] / tau) / others)
    return total / (2 * n)


def student_t_oracle(h, mu, alpha):
    q = np.zeros((len(h), len(mu)))
    for i in range(len(h)):
        for j in range(len(mu)):
            q[i, j] = (1 + np.sum((h[i] - mu[j]) ** 2) / alpha) ** (-(alpha + 1) / 2)
        q[i] /= q[i].sum()
    return q


def dec_target_oracle(q):
    f = q.sum(axis=0)
    p = np.zeros_like(q)
    for i in range(len(q)):
        for j in range(q.shape[1]):
            p[i, j] = q[i, j] ** 2 / f[j]
        p[i] /= p[i].sum()
    return p


def numerical_gradient(f, x, eps=1e-6):
    x = x.astype(np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = eps
        gradient[index] = (f(x + step) - f(x - step)) / (2 * eps)
    return gradient
