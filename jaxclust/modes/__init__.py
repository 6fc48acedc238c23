"""What each `--mode` does with a run that `build` has made."""

from jaxclust.modes.scoring import predict, range_of, run_evaluation, run_probe, run_suggest_k
from jaxclust.modes.showing import run_browse, run_compare, run_report
from jaxclust.modes.training import alone, announce, run_prepare, run_training

__all__ = [
    "alone",
    "announce",
    "predict",
    "range_of",
    "run_browse",
    "run_compare",
    "run_evaluation",
    "run_prepare",
    "run_probe",
    "run_report",
    "run_suggest_k",
    "run_training",
]
