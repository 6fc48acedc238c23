"""The model card of an export: what the predictor is, where it comes from, how well it does, and what it is not for."""

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxclust import __version__
from jaxclust.build import Run
from jaxclust.decisions import Decisions

METRICS = {"acc": "accuracy", "nmi": "nmi", "ari": "ari", "ami": "ami"}  # ours -> as cards call them
FILES = {
    "stablehlo": (
        "| `predictor.stablehlo` | the predictor as `jax.export` writes it, for CPU, CUDA and TPU |",
        "| `example_jax.py` | runs it with JAX and nothing else |",
    ),
    "onnx": (
        "| `predictor.onnx` | the predictor in float32, opset 23, for ONNX Runtime 1.24 or newer |",
        "| `example_onnx.py` | runs it with ONNX Runtime and nothing else |",
    ),
}
ALWAYS = (
    "| `groups.json` | number and name of each group, in the order of the probabilities |",
    "| `weights.safetensors` | parameters (`params.`) and batch statistics (`stats.`) by name, float32, kernels HWIO |",
)
RUN = {
    "stablehlo": "pip install jax\npython example_jax.py images.npy",
    "onnx": "pip install onnxruntime\npython example_onnx.py images.npy",
}


def metadata(run: Run, step: int) -> str:
    """JSON: version, method, step and config."""
    about = {"version": __version__, "method": run.config.method.name, "step": step, "config": _settings(run)}
    return json.dumps(about, sort_keys=True)


def card(
    run: Run,
    step: int,
    decided: Decisions,
    formats: Sequence[str],
    width: int,
    about: Mapping[str, Any] | None,
) -> str:
    """The card as Markdown, with the front matter that the Hugging Face Hub reads.

    Args:
      run: the run.
      step: of the checkpoint.
      decided: about its clusters.
      formats: of the predictor.
      width: D.
      about: what `scores.json` holds, where the run has one; of another checkpoint it is left out.
    """
    scores = about if about and about["step"] == step else None
    name, method = run.config.data.name, run.config.method.name
    parts = [
        _front_matter(run, formats, scores),
        f"# {method} on {_data_name(name)}\n\n"
        f"Sorts images into {len(decided.groups())} groups that it found without labels. Made with jaxclust "
        f"{__version__}, from step {step:,} of a run of seed {run.config.seed}.",
        _files(run, formats, len(decided.groups()), width),
        _data(run),
        _method(run),
        _groups(decided),
        _scores(scores, about, step, bool(decided.entries)),
        _use(),
        "## Licence\n\nNone is stated for these weights: whoever publishes them chooses one, writes it here and in "
        "the first lines of this file, and sees to it that the licences of the images allow it. jaxclust itself is "
        "under Apache-2.0, which says nothing of what it is used to make.",
        "## Settings\n\n```json\n" + json.dumps(_settings(run), indent=2) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _settings(run: Run) -> dict[str, Any]:
    """The config, without where the images lay on somebody's machine."""
    settings = run.config.to_dict()
    return {**settings, "data": {**settings["data"], "dir": ""}}


def _data_name(name: str) -> str:
    return "a folder of images" if name == "folder" else name


def _front_matter(run: Run, formats: Sequence[str], scores: Mapping[str, Any] | None) -> str:
    name, method = run.config.data.name, run.config.method.name
    measured = _measured(scores)
    tags = ["image-clustering", "deep-clustering", "unsupervised", "jax", *formats, method]
    lines = ["library_name: jaxclust", "license: other", "license_name: to-be-chosen", "tags:"]
    lines += [f"- {tag}" for tag in tags]
    if name != "folder":
        lines += ["datasets:", f"- {name}"]
    if measured:
        lines += ["metrics:", *(f"- {METRICS[key]}" for key in measured)]
        lines += ["model-index:", f"- name: {method}-{name}", "  results:", "  - task:", "      type: image-clustering"]
        lines += ["    dataset:", f"      name: {_data_name(name)}", f"      type: {name}", "    metrics:"]
        for key, value in measured.items():
            lines += [f"    - type: {METRICS[key]}", f"      value: {value:.4f}"]
    return "\n".join(["---", *lines, "---"])


def _measured(scores: Mapping[str, Any] | None) -> dict[str, float]:
    """The scores of the method's own clusters against labels, where there are any."""
    row = (scores or {}).get("cluster", {})
    return {key: row[key] for key in METRICS if row.get(key) is not None}


def _files(run: Run, formats: Sequence[str], groups: int, width: int) -> str:
    rows = [row for name in formats for row in FILES[name]]
    table = "\n".join(["## Use", "", "| file | what it is |", "| --- | --- |", *rows, *ALWAYS])
    if not formats:
        return table
    h, w, c = run.sources["train"].images.shape[1:]
    commands = "\n".join(RUN[name] for name in formats)
    return f"""{table}

The predictor takes `images`, uint8 `[b, {h}, {w}, {c}]` of any number b, and gives

1. `probabilities`, float32 `[b, {groups}]`: rows sum to one, as the network has them and not calibrated;
2. `groups`, int32 `[b]`: numbers as in `groups.json`;
3. `embedding`, float32 `[b, {width}]`, to compare images by.

All that happens to an image before the network is inside: give it the images as they are, squeezed to {w} x {h} pixels:

```python
import numpy as np
from PIL import Image

images = [Image.open(file).convert("{"RGB" if c == 3 else "L"}") for file in files]
images = [np.asarray(image.resize(({w}, {h}), Image.Resampling.BILINEAR)) for image in images]
np.save("images.npy", np.stack(images).reshape(-1, {h}, {w}, {c}))
```

```sh
{commands}
```

prints a line for each image: row, group, name and probability."""


def _data(run: Run) -> str:
    data, images = run.config.data, run.sources["train"].images
    n, h, w, c = images.shape
    labels = "They have labels, which only the scores below have seen" if data.labels else "They have no labels"
    return (
        f"## Data\n\n{n:,} images of {h} x {w} pixels and {_count(c, 'channel')}, "
        f"{_data_name(data.name)}, split `{data.splits['train']}`. {labels}."
    )


def _method(run: Run) -> str:
    module = importlib.import_module(f"jaxclust.methods.{run.config.method.name}")
    paper = " ".join(inspect.getdoc(module).split("\n\n")[0].split())
    net, train = run.config.net, run.config.train
    kind = "VGG" if net.stem == "vgg" else f"ResNet-{net.depth}"
    return (
        f"## Method\n\n{paper}\n\n{kind}, stem {net.stem}, width {net.width}, computing in {net.dtype}, trained from "
        f"scratch for {_count(train.epochs, 'epoch')} in batches of {train.batch_size:,}. All settings are at the end."
    )


def _groups(decided: Decisions) -> str:
    rows = "\n".join(f"| {number} | {_cell(name)} |" for number, name in decided.groups().items())
    done = [entry["do"] for entry in decided.entries]
    what = ", ".join(_count(done.count(do), do) for do in ("rename", "merge", "split") if do in done)
    text = f"## Groups\n\n| group | name |\n| --- | --- |\n{rows}\n\n"
    if what:
        text += f"A person looked at the network's {decided.clusters} clusters and decided: {what}."
    else:
        text += "They are the network's clusters, in no order; nobody has looked at them yet."
    if "move" in done:
        text += f" Images moved by hand ({_count(done.count('move'), 'time')}) are no part of the predictor."
    return text


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _scores(scores: Mapping[str, Any] | None, about: Mapping[str, Any] | None, step: int, edited: bool) -> str:
    title = "## Scores\n\n"
    if about is None:
        return title + "Not measured."
    if scores is None:
        return title + f"Not measured at step {step:,}; what there is was measured at step {about['step']:,}."
    rows = {name: row for name, row in scores.items() if isinstance(row, Mapping) and name != "paper"}
    columns = [*(key for key in METRICS if key in next(iter(rows.values()))), "used_clusters", "silhouette"]
    lines = ["| clustering | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_number(row.get(key)) for key in columns) + " |")
    text = (
        "On the images it was trained on, as is usual in clustering: `cluster` is the network's own assignment, the "
        "others are k-means on its embeddings and on pixels."
    )
    if edited:
        text += " They are of the network's clusters, before what a person decided about them."
    return title + text + "\n\n" + "\n".join(lines)


def _number(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _use() -> str:
    return """## Intended use and limits

For sorting images like those it was trained on, and for a first look at what kinds there are among them.

- It puts every image into some group, also one that looks like nothing it has seen; a low probability is a hint.
- Groups are what the network found alike, which need not be what a person means. Look at some images of each.
- It has learnt whatever is one-sided in its images. It is not for decisions about people.
- On images of another kind, camera or size the scores above do not hold."""
