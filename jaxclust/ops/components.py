"""Principal components, by scikit-learn, of points that may also be all the same."""

import numpy as np
from sklearn.decomposition import PCA

ROUNDING, NOTHING = 1e-6, 1e-9  # of the largest variance, and of |x|^2 = 1: components of less are rounding


def leading(x: np.ndarray, most: float) -> PCA:
    """The directions in which points x f[n, d] vary most, fitted: at most `most`, n or d of them.

    With `most` below one they are as many as hold more than this share of the variance.

    They are exact. Where n is far above d they come from the covariance, and from the points themselves otherwise.
    """
    solver = "covariance_eigh" if len(x) > 2 * x.shape[1] else "full"
    with np.errstate(invalid="ignore"):  # shares of a variance of nothing, which nobody asks for
        return PCA(min(most, *x.shape), svd_solver=solver).fit(x)


def half_whitening(x: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components, each divided by the square root of its standard deviation.

    That is half-way between components as they are, of which the first few decide every distance, and white ones, of
    which the last, mostly noise, count as much as the first.

    Args:
      x: points, f32[n, d], of length one.
      most: components, at most.

    Returns:
      The mean f32[d] and the axes f32[d, w], for points as (x - mean) @ axes. An axis along which points differ by
      rounding alone is zero.
    """
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    found = leading(x - mean, most)  # what x has in common would cost the covariance its digits
    variance = np.nan_to_num(found.explained_variance_)  # of a single point
    differ = variance > max(ROUNDING * variance[0], NOTHING)
    scale = np.where(differ, np.maximum(variance, NOTHING) ** -0.25, 0)
    return mean, (found.components_.T * scale).astype(np.float32)
