"""How many clusters there are, when nobody knows: four criteria over a range of K, and what they amount to.

Nothing is trained: the criteria look at a finished run's embeddings, and at no label. Where a run has several, the one
with the clearest clusters counts (`clearest`).

    silhouette       how much nearer a point is to its own cluster than to the next (Rousseeuw, 1987)
    Davies-Bouldin   spread within clusters over the distance between them, lower is better (1979)
    stability        adjusted Rand index of k-means on random subsamples, over the points that two of them share: the
                     protocol of Ben-Hur et al. (PSB 2002) over all pairs, as in von Luxburg (2010, arXiv:1007.1075)
    BIC              of a mixture of K Gaussians, lower is better (Schwarz, 1978)

Two clusters are stable in any elongated cloud, so stability counts by how far it exceeds that of a reference: one
Gaussian of the same covariance (Dudoit and Fridlyand, Genome Biology 2002). The same reference tells whether there are
clusters at all. Silhouette, Davies-Bouldin and BIC rarely turn around at the right K: a cluster of images has styles,
and splitting off a style keeps improving them a little. So what counts is the corner of the curve, where two straight
lines fit it best (the L method, Salvador and Chan, ICTAI 2004).

A network shapes its embeddings to the number of clusters that it is trained for: CC for 20 still shows the ten digits,
MMDC, which pulls images to 20 corners, shows 19. So an answer near that number is worth a run with another.

The cost does not grow with N: criteria are computed on a random sample, in its leading principal components. These
hold what separates clusters, whose K centres span K - 1 directions, and make every distance cheap. The mixture has
fewer of them: ten directions hold most of what separates thirty clusters, and further ones mostly styles.
"""

from jaxclust.clusters.suggest_k.criteria import Table, score
from jaxclust.clusters.suggest_k.recommendation import (
    FEWEST,
    clearest,
    corner,
    headline,
    preferences,
    recommend,
    steadiest,
)

__all__ = ["FEWEST", "Table", "clearest", "corner", "headline", "preferences", "recommend", "score", "steadiest"]
