"""Every config is complete, builds, and takes two steps; they are discovered, so a new one is covered."""

import json
import math

import pytest
from conftest import CONFIGS

from jaxclust import config, modes


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_trains_two_steps_and_is_evaluated(path, small_run, tmp_path):
    run = small_run(path, tmp_path, overrides={"train.epochs": "1"})
    state = modes.run_training(run)
    last = run.plan.stages[-1]
    assert int(state.step) == last.start + last.steps >= 2
    modes.run_evaluation(run, state)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {"step", "seed", "cluster", "kmeans_pixels"} <= scores.keys()
    assert all(0 <= scores["cluster"][name] <= 1 for name in ("acc", "nmi"))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert math.isfinite(json.loads(line)["loss"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_says_what_it_is_and_how_to_run_it(path):
    text = path.read_text()
    assert text.startswith('"""')
    assert f"--config=configs/{path.name}" in text
    assert len(text.splitlines()) <= 80
    config.load(path, {})
