"""Whatever the environment is that a job script, a notebook or a container leaves: it works, or a sentence says why."""

import json
import os
import subprocess
import sys

import jax
import pytest
from conftest import SMALL, environment
from PIL import Image

from jaxclust import main
from jaxclust.data import cache
from jaxclust.run.errors import ConfigError
from jaxclust.run.sharding import make_mesh

# A user whom this machine does not know has no home; no test may become another user.
NOBODY = """
import os, pwd, sys
def unknown(*_): raise KeyError
pwd.getpwuid = unknown
os.environ.pop("HOME", None)
from jaxclust.main import cli
sys.exit(cli())
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


@pytest.mark.slow
def test_a_run_in_ascii_in_a_notebook_without_a_home_ends_in_a_report(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(36):
        Image.effect_noise((16, 16), 50 + 4 * i).convert("RGB").save(tmp_path / "photos" / f"Käfer {i}.png")
    env = {k: v for k, v in environment().items() if k not in ("JAXCLUST_CACHE", "XDG_CACHE_HOME", "LANG")}

    def command(*argv, **more):
        argv = [sys.executable, "-c", NOBODY, "--workdir=run", *argv]
        said = subprocess.run(argv, cwd=tmp_path, env=env | ASCII | NOTEBOOK | more, capture_output=True, check=False)
        assert said.returncode == 0, said.stderr.decode()
        assert said.stderr.decode().count("this user has no home folder") == 1

    short = {**SMALL, "data.dir": "photos", "train.epochs": "1", "report.page": "True", "clusters": "3"}
    command("--config=folder.py", *(f"--config.{name}={value}" for name, value in short.items()))
    entry = {"do": "rename", "group": 1, "name": "Käfer 甲虫"}
    decided = {"step": 2, "clusters": 3, "entries": [entry]}
    (tmp_path / "run" / "decisions.json").write_text(json.dumps(decided, ensure_ascii=False), "utf-8")
    command("--mode=report")
    named = (tmp_path / "run" / "clusters.csv").read_text("utf-8")
    assert "Käfer 0.png" in named
    command("--mode=evaluate", PYTHONUTF8="1")
    assert (tmp_path / "run" / "clusters.csv").read_text("utf-8") == named
    assert "Käfer 甲虫" in (tmp_path / "run" / "report" / "index.html").read_text("utf-8")
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("platforms", ["nonsense", "cuda", "cpu,nonsense"])
def test_devices_that_there_are_not_are_named(platforms):
    code = "from jaxclust.run.sharding import make_mesh\nmake_mesh()"
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"JAX_PLATFORMS": platforms}, capture_output=True, check=False
    )
    last = said.stderr.decode().splitlines()[-1]
    assert last.startswith("jaxclust.run.errors.ConfigError: JAX_PLATFORMS is")
    assert f"{platforms!r}, which JAX cannot use here" in last


def test_the_command_and_the_estimator_name_devices_that_there_are_not(tmp_path):
    code = f"""
import numpy as np
from jaxclust import DeepCluster
from jaxclust.main import cli
print(cli(["--config=folder.py", "--config.data.dir={tmp_path}", "--workdir={tmp_path}/run"]))
try:
    DeepCluster().fit(np.zeros((4, 8, 8, 3), np.uint8))
except ValueError as e:
    print(e)
"""
    env = environment() | {"JAX_PLATFORMS": "cuda"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    named = "JAX_PLATFORMS is 'cuda', which JAX cannot use here"
    assert said.stderr.startswith(f"jaxclust: {named}"), said.stderr
    assert said.stderr.count("\n") == 1
    assert said.stdout.startswith(f"2\n{named}")
    assert not (tmp_path / "run").exists()


def test_an_error_of_devices_that_nobody_asked_for_is_shown_as_it_is(monkeypatch):
    def broken():
        raise RuntimeError("the driver is too old")

    monkeypatch.setattr(jax, "devices", broken)
    with pytest.raises(ConfigError, match=r"JAX_PLATFORMS is 'cpu', .* here \(the driver is too old\)"):
        make_mesh()
    jax.config.update("jax_platforms", "")
    try:
        with pytest.raises(RuntimeError, match=r"^the driver is too old"):
            make_mesh()
    finally:
        jax.config.update("jax_platforms", "cpu")


@pytest.mark.parametrize("flag", ["--workdir", "--images", "--out", "--into"])
def test_a_tilde_after_an_equals_sign_is_the_home(flag, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    args, overrides, _ = main.parse([f"{flag}=~/mine", "--mode=predict", "--config.data.dir=~/mine"])
    assert str(vars(args)[flag[2:]]) == f"{tmp_path}/mine"
    assert overrides == {"data.dir": "~/mine"}, "what stands in config.json is the same on another machine"


def test_the_cache_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAXCLUST_CACHE", "~/mine")
    assert cache.directory() == tmp_path / "mine"
    monkeypatch.delenv("JAXCLUST_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.directory() == tmp_path / ".cache" / "jaxclust"
