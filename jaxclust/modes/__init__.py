"""What each `--mode` does with a run that `build` has made."""

from jaxclust.modes.scoring import predict, range_of, run_evaluation, run_probe, run_suggest_k
from jaxclust.modes.showing import run_browse, run_compare, run_report
from jaxclust.modes.training import alone, announce, run_prepare, run_training
from jaxclust.modes.using import run_export, run_import, run_predict

__all__ = [
    "alone",
    "announce",
    "predict",
    "range_of",
    "run_browse",
    "run_compare",
    "run_evaluation",
    "run_export",
    "run_import",
    "run_predict",
    "run_prepare",
    "run_probe",
    "run_report",
    "run_suggest_k",
    "run_training",
]
