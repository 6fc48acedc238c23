"""Damaged files of anybody's: runs, CIFAR's archives, weights, arrays. Each is read or refused in a sentence, and soon.

Another number of them, or others:  FUZZ=20000 FUZZ_FROM=1000 python -m pytest -n 0 -m slow tests/run/test_fuzz_files.py
"""

import faulthandler
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from jaxclust.clusters import journal, predictions
from jaxclust.data import arrays
from jaxclust.data.prepare.archives import File
from jaxclust.data.prepare.sets import cifar
from jaxclust.nets.pretrained import layouts, torch
from jaxclust.pages.compare import runs
from jaxclust.run import workdir
from jaxclust.run.errors import ConfigError
from jaxclust.types import Prediction

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECONDS = 20  # at most, for one
COUNT, FIRST = int(os.environ.get("FUZZ", "600")), int(os.environ.get("FUZZ_FROM", "0"))
STRANGE = [None, True, -1, 10**30, 1e308, float("nan"), "", "../../x", [], [1], {}, {"a": [{}]}, "\x1b[2J", [[]] * 3]
ROW = {"acc": 0.5, "nmi": 0.5, "ari": 0.5, "sizes": [3, 4], "used_clusters": 2, "silhouette": None}
RUN = {
    "run.json": {"format": workdir.FORMAT, "jaxclust": "1"},
    "config.json": {"seed": 0, "clusters": 2, "data": {"name": "digits"}, "method": {"name": "cc"}},
    "scores.json": {"step": 3, "seed": 0, "cluster": ROW, "paper": {"ours": ROW}},
    "environment.json": {"devices": ["cpu:0 cpu"]},
    "metrics.jsonl": {"step": 3, "images_per_second": 5.0},
    "progress.jsonl": {"step": 3, "epoch": 1, "acc": 0.5},
    "decisions.json": {"step": 3, "clusters": 2, "entries": [{"do": "rename", "group": 1, "name": "cat"}]},
}


def changed(value, rng):
    """JSON with a strange value somewhere in it."""
    if not value or not isinstance(value, dict | list) or rng.random() < 0.15:
        return STRANGE[rng.integers(len(STRANGE))]
    if isinstance(value, list):
        at = int(rng.integers(len(value)))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    key = list(value)[rng.integers(len(value))]
    if rng.random() < 0.1:
        return {k: v for k, v in value.items() if k != key}
    return value | {key: changed(value[key], rng)}


def flipped(content: bytes, rng) -> bytes:
    """Bytes changed, cut out, repeated or cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, min(len(data), 300) if rng.random() < 0.6 else len(data))) if data else 0
        match rng.integers(0, 4):
            case 0:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 1:
                del data[at : at + int(rng.integers(1, 50))]
            case 2:
                data[at:at] = data[at : at + int(rng.integers(1, 50))] * int(rng.integers(1, 20))
            case 3 if rng.random() < 0.3:
                del data[at:]
    return bytes(data)


def read_run(folder: Path, rng):
    for name, value in RUN.items():
        (folder / name).write_text(json.dumps(value) + "\n")
    name = list(RUN)[rng.integers(len(RUN))]
    text = json.dumps(changed(RUN[name], rng)) + "\n"
    (folder / name).write_bytes(flipped(text.encode(), rng) if rng.random() < 0.3 else text.encode())
    runs.read(folder, "run")
    journal.load(folder, 3, 2)


def read_predictions(folder: Path, rng):
    said = Prediction(np.ones((3, 2), np.float32), {"f": np.ones((3, 4), np.float32)})
    predictions.save(folder, 1, "plain", {"count": 3}, said)
    path = sorted((folder / workdir.PREDICTIONS).iterdir())[rng.integers(3)]
    path.write_bytes(flipped(path.read_bytes(), rng))
    predictions.load(folder, 1, "plain", {"count": 3})


def read_cifar(folder: Path, rng):
    batch = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [1, 2, 3], "filenames": ["a"]}
    content = flipped(pickle.dumps(batch, int(rng.integers(0, 6))), rng)
    (folder / "batch").write_bytes(content)
    cifar._python(File("batch", "batch", folder / "batch", 0, len(content)), cifar.FORMATS["cifar10"])


def read_weights(folder: Path, rng):
    head = [torch.MAGIC, torch.VERSION, {"little_endian": True}, {"state_dict": {"conv1.weight": [1.5]}}, []]
    weights = {name: np.ones((2, 3), np.float32) for name in ("conv1.weight", "layer1.0.conv1.weight")}
    whole = (
        b"".join(pickle.dumps(x, 2) for x in head),
        *((FIXTURES / f"torch_{kind}.pt").read_bytes() for kind in ("stream", "zip")),
        safetensors.numpy.save(weights, {"format": "pt"}),
    )
    (folder / "weights").write_bytes(flipped(whole[rng.integers(len(whole))], rng))
    file = layouts.File(folder / "weights")
    for name in file.shapes:
        file.read(name)


def read_array(folder: Path, rng):
    np.save(folder / "x.npy", np.zeros((3, 4, 4, 3), np.uint8))
    (folder / "x.npy").write_bytes(flipped((folder / "x.npy").read_bytes(), rng))
    arrays.read(folder / "x.npy", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("read", [read_run, read_predictions, read_cifar, read_weights, read_array])
def test_any_damage_is_read_or_named(read, tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "_find", lambda path, names: layouts.RESNET)  # those of the fixtures are no network's
    (tmp_path / "around").write_text("mine")
    refused, failed = 0, []
    for seed in range(FIRST, FIRST + COUNT // 5):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
        try:
            read(folder, np.random.default_rng(seed))
        except ConfigError:
            refused += 1
        except Exception as e:
            failed.append((seed, repr(e)[:200]))
        finally:
            faulthandler.cancel_dump_traceback_later()
    assert not failed
    assert refused or read is read_predictions  # which are made again
    assert (tmp_path / "around").read_text("utf-8") == "mine"
    assert len([*tmp_path.iterdir()]) == COUNT // 5 + 1
