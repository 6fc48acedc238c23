"""What a training step needs of a device's memory, on paper: compiled, and never run.

    kept         by the loss as it is traced, for its backward pass; a compiler may find what is cheaper done again
    arguments    the state, a batch's row numbers, and the split's images, which lie on the device whole
    outputs      the new state and the metrics; the state is written over the old one
    temporary    all that lives within the step: activations, views, gradients
    total        arguments + outputs - what is written over + temporary

A target makes it a table for a GPU that this machine has not. One thing must then be left out: how much scratch space
cuDNN's convolutions ask for, which XLA learns by trying them on the GPU.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.extend.core import Var
from jax.sharding import Mesh

from jaxclust.data.feed import Chunk
from jaxclust.run import sharding
from jaxclust.run.errors import ConfigError
from jaxclust.training import build
from jaxclust.training.step import make_step
from jaxclust.types import Batch, State, Task

DTYPES = ("float32", "bfloat16")
PARTS = 4  # of a batch, where it is taken in parts
COLUMNS = ("kept", "arguments", "outputs", "temporary", "total")


def rows(make: Callable[[dict[str, str]], build.Run], target: str | None = None) -> Iterator[dict]:
    """What the step of each of the plan's tasks needs, with each `net.dtype`, without and with `net.remat`, and with
    `train.accumulate` where the method allows it.

    Args:
      make: overrides of a config -> its run.
      target: the GPU to compile for, as the text of XLA's `GpuTargetConfigProto`; None is the run's first device.

    Yields:
      the variant, and `COLUMNS` in bytes.

    Raises:
      ConfigError: the target cannot be compiled for.
    """
    mesh = mesh_of(target)
    for parts, dtype, remat in itertools.product((1, PARTS), DTYPES, (False, True)):
        changes = {"net.dtype": dtype, "net.remat": str(remat), "train.accumulate": str(parts)}
        try:
            run = make(changes)
        except ConfigError:
            if parts == 1:
                raise
            return  # the loss is over the whole batch, or the parts do not come out even
        for name, task in tasks(run).items():
            memory = compiled(run, task, mesh, parts).memory_analysis()
            arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
            temporary = memory.temp_size_in_bytes
            total = arguments + outputs - memory.alias_size_in_bytes + temporary
            at_once = run.train.batch_size // (parts if task.separable else 1)
            sizes = kept(run, task, at_once), arguments, outputs, temporary, total
            yield {"task": name, "dtype": dtype, "remat": remat, "accumulate": parts, **dict(zip(COLUMNS, sizes))}


def tasks(run: build.Run) -> dict[str, Task]:
    """The tasks of the run's plan, by their names."""
    names = dict.fromkeys(name for stage in run.plan.stages for name in stage.todo.tasks)
    return {name: run.plan.method.tasks[name] for name in names}


def read(target: Path) -> str:
    """The text of a file that describes a GPU.

    Raises:
      ConfigError: it cannot be read.
    """
    try:
        return target.read_text("utf-8")
    except OSError as e:
        raise ConfigError(f"--target={target} cannot be read: {e.strerror}") from e


def mesh_of(target: str | None) -> Mesh:
    """A mesh of the one device to compile for: a target's, as in `rows`, or the first of this machine.

    Raises:
      ConfigError: the target cannot be compiled for.
    """
    if target is None:
        return sharding.make_mesh(1)
    try:
        topology = topologies.get_topology_desc(platform="cuda", target_config=target, topology="1x1x1")
    except NotImplementedError as e:
        raise ConfigError("--target needs JAX's CUDA plugin, though no GPU: pip install 'jaxclust[cuda12]'") from e
    except jax.errors.JaxRuntimeError as e:
        raise ConfigError(f"--target is no description of a GPU that XLA can read: {e}") from e
    return topologies.make_mesh(topology, (1,), ("data",))


def compiled(run: build.Run, task: Task, mesh: Mesh, parts: int) -> jax.stages.Compiled:
    """The step as training compiles it, for a batch on one device."""
    whole = sharding.replicated(mesh)
    here = mesh.devices.flat[0] in jax.devices()
    options = {} if here else {"xla_gpu_autotune_level": 0}  # tuning would try kernels on the GPU

    def on_device(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    state = jax.tree.map(lambda a: on_device(a.shape, a.dtype), run.like)
    ids, pool = on_device((run.train.batch_size,), jnp.int32), run.sources["train"].images
    step = make_step(task, run.plan.views, run.plan.optimizers, parts)
    step = jax.jit(step, donate_argnums=0, out_shardings=(whole, whole))
    return step.lower(state, Chunk(ids, on_device(pool.shape, pool.dtype), ids)).compile(compiler_options=options)


def kept(run: build.Run, task: Task, images: int) -> int:
    """Bytes that the loss of so many images keeps for its backward pass, beside the state that it is given."""
    size, channels = run.config.data.size, run.sources["train"].images.shape[-1]
    view = jax.ShapeDtypeStruct((images, size, size, channels), jnp.float32)
    batch = Batch(jax.ShapeDtypeStruct((images,), jnp.int32), (view,) * len(task.views), run.like.step)

    def backward(state: State, batch: Batch):
        def loss(params):
            return task.loss(params, state.stats, state.memory, batch, state.key)

        return jax.vjp(loss, state.params, has_aux=True)[1]  # a pytree of what it keeps

    traced = jax.make_jaxpr(backward)(run.like, batch).jaxpr
    given = set(traced.invars[: len(jax.tree.leaves(run.like))])
    arrays = {v for v in traced.outvars if isinstance(v, Var)} - given
    return sum(v.aval.size * v.aval.dtype.itemsize for v in arrays)


def table(make: Callable[[dict[str, str]], build.Run], target: Path | None) -> list[dict]:
    """Prints the rows in MiB as they come.

    Args:
      make: overrides of a config -> its run.
      target: a file that describes the GPU to compile for, as in `rows`.

    Returns:
      the rows, ready for JSON.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    text = target and read(target)
    print(f"MiB, compiled for {target or jax.devices()[0].device_kind} and not run")
    print(f"{'task':12}{'dtype':10}{'remat':7}{'accumulate':>10}" + "".join(f"{c:>12}" for c in COLUMNS), flush=True)
    done = []
    for row in rows(make, text):
        done.append(row)
        sizes = "".join(f"{row[c] / 2**20:>12,.1f}" for c in COLUMNS)
        print(f"{row['task']:12}{row['dtype']:10}{row['remat']!s:7}{row['accumulate']:>10}{sizes}", flush=True)
    return done
