"""Config files that take an argument, `FILE.py:ARG`, and what is said when that does not fit."""

import pytest
from conftest import ROOT

from jaxclust import main
from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.training import build

SYSTEM = f"""
import runpy

SIZES = {{"small": 8, "large": 24}}

def get_config(data):
    made = runpy.run_path({str(ROOT / "configs" / "digits_cc.py")!r})["get_config"]()
    made.data.size = SIZES[data]
    return made
"""


@pytest.fixture
def system(tmp_path):
    path = tmp_path / "system.py"
    path.write_text(SYSTEM)
    return path


def test_a_file_is_given_its_argument(system, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load(f"{system}:large", {"seed": "3"}).data.size == 24
    run = build.build(f"{system}:small", None, "train", {})
    assert run.config.data.size == 8
    assert str(run.workdir) == "runs/system_small"
    assert config.name("configs/digits_cc.py") == "digits_cc"
    assert config.name(f"{system}:a/b c") == "system_a_b_c"


def test_an_argument_may_have_a_default(system):
    system.write_text(SYSTEM.replace("(data)", '(data="large")'))
    assert config.load(system, {}).data.size == 24
    assert config.load(f"{system}:small", {}).data.size == 8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{system}", r"system\.py takes the data as an argument; give --config=.*system\.py:DATA"),
        ("{system}:huge", r"system\.py:huge cannot be loaded: KeyError: 'huge'"),
        (
            "configs/digits_cc.py:stl10",
            r"digits_cc\.py takes no argument, and was given 'stl10'; give --config=.*_cc\.py$",
        ),
        ("configs/digits_c.py:stl10", r"no config file configs/digits_c\.py \(did you mean configs/digits_cc\.py\?\)"),
    ],
)
def test_what_does_not_fit_is_said(given, said, system, capsys):
    with pytest.raises(ConfigError, match=said):
        config.load(given.format(system=system), {})
    assert main.cli([f"--config={given.format(system=system)}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_without_a_config_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"mine\.py defines no get_config"):
        config.load(path, {})
    path.write_text("def get_config():\n    return dict(seed=0)\n")
    with pytest.raises(ConfigError, match=r"mine\.py returns dict; it must return a ConfigDict"):
        config.load(path, {})
