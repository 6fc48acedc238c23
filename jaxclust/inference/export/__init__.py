"""To other people's programs and from them.

export    a run's predictor as files that work without jaxclust, by way of `onnx`, with a model `card` and `examples`
"""
