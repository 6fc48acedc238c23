"""What a step costs to scale, on paper: FLOPs and collectives of its program, compiled for 1, 2, 4 and 8 devices.

Nothing runs, so virtual CPU devices do: what must be communicated is decided before a backend has its turn. In one
respect backends differ. A parameter that several views pass through has a gradient from each, and the CPU's compiler
sums each over the devices; the one for GPUs adds them up first (XLA's pass "all-reduce-reassociate"). Convolutions are
XLA's own here, as on a GPU.

    gradients    of parameters, summed over the devices
    batch norm   sums over the global batch: the statistics, and on the way back the gradients of a layer
    losses       what losses and metrics need of the other devices' images
    memory       what `Task.commit` writes: queues, targets
    outputs      of `Method.predict`, for the host
    other        anything else, which is a bug
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxclust.clusters import embed
from jaxclust.commands.bench import hlo
from jaxclust.data.feed import Chunk
from jaxclust.nets.convolution import by_xla_alone
from jaxclust.run import config, sharding
from jaxclust.run.errors import ConfigError
from jaxclust.training import build, configs
from jaxclust.training.step import make_step
from jaxclust.types import PyTree, State

DEVICES = (1, 2, 4, 8)
ORIGINS = ("gradients", "batch norm", "losses", "memory", "outputs", "other")

# Combined, a hundred sums of different origins would be one operation. Code that nobody runs need not be fast.
OPTIONS = {"xla_disable_hlo_passes": "cpu-all-reduce-combiner", "xla_backend_optimization_level": 0}

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast"
COLLECTIVE = re.compile(rf"= (?P<type>\S.*?) (?P<kind>{KINDS})(?:-start)?\(")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|\w+_computations?)=(\{.*?\}|%?[\w.\-]+)")
BATCH_NORM = re.compile(r"(.+_)?bn\d*")  # a layer's name, in `nets`


class Collective(NamedTuple):
    kind: str
    shapes: tuple[tuple[int, ...], ...]  # of what a device receives
    bytes: int  # likewise
    name: str  # the scopes and the operation it was made for: jit(step)/transpose(jvp(loss))/ResNet/stem/conv/...
    looped: bool  # inside a loop, whose turns `bytes` does not count


def collectives(text: str) -> list[Collective]:
    """Reads the collectives out of a compiled program's text."""
    bodies = hlo.lines(text)
    looped = _reached(bodies, (line for lines in bodies.values() for line in lines if " while(" in line))
    found = []
    for name, lines in bodies.items():
        for line in lines:
            if not (op := COLLECTIVE.search(line)):
                continue
            received = tuple(hlo.arrays(op["type"]))
            shapes, size = tuple(a.shape for a in received), sum(a.bytes for a in received)
            label = re.search(r'op_name="([^"]*)"', line)
            found.append(Collective(op["kind"], shapes, size, label[1] if label else "", name in looped))
    return found


def _reached(bodies: dict[str, list[str]], lines: Iterable[str]) -> set[str]:
    """The computations that these instructions call, and those that they call in turn."""
    reached, todo = set(), list(lines)
    while todo:
        for names in CALLED.findall(todo.pop()):
            for name in re.findall(r"[\w.\-]+", names):
                if name in bodies and name not in reached:
                    reached.add(name)
                    todo += bodies[name]
    return reached


def origin(c: Collective, params: PyTree) -> str:
    """Which of `ORIGINS` a collective of a training step belongs to.

    Told by the scope that it was made in: "loss" and "memory" are `step`'s, and a Flax module's begins with its class.

    Args:
      c: of a program of `step`.
      params: by name; a gradient has the shape of one of them.
    """
    scopes = c.name.split("/")[1:-1]
    if "memory" in scopes:
        return "memory"
    if not any(re.search(r"\bloss\b", scope) for scope in scopes):
        return "other"
    if any(BATCH_NORM.fullmatch(scope) for scope in scopes):
        return "batch norm"
    in_network = any(scope[:1].isupper() for scope in scopes)
    # Outside of the network only a parameter that is no layer's, such as the centres, has a gradient to be summed.
    paths = jax.tree.leaves_with_path(params)
    of_parameters = {_extents(p.shape) for path, p in paths if in_network or len(path) == 1}
    if "transpose(" in c.name and of_parameters.issuperset(map(_extents, c.shapes)):
        return "gradients"
    return "other" if in_network else "losses"


def _extents(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape but for what a compiler may change about it: the order of the axes, and axes of length 1."""
    return tuple(sorted(d for d in shape if d > 1))


class Cost(NamedTuple):
    flops: float  # of a device; a loop's body counts once
    collectives: tuple[tuple[str, Collective], ...]  # with the origin of each

    def bytes(self, origin: str) -> int:
        """Bytes that a device receives."""
        return sum(c.bytes for o, c in self.collectives if o == origin)


def step(run: build.Run, task: str, mesh: Mesh, images: int) -> Cost:
    """The cost of a training step.

    Args:
      run: of any batch size.
      task: a name of the method's.
      mesh: over which the batch lies.
      images: on each of its devices.
    """
    labelled = run.plan.method.tasks[task]
    labelled = labelled._replace(
        loss=jax.named_scope("loss")(labelled.loss), commit=jax.named_scope("memory")(labelled.commit)
    )
    whole = sharding.replicated(mesh)
    take = make_step(labelled, run.plan.views, run.plan.optimizers, run.plan.accumulate)
    take = jax.jit(take, donate_argnums=0, out_shardings=(whole, whole))
    return _cost(take, run, mesh, images, lambda c: origin(c, run.like.params))


def sweep(run: build.Run, mesh: Mesh, images: int) -> Cost:
    """The cost of predicting a batch of an evaluation; `images` lie on each device."""
    view, batch = run.plan.views[run.eval.view], mesh.size * images

    class OneChunk(NamedTuple):
        """All that `embed.train_split` asks of a feed."""

        chunk: Chunk

        def sweep(self, fn, *_):
            return fn(self.chunk)

    @jax.jit
    def predict(state: State, chunk: Chunk):
        return embed.train_split(state, run.plan.method, view, OneChunk(chunk), mesh, batch)

    return _cost(predict, run, mesh, images, lambda c: "outputs" if c.kind == "all-gather" else "other")


def _cost(program, run: build.Run, mesh: Mesh, images: int, origin: Callable[[Collective], str]) -> Cost:
    """Compiles `program(state, chunk)` for the mesh."""
    whole, over = sharding.replicated(mesh), sharding.batched(mesh)
    state = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), run.like)
    ids = jax.ShapeDtypeStruct((mesh.size * images,), jnp.int32, sharding=over)
    pool = run.sources["train"].images  # resident, where a step gathers its images itself
    chunk = Chunk(ids, jax.ShapeDtypeStruct(pool.shape, pool.dtype, sharding=whole), ids)
    with by_xla_alone():
        compiled = program.lower(state, chunk).compile(compiler_options=OPTIONS)
    found = collectives(compiled.as_text())
    return Cost(compiled.cost_analysis()["flops"], tuple((origin(c), c) for c in found))


def use_virtual_devices() -> None:
    """As many CPU devices as a table needs; to be called before JAX has looked for any."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(DEVICES))


def table(path: str | None, workdir: Path, overrides: Mapping[str, str]) -> dict[str, dict]:
    """Compiles every program of a config, and prints what each costs as it is done.

    Args:
      path: of the config, whose `train.batch_size` lies on each device, so that the batch grows with their number.
      workdir: of a run that is not made.
      overrides: of the config.

    Returns:
      program -> devices -> its numbers, ready for JSON.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    if not path:
        raise ConfigError("--scaling needs --config=FILE, for example --config=configs/cifar10_anchor.py")
    images = config.load(path, overrides, configs.schemas).train.batch_size
    run = build.build(path, workdir, "train", {**overrides, "train.batch_size": f"{images * max(DEVICES)}"})
    parameters = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(run.like.params))
    print(f"compiled for virtual CPU devices, not run: {images} images on each, {_mib(parameters)} MiB of parameters")
    programs = {name: functools.partial(step, run, name) for name in run.plan.method.tasks}
    rows = {}
    for name, cost_of in {**programs, "predict": functools.partial(sweep, run)}.items():
        print(f"\n{name}: GFLOP a device, and MiB that each receives in a step")
        print(f"{'devices':>7}{'GFLOP':>12}{'to one':>9}" + "".join(f"{o:>12}" for o in ORIGINS))
        costs = {}
        for devices in DEVICES:
            costs[devices] = cost = cost_of(sharding.make_mesh(devices), images)
            relative = cost.flops / costs[DEVICES[0]].flops
            columns = "".join(f"{_mib(cost.bytes(o)):>12}" for o in ORIGINS)
            print(f"{devices:>7}{cost.flops / 1e9:>12,.3f}{relative:>9.4f}{columns}", flush=True)
        rows[name] = {devices: _row(cost) for devices, cost in costs.items()}
        for (source, kind), (count, size) in _by_kind(cost).items():
            print(f"  {source}: {count} {kind}, {_mib(size)} MiB, at {devices} devices")
        for source, c in cost.collectives:
            if source == "other" or c.looped:
                print(f"  {'in a loop' if c.looped else 'unexpected'}: {c.kind} of {c.shapes}, for {c.name}")
    return rows


def _by_kind(cost: Cost) -> dict[tuple[str, str], tuple[int, int]]:
    """(origin, kind) -> how many there are, and their bytes."""
    count, size = Counter(), Counter()
    for source, c in cost.collectives:
        count[source, c.kind] += 1
        size[source, c.kind] += c.bytes
    return {key: (count[key], size[key]) for key in sorted(count, key=lambda key: ORIGINS.index(key[0]))}


def _row(cost: Cost) -> dict:
    return {
        "flops": cost.flops,
        "bytes": {source: cost.bytes(source) for source in ORIGINS},
        "collectives": [
            {"origin": source, "kind": kind, "count": count, "bytes": size}
            for (source, kind), (count, size) in _by_kind(cost).items()
        ],
        "in_loops": sum(c.looped for _, c in cost.collectives),
    }


def _mib(size: int) -> str:
    return f"{size / 2**20:,.3f}"
