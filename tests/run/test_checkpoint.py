"""A checkpoint that changed on the disk is noticed, and a full disk costs no earlier one."""

import contextlib
import errno
import json
import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclust.run import sharding
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.errors import ConfigError, RunError
from jaxclust.training import weights
from jaxclust.types import State

ROWS = 40_000  # 160 kB, which TensorStore keeps in a file of its own


def state(step: int) -> State:
    whole = sharding.replicated(sharding.make_mesh(1))
    params = {"w": jax.random.normal(jax.random.key(step), (ROWS,)), "b": jnp.arange(3.0)}
    fields = State(jnp.int32(step), jax.random.key(0), params, {"mean": jnp.zeros(3)}, (), {"seen": jnp.arange(5)})
    return jax.device_put(fields, whole)


@pytest.fixture
def run(tmp_path):
    """A workdir with the checkpoints 1, 2 and 3."""
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state(step))
    return tmp_path


@pytest.mark.parametrize("entries", [[], [{"do": "rename", "group": 0, "name": "cats"}]])
def test_the_checkpoint_that_somebody_has_decided_about_stays(entries, tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state(step))
        decided = {"step": 2, "clusters": 3, "entries": entries}
        (tmp_path / "decisions.json").write_text(json.dumps(decided), "utf-8")
        for step in (4, 5, 6):
            checkpoints.save(state(step))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(state(7))
        checkpoints.wait()
        assert checkpoints.steps == ([2, 7] if entries else [7])


NAMES = [
    "a [x] b",
    "[ab]",
    "back\\slash",
    "st*r",
    "q?m",
    "**",
    "*/[1-3]/\\",
    "#~%41$HOME",
    "two\nlines",
    os.fsdecode(b"lat\xe9"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_folder_may_have_any_name(name, tmp_path):
    workdir = tmp_path / name / "run"
    other = tmp_path / "a" / "run"  # which "[ab]" as a pattern would match
    for folder, steps in ((other, (7,)), (workdir, (1, 2))):
        for step in steps:
            with Checkpoints(folder, keep=1) as checkpoints:
                checkpoints.save(state(step))
    with Checkpoints(workdir, keep=None) as checkpoints:
        assert checkpoints.steps == [2]
        assert equal(checkpoints.restore(state(0)), state(2))
    params, _ = weights._read(workdir / "checkpoints" / "2")
    np.testing.assert_array_equal(params["w"], state(2).params["w"])


def data_file(workdir, step):
    return max((workdir / "checkpoints" / str(step)).rglob("d/*"), key=lambda p: p.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 2, len(content) // 2 + 40):
        content[i] ^= 0x10
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def equal(a: State, b: State) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True))


@pytest.mark.parametrize("damage", [truncate, flip, empty])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(damage, run, capsys):
    damage(data_file(run, 3))
    with Checkpoints(run, keep=5) as checkpoints:
        restored = checkpoints.restore(state(0))
        assert int(restored.step) == 2
        assert equal(restored, state(2))
        assert "the checkpoint of step 3 is damaged" in capsys.readouterr().err
        assert checkpoints.steps == [1, 2]
        assert [p.name.split(".")[0] for p in (run / "damaged").iterdir()] == ["3"]  # for whoever wants to look
        checkpoints.save(state(3))
    with Checkpoints(run, keep=None) as checkpoints:
        assert equal(checkpoints.restore(state(0)), state(3))


def test_reading_moves_nothing_and_a_step_that_was_asked_for_has_no_stand_in(run, capsys):
    flip(data_file(run, 3))
    with Checkpoints(run, keep=None) as checkpoints:
        assert int(checkpoints.restore(state(0)).step) == 2
        assert "using that of step 2" in capsys.readouterr().err
        with pytest.raises(ConfigError, match=r"of step 3: .*give another --step of 1, 2, 3"):
            checkpoints.restore(state(0), step=3)
        assert checkpoints.steps == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, os.strerror(errno.EIO)),
        ValueError("INTERNAL: Error reading local file: [OS error 116: ESTALE Stale file handle]"),  # TensorStore's
        MemoryError(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_what_a_disk_does_not_give_is_not_damaged_and_no_older_one_takes_its_place(error, run, monkeypatch):
    with Checkpoints(run, keep=5) as checkpoints:
        with monkeypatch.context() as m:
            m.setattr(checkpoints._manager, "restore", lambda *_, **__: (_ for _ in ()).throw(error))
            with pytest.raises(RunError, match=r"of step 3 .* cannot be read now .* it stays; give"):
                checkpoints.restore(state(0))
        assert checkpoints.steps == [1, 2, 3]
        assert int(checkpoints.restore(state(0)).step) == 3
    assert not (run / "damaged").exists()


def test_where_none_is_whole_all_stay_where_they_are(run):
    for step in (1, 2, 3):
        flip(data_file(run, step))
    with Checkpoints(run, keep=5) as checkpoints:
        with pytest.raises(ConfigError, match=r"no checkpoint .* is whole"):
            checkpoints.restore(state(0))
        assert checkpoints.steps == [1, 2, 3]


def test_saving_does_not_ask_whether_to_stop(tmp_path, monkeypatch):
    """Orbax would, with the step for a number, and several processes would then agree on a batch that is long past."""

    def asked(step):
        raise AssertionError(step)

    monkeypatch.setattr("jax.experimental.multihost_utils.reached_preemption_sync_point", asked)
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        checkpoints.save(state(1))
        assert checkpoints.steps == [1]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 1.5 MB."""
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", tmp_path], capture_output=True)
    if made.returncode:
        pytest.skip("only root can mount a small disk")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def fill_the_disk(path):
    with path.open("wb", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(bytes(4096))


def save_on_a_full_disk(disk):
    with Checkpoints(disk, keep=5) as checkpoints:
        checkpoints.save(state(1))
        checkpoints._manager.wait_until_finished()
        fill_the_disk(disk / "filler")
        checkpoints.save(state(2))


def test_a_full_disk_is_one_sentence_and_the_earlier_checkpoints_stay(small_disk):
    with pytest.raises(RunError, match="No space left on device; the ones before it are kept"):
        save_on_a_full_disk(small_disk)
    (small_disk / "filler").unlink()
    with Checkpoints(small_disk, keep=5) as checkpoints:
        assert checkpoints.steps == [1]
        assert equal(checkpoints.restore(state(0)), state(1))
        checkpoints.save(state(2))
    with Checkpoints(small_disk, keep=None) as checkpoints:
        assert equal(checkpoints.restore(state(0)), state(2))
