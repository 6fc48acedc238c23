"""Max pooling: its own gradient beside XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxclust.nets import pooling


@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (2, 2, 1), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_goes_to_the_first_of_the_largest(shape, size, stride, padding, dtype):
    x = jnp.round(2 * jax.random.normal(jax.random.key(0), (2, *shape, 3))).astype(dtype)  # often the same twice
    around = ((padding, padding), (padding, padding))
    y, gradient = jax.vjp(lambda x: nn.max_pool(x, (size, size), (stride, stride), around), x)
    g = jnp.round(8 * jax.random.normal(jax.random.key(1), y.shape)).astype(dtype)  # sums of these are exact
    np.testing.assert_array_equal(pooling.max_pool(x, size, stride, padding), y)
    mine = jax.vjp(lambda x: pooling.max_pool(x, size, stride, padding), x)[1](g)[0]
    assert mine.dtype == dtype
    np.testing.assert_array_equal(mine, gradient(g)[0])
