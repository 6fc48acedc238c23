"""Sorting new images: what is said of them, where it is written, and what happens when it goes wrong."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import build_small, config_of, environment
from PIL import Image
from sklearn.datasets import load_digits

from jaxclust import decisions, evaluate, predict, predictions, sharding
from jaxclust.build import feeds
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError
from jaxclust.predict import folders, images, model, novelty, table

DIGITS = np.round(load_digits().images * (255 / 16)).astype(np.uint8)  # u8[1797, 8, 8]
SOME = 150


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run on a folder of digits with a network as it is at the start, and the predictions of an evaluation."""
    base = tmp_path_factory.mktemp("trained")
    folder = base / "photos"
    for i, digit in enumerate(DIGITS[:SOME]):
        (folder / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit).save(folder / str(i % 3) / f"{i:03d}.png")
    small = {"net.stem": "vgg", "data.name": "folder", "data.dir": str(folder), "data.labels": "", "data.stored": "8"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCLUST_CACHE", str(base / "cache"))
        make_mesh = sharding.make_mesh
        patch.setattr(sharding, "make_mesh", lambda: make_mesh(1))
        run = build_small(config_of("cc"), base / "run", (small | {"eval.batch_size": "64"}).items())
        how = run.plan.method, run.plan.views["plain"], feeds(run)["train"], run.plan.mesh, 50
        state = spread_out(run.init(), lambda state: evaluate.embed(state, *how).q)
        with Checkpoints(run.workdir, 1) as checkpoints:
            checkpoints.save(state)
        fingerprint = run.sources["train"].fingerprint()
        (run.workdir / "config.json").write_text(run.config.to_json())
        (run.workdir / "data.json").write_text(json.dumps({"train": fingerprint | {"shape": [8, 8, 3]}}))
        made = evaluate.embed(state, *how)
        predictions.save(run.workdir, 0, "plain", fingerprint, made)
        assert len(set(made.q.argmax(1).tolist())) == 4
    return run, folder, made


def spread_out(state, q):
    """`state` with a last layer that uses all clusters: at the start they are alike."""
    *_, last = state.params["g_c"]
    logits, layer = np.log(q(state)), state.params["g_c"][last]
    layer = {"kernel": layer["kernel"] * 50, "bias": (layer["bias"] - logits.mean(axis=0)) * 50}
    return state.replace(params={**state.params, "g_c": {**state.params["g_c"], last: layer}})


@pytest.fixture
def run(trained, tmp_path):
    """The run's workdir, to be changed."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # each command compiles the same
    shutil.copytree(trained[0].workdir, tmp_path / "run")
    return tmp_path / "run"


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open() as f:
        return list(csv.DictReader(f))


def test_the_runs_own_images_get_what_its_evaluation_said(trained, run):
    _, folder, made = trained
    predict.run(run, folder, vectors=True)
    said, parquet = rows(run / "predict" / "photos"), pq.read_table(run / "predict" / "photos" / "predictions.parquet")
    names = trained[0].sources["train"].names
    assert [row["file"] for row in said] == names == parquet["file"].to_pylist()
    assert [int(row["cluster"]) for row in said] == made.q.argmax(1).tolist() == parquet["cluster"].to_pylist()
    first, second = np.sort(made.q, axis=1)[:, :-3:-1].T
    np.testing.assert_allclose(parquet["confidence"].to_numpy(), first, atol=1e-5)
    np.testing.assert_allclose(parquet["margin"].to_numpy(), first - second, atol=1e-5)
    np.testing.assert_allclose([float(row["confidence"]) for row in said], first, atol=1e-4)
    x = np.stack(parquet["backbone"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(x, made.embeddings["backbone"], rtol=1e-4, atol=1e-5)
    assert {row["novel"] for row in said} <= {"true", "false"}
    assert not (run / "predict" / "photos" / ".partial").exists()


def test_a_folder_a_list_an_archive_and_an_array_of_the_same_images_are_sorted_alike(trained, run, tmp_path):
    folder = trained[1]
    files = sorted(folder.rglob("*.png"))
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for file in files:
            archive.add(file, file.relative_to(folder))
    (tmp_path / "all.txt").write_text("".join(f"{file}\n" for file in [*files, files[0]]))  # one of them twice
    np.save(tmp_path / "all.npy", np.stack([np.asarray(Image.open(file)) for file in files]))
    np.save(tmp_path / "float.npy", np.stack([np.asarray(Image.open(file)) for file in files]) / 255)
    said = {}
    for kind in ("all.tar", "all.txt", "all.npy", "float.npy"):
        predict.run(run, tmp_path / kind, out=tmp_path / "out" / kind)
        said[kind] = rows(tmp_path / "out" / kind)
    predict.run(run, folder)
    here = rows(run / "predict" / "photos")
    for other in said.values():  # batches are of other images, and rounded otherwise
        assert [(row["cluster"], row["novel"]) for row in other] == [(row["cluster"], row["novel"]) for row in here]
        confidences = [[float(row["confidence"]) for row in said] for said in (other, here)]
        np.testing.assert_allclose(*confidences, atol=2e-4)
    assert (tmp_path / "out" / "all.txt" / "skipped.csv").read_text().endswith(",named more than once\n")


def test_a_persons_decisions_hold(trained, run):
    workdir, folder, made = run, trained[1], trained[2]
    names, q, x = trained[0].sources["train"].names, made.q, made.embeddings["backbone"]
    seen = decisions.load(workdir, 0, 4)
    for entry in (
        {"do": "rename", "group": 1, "name": "ones"},
        {"do": "merge", "groups": [1, 2]},
        {"do": "split", "group": 1, "into": [1, 4], "centres": [x[0].tolist(), x[1].tolist()]},
        {"do": "move", "images": [names[5], names[7]], "group": 3},
    ):
        seen = decisions.decide(workdir, seen, seen.check(entry, names, len(names), x.shape[1]))
    predict.run(workdir, folder)
    group, confidence = seen.members(q, x, names)
    said = rows(workdir / "predict" / "photos")
    assert [int(row["cluster"]) for row in said] == group.tolist()
    np.testing.assert_allclose([float(row["confidence"]) for row in said], confidence, atol=1e-4)
    assert {row["name"] for row in said if row["cluster"] == "1"} <= {"ones"}
    assert said[5]["margin"] == "1.0000"
    # Elsewhere the moves mean nothing, though the files are called the same.
    shutil.copytree(folder, workdir.parent / "copy")
    predict.run(workdir, workdir.parent / "copy")
    place, _ = seen.assign(q, x)
    assert [int(row["cluster"]) for row in rows(workdir / "predict" / "copy")] == np.array([*seen.groups()])[
        place
    ].tolist()


def test_bad_files_are_listed_and_too_many_stop_it(trained, run, tmp_path):
    shutil.copytree(trained[1], tmp_path / "mixed")
    (tmp_path / "mixed" / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    (tmp_path / "mixed" / "notes.txt").write_text("no image")
    with pytest.raises(ConfigError, match=r"2 of 152 images cannot be used, more than data.max_bad allows"):
        predict.run(run, tmp_path / "mixed", max_bad=0.01)
    out = run / "predict" / "mixed"
    assert not (out / "predictions.csv").exists()
    predict.run(run, tmp_path / "mixed", max_bad=0.05)  # what was sorted before counts
    assert len(rows(out)) == SOME
    skipped = (out / "skipped.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in skipped] == ["file", "0/broken.png", "notes.txt"]


def test_nothing_of_somebody_else_is_written_over(trained, run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.csv").write_text("mine")
    with pytest.raises(ConfigError, match="was not made by --mode=predict"):
        predict.run(run, trained[1], out=tmp_path / "mine")
    assert (tmp_path / "mine" / "predictions.csv").read_text() == "mine"
    assert [*(tmp_path / "mine").iterdir()] == [tmp_path / "mine" / "predictions.csv"]
    np.save(tmp_path / "few.npy", DIGITS[:3])
    predict.run(run, tmp_path / "few.npy", out=tmp_path / "few")
    with pytest.raises(ConfigError, match=r"is about other images, .*few.npy; give --out=DIR"):
        predict.run(run, trained[1], out=tmp_path / "few")
    with pytest.raises(ConfigError, match="inside the images"):
        predict.run(run, trained[1], into=trained[1] / "sorted")


PREDICT = "import sys; from pathlib import Path; from jaxclust import predict, build; build.use_compilation_cache(); "
PREDICT += "predict.run(Path(sys.argv[1]), Path(sys.argv[2]))"


def test_a_killed_command_goes_on_and_no_image_is_missing_or_there_twice(run, tmp_path):
    np.save(tmp_path / "many.npy", DIGITS[np.arange(4 * table.BLOCK) % len(DIGITS)].astype(np.float32) / 255)
    command = [sys.executable, "-c", PREDICT, str(run), str(tmp_path / "many.npy")]
    out = run / "predict" / "many.npy"
    with subprocess.Popen(command, env=environment()) as process:
        while not list((out / ".partial").glob("[0-9]*.parquet")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = {path.name: path.stat().st_mtime_ns for path in (out / ".partial").glob("[0-9]*.parquet")}
    assert 0 < len(before) < 4
    assert not (out / "predictions.csv").exists()
    predict.run(run, tmp_path / "many.npy")
    assert [row["file"] for row in rows(out)] == [str(i) for i in range(4 * table.BLOCK)]
    said = np.array([float(row["confidence"]) for row in rows(out)])
    np.testing.assert_allclose(said[len(DIGITS) :], said[: -len(DIGITS)], atol=2e-4)  # each digit comes again and again
    assert sorted(path.name for path in out.iterdir()) == [
        "about.json",
        "predictions.csv",
        "predictions.parquet",
        "skipped.csv",
    ]


def test_a_file_that_is_slow_to_decode_holds_nobody_up(tmp_path):
    """Chunks come in any order; each row once, with its own pixels."""
    files = []
    for i in range(4 * images.CHUNK + 5):
        side = 1500 if i == 3 else 8
        Image.new("L", (side, side), i % 256).save(tmp_path / f"{i:04d}.png")
        files.append(str(tmp_path / f"{i:04d}.png"))
    Path(files[9]).write_bytes(b"broken")
    found = images.of_files(files, (8, 8, 1), 8)
    seen = [*images.chunks(found, [range(0, 70), range(70, len(files))], tmp_path / "scratch")]
    got = {int(row): image for chunk in seen for row, image in zip(chunk.rows, chunk.images)}
    assert sum(len(chunk.rows) for chunk in seen) == len(got) == len(files) - 1
    assert all((image == row % 256).all() for row, image in got.items())
    assert [row for chunk in seen for row, _ in chunk.skipped] == [9]
    assert os.path.getsize(tmp_path / "scratch") <= 3 * os.cpu_count() * images.CHUNK * 64
    sizes = [len(rows) for rows, _ in images.batches(iter(seen), 100)]
    assert sizes == [100, 100, 60]


NAMES = ["../../x", "a/b", "CON", "x\0y", "ü" * 200, " . ", "", "<b>\n", "..", "\udcff"]


@pytest.mark.parametrize("copy", [False, True])
def test_folders_have_safe_names_and_touch_nothing_else(copy, tmp_path):
    origin, into = tmp_path / "origin", tmp_path / "into"
    files = ["a/x.png", "b/x.png", "b/X.PNG", "c/" + "n" * 251 + ".png", "d/one.png"]
    for i, name in enumerate(files):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[i]).save(origin / name)
    into.mkdir()
    (into / "00 .._.._x").mkdir()
    (into / "00 .._.._x" / "x (2).png").write_text("mine")
    found, groups = images.find(origin, (8, 8, 1), 8), dict(enumerate([*NAMES, "last"]))

    def sort(where):
        return folders.make(into, found, origin, where, groups, copy)

    assert sort([(0, 0), (1, 0), (2, 0), (3, 3), (4, 4)]) == ((0, 5) if copy else (5, 0))
    made = sorted(str(path.relative_to(into)) for path in into.rglob("*.*") if path.parent != into)
    assert made[:4] == [f"00 .._.._x/{name}" for name in ("X (3).PNG", "x (2).png", "x (4).png", "x.png")]
    assert all(len(part.encode()) <= 255 for path in made for part in Path(path).parts)
    assert {path.resolve().is_relative_to(tmp_path) for path in into.rglob("*")} == {True}
    for path, row in (("00 .._.._x/x.png", 0), ("00 .._.._x/X (3).PNG", 1)):
        assert (into / path).read_bytes() == (origin / found.listing.names[row]).read_bytes()
        assert (into / path).is_symlink() != copy
    sort([(0, 1)])  # decided otherwise: what was made goes, what was there stays
    left = sorted(str(path.relative_to(into)) for path in into.rglob("*.png"))
    assert left == ["00 .._.._x/x (2).png", "01 a_b/x.png"]
    assert (into / "00 .._.._x" / "x (2).png").read_text() == "mine"


@pytest.mark.parametrize("name", [*NAMES, "a" * 300 + ".jpeg", "💛" * 100, ".hidden"])
def test_harmless_names_are_names(name, tmp_path):
    safe = folders.harmless(name)
    assert safe == folders.harmless(safe)
    (tmp_path / safe).touch()
    assert [path.name for path in tmp_path.iterdir()] == [safe]


def test_novelty_flags_one_in_a_hundred_of_its_like_and_what_lies_elsewhere():
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 1e-2, 16)

    def draw(n):
        return (rng.normal(size=(n, 16)) * scales + np.eye(16)[rng.integers(0, 4, n)] * 5).astype(np.float32)

    for n in (500, 6000):  # all are kept; a selection is
        known = novelty.calibrate(draw(n))
        assert 0.003 < known.novel(draw(4000)).mean() < 0.03
        odd = draw(100) + np.eye(16)[15] * 2  # in a direction in which nothing differs
        assert known.novel(odd).mean() > 0.9
        nth = np.sort(known.directions(odd) @ known.units.T)[:, -novelty.NEIGHBOURS]
        assert known.novel(odd).tolist() == (nth < known.threshold).tolist()
    assert novelty.calibrate(draw(5)) is None


def test_without_predictions_of_the_step_novel_is_left_empty(run, tmp_path, capsys):
    shutil.rmtree(run / "predictions")
    np.save(tmp_path / "few.npy", DIGITS[:3])
    predict.run(run, tmp_path / "few.npy")
    out, err = capsys.readouterr()
    assert "note: the column novel stays empty" in err
    assert out.count("\n") == 5  # few images are printed
    assert {row["novel"] for row in rows(run / "predict" / "few.npy")} == {""}


def test_grey_and_colour_arrays_are_brought_to_the_runs_channels(trained, run):
    m = model.read(run)
    assert m.shape == (8, 8, 3)
    colour = np.repeat(DIGITS[:20, ..., None], 3, axis=-1)
    for x in (DIGITS[:20, ..., None], colour, np.repeat(np.repeat(colour, 2, 1), 2, 2)):
        found = images.of_array(lambda rows, x=x: x[rows.start : rows.stop], x, "key", m.shape, 16)
        assert found.listing.shape == (8, 8, 3)
        assert (found.ready is None) == (x.shape[1] == 16)
    with Checkpoints(run, keep=None) as checkpoints:
        assert checkpoints.steps == [m.step]
