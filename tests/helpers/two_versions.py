"""What two versions of jaxclust make of the same commands: the main job and every mode, file by file.

    python tests/helpers/two_versions.py BEFORE AFTER OUT

BEFORE and AFTER are checkouts, OUT a folder. Each version runs the same commands in OUT/before and OUT/after, with the
same relative paths and a compilation cache of its own; what is done already is not done again, so delete a folder to
run a version anew. Then every file of one is held against the other's: tables, text and JSON exactly but for times,
arrays and checkpoints to the bit, pictures by their pixels. It prints a line for each file that differs.
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

SHORT = "--config.train.epochs=6 --config.report.looks=2 --config.eval.restarts=2"
TINY = "--config.net.width=4 --config.train.epochs=2 --config.report.looks=1 --config.eval.restarts=1"
MODES = {  # name -> the command's words; those after "main" are about its run
    "main": f"--config=configs/digits_anchor.py --workdir=main --config.method.init_epoch=3 {SHORT}",
    "cc": f"--config=configs/digits_cc.py --workdir=cc {TINY} --config.report.page=False",
    "tcc": f"--config=configs/digits_tcc.py --workdir=tcc {TINY} --config.method.init_epoch=1",
    "mmdc": f"--config=configs/digits_mmdc.py --workdir=mmdc {TINY} --config.method.refine_epoch=1",
    "evaluate": "--mode=evaluate --workdir=main",
    "probe": "--mode=probe --workdir=main",
    "suggest-k": "--mode=suggest-k --workdir=main --k=8:12",
    "report": "--mode=report --workdir=main",
    "predict": "--mode=predict --workdir=main --images=photos --into=sorted --embeddings",
    "compare": "--mode=compare --runs=main,cc,tcc --workdir=compared",
    "export": "--mode=export --workdir=main",
    "prepare": "--mode=prepare --config=configs/mnist_mmdc.py --config.data.dir=prepared --from=none",
}
TIMES = {  # of a record: they are never the same twice
    *("time", "seconds", "images_per_second", "elapsed", "eta", "version", "jaxclust", "mtime", "key"),
}
# What a reader sees of clusters was partly called a group before version 0.2.
WORDS = (("Groups", "Clusters"), ("groups", "clusters"), ("Group", "Cluster"), ("group", "cluster"))


def run(checkout: Path, out: Path, python: str) -> None:
    """Runs all commands that have not been run."""
    out.mkdir(parents=True, exist_ok=True)
    _make_photos(out / "photos")
    env = os.environ | {
        "PYTHONPATH": str(checkout),
        "JAX_PLATFORMS": "cpu",
        "JAXCLUST_CACHE": str(out.resolve() / ".cache"),
    }
    for name, words in MODES.items():
        said = out / f"{name}.out"
        if said.exists():
            continue
        command = [python, "-m", "jaxclust.main", *words.replace("configs/", f"{checkout}/configs/").split()]
        done = subprocess.run(command, cwd=out, env=env, capture_output=True, text=True)
        said.write_text(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}".replace(str(checkout), "CHECKOUT"))
        print(f"{out.name}: {name} ended with {done.returncode}", flush=True)
    if not (out / "browse").exists():
        _browse(out, env, python)


def _make_photos(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for i, digit in enumerate(load_digits().images[:24]):
        Image.fromarray((digit * 15).astype(np.uint8)).resize((40, 32)).save(folder / f"{i:02}.png")
        os.utime(folder / f"{i:02}.png", (1_700_000_000, 1_700_000_000))


def _browse(out: Path, env: dict[str, str], python: str) -> None:
    """What the page to work in answers."""
    command = [python, "-m", "jaxclust.main", "--mode=browse", "--workdir=main", "--port=8399"]
    with subprocess.Popen(command, cwd=out, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(line for line in server.stdout if "http://" in line).split("http://")[1].split()[0]
            with urllib.request.urlopen(f"http://{address}") as answer:
                page = answer.read()
        finally:
            server.terminate()
    (out / "browse").mkdir()
    (out / "browse" / "index.html").write_bytes(page)


def differences(before: Path, after: Path) -> Iterator[str]:
    """A line for each file that is not the same."""
    names = {p.relative_to(before) for p in _files(before)}
    for name in sorted({p.relative_to(after) for p in _files(after)} - names):
        yield f"{name}: only after"
    for name in sorted(names):
        if not (after / name).exists():
            yield f"{name}: only before"
        elif said := _difference(before / name, after / name):
            yield f"{name}: {said}"
    for path in sorted(before.glob("*/checkpoints/*/state")):
        name = path.relative_to(before)
        if (after / name).exists() and (said := _of_arrays(_checkpoint(path), _checkpoint(after / name))):
            yield f"{name}: {said}"


def _files(root: Path) -> Iterator[Path]:
    hidden = {".cache", "checkpoints", "tensorboard", "prepared"}
    for path in root.rglob("*"):
        if path.is_file() and not hidden & set(path.relative_to(root).parts):
            yield path


def _difference(a: Path, b: Path) -> str:
    """What differs first between two files; "" where nothing does."""
    if a.suffix == ".json":
        return _of_json(json.loads(a.read_text("utf-8")), json.loads(b.read_text("utf-8")))
    if a.suffix == ".jsonl":
        records = [[json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in (a, b)]
        return _of_json(*records)
    if a.suffix == ".npy":
        return _of_arrays({"": np.load(a)}, {"": np.load(b)})
    if a.suffix == ".npz":
        return _of_arrays(dict(np.load(a)), dict(np.load(b)))
    if a.suffix == ".parquet":
        return "" if pq.read_table(a).to_pydict() == pq.read_table(b).to_pydict() else "another table"
    if a.suffix in (".png", ".jpg", ".webp"):
        return _of_arrays({"": np.asarray(Image.open(a))}, {"": np.asarray(Image.open(b))})
    if a.suffix in (".out", ".html", ".md", ".tex", ".csv", ".txt"):
        one, other = a.read_text("utf-8"), b.read_text("utf-8")
        for old, new in WORDS:
            one = one.replace(old, new)
        for number, (x, y) in enumerate(zip(one.splitlines(), other.splitlines()), 1):
            if x != y:
                at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                return f"line {number}: {x[max(at - 30, 0) : at + 50]!r} is {y[max(at - 30, 0) : at + 50]!r}"
        return "" if len(one.splitlines()) == len(other.splitlines()) else "more or fewer lines"
    return "" if a.read_bytes() == b.read_bytes() else "other bytes"


def _of_json(a, b, at: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            if key in TIMES:
                continue
            if key not in a or key not in b:
                return f"{at}.{key} only {'after' if key in b else 'before'}"
            if said := _of_json(a[key], b[key], f"{at}.{key}"):
                return said
        return ""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next((said for i, (x, y) in enumerate(zip(a, b)) if (said := _of_json(x, y, f"{at}[{i}]"))), "")
    return "" if a == b else f"{at}: {a!r:.60} is {b!r:.60}"


def _of_arrays(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> str:
    if a.keys() != b.keys():
        return f"other arrays: {sorted(a.keys() ^ b.keys())[:3]}"
    for name, x in a.items():
        if x.shape != b[name].shape or x.tobytes() != b[name].tobytes():
            far = (
                np.abs(x.astype(float) - b[name]).max()
                if x.shape == b[name].shape and x.dtype.kind in "fiu"
                else "shapes"
            )
            return f"the array {name} differs, by at most {far}"
    return ""


def _checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by name; the optimizer's without "main", as version 0.1 had them."""
    tree = ocp.PyTreeCheckpointer().restore(folder.resolve())
    if isinstance(tree["opt"], dict) and "main" in tree["opt"]:
        tree["opt"] = tree["opt"]["main"]
    found, waiting = {}, [("", tree)]
    while waiting:
        name, part = waiting.pop()
        if isinstance(part, dict | list | tuple):
            items = part.items() if isinstance(part, dict) else enumerate(part)
            waiting += [(f"{name}/{key}", value) for key, value in items]
        elif part is not None:
            found[name] = np.asarray(part)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    for name, checkout in (("before", args.before), ("after", args.after)):
        run(checkout.resolve(), args.out / name, args.python)
    found = [*differences(args.out / "before", args.out / "after")]
    print("\n".join(found))
    print(f"{len(found)} of {len([*_files(args.out / 'before')])} files differ")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
