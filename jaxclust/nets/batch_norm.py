"""Batch normalisation as PyTorch has it, and its gradient in two passes over the images."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Normalised = tuple[jax.Array, jax.Array, jax.Array]  # y [..., C], mean and variance f32[C]


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch has it (Ioffe & Szegedy, 2015, arXiv:1502.03167).

    It normalises with the biased variance and averages the unbiased one. `flax.linen.BatchNorm` averages the
    biased one, which the last stage of a small image notices: there a channel has few values.
    Statistics are float32 and of the global batch: under jit a mean over a sharded axis is the global mean.
    """

    momentum: float = 0.9  # weight of the running average; PyTorch calls 1 - 0.9 the momentum
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises each channel.

        Args:
          x: [..., C].
          train: whether to use and record the batch's statistics, rather than the running ones.

        Returns:
          [..., C] in the dtype of x.

        Raises:
          ValueError: in training, if a channel has one value, which has no variance.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return _normalised(x, running_mean.value, running_var.value, scale, bias, self.eps)
        y, mean, var = _traced_once(x, scale, bias, self.eps)
        if not self.is_initializing():
            n = x.size // x.shape[-1]
            if n == 1:
                raise ValueError(f"batch normalisation of shape {x.shape}: train with a larger batch or image")
            running_mean.value += (1 - self.momentum) * (lax.stop_gradient(mean) - running_mean.value)
            running_var.value += (1 - self.momentum) * (lax.stop_gradient(var) * (n / (n - 1)) - running_var.value)
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _with_statistics(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> Normalised:
    """x [..., C] normalised with its own statistics, and those: mean and biased variance f32[C], without gradient.

    The gradient is written down, since the one that JAX derives reads the images several times more than it needs to.
    """
    h, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    mean = h.mean(axes)
    # One pass over h. Rounding costs about 1e-7 (mean / std)^2 of the variance, and can fall below 0.
    var = jnp.maximum((h * h).mean(axes) - mean * mean, 0)
    return _normalised(x, mean, var, scale, bias, eps), mean, var


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[Normalised, tuple[jax.Array, ...]]:
    y, mean, var = _with_statistics(x, scale, bias, eps)
    return (y, mean, var), (x, mean, var, scale)


def _backward(eps: float, kept: tuple[jax.Array, ...], to_y_and_statistics: Normalised) -> tuple[jax.Array, ...]:
    x, mean, var, scale = kept
    g, axes, n = to_y_and_statistics[0].astype(jnp.float32), tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    centred, inverse = x.astype(jnp.float32) - mean, lax.rsqrt(var + eps)
    to_bias, to_scale = g.sum(axes), (g * centred).sum(axes) * inverse
    to_x = scale * inverse * (g - to_bias / n - centred * (to_scale * inverse / n))
    return to_x.astype(x.dtype), to_scale, to_bias


_with_statistics.defvjp(_forward, _backward)
_traced_once = jax.jit(_with_statistics, static_argnums=3)  # for all layers of one shape


@functools.partial(jax.jit, static_argnums=5)
def _normalised(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> jax.Array:
    y = (x.astype(jnp.float32) - mean) * (scale * lax.rsqrt(var + eps)) + bias
    return y.astype(x.dtype)
