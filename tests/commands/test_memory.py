"""The table of what a step needs, and what is counted as kept for the backward pass."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of

from jaxclust import main
from jaxclust.commands.bench import memory
from jaxclust.run.errors import ConfigError
from jaxclust.types import Out, Task, keep_memory


def test_kept_counts_the_arrays_that_the_gradient_needs_and_not_the_state(small_run, tmp_path):
    def loss(params, stats, _, batch, key):  # its derivative in a parameter needs x and cos(w x)
        return jnp.mean(jnp.sin(params["mu"][0, 0] * batch.views[0])), Out(stats, (), {})

    run = small_run(config_of("anchor"), tmp_path)
    kept = memory.kept(run, Task(("plain",), loss, keep_memory), images=16)
    np.testing.assert_allclose(kept, 2 * 16 * 16 * 16 * 1 * 4, rtol=1e-3)


def test_less_is_kept_in_bfloat16_and_with_remat(small_run, tmp_path):
    kept = {}
    for dtype, remat in itertools.product(memory.DTYPES, (False, True)):
        run = small_run(config_of("cc"), tmp_path, overrides={"net.dtype": dtype, "net.remat": str(remat)})
        kept[dtype, remat] = memory.kept(run, run.plan.method.tasks["both"], images=256)
    assert kept["bfloat16", False] < 0.9 * kept["float32", False]
    assert kept["bfloat16", True] < 0.9 * kept["float32", True]
    assert all(kept[dtype, True] < 0.9 * kept[dtype, False] for dtype in memory.DTYPES)


@pytest.mark.slow
def test_the_table_has_a_row_for_each_variant_and_its_parts(small_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "DTYPES", ("bfloat16",))
    quick = {"method.views": '("centre","centre")', "method.refine_epoch": "2", "method.group": "4"}
    rows = memory.table(lambda changes: small_run(config_of("mmdc"), tmp_path, 1, quick | changes), None)
    variants = [(r["task"], r["dtype"], r["remat"], r["accumulate"]) for r in rows]
    assert variants == [("assignment", "bfloat16", remat, parts) for parts in (1, 4) for remat in (False, True)]
    images = 36 * 8 * 8  # of one channel, on the device
    for row in rows:
        assert row["arguments"] > images
        assert row["temporary"] > 0
        assert row["total"] < row["arguments"] + row["outputs"] + row["temporary"]  # the state is written over
    assert rows[2]["kept"] < rows[0]["kept"] / 3
    assert rows[2]["temporary"] < rows[0]["temporary"]
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)


def test_a_target_that_cannot_be_compiled_for_is_refused(tmp_path, capsys):
    command = ["--memory", f"--config={config_of('mmdc')}"]
    with pytest.raises(ConfigError, match="gone cannot be read"):
        main.main(["--mode=bench", *command, f"--target={tmp_path / 'gone'}"])
    (tmp_path / "gpu").write_text("no GPU")
    with pytest.raises(ConfigError, match="--target"):
        main.main(["--mode=bench", *command, f"--target={tmp_path / 'gpu'}"])
