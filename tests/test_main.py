"""Bad input: one sentence on stderr, exit code 2, before anything is compiled."""

import csv
import json
import os
import shutil

import jax
import numpy as np
import pytest
from conftest import ROOT, config_of
from PIL import Image

from jaxclust import build, checkpoint, config, main, modes, optim, probe
from jaxclust.preemption import never

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
        ("optim=1", "optim is a section; give one of optim.decay"),
        ("optim.lr=fast", "optim.lr is 'fast', which is not a number"),
        ("optim.name=adan", "optim.name is 'adan'; choose one of adam, sgd"),
        ("optim.lr=-1", "optim.lr is -1.0; it must be positive"),
        ("train.epochs=1.5", "train.epochs is 1.5, which is not a whole number"),
        ("train.epochs=0", "train.epochs is 0; it must be at least 1"),
        ("train.batch_size=2000", "train.batch_size is 2000, but the split train has only 1797 images"),
        ("train.batch_size=100", "not divisible by the 8 devices; the nearest that is: 96"),
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
        ("eval.held_out=-1", "eval.held_out is -1; it must not be negative"),
        ("checkpoint.keep=0", "at least 1 each"),
    ],
)
def test_a_bad_setting_is_named(override, sentence, capsys, tmp_path):
    assert sentence in refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path}", f"--config.{override}")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "give --config=FILE"),
        (["--mode=export"], "--mode=export needs --workdir=RUN, or the --config=FILE that the run was made with"),
        (["--mode=predict", "--workdir=nowhere"], "--mode=predict needs --images=PHOTOS"),
        (["--mode=compare"], "--mode=compare needs --runs=A,B"),
        (["--mode=import", "--config=digits_cc.py"], "--mode=import needs --from=FILE"),
        (["--config=configs/digit_anchor.py"], "did you mean digits_anchor.py?"),
        (["--confg=x"], "unknown argument --confg=x (did you mean --config?)"),
        (["--config=digits_anchor.py", "--mode=eval"], "did you mean evaluate?"),
        (["--config=digits_anchor.py", "--mode=prob"], "did you mean probe?"),
        (["--config=digits_anchor.py", "--step=3"], "--step goes with --mode=evaluate or report or browse or predict"),
        (["--config=digits_anchor.py", "--k=2:9"], "--k goes with --mode=suggest-k, not with --mode=train"),
        (["--mode=suggest-k", "--workdir=nowhere", "--k=9"], "--k is 9; give LOW:HIGH with 2 <= LOW <= HIGH"),
        (["--mode=suggest-k", "--workdir=nowhere", "--k=9:3"], "--k is 9:3; give LOW:HIGH"),
        (["--config=digits_anchor.py", "--from=x"], "--from goes with --mode=prepare or import, not with --mode=train"),
        (["--mode=prepare"], "--mode=prepare needs --config=FILE"),
        (["--mode=prepare", "--config=digits_anchor.py"], "data.name is 'digits', which needs no preparing"),
        (["--config=folder.py"], "data.dir is empty; give the folder of your images"),
        (["--config=folder.py", "--config.data.dir=gone"], "there is no folder, archive or array of images at gone"),
        (["--config=digits_anchor.py", "--config.seed"], "--config.seed has no value"),
        (["--mode=evaluate", "--workdir=nowhere"], "there is no run in nowhere"),
        (["--mode=probe", "--workdir=nowhere"], "there is no run in nowhere"),
    ],
)
def test_a_bad_flag_is_named(argv, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, *argv)
    assert not list(tmp_path.iterdir())  # nothing is made on the way to an error


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


def test_a_checkpoint_of_other_settings_is_refused_with_both_values(capsys, tmp_path, small_run):
    run = small_run(DIGITS, tmp_path, devices=1)
    modes.run_training(run)
    small_run(DIGITS, tmp_path, overrides={"train.epochs": "3", "train.log_every": "5", "eval.restarts": "2"})
    line = refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path}", "--config.seed=7")
    assert "net.width was 4 and is 16" in line
    assert "seed was 0 and is 7" in line


def test_a_damaged_config_in_the_workdir_is_named(capsys, tmp_path):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "config.json").write_text('{"seed": 0,')
    assert "config.json is damaged" in refused(capsys, f"--config={DIGITS}", f"--workdir={tmp_path}")


def test_evaluate_restores_any_kept_step_and_names_those_there_are(small_run, tmp_path, capsys):
    run = small_run(DIGITS, tmp_path)
    modes.run_training(run)
    capsys.readouterr()
    assert main.cli(["--mode=evaluate", f"--workdir={tmp_path}", "--step=2"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["step"] == 2
    assert main.cli(["--mode=evaluate", f"--workdir={tmp_path}"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["step"] == 4
    capsys.readouterr()
    assert "there is no checkpoint of step 3; there are 2, 4" in refused(
        capsys, "--mode=evaluate", f"--workdir={tmp_path}", "--step=3"
    )
    shutil.rmtree(tmp_path / "checkpoints")
    assert "there is no checkpoint in" in refused(capsys, "--mode=evaluate", f"--workdir={tmp_path}")


def test_probe_scores_any_kept_step_on_the_images_held_out(small_run, tmp_path, capsys):
    run = small_run(DIGITS, tmp_path, overrides={"eval.held_out": "8"})
    state = modes.run_training(run)
    capsys.readouterr()
    assert main.cli(["--mode=probe", f"--workdir={tmp_path}"]) == 0
    out, _ = capsys.readouterr()
    scores = json.loads((tmp_path / "probe.json").read_text())
    assert list(scores) == ["step", "seed", "embedding", "held_out", "train_accuracy", "accuracy"]
    assert (scores["step"], scores["embedding"], scores["held_out"]) == (4, "backbone", 8)
    h = modes.predict(run, state, build.feeds(run)["train"], "plain", never).embeddings["backbone"]
    assert probe.score(h, run.sources["train"].labels, 8, 0) == {k: scores[k] for k in ("train_accuracy", "accuracy")}
    assert f"accuracy {scores['accuracy']:.3f} on 8 held-out images" in out
    assert len(out.splitlines()) == 1
    assert not (tmp_path / "scores.json").exists()
    assert main.cli(["--mode=probe", f"--workdir={tmp_path}", "--step=2", "--config.eval.held_out=9"]) == 0
    scores = json.loads((tmp_path / "probe.json").read_text())
    assert (scores["step"], scores["held_out"]) == (2, 9)
    capsys.readouterr()
    for held_out in (0, 36):
        assert f"eval.held_out is {held_out}; to probe 36 images it must be at least 1 and at most 35" in refused(
            capsys, "--mode=probe", f"--workdir={tmp_path}", f"--config.eval.held_out={held_out}"
        )


def test_suggest_k_says_what_the_embeddings_speak_for(small_run, tmp_path, capsys):
    modes.run_training(small_run(DIGITS, tmp_path, overrides={"train.epochs": "1"}))
    capsys.readouterr()
    assert main.cli(["--mode=suggest-k", f"--workdir={tmp_path}", "--k=2:5"]) == 0
    out, _ = capsys.readouterr()
    about = json.loads((tmp_path / "suggest_k.json").read_text())
    assert about["step"] == 2
    assert about["embedding"] in ("backbone", "projection")
    assert (about["table"]["k"], about["sampled"]) == ([2, 3, 4, 5], 36)
    assert all(reason in out for reason in about["reasons"])
    assert f"the run was trained with 4; curves in {tmp_path / 'suggest_k.png'}" in out
    with Image.open(tmp_path / "suggest_k.png") as picture:
        assert picture.format == "PNG"


def test_a_folder_is_trained_on_and_every_file_is_accounted_for(tmp_path, capsys):
    photos, run = tmp_path / "photos", tmp_path / "run"
    for i in range(24):
        path = photos / f"kind {i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 10 * i, np.uint8)).save(path)
    (photos / "notes.txt").write_text("no image")
    small = {"data.size": 16, "net.width": 4, "train.batch_size": 16, "train.epochs": 1, "eval.restarts": 1}
    small |= {"clusters": 2, "data.dir": photos, "data.labels": "folders", "data.max_bad": 0.1, "report.looks": 1}
    command = ["--config=folder.py", f"--workdir={run}", *(f"--config.{k}={v}" for k, v in small.items())]

    assert main.cli(command) == 0
    out, _ = capsys.readouterr()
    assert f"left out 1 of the files found; {run / 'skipped.csv'} says which and why" in out
    rows = list(csv.DictReader((run / "clusters.csv").open()))
    assert [row["file"] for row in rows] == sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    assert {int(row["cluster"]) for row in rows} <= {0, 1}
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in rows)
    assert [row["file"] for row in csv.DictReader((run / "skipped.csv").open())] == ["notes.txt"]
    assert "acc" in json.loads((run / "scores.json").read_text())["cluster"]
    assert f"the report is {run / 'report' / 'index.html'}" in out
    assert "kind 1/7.png" in (run / "report" / "index.html").read_text()
    assert (run / "report" / "figures" / "confusion_matrix.csv").exists()

    (photos / "kind 0" / "0.png").rename(photos / "kind 0" / "zero.png")
    assert "24 then, 24 now, with other names" in refused(capsys, *command)
    (photos / "kind 0" / "zero.png").unlink()
    line = refused(capsys, *command)
    assert "the images of the split train are not those that the run in" in line
    assert "24 then, 23 now" in line


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(small_run, tmp_path):
    """The learning rate jumps after the first epoch: the step and the term are named, the checkpoint stays."""
    modes.run_training(small_run(DIGITS, tmp_path, overrides={"train.epochs": "1"}))
    run = small_run(DIGITS, tmp_path, overrides={"train.epochs": "20"})
    diverging = optim.make(optim.Settings("adam", 1e30, 0.9, 0.0, "constant", 0.0), 40, 2)
    run = run._replace(plan=run.plan._replace(optimizer=diverging))
    with pytest.raises(config.RunError, match=r"instance became nan at step \d+ \(epoch \d+\)"):
        modes.run_training(run)
    with checkpoint.Checkpoints(tmp_path, keep=None) as checkpoints:
        state = checkpoints.restore(run.like)
    assert 2 in checkpoints.steps
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
