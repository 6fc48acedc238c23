"""What a step communicates over eight devices, as its compiled program has it."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from conftest import config_of

from jaxclust.commands.bench import scaling
from jaxclust.run import sharding

pytestmark = pytest.mark.slow

IMAGES = 2  # on each of the devices
TASKS = {"anchor": "cluster", "cc": "both", "tcc": "both", "mmdc": "assignment"}


def compiled(f, *shapes) -> str:
    """The program of `f`, whose arguments lie over eight devices by their rows."""
    over = sharding.batched(sharding.make_mesh(8))
    x = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=over) for shape in shapes]
    return jax.jit(f, out_shardings=sharding.replicated(over.mesh)).lower(*x).compile().as_text()


def test_a_collective_is_read_with_its_bytes_and_its_scope():
    def f(x):
        with jax.named_scope("sums"):
            return x.astype(jnp.bfloat16), x.sum(0)

    gather, reduce = sorted(scaling.collectives(compiled(f, (16, 3))), key=lambda c: c.kind)
    assert (gather.kind, gather.shapes) == ("all-gather", ((16, 3),))
    assert (reduce.kind, reduce.shapes, reduce.bytes) == ("all-reduce", ((3,),), 12)
    assert reduce.name == "jit(f)/sums/reduce_sum"
    assert not gather.looped
    assert not reduce.looped


def test_a_collective_in_a_loop_is_seen():
    def f(x):  # each turn sums over the devices
        return jax.lax.fori_loop(0, 3, lambda i, y: y + jnp.sin(x * y).sum(), jnp.float32(1))

    assert [c.looped for c in scaling.collectives(compiled(f, (16, 3)))] == [True]


@pytest.mark.parametrize(
    ("name", "shape", "origin"),
    [
        ("jit(step)/transpose(jvp(loss))/ResNet/stage1_block1/conv1/conv_general_dilated", (4, 3, 3, 8), "gradients"),
        ("jit(step)/transpose(jvp(loss))/reduce_sum", (10, 5), "gradients"),  # of centres, which are no layer
        ("jit(step)/transpose(jvp(loss))/dot_general", (16, 5), "losses"),  # as large as a layer's by chance
        ("jit(step)/jvp(loss)/reduce_sum", (10, 5), "losses"),
        ("jit(step)/jvp(loss)/ResNet/stage1_block1/shortcut_bn/reduce_sum", (8,), "batch norm"),
        ("jit(step)/memory/scatter", (16, 5), "memory"),
        ("jit(step)/jvp(loss)/ResNet/stage1_block1/conv1/conv_general_dilated", (16, 8, 8, 4), "other"),
        ("jit(step)/transpose(jvp(loss))/ResNet/stage1_block1/conv1/conv_general_dilated", (16, 8, 8, 4), "other"),
        ("jit(step)/vmap(vmap())/gather", (16, 8, 8, 3), "other"),
        ("", (16,), "other"),
    ],
)
def test_origin(name, shape, origin):
    params = {"f": {"conv1": jnp.zeros((3, 3, 4, 8)), "head": jnp.zeros((16, 5))}, "mu": jnp.zeros((10, 5))}
    assert scaling.origin(scaling.Collective("all-reduce", (shape,), 4, name, False), params) == origin


@pytest.mark.parametrize("method", TASKS)
def test_a_step_communicates_only_what_it_must(method, small_run, tmp_path):
    run = small_run(config_of(method), tmp_path, 8, {"net.stem": "vgg"})
    cost = scaling.step(run, TASKS[method], run.plan.mesh, IMAGES)
    assert cost.collectives
    assert [c for origin, c in cost.collectives if origin == "other" or c.looped] == []
    # Sums and gathered rows; anything else moves rows that could have stayed where they were.
    assert {c.kind for _, c in cost.collectives} <= {"all-reduce", "all-gather"}

    # Each parameter's gradient, once for each view that it comes from; a batch norm's are counted there.
    task = run.plan.method.tasks[TASKS[method]]
    passes = [kind for kind, _ in task.backbone_passes].count("gradient") or len(task.views)
    parameters = Counter()
    for path, p in jax.tree.leaves_with_path(run.like.params):
        if not any(scaling.BATCH_NORM.fullmatch(key.key) for key in path):
            parameters[p.size] += p.size * p.dtype.itemsize
    gradients = Counter()
    for origin, c in cost.collectives:
        if origin == "gradients":
            (shape,) = c.shapes
            gradients[math.prod(shape)] += c.bytes
    assert gradients.keys() == parameters.keys()
    for size, once in parameters.items():
        assert once <= gradients[size] <= passes * once

    # Rows of a batch and their numbers, not the tables that they are written to.
    rows = IMAGES * 8
    widths = {"tcc": run.config.method.get("features", 0), "mmdc": run.config.clusters}
    assert cost.bytes("memory") == (4 * rows * (widths[method] + 1) if method in widths else 0)
