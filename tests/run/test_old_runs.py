"""What one version wrote, every later one reads: runs of jaxclust 0.1 in every mode of today's."""

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from sklearn.datasets import load_digits

import jaxclust
from jaxclust import main
from jaxclust.pages import compare
from jaxclust.pages.browse import serving
from jaxclust.run import sharding
from jaxclust.run import workdir as names
from jaxclust.run.errors import ConfigError
from jaxclust.training import build, configs

RUNS = ROOT / "tests" / "fixtures" / "runs_0.1"
METHODS = ("anchor", "cc", "tcc", "mmdc")


def opened(method: str, folder: Path) -> Path:
    """A copy of the old run of `method`."""
    with tarfile.open(RUNS / f"{method}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder / method


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """As the runs were made on."""
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(1))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_version_0_1_is_read_in_every_mode(method, tmp_path, monkeypatch):
    run, photos = opened(method, tmp_path), tmp_path / "photos"
    before = json.loads((run / "scores.json").read_text("utf-8"))
    photos.mkdir()
    for i, digit in enumerate(load_digits().images[:12]):
        Image.fromarray((digit * 15).astype(np.uint8)).save(photos / f"{i}.png")
    served = []
    monkeypatch.setattr(serving, "serve", lambda library, *_: served.append(library))

    for words in (
        "--mode=evaluate",
        "--mode=probe",
        "--mode=suggest-k --k=2:4",
        "--mode=report",
        f"--mode=predict --images={photos} --into={tmp_path / 'sorted'}",
        "--mode=export",
        "--mode=browse",
    ):
        assert main.cli([*words.split(), f"--workdir={run}"]) == 0, words
    assert main.cli(["--mode=compare", f"--runs={run}", f"--workdir={tmp_path / 'compared'}"]) == 0

    scores = json.loads((run / "scores.json").read_text("utf-8"))
    assert {key: row["sizes"] for key, row in scores.items() if "kmeans" in key or key == "cluster"} == {
        key: row["sizes"] for key, row in before.items() if "kmeans" in key or key == "cluster"
    }
    assert (run / "predict" / "photos" / "predictions.csv").exists()
    assert len(served[0].images) == 1797
    assert jaxclust.load(run).predict(photos).shape == (12,)
    assert not (run / names.VERSION).exists()  # nothing but training makes it a run of today

    # Nothing is held against the shipped config here: what the run keeps is a config file, too.
    (tmp_path / "mine.py").write_text(
        "import json, ml_collections\n"
        f"def get_config():\n    return ml_collections.ConfigDict(json.load(open({str(run / 'config.json')!r})))\n"
    )
    assert main.cli([f"--config={tmp_path / 'mine.py'}", "--config.train.epochs=3", f"--workdir={run}"]) == 0
    assert json.loads((run / names.VERSION).read_text("utf-8"))["format"] == names.FORMAT
    assert names.steps(run)[-1] > before["step"]


PLUMBING = [
    *("net.init_from", "net.remat", "net.dtype", "train.accumulate", "train.log_every", "data.stored", "data.dir"),
    *("data.resident", "data.max_bad", "checkpoint.every", "checkpoint.keep", "report.looks", "report.sample"),
    *("report.page", "eval.batch_size", "eval.restarts", "eval.held_out", "checkpoint", "report"),
]


NAMED = ("net.init_from", "train.accumulate", "report")  # a setting, another section's, and a section as a whole
FIRST = [pytest.param(key, marks=[pytest.mark.slow] * (key not in NAMED)) for key in PLUMBING]


@pytest.mark.parametrize("key", FIRST)
def test_a_run_from_before_a_setting_is_opened_with_its_default(key, tmp_path):
    run = opened("anchor", tmp_path)
    config = json.loads((run / "config.json").read_text("utf-8"))
    *section, leaf = key.split(".")
    del (config[section[0]] if section else config)[leaf]
    (run / "config.json").write_text(json.dumps(config))
    found = configs.saved(run)
    assert leaf in (found[section[0]] if section else found)
    assert int(build.open_run(configs.saved(run), run).state.step) == 6


def test_a_users_config_needs_no_plumbing(tmp_path):
    text = (ROOT / "configs" / "digits_cc.py").read_text("utf-8")
    for line in (
        "accumulate=1, ",
        ', remat=False, init_from=""',
        "            report=dict(looks=20, sample=2000, page=True),\n",
    ):
        assert line in text
        text = text.replace(line, "")
    (tmp_path / "mine.py").write_text(text)
    run = build.build(str(tmp_path / "mine.py"), tmp_path / "run", "train", {"train.accumulate": "1"})
    assert run.config.train.accumulate == 1
    assert json.loads(run.config.to_json())["net"]["remat"] is False


def test_a_run_of_a_newer_format_is_refused_in_a_sentence(tmp_path, capsys):
    run = opened("anchor", tmp_path)
    (run / names.VERSION).write_text('{"format": 99, "jaxclust": "9.1"}')
    workdir = f"--workdir={run}"
    looking = ("evaluate", "probe", "suggest-k", "report", "export", "browse", "predict --images=x")
    begun = f"--config={ROOT / 'configs' / 'digits_anchor.py'}"
    for words in (
        *(f"--mode={mode} {workdir}" for mode in looking),
        f"{begun} {workdir}",
        f"--mode=compare --runs={run}",
    ):
        assert main.cli(words.split()) == 2, words
        assert "written by jaxclust 9.1 in format 99, and this is jaxclust" in capsys.readouterr().err, words
    with pytest.raises(ConfigError, match=r"install jaxclust 9\.1 or later"):
        jaxclust.load(run)


def test_a_setting_of_another_version_is_named_with_the_version(tmp_path, capsys):
    run = opened("anchor", tmp_path)
    kept = json.loads((run / "config.json").read_text("utf-8"))
    kept["net"]["patches"] = 4
    (run / "config.json").write_text(json.dumps(kept))
    assert main.cli(["--mode=evaluate", f"--workdir={run}"]) == 2
    said = capsys.readouterr().err
    assert f"jaxclust {jaxclust.__version__} knows no setting net.patches, which {run / 'config.json'} has" in said
    assert "the run was written by jaxclust 0.1: use that version for it" in said
    (run / names.VERSION).write_text(json.dumps({"format": names.FORMAT, "jaxclust": jaxclust.__version__}))
    with pytest.raises(ConfigError, match="restore the file"):
        jaxclust.load(run)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"seed": 0}', '{"method": 3}', '{"method": {}}', "\x00"])
def test_a_damaged_config_is_an_error_of_the_run(text, tmp_path):
    run = opened("anchor", tmp_path)
    (run / "config.json").write_text(text)
    for mode in ("evaluate", "predict --images=x", "report"):
        assert main.cli([*f"--mode={mode}".split(), f"--workdir={run}"]) == 2
    with pytest.raises(ConfigError):
        jaxclust.load(run)


@pytest.mark.parametrize("text", [None, "{}", '{"step": 6}', '{"train": {"a": 1}}'])
def test_without_what_it_keeps_of_its_images_a_run_is_not_opened(text, tmp_path):
    run = opened("anchor", tmp_path)
    (run / "data.json").unlink()
    if text:
        (run / "data.json").write_text(text)
    with pytest.raises(ConfigError, match=r"data\.json is (missing or )?damaged"):
        jaxclust.load(run)
    assert main.cli(["--mode=predict", "--images=x", f"--workdir={run}"]) == 2


def test_runs_from_before_a_setting_and_after_it_are_seeds_of_one_cluster_of_settings(tmp_path):
    old, new = opened("anchor", tmp_path / "a"), opened("anchor", tmp_path / "b")
    kept = json.loads((new / "config.json").read_text("utf-8"))
    (new / "config.json").write_text(json.dumps(kept | {"seed": kept["seed"] + 1}))
    del kept["net"]["dtype"], kept["data"]["stored"], kept["report"]
    (old / "config.json").write_text(json.dumps(kept))
    (compared,), _ = compare.gather([old, new])
    assert [len(group.runs) for group in compared.data.groups] == [2]


def test_a_damaged_version_is_named(tmp_path):
    run = opened("anchor", tmp_path)
    (run / names.VERSION).write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json is damaged"):
        configs.saved(run)


def test_no_other_file_knows_the_names_in_a_runs_folder():
    package = Path(jaxclust.__path__[0])
    known = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str) and "." in value}
    for path in package.rglob("*.py"):
        place = str(path.relative_to(package))
        theirs = (
            {"skipped.csv"} if place in ("data/cache.py", "data/entries.py", "inference/sort.py") else set()
        )  # in folders of their own
        if place != "run/workdir.py":
            text = path.read_text("utf-8")
            assert not [name for name in known - theirs if re.search(rf"""["'/]{re.escape(name)}["']""", text)], path
