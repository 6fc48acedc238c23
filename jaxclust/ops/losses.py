"""Formulas that methods share. Everything here is float32 and sees the global batch."""

import jax
import jax.numpy as jnp

from jaxclust.types import Array

# Products of embeddings are small beside the network's, and rounding them to bfloat16 or TF32
# (the default on accelerators) would show in a temperature-scaled exponent.
HIGHEST = jax.lax.Precision.HIGHEST


def normalise(x: Array) -> Array:
    """Rows of `x`, f32[..., D], scaled to unit length; a zero row stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def kl(p: Array, log_q: Array) -> Array:
    """KL(p || q) of each row, in nats, f32[B].

    Args:
      p: f32[B, K], rows sum to one; zeros contribute nothing.
      log_q: f32[B, K], the logarithm of q.
    """
    return jnp.sum(jax.scipy.special.xlogy(p, p) - p * log_q, axis=-1)


def nt_xent(z1: Array, z2: Array, tau: float, self_term: bool = False) -> Array:
    """Normalised-temperature cross-entropy (SimCLR, eq. 1), in nats.

    Row i of `z1` and row i of `z2` are each other's positive; the other 2N - 2 rows are negatives.

    Args:
      z1: embeddings of one view, f32[N, D]; cosine similarity, so their lengths do not matter.
      z2: embeddings of the other view, f32[N, D].
      tau: temperature.
      self_term: whether a row is in its own denominator. SimCLR leaves it out; some papers print it.

    Returns:
      f32[], the mean over the 2N rows.
    """
    n, d = z1.shape
    pairs = normalise(jnp.stack([z1, z2], axis=1))  # f32[N, 2, D]: one after the other, rows would change their devices
    z = pairs.reshape(2 * n, d)
    sim = jnp.matmul(z, z.T, precision=HIGHEST) / tau  # f32[2N, 2N]
    if not self_term:
        sim = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, sim)
    positive = jnp.sum(pairs[:, 0] * pairs[:, 1], axis=-1) / tau  # f32[N], the same for both directions
    return jnp.mean(jax.nn.logsumexp(sim, axis=-1)) - jnp.mean(positive)


def student_t(h: Array, mu: Array, alpha: float = 1.0) -> Array:
    """Soft assignment of embeddings to centres under a Student-t kernel (DEC, eq. 1), as a logarithm.

    Args:
      h: embeddings, f32[B, D].
      mu: cluster centres, f32[K, D].
      alpha: degrees of freedom.

    Returns:
      log q: f32[B, K]; the rows of q sum to one.
    """
    # The difference, not |h|^2 - 2 h.mu + |mu|^2: XLA fuses it into the sum, and it does not cancel.
    squared = jnp.sum((h[:, None] - mu[None]) ** 2, axis=-1)  # f32[B, K]
    return jax.nn.log_softmax(-0.5 * (alpha + 1) * jnp.log1p(squared / alpha), axis=-1)


def dec_target(q: Array) -> Array:
    """DEC's sharpened target distribution (eq. 3), with cluster frequencies over the batch.

    Args:
      q: soft assignment, f32[B, K].

    Returns:
      p: f32[B, K], rows sum to one: q^2 / f, renormalised, where f_k = sum_i q_ik.
    """
    weight = q**2 / jnp.maximum(jnp.sum(q, axis=0), 1e-12)
    return weight / jnp.maximum(jnp.sum(weight, axis=-1, keepdims=True), 1e-12)
