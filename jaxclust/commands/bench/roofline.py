"""What a training step could take on a GPU at best, on paper: compiled, and never run.

A kernel is one instruction of the compiled program: a fusion, a copy, a convolution of cuDNN. It takes at least as long
as its multiplications take at the GPU's peak, and as its operands and results take through its memory. The sum of the
larger of the two, over all kernels, is the roofline time of a step. Left out are caches, in which a small array may
stay, and that no kernel reaches either peak.

    GFLOP      of convolutions and matrix products, as 2 to a multiplication; XLA does not count cuDNN's
    GiB        moved: what kernels read and write, a loop's as often as it turns
    compute    ms for the GFLOP at the peak of their dtype, alone
    memory     ms for the bytes, alone
    roofline   ms, kernel by kernel
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxclust.commands.bench import hlo, memory
from jaxclust.run.errors import ConfigError
from jaxclust.training import build

# Of a core in a clock, dense, with sums in float32, by compute capability: in TF32, as XLA computes float32, and in
# bfloat16. From NVIDIA's descriptions of the architectures.
FLOPS = {
    (8, 0): {"f32": 1024, "bf16": 2048},
    (8, 6): {"f32": 256, "bf16": 512},
    (8, 9): {"f32": 256, "bf16": 512},
    (9, 0): {"f32": 2048, "bf16": 4096},
}
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id")
COLUMNS = ("gflop", "gib", "compute", "memory", "roofline", "kernels")
SHOWN = 8  # of the kernels that move most


class Gpu(NamedTuple):
    flops: dict[str, float]  # a second, by dtype
    bandwidth: float  # bytes a second


class Kernel(NamedTuple):
    name: str  # as the compiler calls what it made, without a number
    makes: str  # its results' dtypes and shapes
    dtype: str  # of what it multiplies
    flops: int
    bytes: int
    times: int  # in a step


def gpu(target: str) -> Gpu:
    """The peaks of a target, the text of XLA's `GpuTargetConfigProto`.

    Raises:
      ConfigError: it does not say enough, or no peak is known here for its compute capability.
    """

    def number(key: str, default: float | None = None) -> float:
        if found := re.search(rf"\b{key}: *([\d.]+)", target):
            return float(found[1])
        if default is None:
            raise ConfigError(f"--target does not give {key}, which --roofline needs")
        return default

    major, minor = (int(number(rf"cuda_compute_capability\s*{{[^}}]*?{part}", 0)) for part in ("major", "minor"))
    if (major, minor) not in FLOPS:
        known = ", ".join(f"{a}.{b}" for a, b in FLOPS)
        raise ConfigError(f"--roofline knows the peaks of compute capability {known}, and --target has {major}.{minor}")
    clocks = number("core_count") * number("clock_rate_ghz") * 1e9
    return Gpu({dtype: per * clocks for dtype, per in FLOPS[major, minor].items()}, number("memory_bandwidth"))


def kernels(text: str) -> Iterator[Kernel]:
    """The kernels of a compiled program, given its text."""
    bodies = hlo.lines(text)
    read = functools.cache(lambda name: hlo.instructions(bodies[name]))

    def walk(name: str, times: int) -> Iterator[Kernel]:
        for i in read(name).values():
            if i.kind == "while":
                turns = re.search(r'known_trip_count":{"n":"(\d+)"', i.attributes)
                yield from walk(_called(i, "body"), times * int(turns[1] if turns else 1))
            elif i.kind == "call":
                yield from walk(_called(i, "to_apply"), times)
            elif i.kind not in FREE and not i.kind.endswith("-done"):
                inside = read(_called(i, "calls")) if i.kind == "fusion" else {}
                flops, dtype = _flops(i, read(name))
                for j in inside.values():
                    more, dtype_of = _flops(j, inside)
                    flops, dtype = flops + more, dtype_of or dtype
                label = re.sub(r"[.\d_]+$", "", i.name)
                makes = " ".join(map(str, (a for a in i.makes if a.bytes)))
                yield Kernel(label, makes, dtype, flops, _moved(i, read(name), inside), times)

    yield from walk(next(reversed(bodies)), 1)


def _called(i: hlo.Instruction, what: str) -> str:
    return re.search(rf"\b{what}=%?([\w.\-]+)", i.attributes)[1]


def _flops(i: hlo.Instruction, around: dict[str, hlo.Instruction]) -> tuple[int, str]:
    """FLOPs of a convolution or a product, and the dtype of what it multiplies; 0 and "" of anything else."""
    if "__cudnn$conv" in i.attributes:
        target = re.search(r"__cudnn\$conv(\w+)", i.attributes)[1]
        first, second = (around[o].makes[0] for o in i.operands[:2])
        made = i.makes[0]
        kernel = made if target == "BackwardFilter" else second
        output = {"BackwardFilter": second, "BackwardInput": first}.get(target, made)
        channels = kernel.shape[re.search(r"dim_labels=\w+_(\w+)->", i.attributes)[1].index("o")]
        return 2 * _size(output) * _size(kernel) // channels, first.dtype
    if i.kind == "dot" or "__cublas" in i.attributes:
        first = around[i.operands[0]].makes[0]
        contracted = re.search(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)', i.attributes)[1]
        extents = [first.shape[int(d)] for d in re.findall(r"\d+", contracted)]
        return 2 * _size(i.makes[0]) * functools.reduce(int.__mul__, extents, 1), first.dtype
    return 0, ""


def _size(a: hlo.Array) -> int:
    return a.bytes * 8 // a.bits


def _moved(i: hlo.Instruction, around: dict[str, hlo.Instruction], inside: dict[str, hlo.Instruction]) -> int:
    """Bytes that a kernel reads and writes: of what it only takes slices or rows of, these alone."""
    moved = 0
    parameters = {int(j.operands[0]): j.name for j in inside.values() if j.kind == "parameter"}
    for n, operand in enumerate(i.operands):
        whole = around[operand].bytes if operand in around else 0
        users = [j for j in inside.values() if parameters.get(n) in j.operands and j.kind != "parameter"]
        if users and all(j.kind in ("dynamic-slice", "slice", "gather") for j in users):
            moved += min(whole, sum(j.bytes for j in users))
        elif users and all(j.kind == "dynamic-update-slice" and j.operands[0] == parameters[n] for j in users):
            continue  # written into, where it lies
        else:
            moved += whole
    for j in inside.values():
        if j.kind == "dynamic-update-slice":  # writes no more than the slice
            moved += inside[j.operands[1]].bytes - j.bytes
    return max(moved + i.bytes, 0)


def row(text: str, gpu: Gpu) -> dict:
    """The columns of a compiled program, and its kernels by what they make, those that move most bytes first."""
    all_kernels = list(kernels(text))
    compute = lambda k: k.times * k.flops / gpu.flops.get(k.dtype, gpu.flops["f32"])  # noqa: E731
    moving = lambda k: k.times * k.bytes / gpu.bandwidth  # noqa: E731
    alike = defaultdict(lambda: [0, 0])
    for k in all_kernels:
        alike[k.name, k.makes][0] += k.times
        alike[k.name, k.makes][1] += k.times * k.bytes
    return {
        "gflop": sum(k.times * k.flops for k in all_kernels) / 1e9,
        "gib": sum(k.times * k.bytes for k in all_kernels) / 2**30,
        "compute": 1e3 * sum(map(compute, all_kernels)),
        "memory": 1e3 * sum(map(moving, all_kernels)),
        "roofline": 1e3 * sum(max(compute(k), moving(k)) for k in all_kernels),
        "kernels": sum(k.times for k in all_kernels),
        "moved": [
            {"kernel": name, "makes": makes, "times": times, "gib": size / 2**30}
            for (name, makes), (times, size) in sorted(alike.items(), key=lambda item: -item[1][1])
        ],
    }


def table(make: Callable[[dict[str, str]], build.Run], target: Path | None) -> list[dict]:
    """Prints a row for each task and `net.dtype`, and below it the kernels that move most.

    Args:
      make: overrides of a config -> its run.
      target: a file that describes the GPU, the text of XLA's `GpuTargetConfigProto`.

    Returns:
      the rows, ready for JSON.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    if target is None:
        raise ConfigError("--roofline needs --target=FILE, the description of a GPU")
    text = memory.read(target)
    peaks, mesh = gpu(text), memory.mesh_of(text)
    print(f"compiled for {target} and not run: {peaks.bandwidth / 1e9:,.0f} GB/s", end="")
    print("".join(f", {peak / 1e12:,.1f} TFLOP/s in {dtype}" for dtype, peak in peaks.flops.items()))
    print(f"{'task':12}{'dtype':10}" + "".join(f"{c:>12}" for c in COLUMNS), flush=True)
    done = []
    for dtype in memory.DTYPES:
        run = make({"net.dtype": dtype})
        for name, task in memory.tasks(run).items():
            found = row(memory.compiled(run, task, mesh, run.plan.accumulate).as_text(), peaks)
            done.append({"task": name, "dtype": dtype, **found})
            print(f"{name:12}{dtype:10}" + "".join(f"{found[c]:>12,.1f}" for c in COLUMNS))
            for moved in found["moved"][:SHOWN]:
                print(
                    f"  {moved['gib']:8,.2f} GiB {moved['times']:>5} x {moved['kernel']}: {moved['makes']}", flush=True
                )
    return done
