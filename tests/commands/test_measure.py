"""`--mode=bench`: what is asked for is one measurement, or a sentence."""

import pytest

from jaxclust import main
from jaxclust.run.errors import ConfigError


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "--memory"], "--steps and --memory are measured one at a time"),
        (["--folder=9", "--against=torch"], "--folder and --against are measured one at a time"),
        (["--modes=100", "--config=mine.py"], "--modes measures no config, and --config=mine.py was given"),
        (["--steps", "--target=gpu.txtpb"], "--target is the GPU of --memory or --roofline"),
        (["--modes=0"], "--modes=0 is a number of images"),
        (["--folder=-1"], "--folder=-1 is a number of images"),
    ],
)
def test_what_is_no_single_measurement_is_refused(flags, said):
    with pytest.raises(ConfigError, match=said):
        main.main(["--mode=bench", *flags])
