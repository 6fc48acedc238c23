"""The measurements of `--mode=bench`, and the order in which they are printed."""

import argparse
import functools
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from jaxclust import nets
from jaxclust.commands.bench import against, memory, modes, pillow, rates, roofline, scaling
from jaxclust.data.feed import epoch_order
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_json
from jaxclust.run.preemption import Preemption
from jaxclust.run.schema import settings
from jaxclust.training import build, compilation
from jaxclust.training.step import augment, make_step

PASSES = {
    "gradient": "with gradient",
    "forward": "forward only",
    "predict": "forward only on running statistics",
}
SECONDS = 3.0  # of each rate's measurement
REPEATS = 7  # of each step
OF_A_CONFIG, OF_ITS_OWN = ("steps", "scaling", "memory", "roofline"), ("folder", "modes", "against")  # flags


def steps(run: build.Run) -> dict[str, dict]:
    """Each task's whole step against the passes of its backbone that it needs, one after another."""
    net = nets.backbone(settings(nets.Settings, run.config.net, "net"))
    batch, size = run.train.batch_size, run.config.data.size
    feed = build.feeds(run)["train"]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), batch)))
    rows = {}
    for name, task in run.plan.method.tasks.items():
        passes = task.backbone_passes or (("gradient", 1),) * len(task.views)
        shape = (size, size, run.sources["train"].images.shape[-1])
        x = [jax.random.uniform(jax.random.key(i), (n * batch, *shape)) for i, (_, n) in enumerate(passes)]
        variables = jax.jit(net.init, static_argnames="train")(jax.random.key(0), x[0][:1], train=False)

        def bare(params, stats, x, passes=passes):
            def total(params, kinds):
                variables = {"params": params, "batch_stats": stats}
                return sum(
                    jnp.mean(net.apply(variables, v, train=kind != "predict", mutable=["batch_stats"])[0])
                    for v, (kind, _) in zip(x, passes, strict=True)
                    if kind in kinds
                )

            return jax.grad(total)(params, ("gradient",)), total(params, ("forward", "predict"))

        states = [run.init()]
        step = jax.jit(make_step(task, run.plan.views, run.plan.optimizers), donate_argnums=0)
        whole = step.lower(states[0], chunk).compile()

        def take(whole=whole, states=states):  # as in training, where a state is donated to the step that replaces it
            state, metrics = whole(states.pop(), chunk)
            states.append(state)
            return metrics

        bare = jax.jit(bare).lower(variables["params"], variables["batch_stats"], x).compile()
        spent = _in_turn(
            take,
            lambda f=bare, v=variables, x=x: f(v["params"], v["batch_stats"], x),
        )
        memory = whole.memory_analysis()
        rows[name] = {
            "passes": ", ".join(
                f"{count} {PASSES[kind]}" + (f" over {n} times the batch" if n > 1 else "")
                for (kind, n), count in Counter(passes).items()
            ),
            "step_seconds": median(spent[0]),
            "backbone_seconds": median(spent[1]),
            "step_over_backbone": median(a / b for a, b in zip(*spent)),
            "images_per_second": batch / median(spent[0]),
            "compiled_temporary_mib": memory.temp_size_in_bytes / 2**20 if memory else None,
            "gflop": (whole.cost_analysis() or {}).get("flops", float("nan")) / 1e9,
        }
    return rows


def _in_turn(*functions) -> list[list[float]]:
    """Seconds of each function, called in turn so that a machine that slows down slows all of them."""
    spent = [[] for _ in functions]
    for _ in range(REPEATS + 1):  # the first round warms up
        for f, times in zip(functions, spent):
            start = time.perf_counter()
            jax.block_until_ready(f())
            times.append(time.perf_counter() - start)
    return [times[1:] for times in spent]


def augmentation(run: build.Run) -> dict[str, dict]:
    """Views per second of each random policy, and Pillow's for those it is known how to do."""
    images = np.array(run.sources["train"].images[: run.train.batch_size])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = {}
    for name, view in run.plan.views.items():
        how = dict(run.config.views[name])
        if how.pop("policy") != "simclr":
            continue
        on_device, ids = jax.device_put(images), jnp.arange(len(images))
        make = jax.jit(functools.partial(augment, view))
        jax.block_until_ready(make(jax.random.key(0), ids, on_device))
        start, made = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < SECONDS:
            jax.block_until_ready(make(jax.random.key(made), ids, on_device))
            made += len(images)
        with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
            size = run.config.data.size
            rates = [pool.submit(pillow.work, images, size, how, SECONDS) for _ in range(cores)]
            reference = sum(rate.result() for rate in rates)
        rows[name] = {
            "views_per_second": made / spent,
            "pillow_views_per_second": reference,
            "over_pillow": made / spent / reference,
            "cores": cores,
        }
    return rows


def first_step(path: str, workdir: Path, overrides: Mapping[str, str]) -> dict[str, float]:
    """Seconds from the start of a process to the end of its first step, with an empty and a filled cache."""
    code = (
        "import json, sys; from jaxclust.commands.bench import measure as m; m.one_step(*map(json.loads, sys.argv[1:]))"
    )
    told = [json.dumps(value) for value in (path, str(workdir), dict(overrides))]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAXCLUST_CACHE": cache}
        seconds = []
        for _ in range(3):  # the first decodes the data too, so its compiled programs alone are thrown away
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, *told], env=environment, check=True, stderr=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
            if len(seconds) == 1:
                shutil.rmtree(f"{cache}/xla")
    return {"cold_cache_seconds": seconds[1], "warm_cache_seconds": seconds[2]}


def one_step(path: str, workdir: str, overrides: Mapping[str, str]) -> None:
    """Starts a run of its first task as training does, and takes one step."""
    compilation.use_cache()
    run = build.build(path, Path(workdir), "train", overrides)
    feed = build.feeds(run)["train"]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), run.train.batch_size)))
    task = run.plan.method.tasks[run.plan.stages[0].todo.tasks[0]]
    jax.block_until_ready(jax.jit(make_step(task, run.plan.views, run.plan.optimizers))(run.init(), chunk))


def peak_memory() -> dict[str, float]:
    """The most memory that this process and its first device have used, MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    stats = jax.local_devices()[0].memory_stats() or {}
    row = {"process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    return row | ({"device_peak_mib": stats["peak_bytes_in_use"] / 2**20} if "peak_bytes_in_use" in stats else {})


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    if args.workdir:
        raise ConfigError("--mode=bench keeps no run; give --json=FILE for its numbers, and no --workdir")
    _check(args)
    # A GPU is shared with processes of its own for PyTorch and for first steps, to which JAX would leave a quarter.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.folder:
        results = rates.large_folder(args.folder)
        _show("folder", results)
    elif args.against or args.modes:
        results = {}
        title, rows = ("modes", modes.table(args.modes, overrides)) if args.modes else ("against torch", against.rows())
        for name, row in rows:
            results[name] = row
            _show(title, {name: row})
    else:
        with tempfile.TemporaryDirectory() as workdir:
            results = _results(args, overrides, Path(workdir))
    if args.json:
        write_json(args.json, results)


def _check(args: argparse.Namespace) -> None:
    """Raises ConfigError unless the flags are of one measurement."""
    asked = [f"--{name}" for name in (*OF_A_CONFIG, *OF_ITS_OWN) if getattr(args, name) is not None]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} are measured one at a time; give one of them")
    if args.config and asked and asked[0].removeprefix("--") in OF_ITS_OWN:
        raise ConfigError(f"{asked[0]} measures no config, and --config={args.config} was given; leave it out")
    if args.target and asked not in (["--memory"], ["--roofline"]):
        raise ConfigError("--target is the GPU of --memory or --roofline; give one of them as well")
    for name in ("folder", "modes"):
        if (count := getattr(args, name)) is not None and count < 1:
            raise ConfigError(f"--{name}={count} is a number of images; give 1 or more")


def _results(args: argparse.Namespace, overrides: Mapping[str, str], workdir: Path) -> dict:
    if args.scaling:
        scaling.use_virtual_devices()
        return scaling.table(args.config, workdir, overrides)
    made = lambda changes: build.build(args.config, workdir, "train", {**overrides, **changes})  # noqa: E731
    if args.memory:
        return memory.table(made, args.target)
    if args.roofline:
        return roofline.table(made, args.target)
    compilation.use_cache()
    run = made({})
    results = {"devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()]}
    print(f"{len(jax.devices())} x {results['devices'][0]}, batch {run.train.batch_size}", flush=True)
    measures = {
        "steps": lambda: steps(run),
        "augmentation": lambda: augmentation(run),
        "decoding": lambda: rates.decoding(run),
        "feeding": lambda: rates.feeding(run),
        "memory": peak_memory,
        "first_step": lambda: first_step(args.config, workdir, overrides),
    }
    for title in ["steps"] if args.steps else measures:
        results[title] = measures[title]()
        _show(title, results[title])
        if args.json:  # what has been measured is kept when a later measurement is cut off
            write_json(args.json, results)
    return results


def _show(title: str, rows: dict) -> None:
    for name, row in rows.items() if all(isinstance(r, dict) for r in rows.values()) else [("", rows)]:
        print(f"\n{title.replace('_', ' ')} {name}")
        for key, value in row.items():
            text = "unknown" if value is None else f"{value:,.3f}" if isinstance(value, float) else value
            print(f"  {key.replace('_', ' '):28} {text}", flush=True)
