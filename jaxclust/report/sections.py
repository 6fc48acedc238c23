"""The parts of a report's page, each from the facts to HTML."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxclust.report import published
from jaxclust.report.clusters import Cluster, class_name, title
from jaxclust.report.drawing import PALETTE, Figure
from jaxclust.report.facts import Facts
from jaxclust.report.findings import Finding
from jaxclust.report.markup import shown, text
from jaxclust.report.thumbnails import Sheet
from jaxclust.report.tsne import Map

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


def head(facts: Facts) -> str:
    about = {
        "Data": facts.settings["data.name"],
        "Method": facts.settings["method.name"],
        "Images": f"{len(facts.images):,}",
        "Clusters": f"{len(facts.groups):,}",
        "Step": f"{facts.step:,}",
        "Seed": facts.settings["seed"],
    }
    listed = "".join(f"<div><dt>{key}</dt><dd><bdi>{text(value)}</bdi></dd></div>" for key, value in about.items())
    return f"""<div class="head"><p class="kind">Report of a clustering run</p>
<h1><bdi>{text(facts.name)}</bdi></h1><dl class="about">{listed}</dl></div>"""


def findings(facts: Facts, found: Sequence[Finding]) -> str:
    items = []
    for finding in found:
        links = ", ".join(_link(facts, number) for number in finding.groups[:LINKED])
        more = f" and {len(finding.groups) - LINKED} more" if len(finding.groups) > LINKED else ""
        see = f'<p class="links">See {links}{more}</p>' if links else ""
        items.append(
            f'<li class="finding {finding.severity}"><strong>{SIGNS[finding.severity]}</strong>'
            f"<div><p>{text(finding.text)}</p>{see}</div></li>"
        )
    return f'<section id="findings"><h2>Findings</h2><ul class="findings">{"".join(items)}</ul></section>'


def scores(facts: Facts) -> str:
    """The table of all clusterings, the paper's numbers below, and every setting."""
    rows = {_called(name): row for name, row in facts.scores.items() if isinstance(row, Mapping) and name != "paper"}
    columns = {key: how for key, how in COLUMNS.items() if any(key in row for row in rows.values())}
    heading = "".join(f'<th scope="col">{called}</th>' for called, _ in columns.values())
    blocks = [("", rows)]
    view, paper_view = (facts.settings.get(f"eval.{key}") for key in ("view", "paper_view"))
    if facts.scores.get("paper") and paper_view != view:
        blocks.append(
            (f"On the view {paper_view}, as the paper evaluates", {k: v for k, v in facts.scores["paper"].items()})
        )
    if facts.labels is not None:
        printed = published.rows(facts.settings["data.name"], facts.settings["method.name"], facts.settings["clusters"])
        named = {
            f"{row.source}: {row.quantity}{f', {row.detail}' * bool(row.detail)}": row._asdict() for row in printed
        }
        if named:
            blocks.append(("Published for this method and data set", named))
    bodies = []
    for said, block in blocks:
        if said:
            bodies.append(f'<tbody class="apart"><tr><th scope="rowgroup" colspan="{len(columns) + 1}"><b>{text(said)}')
            bodies.append("</b></th></tr>")
        else:
            bodies.append("<tbody>")
        for name, row in block.items():
            cells = "".join(f"<td>{_cell(row.get(key), digits)}</td>" for key, (_, digits) in columns.items())
            main = ' class="main"' if row is facts.scores.get("cluster") else ""
            bodies.append(f'<tr{main}><th scope="row">{text(name)}</th>{cells}</tr>')
        bodies.append("</tbody>")
    explained = (
        "Silhouette is on at most 2,000 images of each embedding; the silhouettes of two embeddings do not compare."
    )
    if facts.labels is not None:
        explained += " ACC matches clusters to labels one to one (Hungarian method); no label was seen in training."
    if [*facts.groups] != [*range(facts.q.shape[1])]:
        explained += " These are the network's clusters, before any were merged or split by hand."
    settings = "".join(
        f'<tr><th scope="row"><code>{text(key)}</code></th><td><code>{text(repr(value))}</code></td></tr>'
        for key, value in facts.settings.items()
        if not (key == "data.labels" and facts.labels is None)
    )
    return f"""<section id="scores"><h2>Scores</h2>
<div class="wide" tabindex="0" role="region" aria-label="Scores">
<table><thead><tr><th scope="col">Clustering</th>{heading}</tr></thead>{"".join(bodies)}</table></div>
<p class="note">Step {facts.step:,}, seed {text(facts.settings["seed"])}. {explained}</p>
<details><summary>All settings</summary><table class="settings"><tbody>{settings}</tbody></table></details></section>"""


def figures(drawn: Sequence[Figure]) -> str:
    return f'<div class="figures">{"".join(map(figure, drawn))}</div>'


def figure(one: Figure, large: bool = False) -> str:
    """A figure whose SVG has no styles of its own."""
    files = f'<a href="figures/{one.name}.png">PNG</a>, <a href="figures/{one.name}.csv">CSV</a>'
    return (
        f"<figure{' class=large' * large}>{one.svg}<figcaption><b>{text(one.title)}</b>{text(one.caption)} {files}"
        f"</figcaption></figure>"
    )


def embedding(facts: Facts, found: Sequence[Cluster], maps: Sequence[Map], sheet: Sheet) -> tuple[str, dict[str, Any]]:
    """The map's HTML, and what its script draws; a class looks like the cluster that it is matched to."""
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
    choices = {"now": "clusters"}
    if then and len(maps) > 1:
        choices = {"now": "clusters at the end", "then": "clusters at that time"}
    if facts.labels is not None:
        choices["classes"] = "labels"
        labels = facts.labels[last.rows]
        looks = {one.label: one.number for one in found if one.label is not None}
        free = itertools.count(max(groups) + 1)
        data["points"]["label"] = labels.tolist()
        data["classes"] = [
            {"n": n, "title": shown(class_name(facts, n)), "look": looks[n] if n in looks else next(free)}
            for n in np.unique(labels).tolist()
        ]
    radios = "".join(
        f'<label><input type="radio" name="colouring" value="{key}"{" checked" * (key == "now")}> {said}</label>'
        for key, said in choices.items()
    )
    end = len(maps) - 1
    when = f"epoch {last.epoch}"
    time = f"""<div class="tools"><label class="time">Time
<input type="range" id="epoch" min="0" max="{end}" value="{end}" step="1" aria-valuetext="{when}"></label>
<output id="when" for="epoch">{when}</output>
<button type="button" id="play">Play</button></div>"""
    if not end:
        time = '<input type="range" id="epoch" min="0" max="0" value="0" hidden><output id="when" hidden></output>'
    colouring = f'<div class="tools"><fieldset><legend>Colour by</legend>{radios}</fieldset></div>'
    hint = "Point at a dot, tap it, or go to the map with Tab and use the arrow keys, to see its image."
    made = f"""<section id="map-section"><h2>Map of the embedding</h2>
<p class="note">{len(last.rows):,} of the {len(facts.images):,} images in two dimensions, by t-SNE of the embedding
“{text(facts.space)}”. Images near each other look alike to the network; distances between heaps mean little.</p>
<p class="note needs-no-js">The map can be drawn where scripts may run; its pictures are in the folder figures.</p>
<div class="needs-js">{time}{colouring if len(choices) > 1 else ""}
<div class="map"><canvas id="map" tabindex="0" role="application" aria-label="Map of {len(last.rows):,} images; arrow
 keys go from one to the next" aria-describedby="seen"></canvas>
<div><div class="seen" id="seen" role="status" data-hint="{hint}"></div>
<div class="legend" id="legend" role="group" aria-label="Show one alone"></div></div></div></div></section>"""
    return made, data


def clusters(facts: Facts, found: Sequence[Cluster]) -> str:
    """A card for each cluster.

    Args:
      facts: of the run.
      found: its clusters. The i-th one's sheet is the class `s{i}`, with the typical images first, then the uncertain
        ones, then the failures.
    """
    index = "".join(
        f'<li><a href="#cluster-{one.number}"><bdi>{text(one.title)}</bdi> <span class="num">{one.size:,}</span></a>'
        for one in found
    )
    order = """<label>Order <select id="order"><option value="number">by number<option value="large">largest first
<option value="small">smallest first<option value="unsure">least certain first</select></label>"""
    failures = ""
    if facts.labels is not None:
        failures = " Failures are of another label than the one matched to the cluster, the most confident first."
    cards = "".join(card(facts, one, i) for i, one in enumerate(found))
    return f"""<section id="clusters"><h2>Clusters</h2>
<p class="note">Typical are the images nearest to the cluster's centre in the embedding.{failures} Tap an image, or
use Tab and the arrow keys, to see it larger with its name.</p>
<ul class="index">{index}</ul><div class="tools needs-js">{order}</div>
<div class="cards" id="cards">{cards}</div></section>"""


def card(facts: Facts, one: Cluster, at: int) -> str:
    numbers = [f'<span class="num">{one.size:,} images ({100 * one.share:.1f} %)</span>']
    if one.size:
        numbers.append(f'<span class="num">confidence {one.confidence:.2f}</span>')
    if one.nearest is not None:
        numbers.append(f"nearest: {_link(facts, one.nearest)}")
    kinds = [("Most typical", one.typical), ("Least certain", one.uncertain)]
    if facts.labels is not None and one.label is not None:
        kinds.append((f"Failures: not <bdi>{text(class_name(facts, one.label))}</bdi> ({one.failed:,})", one.failures))
    blocks, place = [], 0
    for called, rows in kinds:
        images = "".join(
            f'<li><span class="t s{at} p{place + i}" role="img" tabindex="-1" title="{_said(facts, row)}"></span>'
            for i, row in enumerate(rows.tolist())
        )
        place += len(rows)
        strip = f'<ul class="strip">{images}</ul>' if images else ""
        blocks.append(f"<div><h4>{called}</h4>{strip}</div>")
    sure = "" if math.isnan(one.confidence) else f"{one.confidence:.4f}"
    images = f'<div class="kinds">{"".join(blocks)}</div>' if one.size else ""
    return f"""<article class="card" id="cluster-{one.number}" data-number="{one.number}" data-size="{one.size}"
 data-confidence="{sure}"><header><h3><span class="swatch c{one.number % len(PALETTE)}"></span>
<bdi>{text(one.title)}</bdi></h3><p>{" · ".join(numbers)}</p></header>{_made_of(facts, one)}{images}</article>"""


def image_name(facts: Facts, row: int) -> str:
    """What to call an image, readable."""
    return f"image {row:,}" if facts.files is None else shown(facts.files[row])


def _made_of(facts: Facts, one: Cluster) -> str:
    """The labels in a cluster."""
    if not one.labels:
        return ""
    listed = max(sum(count >= LEAST * one.size for _, count in one.labels[:PARTS]), 1)
    parts = [
        f"<li{' class=right' * (label == one.label)}><bdi>{text(class_name(facts, label))}</bdi> "
        f'<span class="num">({100 * count / one.size:.0f} %)</span></li>'
        for label, count in one.labels[:listed]
    ]
    rest, others = sum(count for _, count in one.labels[listed:]), len(one.labels) - listed
    if rest:
        said = f"{others} other{'s' * (others > 1)}"
        parts.append(f'<li>{said} <span class="num">({100 * max(rest / one.size, LEAST):.0f} %)</span></li>')
    if one.label is None:
        parts.append("<li>no label is left to match it, so all of its images count as wrong</li>")
    return f'<ul class="made"><li class="lead">Labels</li>{"".join(parts)}</ul>'


def _said(facts: Facts, row: int) -> str:
    label = "" if facts.labels is None else f", label {class_name(facts, int(facts.labels[row]))}"
    name = image_name(facts, row)
    return text(f"{name}, {100 * facts.confidence[row]:.0f} % certain{label}")


def _link(facts: Facts, number: int) -> str:
    return f'<a href="#cluster-{number}"><bdi>{text(title(facts, number))}</bdi></a>'


def _called(name: str) -> str:
    if name == "cluster":
        return "the network's clusters"
    return f"k-means on {name.removeprefix('kmeans_').replace('pixels', 'raw pixels')}"


def _cell(value: Any, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
