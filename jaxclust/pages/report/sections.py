"""What a report's page says, section by section: from the facts to the values of its template."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxclust import methods
from jaxclust.pages.drawing import PALETTE
from jaxclust.pages.report.clusters import Cluster, class_name, title
from jaxclust.pages.report.facts import Facts
from jaxclust.pages.report.findings import Finding
from jaxclust.pages.report.tsne import Map
from jaxclust.pages.thumbnails import Sheet
from jaxclust.run.names import shown

SIGNS = {"bad": "✗ Trouble", "look": "? Worth a look", "good": "✓ Good"}
LINKED = 8  # clusters that a finding leads to, at most
COLUMNS = {  # of the scores: key -> (heading, digits)
    "acc": ("ACC", 3),
    "nmi": ("NMI", 3),
    "ari": ("ARI", 3),
    "ami": ("AMI", 3),
    "silhouette": ("Silhouette", 3),
    "used_clusters": ("Clusters used", 0),
    "size_entropy": ("Evenness of sizes", 3),
    "confidence": ("Confidence", 3),
}
PARTS, LEAST = 6, 0.01  # of a cluster, by label: those that are listed, and the least share of one


def about(facts: Facts) -> dict[str, Any]:
    size = facts.settings["data.size"]
    return {
        "Data": facts.settings["data.name"],
        "Method": facts.settings["method.name"],
        "Images": f"{len(facts.images):,}, seen at {size} x {size} pixels",
        "Clusters": f"{len(facts.groups):,}",
        "Step": f"{facts.step:,}",
        "Seed": facts.settings["seed"],
    }


def findings(facts: Facts, found: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "severity": finding.severity,
            "sign": SIGNS[finding.severity],
            "text": finding.text,
            "links": [_link(facts, number) for number in finding.groups[:LINKED]],
            "more": max(len(finding.groups) - LINKED, 0),
        }
        for finding in found
    ]


def scores(facts: Facts) -> dict[str, Any]:
    """The table of all clusterings, with the paper's numbers below."""
    rows = {_called(name): row for name, row in facts.scores.items() if isinstance(row, Mapping) and name != "paper"}
    columns = {key: how for key, how in COLUMNS.items() if any(key in row for row in rows.values())}
    blocks = {"": rows}
    view, paper_view = (facts.settings.get(f"eval.{key}") for key in ("view", "paper_view"))
    if facts.scores.get("paper") and paper_view != view:
        blocks[f"On the view {paper_view}, as the paper evaluates"] = facts.scores["paper"]
    if facts.labels is not None:
        name, data, clusters = (facts.settings[key] for key in ("method.name", "data.name", "clusters"))
        printed = methods.published(name, data, clusters)
        if printed:
            blocks["Published for this method and data set"] = {
                f"{row.source}: {row.quantity}{f', {row.detail}' * bool(row.detail)}": row._asdict() for row in printed
            }
    return {
        "headings": [heading for heading, _ in columns.values()],
        "blocks": [
            {
                "title": said,
                "rows": [
                    {
                        "name": name,
                        "cells": [_cell(row.get(key), digits) for key, (_, digits) in columns.items()],
                        "main": row is facts.scores.get("cluster"),
                    }
                    for name, row in block.items()
                ],
            }
            for said, block in blocks.items()
        ],
        "edited": [*facts.groups] != [*range(facts.q.shape[1])],
    }


def settings(facts: Facts) -> dict[str, str]:
    """Every setting; that the data have labels is none's business where they have not."""
    return {
        key: repr(value) for key, value in facts.settings.items() if not (key == "data.labels" and facts.labels is None)
    }


def embedding(
    facts: Facts, found: Sequence[Cluster], maps: Sequence[Map], sheet: Sheet
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of the map, and what its script draws; a class looks like the cluster that it is matched to."""
    last = maps[-1]
    groups, clusters = [*facts.groups], range(facts.q.shape[1])
    then = all(at.clusters is not None for at in maps)
    data = {
        "palette": PALETTE,
        "sheet": {"columns": sheet.columns},
        "maps": [
            {
                "epoch": at.epoch,
                "xy": np.rint(at.xy * 1000).astype(int).ravel().tolist(),
                "clusters": at.clusters.tolist() if then else None,
            }
            for at in maps
        ],
        "points": {
            "name": [image_name(facts, row) for row in last.rows.tolist()],
            "group": facts.group[last.rows].tolist(),
            "confidence": np.rint(facts.confidence[last.rows] * 100).astype(int).tolist(),
        },
        "groups": [{"n": n, "title": shown(title(facts, n)), "look": n} for n in groups],
        "clusters": [{"n": n, "title": f"cluster {n}", "look": n} for n in clusters],
    }
    colourings = {"now": "clusters"}
    if then and len(maps) > 1:
        colourings = {"now": "clusters at the end", "then": "clusters at that time"}
    if facts.labels is not None:
        colourings["classes"] = "labels"
        labels = facts.labels[last.rows]
        looks = {one.label: one.number for one in found if one.label is not None}
        free = itertools.count(max(groups) + 1)
        data["points"]["label"] = labels.tolist()
        data["classes"] = [
            {"n": n, "title": shown(class_name(facts, n)), "look": looks[n] if n in looks else next(free)}
            for n in np.unique(labels).tolist()
        ]
    said = {
        "points": f"{len(last.rows):,}",
        "space": last.space,
        "end": len(maps) - 1,
        "when": f"epoch {last.epoch}",
        "colourings": colourings,
    }
    return said, data


def card(facts: Facts, one: Cluster, at: int) -> dict[str, Any]:
    """A cluster.

    Args:
      facts: of the run.
      one: of its clusters.
      at: its place among them. Its sheet is the class `s{at}`, with the typical images first, then the uncertain ones,
        then the failures.
    """
    fails = facts.labels is not None and one.label is not None
    return {
        "number": one.number,
        "title": one.title,
        "size": one.size,
        "share": one.share,
        "confidence": one.confidence,
        "sure": "" if math.isnan(one.confidence) else f"{one.confidence:.4f}",
        "colour": one.number % len(PALETTE),
        "nearest": None if one.nearest is None else _link(facts, one.nearest),
        **_made_of(facts, one),
        "sheet": at,
        "typical": [_said(facts, row) for row in one.typical.tolist()],
        "uncertain": [_said(facts, row) for row in one.uncertain.tolist()],
        "label": class_name(facts, one.label) if fails else None,
        "failed": one.failed if fails else None,
        "failures": [_said(facts, row) for row in one.failures.tolist()],
    }


def image_name(facts: Facts, row: int) -> str:
    """What to call an image, readable."""
    return f"image {row:,}" if facts.files is None else shown(facts.files[row])


def _made_of(facts: Facts, one: Cluster) -> dict[str, Any]:
    """The labels in a cluster."""
    listed = max(sum(count >= LEAST * one.size for _, count in one.labels[:PARTS]), 1)
    rest = sum(count for _, count in one.labels[listed:])
    return {
        "labels": [
            {"name": class_name(facts, label), "share": count / one.size, "right": label == one.label}
            for label, count in one.labels[:listed]
        ],
        "others": len(one.labels) - listed if rest else 0,
        "rest": max(rest / one.size, LEAST) if rest else 0.0,
        "unmatched": one.label is None,
    }


def _said(facts: Facts, row: int) -> str:
    label = "" if facts.labels is None else f", label {class_name(facts, int(facts.labels[row]))}"
    return f"{image_name(facts, row)}, {100 * facts.confidence[row]:.0f} % certain{label}"


def _link(facts: Facts, number: int) -> dict[str, Any]:
    return {"number": number, "title": title(facts, number)}


def _called(name: str) -> str:
    if name == "cluster":
        return "the network's clusters"
    return f"k-means on {name.removeprefix('kmeans_').replace('pixels', 'raw pixels')}"


def _cell(value: Any, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
