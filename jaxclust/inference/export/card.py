"""The model card of an export: what the predictor is, where it comes from, how well it does, and what it is not for."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jaxclust import __version__, methods
from jaxclust.run.names import in_markdown
from jaxclust.training.build import Opened

METRICS = {"acc": "accuracy", "nmi": "nmi", "ari": "ari", "ami": "ami"}  # ours -> as cards call them
SHAPING = {"rename": "rename", "merge": "merge", "split": "split", "new": "new cluster"}


def _thousands(n: int) -> str:
    return f"{n:,}"


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


TEMPLATES = Environment(  # text of anybody's goes through `text`, or `tojson` in the front matter
    loader=PackageLoader("jaxclust", "inference/export"),
    autoescape=False,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {"thousands": _thousands, "counted": _counted, "text": in_markdown}


def metadata(run: Opened) -> str:
    """JSON: version, method, step and config."""
    step = int(run.state.step)
    about = {"version": __version__, "method": run.config.method.name, "step": step, "config": _settings(run)}
    return json.dumps(about, sort_keys=True)


def card(
    run: Opened,
    formats: Sequence[str],
    width: int,
    about: Mapping[str, Any] | None,
) -> str:
    """The card as Markdown, with the front matter that the Hugging Face Hub reads.

    Args:
      run: with the checkpoint.
      formats: of the predictor.
      width: D.
      about: what `scores.json` holds, where the run has one; of another checkpoint it is left out.
    """
    step, decided = int(run.state.step), run.decided
    scores = about if about and about["step"] == step else None
    name, method = run.config.data.name, run.config.method.name
    height, width_, channels = run.images["shape"]
    done = [entry["do"] for entry in decided.entries]
    return TEMPLATES.get_template("card.md").render(
        version=__version__,
        method=method,
        step=step,
        config=run.config,
        formats=formats,
        width=width,
        tags=["image-clustering", "deep-clustering", "unsupervised", "jax", *formats, method],
        data={
            "kind": name,
            "is_set": name != "folder",
            "name": "a folder of images" if name == "folder" else name,
            "images": run.images["images"],
            "height": height,
            "width": width_,
            "channels": channels,
        },
        measured={METRICS[key]: value for key, value in _measured(scores).items()},
        paper=_paper(method),
        network="VGG" if run.config.net.stem == "vgg" else f"ResNet-{run.config.net.depth}",
        clusters=decided.groups(),
        decisions={
            "any": bool(done),
            "before": decided.clusters,
            "shape": [_counted(done.count(do), what) for do, what in SHAPING.items() if do in done],
            "new": "new" in done,
            "moves": done.count("move"),
        },
        scores=_scores(scores) | {"step": about and about["step"]},
        settings=json.dumps(_settings(run), indent=2),
    )


def _settings(run: Opened) -> dict[str, Any]:
    """The config, without where anything lay on somebody's machine: of a path only the last name is told."""
    whole = run.config.to_dict()
    data = {**whole["data"], "dir": ""}  # whose name and splits may have a slash of TFDS's
    return {**_unplaced(whole), "data": data}


def _unplaced(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unplaced(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_unplaced(x) for x in value]
    return value.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if isinstance(value, str) else value


def _measured(scores: Mapping[str, Any] | None) -> dict[str, float]:
    """The scores of the method's own clusters against labels, where there are any."""
    row = (scores or {}).get("cluster", {})
    return {key: row[key] for key in METRICS if row.get(key) is not None}


def _paper(method: str) -> str:
    """The first paragraph of what a method's file says of itself."""
    said = inspect.getdoc(methods.load(method)) or f"`{method}`, whose file says nothing of it."
    return " ".join(said.split("\n\n")[0].split())


def _scores(scores: Mapping[str, Any] | None) -> dict[str, Any]:
    """The table of all clusterings."""
    rows = {name: row for name, row in (scores or {}).items() if isinstance(row, Mapping) and name != "paper"}
    if not rows:
        return {"columns": [], "rows": {}}
    columns = [*(key for key in METRICS if key in next(iter(rows.values()))), "used_clusters", "silhouette"]
    return {
        "columns": columns,
        "rows": {name: [_number(row.get(key)) for key in columns] for name, row in rows.items()},
    }


def _number(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
