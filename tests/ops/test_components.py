"""Principal components: exact whichever way they are found, and of points that are all the same."""

import numpy as np
import pytest

from jaxclust.ops.components import half_whitening, leading


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


def test_half_white_components_vary_by_the_square_root_of_their_variance():
    x = np.random.default_rng(0).normal(size=(400, 6)) * np.arange(1, 7) / 30
    mean, axes = half_whitening(x.astype(np.float32), 4)
    z = (x - mean) @ axes
    want = np.sqrt(np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1][:4])
    np.testing.assert_allclose(np.cov(z.T), np.diag(want), atol=1e-5)


@pytest.mark.parametrize("n", [1, 50])
def test_points_that_differ_by_rounding_alone_are_at_one_place(n):
    x = np.full((n, 16), 0.25, np.float32) + 1e-7 * np.random.default_rng(0).random((n, 16), np.float32)
    mean, axes = half_whitening(x, 8)
    assert not ((x - mean) @ axes).any()
