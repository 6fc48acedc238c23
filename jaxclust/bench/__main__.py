"""What a config costs on this machine.

    python -m jaxclust.bench --config=configs/cifar10_anchor.py --config.train.batch_size=8 --json=bench.json
    python -m jaxclust.bench --scaling --config=configs/cifar10_anchor.py
    python -m jaxclust.bench --memory --config=configs/cifar10_anchor.py
    python -m jaxclust.bench --folder=100000

The first prints, for each task of the method, the time of a whole step beside the bare passes of its backbone that
the step needs (`Task.backbone_passes`; in turn, in one run), the augmentation's rate beside Pillow's with a process
per core, what decoding and reading cost, the time from a cold start to the first step with and without a compilation
cache, and memory. The second prints what each program, compiled for 1 to 8 devices, computes and communicates, the
third what memory each step was compiled to need. The last makes a folder of that many small JPEGs, decodes and streams
it, and prints memory.
"""

import argparse
import functools
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from jaxclust import build, main, nets, train
from jaxclust.bench import memory, pillow, rates, scaling
from jaxclust.config import ConfigError, settings
from jaxclust.feed import epoch_order
from jaxclust.files import write_json

PASSES = {
    "gradient": "with gradient",
    "forward": "forward only",
    "predict": "forward only on running statistics",
}
SECONDS = 3.0  # of each rate's measurement
REPEATS = 7  # of each step


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
        step = jax.jit(train.make_step(task, run.plan.views, run.plan.optimizer), donate_argnums=0)
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
        make = jax.jit(functools.partial(train.augment, view))
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


def first_step(argv: list[str]) -> dict[str, float]:
    """Seconds from the start of a process to the end of its first step, with an empty and a filled cache."""
    code = "import sys; from jaxclust.bench.__main__ import one_step; one_step(sys.argv[1:])"
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAXCLUST_CACHE": cache}
        seconds = []
        for _ in range(3):  # the first decodes the data too, so its compiled programs alone are thrown away
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, *argv], env=environment, check=True, stderr=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
            if len(seconds) == 1:
                shutil.rmtree(f"{cache}/xla")
    return {"cold_cache_seconds": seconds[1], "warm_cache_seconds": seconds[2]}


def one_step(argv: list[str]) -> None:
    """Starts a run of its first task as training does, and takes one step."""
    args, overrides = main.parse(argv)
    build.use_compilation_cache()
    run = build.build(args, overrides)
    feed = build.feeds(run)["train"]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), run.train.batch_size)))
    task = run.plan.method.tasks[run.plan.stages[0].todo.task]
    jax.block_until_ready(jax.jit(train.make_step(task, run.plan.views, run.plan.optimizer))(run.init(), chunk))


def peak_memory() -> dict[str, float]:
    """The most memory that this process and its first device have used, MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    stats = jax.local_devices()[0].memory_stats() or {}
    row = {"process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    return row | ({"device_peak_mib": stats["peak_bytes_in_use"] / 2**20} if "peak_bytes_in_use" in stats else {})


def bench(argv: list[str]) -> None:
    """Runs the command.

    Raises:
      ConfigError: the command or a config is wrong.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--json", type=Path)
    own.add_argument("--folder", type=int)
    own.add_argument("--scaling", action="store_true")
    own.add_argument("--memory", action="store_true")
    own.add_argument("--target", type=Path)
    mine, argv = own.parse_known_args(argv)
    if mine.folder:
        results = rates.large_folder(mine.folder)
        _show("folder", results)
        if mine.json:
            write_json(mine.json, results)
        return
    with tempfile.TemporaryDirectory() as workdir:
        args, overrides = main.parse([*argv, f"--workdir={workdir}"])
        if mine.scaling:
            scaling.use_virtual_devices()
            build.use_compilation_cache()
            results = scaling.table(args, overrides)
            if mine.json:
                write_json(mine.json, results)
            return
        if mine.memory:
            results = memory.table(lambda changes: build.build(args, overrides | changes), mine.target)
            if mine.json:
                write_json(mine.json, results)
            return
        run = build.build(args, overrides)
        results = {"devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()], "steps": {}}
        print(f"{len(jax.devices())} x {results['devices'][0]}, batch {run.train.batch_size}", flush=True)
        for title, measure in (
            ("steps", lambda: steps(run)),
            ("augmentation", lambda: augmentation(run)),
            ("decoding", lambda: rates.decoding(run)),
            ("feeding", lambda: rates.feeding(run)),
            ("memory", peak_memory),
            ("first_step", lambda: first_step([*argv, f"--workdir={workdir}"])),
        ):
            results[title] = measure()
            _show(title, results[title])
    if mine.json:
        write_json(mine.json, results)


def _show(title: str, rows: dict) -> None:
    for name, row in rows.items() if all(isinstance(r, dict) for r in rows.values()) else [("", rows)]:
        print(f"\n{title.replace('_', ' ')} {name}")
        for key, value in row.items():
            text = "unknown" if value is None else f"{value:,.3f}" if isinstance(value, float) else value
            print(f"  {key.replace('_', ' '):28} {text}", flush=True)


if __name__ == "__main__":
    try:
        bench(sys.argv[1:])
    except ConfigError as e:
        print(f"jaxclust: {e}", file=sys.stderr)
        sys.exit(2)
