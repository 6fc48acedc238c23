"""A run's folder may be anybody's: no link in it leads what is written or removed to somewhere else."""

import os
import re
from pathlib import Path

import pytest
from conftest import ROOT

from jaxclust import main
from jaxclust.run.errors import ConfigError
from jaxclust.run.workdir import FOLDERS, check_inside

HIDDEN = [".lock", ".decisions.json.lock", ".report.new", ".predictions.old"]
INNER = ["checkpoints/6", "checkpoints/6/state", "predict/photos"]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "5.npz").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    return tmp_path / "run"


def link(run: Path, name: str, target: str | Path) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).symlink_to(target)


@pytest.mark.parametrize("name", [*FOLDERS, *HIDDEN, *INNER])
def test_a_link_out_of_a_runs_folder_is_refused(name, run, capsys):
    for target in (run.parent / "around", "/etc/hostname", os.path.relpath(run.parent / "new", (run / name).parent)):
        link(run, name, target)
        with pytest.raises(ConfigError, match=rf"{re.escape(name)} is a link out of the run's folder"):
            check_inside(run)
        (run / "config.json").unlink(missing_ok=True)
        config = f"--config={ROOT / 'configs' / 'digits_cc.py'}"
        for words in (config, f"--mode=import --from=x {config}", "--mode=report", "--mode=predict --images=."):
            if "--config" not in words:
                (run / "config.json").write_text("{}")
            assert main.cli([*words.split(), f"--workdir={run}"]) == 2
            assert "is a link out of the run's folder" in capsys.readouterr().err
        (run / name).unlink()
    link(run, name, run / name)  # in a circle
    with pytest.raises(ConfigError, match="is a link out of"):
        check_inside(run)
    assert [path.name for path in (run.parent / "around").iterdir()] == ["5.npz"]
    assert sorted(path.name for path in run.parent.iterdir()) == ["around", "run"]


def test_other_links_and_a_folder_that_is_a_link_are_taken(run):
    for name, target in (
        ("photos", "../around"),
        ("checkpoints/last", "6"),
        ("predict/photos/0/x.jpg", "/etc/hostname"),
    ):
        link(run, name, target)
    (run.parent / "other").symlink_to(run)
    for folder in (run, run.parent / "other", run.parent / "new"):
        check_inside(folder)
