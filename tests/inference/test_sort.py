"""Sorting new images: what is said of them, where it is written, and what happens when it goes wrong."""

import csv
import json
import os
import re
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

from jaxclust.clusters import embed, journal, novelty, predictions, reach
from jaxclust.data import new_images
from jaxclust.inference import model, sort, table
from jaxclust.run import sharding
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.errors import ConfigError
from jaxclust.training.build import feeds

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
        state = spread_out(run.init(), lambda state: embed.train_split(state, *how).q)
        with Checkpoints(run.workdir, 1) as checkpoints:
            checkpoints.save(state)
        fingerprint = run.sources["train"].fingerprint()
        (run.workdir / "config.json").write_text(run.config.to_json())
        (run.workdir / "data.json").write_text(json.dumps({"train": fingerprint | {"shape": [8, 8, 3]}}))
        made = embed.train_split(state, *how)
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
    sort.run(run, folder, vectors=True)
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
        sort.run(run, tmp_path / kind, out=tmp_path / "out" / kind)
        said[kind] = rows(tmp_path / "out" / kind)
    sort.run(run, folder)
    here = rows(run / "predict" / "photos")
    for other in said.values():  # batches are of other images, and rounded otherwise
        assert [(row["cluster"], row["novel"]) for row in other] == [(row["cluster"], row["novel"]) for row in here]
        confidences = [[float(row["confidence"]) for row in said] for said in (other, here)]
        np.testing.assert_allclose(*confidences, atol=2e-4)
    assert (tmp_path / "out" / "all.txt" / "skipped.csv").read_text("utf-8").endswith(",named more than once\n")


def test_a_persons_decisions_hold(trained, run):
    workdir, folder, made = run, trained[1], trained[2]
    names, q, x = trained[0].sources["train"].names, made.q, made.embeddings["backbone"]
    seen = journal.load(workdir, 0, 4)
    apart = np.sort(reach.distances(x, x[9]))
    edge = 20 + np.argmax(np.diff(apart[20:30]))  # where rounding moves no image
    radius = float(apart[edge : edge + 2].mean())
    stay = [name for name, far in zip(names, reach.distances(x, x[9])) if far < radius][3:]
    for entry in (
        {"do": "rename", "group": 1, "name": "ones"},
        {"do": "merge", "groups": [1, 2]},
        {"do": "split", "group": 1, "into": [1, 4], "centres": [x[0].tolist(), x[1].tolist()]},
        {"do": "move", "images": [names[5], names[7]], "group": 3},
        {"do": "new", "images": [names[9]], "group": 5, "name": "nines", "from": [0, 1, 3, 4], "stay": stay}
        | {"centre": x[9].tolist(), "radius": radius},
    ):
        seen = journal.decide(workdir, seen, seen.check(entry, names, len(names), x.shape[1]))
    sort.run(workdir, folder)
    group, confidence = seen.members(q, x, names)
    said = rows(workdir / "predict" / "photos")
    assert [int(row["cluster"]) for row in said] == group.tolist()
    np.testing.assert_allclose([float(row["confidence"]) for row in said], confidence, atol=1e-4)
    assert {row["name"] for row in said if row["cluster"] == "1"} <= {"ones"}
    assert said[5]["margin"] == said[9]["margin"] == "1.0000"
    assert 1 < sum(row["name"] == "nines" for row in said) < 5  # as if some had come to the folder later
    # Elsewhere the moves mean nothing, though the files are called the same.
    shutil.copytree(folder, workdir.parent / "copy")
    sort.run(workdir, workdir.parent / "copy")
    place, _ = seen.assign(q, x)
    assert [int(row["cluster"]) for row in rows(workdir / "predict" / "copy")] == np.array([*seen.groups()])[
        place
    ].tolist()


def test_bad_files_are_listed_and_too_many_stop_it(trained, run, tmp_path):
    shutil.copytree(trained[1], tmp_path / "mixed")
    (tmp_path / "mixed" / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    (tmp_path / "mixed" / "text.jpg").write_text("no image")
    (tmp_path / "mixed" / "notes.txt").write_text("beside the images")
    with pytest.raises(ConfigError, match=r"2 of 152 images .* than data.max_bad=0.01 .* --config.data.max_bad=1;"):
        sort.run(run, tmp_path / "mixed", max_bad=0.01, into=tmp_path / "sorted")
    out = run / "predict" / "mixed"
    assert not (run / "predict").exists()  # nor is anything else left of what has sorted nothing
    assert not (tmp_path / "sorted").exists()
    sort.run(run, tmp_path / "mixed", max_bad=0.05)
    assert len(rows(out)) == SOME
    skipped = (out / "skipped.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in skipped] == ["file", "notes.txt", "0/broken.png", "text.jpg"]


def test_where_nothing_can_be_used_no_allowance_is_advised(run, tmp_path):
    (tmp_path / "few").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "few" / name).write_bytes(b"\x89PNG\r\n\x1a\n....")
    with pytest.raises(ConfigError) as one:
        sort.run(run, tmp_path / "few" / "a.png", max_bad=1)
    assert re.match(r"the image 'a.png' cannot be used: PNG that cannot be read", str(one.value))
    with pytest.raises(ConfigError) as both:
        sort.run(run, tmp_path / "few", max_bad=0)
    assert str(both.value).startswith("none of 2 images can be used; the first are:")
    assert "max_bad" not in str(one.value) + str(both.value)
    assert not (run / "predict").exists()


def test_what_was_sorted_stays_until_what_replaces_it_is_whole(trained, run, tmp_path):
    shutil.copytree(trained[1], tmp_path / "photos")
    sort.run(run, tmp_path / "photos")
    out = run / "predict" / "photos"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    with pytest.raises(ConfigError, match="1 of 151 images cannot be used"):
        sort.run(run, tmp_path / "photos", max_bad=0)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    sort.run(run, tmp_path / "photos", max_bad=1)
    assert (out / "about.json").read_bytes() != before["about.json"]


def test_nothing_of_somebody_else_is_written_over(trained, run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.csv").write_text("mine")
    with pytest.raises(ConfigError, match="was not made by --mode=predict"):
        sort.run(run, trained[1], out=tmp_path / "mine")
    assert (tmp_path / "mine" / "predictions.csv").read_text("utf-8") == "mine"
    assert [*(tmp_path / "mine").iterdir()] == [tmp_path / "mine" / "predictions.csv"]
    np.save(tmp_path / "few.npy", DIGITS[:3])
    sort.run(run, tmp_path / "few.npy", out=tmp_path / "few")
    with pytest.raises(ConfigError, match=r"is about other images, .*few.npy; give --out=DIR"):
        sort.run(run, trained[1], out=tmp_path / "few")
    with pytest.raises(ConfigError, match="inside the images"):
        sort.run(run, trained[1], into=trained[1] / "sorted")


@pytest.mark.parametrize("place", [".partial", ".partial/0.u8", ".partial/000000000000.parquet", "predictions.csv"])
def test_no_link_in_a_strangers_folder_of_tables_is_written_through(place, run, tmp_path):
    np.save(tmp_path / "few.npy", DIGITS[:3] / np.float32(255))
    sort.run(run, tmp_path / "few.npy", out=tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0.u8").write_text("mine")
    target = tmp_path / "mine" / ("" if place == ".partial" else "0.u8")
    (tmp_path / "out" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / place).unlink(missing_ok=True)
    (tmp_path / "out" / place).symlink_to(target)
    about = json.loads((tmp_path / "out" / "about.json").read_text("utf-8"))
    (tmp_path / "out" / "about.json").write_text(json.dumps({k: v for k, v in about.items() if k != "sorted"}))
    sort.run(run, tmp_path / "few.npy", out=tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "predictions.csv").is_symlink()
    assert not (tmp_path / "out" / ".partial").exists()
    assert (tmp_path / "mine" / "0.u8").read_text("utf-8") == "mine"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["0.u8"]


PREDICT = "import sys; from pathlib import Path; from jaxclust.inference import sort; "
PREDICT += "from jaxclust.training import compilation; compilation.use_cache(); "
PREDICT += "sort.run(Path(sys.argv[1]), Path(sys.argv[2]))"


@pytest.mark.slow
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
    sort.run(run, tmp_path / "many.npy")
    assert [row["file"] for row in rows(out)] == [str(i) for i in range(4 * table.BLOCK)]
    said = np.array([float(row["confidence"]) for row in rows(out)])
    np.testing.assert_allclose(said[len(DIGITS) :], said[: -len(DIGITS)], atol=2e-4)  # each digit comes again and again
    about = json.loads((out / "about.json").read_text("utf-8"))
    assert sum(cluster["images"] for cluster in about["clusters"].values()) == 4 * table.BLOCK
    about["groups"] = about.pop("clusters")  # as version 0.1 wrote it
    (out / "about.json").write_text(json.dumps(about))
    sort.run(run, tmp_path / "many.npy")  # done already
    assert sorted(path.name for path in out.iterdir()) == [
        "about.json",
        "predictions.csv",
        "predictions.parquet",
        "skipped.csv",
    ]


def test_a_file_that_is_slow_to_decode_holds_nobody_up(tmp_path):
    """Chunks come in any order; each row once, with its own pixels."""
    files = []
    for i in range(4 * new_images.CHUNK + 5):
        side = 1500 if i == 3 else 8
        Image.new("L", (side, side), i % 256).save(tmp_path / f"{i:04d}.png")
        files.append(str(tmp_path / f"{i:04d}.png"))
    Path(files[9]).write_bytes(b"broken")
    found = new_images.of_files(files, (8, 8, 1), 8)
    seen = [*new_images.chunks(found, [range(0, 70), range(70, len(files))], tmp_path / "scratch")]
    got = {int(row): image for chunk in seen for row, image in zip(chunk.rows, chunk.images)}
    assert sum(len(chunk.rows) for chunk in seen) == len(got) == len(files) - 1
    assert all((image == row % 256).all() for row, image in got.items())
    assert [row for chunk in seen for row, _ in chunk.skipped] == [9]
    assert os.path.getsize(tmp_path / "scratch") <= 3 * os.cpu_count() * new_images.CHUNK * 64
    sizes = [len(rows) for rows, _ in new_images.batches(iter(seen), 100)]
    assert sizes == [100, 100, 60]


def test_the_next_batch_is_read_while_the_devices_are_at_work_and_no_more_than_two_are_under_way(run, monkeypatch):
    sorter, seen = model.Sorter(model.read(run)), []
    start, finish = sorter._start, sorter._finish
    monkeypatch.setattr(sorter, "_start", lambda images: seen.append("start") or start(images))
    monkeypatch.setattr(sorter, "_finish", lambda n, result: seen.append("finish") or finish(n, result))

    def batches():
        for i in range(4):
            seen.append("read")
            yield i, np.repeat(DIGITS[i : i + 1, ..., None], 3, axis=-1)

    said = [tag for tag, _ in sorter.over(batches())]
    assert said == [*range(4)]
    assert seen == ["read", "start", *["read", "start", "finish"] * 3, "finish"]


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
    sort.run(run, tmp_path / "few.npy")
    out, err = capsys.readouterr()
    assert "note: the column novel stays empty" in err
    assert out.count("\n") == 5  # few images are printed
    assert {row["novel"] for row in rows(run / "predict" / "few.npy")} == {""}


def test_grey_and_colour_arrays_are_brought_to_the_runs_channels(trained, run):
    m = model.read(run)
    assert m.shape == (8, 8, 3)
    colour = np.repeat(DIGITS[:20, ..., None], 3, axis=-1)
    for x in (DIGITS[:20, ..., None], colour, np.repeat(np.repeat(colour, 2, 1), 2, 2)):
        found = new_images.of_array(lambda rows, x=x: x[rows.start : rows.stop], x, "key", m.shape, 16)
        assert found.listing.shape == (8, 8, 3)
        assert (found.ready is None) == (x.shape[1] == 16)
    with Checkpoints(run, keep=None) as checkpoints:
        assert checkpoints.steps == [m.step]
