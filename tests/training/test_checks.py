"""What is advised where a batch does not fit the devices is taken when it is followed."""

import re
from types import SimpleNamespace

import pytest
from conftest import config_of

from jaxclust.commands.work.train import run_training
from jaxclust.run.errors import ConfigError
from jaxclust.training import build, checks


@pytest.mark.parametrize("devices", range(2, 9))
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_nearest_batch_that_fits_is_advised(devices, parts):
    for size in range(parts, 61, parts):
        said = SimpleNamespace(batch_size=size, accumulate=parts)
        fitting = [n for n in range(1, 46) if n % (devices * parts) == 0 and n % 4 == 0]
        if size % (devices * parts) == 0:
            checks.among(devices, said, 45, lambda n: n % 4 == 0)
            continue
        with pytest.raises(ConfigError) as caught:
            checks.among(devices, said, 45, lambda n: n % 4 == 0)
        if fitting:
            advised = int(re.search(r"the nearest that is: (\d+)", str(caught.value))[1])
            assert advised in fitting
            assert abs(advised - size) == min(abs(n - size) for n in fitting)
        else:
            assert size % (int(re.search(r"use (\d+) of them", str(caught.value))[1]) * parts) == 0


def test_more_clusters_than_a_batch_can_show_are_said_before_training(small_run, tmp_path, capsys):
    small_run(config_of("cc"), tmp_path, overrides={"clusters": "16"})
    assert capsys.readouterr().err == ""
    small_run(config_of("cc"), tmp_path, overrides={"clusters": "17"})
    assert "clusters is 17 and train.batch_size 16, so that no batch can show" in capsys.readouterr().err


def test_a_method_takes_the_batch_that_is_advised(small_run, tmp_path):
    with pytest.raises(ConfigError, match="by the 3 devices; the nearest that is: 24"):
        small_run(config_of("mmdc"), tmp_path, devices=3, overrides={"train.batch_size": "32"})
    small_run(config_of("mmdc"), tmp_path, devices=3, overrides={"train.batch_size": "24"})


def test_a_run_is_looked_at_on_any_number_of_devices_and_goes_on_where_its_batch_fits(small_run, tmp_path):
    run_training(small_run(config_of("cc"), tmp_path))
    with pytest.raises(ConfigError, match=r"train.batch_size is 16, .* by the 3 devices; use 2 of them"):
        small_run(config_of("cc"), tmp_path, devices=3)
    for mode in ("evaluate", "probe", "suggest-k", "report", "browse", "export"):
        run = build.build(None, tmp_path, mode, {})
        assert run.plan.mesh.size == 3


def test_sizes_of_which_no_device_could_hold_the_first_layer_are_refused(small_run, tmp_path):
    absurd = {"data.size": "200000", "data.stored": "16", "net.width": "64"}
    with pytest.raises(ConfigError, match=r"at data\.size 200,000 and net\.width 64 needs more than .* GB a device"):
        small_run(config_of("cc"), tmp_path, overrides=absurd)
