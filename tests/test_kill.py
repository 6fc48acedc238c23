"""SIGKILL at any moment loses nothing: the same command again ends with the same bits."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from conftest import config_of

from jaxclust import build, main, sharding
from jaxclust.checkpoint import Checkpoints

SETTINGS = {
    "net.depth": "4",
    "net.stem": "vgg",
    "net.width": "4",
    "data.size": "16",
    "train.batch_size": "256",
    "train.epochs": "6",
    "train.log_every": "1",
    "method.init_epoch": "2",
    "checkpoint.every": "1",
    "eval.restarts": "1",
}
STEPS = 42


def command(workdir) -> list[str]:
    flags = [
        f"--config={config_of('anchor')}",
        f"--workdir={workdir}",
        *(f"--config.{k}={v}" for k, v in SETTINGS.items()),
    ]
    return [sys.executable, "-m", "jaxclust.main", *flags]


def final_state(workdir):
    args, overrides = main.parse(command(workdir)[3:])
    with Checkpoints(workdir, keep=None) as checkpoints:
        assert checkpoints.steps[-1] == STEPS
        return checkpoints.restore(build.build(args, overrides).like)


def test_a_run_killed_twice_equals_one_left_alone(tmp_path, monkeypatch):
    environment = os.environ | {"XLA_FLAGS": ""}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": environment}
    subprocess.run(command(tmp_path / "alone"), check=True, **quiet)

    records = tmp_path / "killed" / "metrics.jsonl"
    for step in (3, 20):  # before the first checkpoint; after the centres are placed
        process = subprocess.Popen(command(tmp_path / "killed"), **quiet)
        while not records.exists() or f'"step": {step}' not in records.read_text():
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run(command(tmp_path / "killed"), check=True, **quiet)

    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(1))
    alone, killed = (final_state(tmp_path / name) for name in ("alone", "killed"))
    for a, b in zip(jax.tree.leaves(alone.replace(key=None)), jax.tree.leaves(killed.replace(key=None)), strict=True):
        np.testing.assert_array_equal(a, b)
    steps = [line.split('"step": ')[1].split(",")[0] for line in records.read_text().splitlines()]
    assert steps == [str(i) for i in range(1, STEPS + 1)]
    assert (tmp_path / "alone" / "scores.json").read_bytes() == (tmp_path / "killed" / "scores.json").read_bytes()
