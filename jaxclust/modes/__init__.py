"""What each `--mode` does with a run that `build` has made."""

from jaxclust.modes.scoring import predict, range_of, run_evaluation, run_probe, run_suggest_k
from jaxclust.modes.training import alone, announce, run_prepare, run_training

__all__ = [
    "alone",
    "announce",
    "predict",
    "range_of",
    "run_evaluation",
    "run_prepare",
    "run_probe",
    "run_suggest_k",
    "run_training",
]
