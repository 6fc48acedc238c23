"""`--mode=bench --against=torch`: whole training steps beside PyTorch's, of the same networks on the same device.

On a CPU both compute in float32, on a GPU in bfloat16: jaxclust by `net.dtype`, PyTorch by `torch.autocast`.
"""

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxclust import nets
from jaxclust.run.errors import ConfigError

ROUNDS = 7  # in turn
SECONDS = 1.0  # of each turn, about
REST = 0.3  # seconds between turns, in which the threads of the one before fall asleep


class Net(NamedTuple):
    depth: int
    stem: str
    width: int
    pixels: int
    batch: int

    def __str__(self) -> str:
        return f"ResNet-{self.depth}, width {self.width}, {self.pixels} px, {self.stem} stem, {self.batch}"


NETS = {
    "cpu": (
        Net(18, "imagenet", 64, 32, 128),
        Net(18, "imagenet", 16, 32, 128),
        Net(18, "imagenet", 16, 16, 256),
        Net(34, "cifar", 64, 32, 64),
        Net(34, "imagenet", 64, 224, 8),
    ),
    "gpu": (  # those of configs/cifar10_*.py
        Net(34, "imagenet", 64, 224, 128),
        Net(34, "imagenet", 64, 224, 256),
        Net(34, "cifar", 64, 32, 320),
        Net(18, "mmdc", 64, 32, 512),
    ),
}
DTYPES = {"cpu": "float32", "gpu": "bfloat16"}


def rows() -> Iterator[tuple[str, dict[str, float]]]:
    """Images/s of both for one after another of `NETS`: forward, backward and Adam, on random images.

    The two take turns, PyTorch in a process of its own, so that a machine that slows down slows both. The ratio is that
    of each round; the lowest and the highest say how far it can be trusted.

    Raises:
      ConfigError: PyTorch is not installed, or JAX's device is neither a CPU nor a GPU.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("PyTorch is not installed here, and --against=torch needs it: pip install torch")
    platform = jax.devices()[0].platform
    if platform not in NETS:
        raise ConfigError(f"--against=torch compares on a CPU or a GPU, and JAX has {platform}; give JAX_PLATFORMS=cpu")
    for net in NETS[platform]:
        yield str(net), _row(net, platform)


def _row(net: Net, platform: str) -> dict[str, float]:
    from jaxclust.commands.bench import torch_step

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ours, parameters = _prepared(net, DTYPES[platform])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        theirs = lambda count: pool.submit(torch_step.steps, count).result()  # noqa: E731
        prepared = pool.submit(torch_step.prepare, *net, cores, {"cpu": "cpu", "gpu": "cuda"}[platform])
        if prepared.result() != parameters:
            raise RuntimeError(f"the two networks of {net} are not the same")
        turns = [(f, _count(f)) for f in (ours, theirs)]
        rates: list[tuple[float, ...]] = []
        for _ in range(ROUNDS):
            rates.append(tuple(net.batch * count / _rested(f, count) for f, count in turns))
    ratios = [a / b for a, b in rates]
    jaxclust, torch = (median(column) for column in zip(*rates))
    row = {"jaxclust_images_per_second": jaxclust, "torch_images_per_second": torch}
    return row | {"ratio": median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios)}


def _prepared(net: Net, dtype: str) -> tuple[Callable[[int], float], int]:
    """What takes so many steps and returns the seconds; and the number of parameters."""
    backbone = nets.backbone(nets.Settings(net.depth, net.stem, net.width, dtype))
    images = jax.random.uniform(jax.random.key(0), (net.batch, net.pixels, net.pixels, 3))
    variables = jax.jit(backbone.init, static_argnames="train")(jax.random.key(0), images[:1], train=False)
    optimizer = optax.adam(1e-3)

    def step(params, stats, moments, images):
        def loss(params):
            said = backbone.apply({"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"])
            return jnp.mean(said[0] ** 2), said[1]["batch_stats"]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), stats, moments

    params = variables["params"]
    state = [(params, variables["batch_stats"], optimizer.init(params))]
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state[0], images).compile()

    def steps(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            state.append(compiled(*state.pop(), images))
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return steps, sum(a.size for a in jax.tree.leaves(params))


def _rested(steps: Callable[[int], float], count: int) -> float:
    time.sleep(REST)
    return steps(count)


def _count(steps: Callable[[int], float]) -> int:
    """So many steps that a turn is long enough."""
    steps(2)
    return max(round(SECONDS / steps(1)), 1)
