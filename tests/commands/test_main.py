"""Bad input: one sentence on stderr, exit code 2, before anything is compiled."""

import csv
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, SMALL, config_of
from PIL import Image

from jaxclust import commands, main
from jaxclust.clusters import probe
from jaxclust.commands.work.evaluate import predict
from jaxclust.commands.work.train import run_training
from jaxclust.run import checkpoint
from jaxclust.run.errors import RunError
from jaxclust.run.preemption import never
from jaxclust.training import build, optim

DIGITS = str(config_of("anchor"))


def refused(capsys, *argv) -> str:
    """Runs the command, which must fail as usage does, and returns its one line."""
    capsys.readouterr()
    assert main.cli(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    (line,) = err.splitlines()
    assert line.startswith("jaxclust: ")
    return line


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("method.temprature=1", "unknown key method.temprature"),
        ("method.tua=1", "did you mean method.tau?"),
        ("optmi.lr=1", "unknown section optmi"),
        ("optim=1", "optim is a section; give one of optim.b2"),
        ("optim.lr=fast", "optim.lr is 'fast', which is not a number"),
        ("optim.name=adan", "optim.name is 'adan'; choose one of adam, adamw, sgd"),
        ("optim.lr=-1", "optim.lr is -1.0; it must be above 0"),
        ("train.epochs=1.5", "train.epochs is 1.5, which is not a whole number"),
        ("train.epochs=0", "train.epochs is 0; it must be at least 1"),
        ("train.batch_size=2000", "train.batch_size is 2000, but the split train has only 1797 images"),
        ("train.batch_size=100", "not divisible by the 8 devices; the nearest that is: 96"),
        ("train.batch_size=1797", "not divisible by the 8 devices; the nearest that is: 1792"),
        ("clusters=2000", "clusters is 2000, but there are only 1797 images"),
        ("clusters=1", "clusters is 1; at least 2 are needed"),
        ("method.name=ancor", "method.name is 'ancor' (did you mean anchor?)"),
        ("data.name=cifar_10", "there is no data set 'cifar_10' (did you mean cifar10?)"),
        ("data.resident=maybe", "data.resident is 'maybe'"),
        ("net.depth=20", "net.depth is 20"),
        ("views.strong.areas=1", "did you mean views.strong.area?"),
        ("views.strong.policy=simclear", "did you mean simclr?"),
        ("eval.view=plane", "the view 'plane' is used but is not in the section views (did you mean plain?)"),
        ("eval.paper_view=plane", "the view 'plane' is used but is not in the section views (did you mean plain?)"),
        ("eval.held_out=-1", "eval.held_out is -1; it must be at least 0"),
        ("checkpoint.keep=0", "checkpoint.keep is 0; it must be at least 1"),
    ],
)
def test_a_bad_setting_is_named(override, sentence, capsys, tmp_path):
    assert sentence in refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path}", f"--config.{override}")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "give --config=FILE"),
        (["--mode=export"], "--mode=export needs --workdir=RUN, or the --config=FILE that the run was made with"),
        (["--mode=predict", "--workdir=nowhere"], "--mode=predict needs --workdir=RUN and --images=PHOTOS"),
        (["--mode=compare"], "--mode=compare needs --runs=A,B"),
        (["--mode=import", "--config=digits_cc.py"], "--mode=import needs --from=FILE"),
        (["--config=configs/digit_anchor.py"], "did you mean configs/digits_anchor.py?"),
        (["--config=confgs/folder.py"], "did you mean configs/folder.py?"),
        (["--config=digits"], "did you mean configs/digits_"),
        (["--config=nothing.py"], "configs/folder.py is for your own images"),
        (["--clusters=20"], "unknown argument --clusters; a setting is given as --config.clusters=20"),
        (["--epochs", "20"], "a setting is given as --config.train.epochs=20"),
        (["--config=digits_cc.py", "--batch-size=64"], "a setting is given as --config.train.batch_size=64"),
        (["--lr=1"], "a setting is given as --config.optim.lr=1"),
        (["--temperature=1"], "unknown argument --temperature; --help lists them"),
        (["my photos"], "--config=configs/folder.py --config.data.dir='my photos' --config.clusters=20"),
        (["train"], "--config=configs/folder.py --config.data.dir=PHOTOS --config.clusters=20"),
        (["train", "photos"], "--config.data.dir=photos"),
        (["evaluate", "runs/x"], "evaluate is a mode: jaxclust --mode=evaluate --workdir=runs/x"),
        (["folder.py:tcc"], "folder.py:tcc is given as --config=folder.py:tcc"),
        (["--workdir=nowhere"], "there is no run in nowhere to go on with; give --config=FILE to begin one"),
        (["--confg=x"], "unknown argument --confg (did you mean --config?)"),
        (["--config=digits_anchor.py", "--mode=eval"], "did you mean evaluate?"),
        (["--config=digits_anchor.py", "--mode=prob"], "did you mean probe?"),
        (["--config=digits_anchor.py", "--step=3"], "--step goes with --mode=browse or evaluate or export or predict"),
        (["--config=digits_anchor.py", "--k=2:9"], "--k goes with --mode=suggest-k, not with --mode=train"),
        (["--mode=suggest-k", "--workdir=nowhere", "--k=9"], "--k is 9; give LOW:HIGH with 2 <= LOW <= HIGH"),
        (["--mode=suggest-k", "--workdir=nowhere", "--k=9:3"], "--k is 9:3; give LOW:HIGH"),
        (["--config=digits_anchor.py", "--from=x"], "--from goes with --mode=import or prepare, not with --mode=train"),
        (["--mode=prepare"], "--mode=prepare needs --config=FILE"),
        (["--mode=prepare", "--config=digits_anchor.py"], "data.name is 'digits', which needs no preparing"),
        (["--config=folder.py"], "data.dir is empty; give the folder of your images"),
        (
            ["--config=folder.py", "--config.data.dir=gone"],
            "there is no folder, archive, array or list of images at ",
        ),
        (["--config=digits_anchor.py", "--config.seed"], "--config.seed has no value"),
        (["--mode=evaluate", "--workdir=nowhere"], "there is no run in nowhere"),
        (["--mode=probe", "--workdir=nowhere"], "there is no run in nowhere"),
    ],
)
def test_a_bad_flag_is_named(argv, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, *argv)
    assert not list(tmp_path.iterdir())  # nothing is made on the way to an error


def test_help_and_wrong_words_need_no_jax(tmp_path):
    for argv in (["--help"], ["--version"], ["--clusters=20"], ["photos"]):
        tried = f"try: jaxclust.main.cli({argv})\nexcept SystemExit: pass"
        code = f"import sys, jaxclust.main\n{tried}\nassert 'jax' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
    said = subprocess.run([sys.executable, "-m", "jaxclust", "--help"], check=True, capture_output=True).stdout.decode()
    assert all(f"  {mode} " in said for mode in commands.find())


def test_a_missing_data_directory_says_how_to_prepare_it(capsys, tmp_path):
    line = refused(
        capsys,
        f"--config={ROOT / 'configs' / 'cifar10_anchor.py'}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={tmp_path}",
    )
    assert f"the data set cifar10 is not in {tmp_path}" in line
    assert "--mode=prepare" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["def get_config(:\n", "x = 1\n", "import nope\n"])
def test_a_broken_config_file_is_named(content, capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(content)
    assert "mine.py" in refused(capsys, f"--config={path}")


def test_a_config_with_missing_sections_is_refused(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({'seed': 0})\n")
    assert "the config has no clusters, data, views" in refused(capsys, f"--config={path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_workdir_is_refused_for_a_user(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written" in refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path / 'run'}")


def test_a_workdir_that_is_a_file_is_refused(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path / 'file' / 'run'}")


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused_with_both_values(capsys, tmp_path, small_run):
    run = small_run(DIGITS, tmp_path, devices=1)
    run_training(run)
    small_run(DIGITS, tmp_path, overrides={"train.epochs": "3", "train.log_every": "5", "eval.restarts": "2"})
    line = refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path}", "--config.seed=7")
    assert "net.width was 4 and is 16" in line
    assert "seed was 0 and is 7" in line


def test_a_damaged_config_in_the_workdir_is_named(capsys, tmp_path):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "config.json").write_text('{"seed": 0,')
    assert "config.json is damaged" in refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path}")


@pytest.mark.slow
def test_evaluate_restores_any_kept_step_and_names_those_there_are(small_run, tmp_path, capsys):
    run = small_run(DIGITS, tmp_path)
    run_training(run)
    capsys.readouterr()
    assert main.cli(["--mode=evaluate", f"--workdir={tmp_path}", "--step=2"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text("utf-8"))["step"] == 2
    assert main.cli(["--mode=evaluate", f"--workdir={tmp_path}"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text("utf-8"))["step"] == 4
    capsys.readouterr()
    assert "there is no checkpoint of step 3; there are 2, 4" in refused(
        capsys, "--mode=evaluate", f"--workdir={tmp_path}", "--step=3"
    )
    shutil.rmtree(tmp_path / "checkpoints")
    assert "there is no checkpoint in" in refused(capsys, "--mode=evaluate", f"--workdir={tmp_path}")


def test_probe_scores_any_kept_step_on_the_images_held_out(small_run, tmp_path, capsys):
    run = small_run(DIGITS, tmp_path, overrides={"eval.held_out": "8"})
    state = run_training(run)
    capsys.readouterr()
    assert main.cli(["--mode=probe", f"--workdir={tmp_path}"]) == 0
    out, _ = capsys.readouterr()
    scores = json.loads((tmp_path / "probe.json").read_text("utf-8"))
    assert list(scores) == ["step", "seed", "embedding", "held_out", "train_accuracy", "accuracy"]
    assert (scores["step"], scores["embedding"], scores["held_out"]) == (4, "backbone", 8)
    h = predict(run, state, build.feeds(run)["train"], "plain", never).embeddings["backbone"]
    assert probe.score(h, run.sources["train"].labels, 8, 0) == {k: scores[k] for k in ("train_accuracy", "accuracy")}
    assert f"accuracy {scores['accuracy']:.3f} on 8 held-out images" in out
    assert len(out.splitlines()) == 1
    assert not (tmp_path / "scores.json").exists()
    assert main.cli(["--mode=probe", f"--workdir={tmp_path}", "--step=2", "--config.eval.held_out=9"]) == 0
    scores = json.loads((tmp_path / "probe.json").read_text("utf-8"))
    assert (scores["step"], scores["held_out"]) == (2, 9)
    capsys.readouterr()
    for held_out in (0, 36):
        assert f"eval.held_out is {held_out}; to probe 36 images it must be at least 1 and at most 35" in refused(
            capsys, "--mode=probe", f"--workdir={tmp_path}", f"--config.eval.held_out={held_out}"
        )


@pytest.mark.slow
def test_suggest_k_says_what_the_embeddings_speak_for(small_run, tmp_path, capsys):
    run_training(small_run(DIGITS, tmp_path, overrides={"train.epochs": "1"}))
    capsys.readouterr()
    assert main.cli(["--mode=suggest-k", f"--workdir={tmp_path}", "--k=2:5"]) == 0
    out, _ = capsys.readouterr()
    about = json.loads((tmp_path / "suggest_k.json").read_text("utf-8"))
    assert about["step"] == 2
    assert about["embedding"] in ("backbone", "projection")
    assert (about["table"]["k"], about["sampled"]) == ([2, 3, 4, 5], 36)
    assert all(reason in out for reason in about["reasons"])
    assert f"the run was trained with 4; curves in {tmp_path / 'suggest_k.png'}" in out
    with Image.open(tmp_path / "suggest_k.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.slow
def test_a_folder_is_trained_on_and_every_file_is_accounted_for(tmp_path, capsys):
    photos, run = tmp_path / "photos", tmp_path / "run"
    for i in range(24):
        path = photos / f"kind {i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 10 * i, np.uint8)).save(path)
    (photos / "notes.txt").write_text("no image")
    small = {"data.size": 16, "net.width": 4, "net.depth": 18, "train.batch_size": 16, "train.epochs": 1}
    small |= {"clusters": 2, "data.dir": photos, "data.labels": "folders", "data.max_bad": 0.1}
    small |= {"eval.restarts": 1, "report.looks": 1}
    command = ["--config=folder.py", f"--workdir={run}", *(f"--config.{k}={v}" for k, v in small.items())]

    assert main.cli(command) == 0
    out, _ = capsys.readouterr()
    assert f"left out 1 of the files found; {run / 'skipped.csv'} says which and why" in out
    assert f"images of a single colour: 24; {run / 'single_colour.csv'} lists them" in out
    rows = list(csv.DictReader((run / "clusters.csv").open()))
    assert [row["file"] for row in csv.DictReader((run / "single_colour.csv").open())] == [row["file"] for row in rows]
    assert [row["file"] for row in rows] == sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    assert {int(row["cluster"]) for row in rows} <= {0, 1}
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in rows)
    assert [row["file"] for row in csv.DictReader((run / "skipped.csv").open())] == ["notes.txt"]
    assert "acc" in json.loads((run / "scores.json").read_text("utf-8"))["cluster"]
    assert f"the report is {run / 'report' / 'index.html'}" in out
    assert "kind 1/7.png" in (run / "report" / "index.html").read_text("utf-8")
    assert (run / "report" / "figures" / "confusion_matrix.csv").exists()

    shutil.rmtree(photos)
    assert "there is no folder" in refused(capsys, "--mode=evaluate", f"--workdir={run}")
    assert main.cli(["--mode=export", f"--workdir={run}"]) == 0
    assert main.cli(["--mode=suggest-k", f"--workdir={run}", "--k=2:3"]) == 0  # of what the evaluation has kept
    assert "from" in capsys.readouterr().out
    shutil.rmtree(run / "predictions")
    assert "there is no folder" in refused(capsys, "--mode=suggest-k", f"--workdir={run}", "--k=2:3")


@pytest.mark.slow
def test_a_folder_that_lives_can_be_looked_at_and_a_run_goes_on_with_its_own_images(tmp_path, capsys, monkeypatch):
    photos, run = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    for i in range(24):
        Image.fromarray(np.full((20, 30, 3), 10 * i, np.uint8)).save(photos / f"{i:02d}.png")
    small = SMALL | {"data.dir": "photos", "train.epochs": "1", "checkpoint.every": "1", "report.page": "True"}
    monkeypatch.chdir(tmp_path)

    def said(*argv, code=0):
        capsys.readouterr()
        assert main.cli([*argv, "--workdir=run"]) == code
        return "".join(capsys.readouterr())

    said("--config=folder.py", *(f"--config.{name}={value}" for name, value in small.items()))
    scores = (run / "scores.json").read_bytes()
    assert json.loads((run / "config.json").read_text("utf-8"))["data"]["dir"] == str(photos)

    for i in range(3):
        Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(photos / f"a new one {i}.png")
    for files_known in (True, False):  # as a run of before 0.4 does not
        (run / "files.csv").unlink() if not files_known else None
        assert "3 files have come and 0 of its 24 have gone; --mode=predict sorts new ones" in said("--mode=evaluate")
        assert (run / "scores.json").read_bytes() == scores
    on = said("--config.train.epochs=2")
    assert "it goes on with its own. To train on all, begin another run: --config.net.init_from=run" in on
    assert json.loads((run / "scores.json").read_text("utf-8"))["step"] == 2

    (photos / "05.png").unlink()
    for mode in ("report", "export", "suggest-k"):
        text = said(f"--mode={mode}", *(["--k=2:3"] if mode == "suggest-k" else []))
        assert ("3 files have come and 1 of its 24 have gone" in text) == (mode == "report")
    assert "05.png" in (run / "report" / "index.html").read_text("utf-8")
    for argv in (["--mode=evaluate"], ["--config.train.epochs=3"]):
        assert "needs every one; restore them" in said(*argv, code=2)
    shutil.rmtree(run / "predictions")
    assert "1 images of the run in run are gone, and no evaluation" in said("--mode=report", code=2)

    gone = photos / "05.png"
    Image.fromarray(np.full((20, 30, 3), 50, np.uint8)).save(gone)
    clusters = json.loads((run / "config.json").read_text("utf-8"))["clusters"]
    decided = {"step": 2, "clusters": clusters, "entries": []}
    decided["entries"] = [{"do": "rename", "group": i, "name": "my cats"} for i in range(clusters)]
    (run / "decisions.json").write_text(json.dumps(decided), "utf-8")
    said("--mode=report")
    assert "my cats" in (run / "report" / "index.html").read_text("utf-8")
    on = said("--config.train.epochs=4", "--config.checkpoint.keep=1")
    assert "decisions.json is about the clusters of step 2, and training makes others: that checkpoint is kept" in on
    assert "my cats" not in (run / "report" / "index.html").read_text("utf-8")
    assert "give --step=2, or move" in said("--mode=predict", "--images=photos", code=2)
    said("--mode=predict", "--images=photos", "--step=2")
    said("--mode=report", "--step=2")
    assert "my cats" in (run / "report" / "index.html").read_text("utf-8")
    assert "my cats" in (run / "clusters.csv").read_text("utf-8")
    gone.unlink()

    photos.rename(tmp_path / "moved")
    Image.fromarray(np.full((20, 30, 3), 50, np.uint8)).save(tmp_path / "moved" / "05.png")
    assert "there is no folder" in said("--mode=evaluate", code=2)
    assert "scores in" in said("--mode=evaluate", "--config.data.dir=moved")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(small_run, tmp_path):
    """The learning rate jumps after the first epoch: the step and the term are named, the checkpoint stays."""
    run_training(small_run(DIGITS, tmp_path, overrides={"train.epochs": "1"}))
    run = small_run(DIGITS, tmp_path, overrides={"train.epochs": "20"})
    diverging = optim.make(optim.Settings("adam", 1e30, 0.9, 0.0, "constant", 0.0), 40, 2)
    run = run._replace(plan=run.plan._replace(optimizers={"main": optim.Optimizer(diverging)}))
    with pytest.raises(RunError, match=r"instance became nan at step \d+ \(epoch \d+\)"):
        run_training(run)
    with checkpoint.Checkpoints(tmp_path, keep=None) as checkpoints:
        state = checkpoints.restore(run.like)
    assert 2 in checkpoints.steps
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
