"""`--mode=bench`: what a config costs on this machine.

    python -m jaxclust.main --mode=bench --config=configs/cifar10_anchor.py --json=bench.json
    python -m jaxclust.main --mode=bench --steps --config=configs/cifar10_anchor.py
    python -m jaxclust.main --mode=bench --scaling --config=configs/cifar10_anchor.py
    python -m jaxclust.main --mode=bench --memory --config=configs/cifar10_anchor.py
    python -m jaxclust.main --mode=bench --roofline --config=configs/cifar10_anchor.py --target=gpu.txtpb
    python -m jaxclust.main --mode=bench --folder=100000
    python -m jaxclust.main --mode=bench --modes=1000000 --config.clusters=1000
    python -m jaxclust.main --mode=bench --against=torch

The first prints, for each task of the method, the time of a whole step beside the bare passes of its backbone that
the step needs (`Task.backbone_passes`; in turn, in one run), the augmentation's rate beside Pillow's with a process
per core, what decoding and reading cost, the time from a cold start to the first step with and without a compilation
cache, and memory. The second prints the times of steps alone. The third prints what each program, compiled for 1 to 8
devices, computes and communicates, the fourth what memory each step was compiled to need, the fifth what the
kernels of each step compute and move on a GPU. The sixth makes a folder of that many small JPEGs, decodes and streams
it, and prints memory. The seventh makes a run of that many images and prints what each mode costs there. The last
trains ResNets beside PyTorch's, where that is installed.
"""

from pathlib import Path

from jaxclust.commands import Command, lazily

COMMAND = Command(
    "what a config costs on this machine: time, memory and what devices exchange",
    lazily("bench.measure"),
    flags={
        "--json": {"type": Path, "metavar": "FILE", "help": "a file for the numbers"},
        "--steps": {"action": "store_const", "const": True, "help": "the time of whole steps, and nothing else"},
        "--scaling": {"action": "store_const", "const": True, "help": "compute and traffic of 1 to 8 devices"},
        "--memory": {"action": "store_const", "const": True, "help": "memory of each step, as compiled"},
        "--roofline": {"action": "store_const", "const": True, "help": "what each step computes and moves on a GPU"},
        "--target": {"type": Path, "metavar": "FILE", "help": "with --memory or --roofline: a GPU's description"},
        "--folder": {"type": int, "metavar": "N", "help": "decode and stream a made folder of N images"},
        "--modes": {"type": int, "metavar": "N", "help": "each mode on a made run of N images"},
        "--against": {"choices": ["torch"], "help": "ResNets beside PyTorch's"},
    },
)
