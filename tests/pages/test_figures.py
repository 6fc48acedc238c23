"""Figures: numbers that a paper can print, pictures that any run can have, files that a page can hold."""

import csv
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from jaxclust.pages import drawing
from jaxclust.pages.report import curves, figures, matrix, tsne
from jaxclust.pages.report.facts import Facts


def facts(clusters=3, images=120, labelled=True, looks=4, group=None, **changes) -> Facts:
    """A run's facts, made up: each class is a cluster, but for every tenth image."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % clusters
    group = np.where(np.arange(images) % 10, labels, (labels + 1) % clusters) if group is None else group
    x = (8 * np.eye(clusters, 6)[labels] + rng.normal(size=(images, 6))).astype(np.float32)
    q = np.full((images, clusters), 0.1 / clusters, np.float32)
    q[np.arange(images), group] += 0.9
    sizes = np.bincount(group, minlength=clusters).tolist()
    pairs = {"positive": [0.9, 0.1], "negative": [0.1, 0.2]}
    scores = {"acc": 0.9, "nmi": 0.7, "ari": 0.6} if labelled else {}
    about = {"images": images, "used_clusters": clusters, "sizes": sizes, "size_entropy": 1.0, "entropy": 0.2}
    about |= {"confidence": 0.9, "centre_distance": 3.5, "pairs": {"projection": pairs, "clusters": pairs}, **scores}
    records = [
        {"step": i, "epoch": (i - 1) // 2, "loss": 3 / i, "cluster": 1 / i, "instance": 2 / i} for i in range(1, 9)
    ]
    rows = np.arange(images // 2)
    kept = {"rows": rows, "placed": rows[3:], "clusters": group[rows]}
    made = Facts(
        name="run",
        workdir=Path("runs/my photos"),
        settings={"seed": 0},
        step=8,
        scores={},
        metrics=records,
        looks=[{"step": 2 * i, "epoch": i, **about} for i in range(looks)],
        placed={2 * i: kept | {"x": x[rows[3:]].astype(np.float16)} for i in range(looks)},
        images=np.zeros((images, 1, 1, 1), np.uint8),
        files=None,
        labels=labels.astype(np.int32) if labelled else None,
        classes=tuple(f"class {i}" for i in range(clusters)) if labelled else (),
        groups=dict.fromkeys(range(clusters), ""),
        group=group,
        confidence=q.max(axis=1),
        q=q,
        space="backbone",
        x=x,
    )
    return made._replace(**changes)


def within(draw, *args) -> dict[str, figures.Figure]:
    """The figures of one module, by name: drawing all of them takes its time."""
    with drawing.style():
        return {figure.name: figure for figure in draw(*args)}


@pytest.fixture(scope="module")
def usual() -> dict[str, figures.Figure]:
    run = facts(looks=2)
    return {figure.name: figure for figure in figures.draw(run, tsne.maps(run)[1:])}


def column(figure: figures.Figure, name: str) -> list:
    return [row[figure.header.index(name)] for row in figure.rows]


def ids(svg: str) -> set[str]:
    return {e.get("id") for e in ElementTree.fromstring(svg).iter()} - {None}


def test_a_run_has_the_figures_of_the_papers(usual):
    over_epochs = ["loss_terms", "scores", "size_over_epochs", "used_clusters", "centre_distance", "assignment_entropy"]
    after = ["pairs_projection", "pairs_clusters", "cluster_sizes", "confidence_histogram", "confusion_matrix"]
    assert [*usual] == [*over_epochs, *after, "tsne_epoch_1", "tsne_epoch_1_classes"]


def test_without_labels_nothing_is_said_of_them():
    run = facts(labelled=False, looks=1, metrics=[])
    run.looks[0]["pairs"] = {}
    drawn = figures.draw(run, tsne.maps(run))
    assert len(drawn) == 7
    for figure in drawn:
        said = " ".join((figure.name, figure.title, figure.caption, figure.svg, *figure.header)).lower()
        assert "class" not in said
        assert "label" not in said.replace("aria-label", "")


def test_a_run_without_looks_has_no_curves_but_its_losses():
    assert [*within(curves.draw, facts(looks=0))] == ["loss_terms"]
    assert tsne.maps(facts(looks=0)) == []


def test_a_method_without_clusters_of_its_own_has_no_curves_of_them():
    run = facts(looks=1, metrics=[])
    looks = [{k: look[k] for k in ("step", "epoch", "images", "pairs")} for look in run.looks]
    placed = {step: {k: v for k, v in at.items() if k != "clusters"} for step, at in run.placed.items()}
    run = run._replace(looks=looks, placed=placed)
    assert [*within(curves.draw, run)] == ["pairs_projection", "pairs_clusters"]
    maps = tsne.maps(run)
    assert maps[0].clusters is None
    groups = run.group[maps[0].rows]
    assert column(within(tsne.draw, run, maps)["tsne_epoch_0"], "cluster") == [str(group) for group in groups]


def test_numbers_are_those_of_the_run(usual):
    assert column(usual["loss_terms"], "loss") == pytest.approx([3 / i for i in range(1, 9)], rel=1e-5)
    assert column(usual["loss_terms"], "epoch") == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert usual["pairs_clusters"].rows[1] == (2, 1.0, 0.9, 0.1, 0.1, 0.2)
    assert column(usual["cluster_sizes"], "images") == np.bincount(facts().group).tolist()
    confidence = usual["confidence_histogram"]
    assert sum(column(confidence, "images")) == 120
    assert sum(column(confidence, "of the cluster's class")) == 108


def test_clusters_stand_below_the_classes_that_they_match():
    run = facts()
    turned = run._replace(group=(run.group + 1) % 3, groups={0: "cats", 1: "", 2: ""})
    matrix_ = within(matrix.draw, turned)["confusion_matrix"]
    assert matrix_.header == ("class", "cluster 1", "cluster 2", "cats")
    assert matrix_.rows[0] == ("class 0", *(np.count_nonzero((run.labels == 0) & (run.group == k)) for k in range(3)))


def test_two_hundred_clusters_can_be_drawn():
    run = facts(200, 1000, looks=1, metrics=[], labelled=False)
    run.looks[0]["pairs"] = {}
    run = run._replace(labels=np.arange(1000) % 200)
    drawn = within(curves.draw, run) | within(matrix.draw, run)
    assert len(drawn["size_over_epochs"].header) == 202
    assert all(len(figure.svg) < 50_000 for figure in drawn.values())


def test_one_of_two_clusters_may_have_everything():
    drawn = within(matrix.draw, facts(2, 6, looks=0, group=np.zeros(6, int)))
    assert column(drawn["cluster_sizes"], "images") == [6, 0]
    assert drawn["confusion_matrix"].rows == [("class 0", 3), ("class 1", 3)]


def test_a_merged_group_keeps_its_number_and_name():
    run = facts(looks=0, labelled=False)
    merged = run._replace(groups={0: "cats", 3: ""}, group=np.where(run.group == 1, 3, 0))
    assert [row[:2] for row in within(matrix.draw, merged)["cluster_sizes"].rows] == [(0, "cats"), (3, "")]


def test_what_is_not_finite_is_a_gap():
    run = facts(looks=2, labelled=False)
    records = [
        record | {"loss": (None, float("nan"), float("inf"), 1.0)[i % 4]} for i, record in enumerate(run.metrics)
    ]
    looks = [look | {"centre_distance": (None, 2.0)[i], "pairs": {}} for i, look in enumerate(run.looks)]
    drawn = within(curves.draw, run._replace(metrics=records, looks=looks))
    assert column(drawn["loss_terms"], "loss") == ["", "", "", 1, "", "", "", 1]
    assert column(drawn["centre_distance"], "centre_distance") == ["", 2]


def test_passes_over_two_tasks_have_two_losses_and_no_total():
    records = [{"step": i, "epoch": 0, "loss": 1 / i, ("rotation", "assignment")[i % 2]: 1 / i} for i in range(1, 9)]
    figure = within(curves.draw, facts(looks=0, metrics=records))["loss_terms"]
    assert figure.header == ("step", "epoch", "assignment", "rotation")
    lines = [
        e.get("d") for e in ElementTree.fromstring(figure.svg).iter("path") if "stroke-width: 1.8" in e.get("style")
    ]
    assert [line.count("L") for line in lines] == [3, 3]  # without gaps where the other task has its steps


def test_a_long_run_is_drawn_in_few_points_and_kept_in_full():
    records = [{"step": i, "epoch": i // 10, "loss": 1.0} for i in range(1, 20_001)]
    figure = within(curves.draw, facts(looks=0, labelled=False, metrics=records))["loss_terms"]
    assert len(figure.rows) == 20_000
    assert len(figure.svg) < 20_000


def test_names_are_text():
    names = ("<script>alert", 'a"b\n\x00 $x_1$', "#222222 🐈 1.23456")
    run = facts(groups=dict(enumerate(names)), classes=names, looks=1, space='<i>&"')
    maps = tsne.maps(run)
    drawn = within(matrix.draw, run) | within(tsne.draw, run, maps)
    for figure in drawn.values():
        tags = {e.tag for e in ElementTree.fromstring(figure.svg).iter()}
        assert tags <= {"svg", "g", "path", "use", "defs", "text", "clipPath", "rect", "image"}
    for name in ("cluster_sizes", "confusion_matrix", "tsne_epoch_0_classes"):
        texts = {e.text for e in ElementTree.fromstring(drawn[name].svg).iter("text")}
        assert any("<script>" in text for text in texts)
        assert any("$x_1$" in text for text in texts)
        assert any(text.startswith("#222222") for text in texts)


def test_long_names_keep_their_beginning_and_end():
    assert drawing.short("a rather long name number 17") == "a rather lo…ber 17"
    assert drawing.short(" two\nlines ") == "two lines"


def test_svgs_live_on_one_page_light_or_dark(usual):
    found = [ids(figure.svg) for figure in usual.values()]
    assert len(set.union(*found)) == sum(map(len, found))
    for figure, own in zip(usual.values(), found):
        tree = ElementTree.fromstring(figure.svg)
        assert set(tree.attrib) == {"viewBox", "role", "aria-label", "style"}
        values = [value for e in tree.iter() for value in e.attrib.values()]
        assert {link for value in values for link in re.findall(r"(?:^|\()#([^)]+)", value)} <= own
        assert not any(ours.lower() in figure.svg for ours in drawing.ON_PAGE)
        assert "<style" not in figure.svg
        assert all(pages in figure.svg for pages in ("currentColor", "var(--muted)"))


def test_figures_are_the_same_bytes_each_time(usual):
    again = within(matrix.draw, facts(looks=2))
    assert all(again[name] == usual[name] for name in again)


def test_files_are_written_for_a_paper(usual, tmp_path):
    figures.save(usual.values(), tmp_path / "figures")
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {f"{n}.{s}" for n in usual for s in ("png", "csv")}
    with Image.open(tmp_path / "figures" / "scores.png") as image:
        assert image.size == (1260, 900)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    with (tmp_path / "figures" / "scores.csv").open() as f:
        assert [*csv.reader(f)][1] == ["0", "0.0", "0.9", "0.7", "0.6"]


def test_maps_keep_their_images_and_follow_each_other():
    run = facts(looks=12)
    maps = tsne.maps(run)
    assert [at.epoch for at in maps] == [0, 3, 6, 8, 11]
    for at in maps:
        assert at.rows.tolist() == [*range(3, 60)]
        assert at.clusters.tolist() == run.group[3:60].tolist()
        assert (at.xy.dtype, at.xy.min(), at.xy.max()) == (np.float32, 0, 1)
    assert all(np.array_equal(at.xy, same.xy) for at, same in zip(maps, tsne.maps(run)))


@pytest.mark.parametrize("seed", range(6))
def test_where_the_embedding_stays_its_map_stays(seed):
    run = facts(looks=12, settings={"seed": seed})
    centres = [np.stack([at.xy[run.labels[at.rows] == k].mean(axis=0) for k in range(3)]) for at in tsne.maps(run)]
    assert max(np.abs(a - b).max() for a, b in pairwise(centres)) < 0.25


@pytest.mark.filterwarnings("error")
def test_an_embedding_in_one_point_has_a_map():
    run = facts(looks=1)
    placed = {step: at | {"x": np.full_like(at["x"], np.inf)} for step, at in run.placed.items()}
    assert np.isfinite(tsne.maps(run._replace(placed=placed))[0].xy).all()


def test_a_map_is_of_the_embedding_that_its_look_kept_and_of_the_main_one_where_older_looks_say_nothing():
    run = facts(looks=3)
    assert [at.space for at in tsne.maps(run)] == ["backbone"] * 3
    kept = {step: at | {"space": np.array("projection")} for step, at in run.placed.items()}
    gone_on = kept | {0: run.placed[0]}  # by a version that keeps another embedding
    maps = tsne.maps(run._replace(placed=gone_on))
    assert [(at.epoch, at.space) for at in maps] == [(1, "projection"), (2, "projection")]
    assert "The embedding “projection”" in within(tsne.draw, run, maps[-1:])["tsne_epoch_2"].caption


def test_another_sample_and_too_few_images_make_no_map():
    run = facts(looks=3)
    other = run.placed[0] | {"rows": run.placed[0]["rows"] + 1}
    assert [at.epoch for at in tsne.maps(run._replace(placed=run.placed | {0: other}))] == [1, 2]
    few = {step: at | {"placed": at["placed"][:4], "x": at["x"][:4]} for step, at in run.placed.items()}
    assert tsne.maps(run._replace(placed=few)) == []
