"""What needs only embeddings and predictions: scores, numbers of clusters, novelty, what a person decided."""
