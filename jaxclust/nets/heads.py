"""Heads on a backbone: a linear layer, and a multi-layer perceptron of two."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class Linear(nn.Module):
    """A linear layer that starts as `torch.nn.Linear` does, weight and bias uniform in +-1/sqrt(D).

    The papers' heads were trained from that start. Its weights have a third of the variance of Flax's default
    (LeCun normal), and its bias is not zero.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:  # [B, D] -> dtype[B, features]
        bound = h.shape[-1] ** -0.5
        init = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        kernel = self.param("kernel", init, (h.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        h, kernel, bias = (a.astype(self.dtype) for a in (h, kernel, bias))
        return h @ kernel + bias


class MLP(nn.Module):
    """Linear, ReLU, linear: the papers' projection head (hidden D, out 128) and cluster head (out K)."""

    hidden: int
    out: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:  # f32[B, D] -> f32[B, out]
        h = nn.relu(Linear(self.hidden, self.dtype, name="linear1")(h))
        return Linear(self.out, self.dtype, name="linear2")(h).astype(jnp.float32)
