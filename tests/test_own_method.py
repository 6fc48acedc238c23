"""The page on writing a method holds a method that works: its code is run as it stands there."""

import json
import re
import shutil
from pathlib import Path

from conftest import ROOT

from jaxclust import methods, modes

PAGE = Path(methods.__path__[0]) / "README.md"


def test_the_pages_method_trains_and_is_evaluated(small_run, tmp_path, monkeypatch):
    text = PAGE.read_text()
    assert len(text.splitlines()) <= 80
    method, config = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "simclr.py").write_text(method)
    (tmp_path / "digits_simclr.py").write_text(config)
    shutil.copy(ROOT / "configs" / "digits_cc.py", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])

    run = small_run(tmp_path / "digits_simclr.py", tmp_path / "run")
    state = modes.run_training(run)
    assert int(state.step) == 4
    modes.run_evaluation(run, state)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert {"cluster", "kmeans_projection"} <= scores.keys()
