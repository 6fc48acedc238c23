"""Principal components: exact whichever way they are found, and of points that are all the same."""

import numpy as np
import pytest

from jaxclust.ops.components import leading


@pytest.mark.parametrize("shape", [(200, 6), (9, 6), (4, 6), (200, 1), (1, 6)])
def test_leading_components_are_those_of_the_singular_values(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    z = leading(x, 3).transform(x)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    want = (u * s)[:, :3]
    assert z.shape == want.shape
    np.testing.assert_allclose(np.abs(z), np.abs(want), atol=1e-9)


def test_points_that_are_all_the_same_have_components():
    assert not leading(np.ones((50, 4)), 2).transform(np.ones((50, 4))).any()
