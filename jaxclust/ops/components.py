"""Principal components, by scikit-learn, of points that may also be all the same."""

import numpy as np
from sklearn.decomposition import PCA


def leading(x: np.ndarray, most: float) -> PCA:
    """The directions in which points x f[n, d] vary most, fitted: at most `most`, n or d of them.

    With `most` below one they are as many as hold more than this share of the variance.

    They are exact. Where n is far above d they come from the covariance, and from the points themselves otherwise.
    """
    solver = "covariance_eigh" if len(x) > 2 * x.shape[1] else "full"
    with np.errstate(invalid="ignore"):  # shares of a variance of nothing, which nobody asks for
        return PCA(min(most, *x.shape), svd_solver=solver).fit(x)
