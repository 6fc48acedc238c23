"""Published numbers against the papers' own lines, and against the methods that report them."""

import pytest
from conftest import CONFIGS, config_of

from jaxclust import methods
from jaxclust.run import config
from jaxclust.training import configs, sizing

# Lines of the papers, as they are printed; each method's row of its main table, in the order of its data sets.
LINES = {
    ("anchor", "representation"): (
        "0.766 0.805 0.703 0.776 0.598 0.536 0.525 0.534 0.275 0.346 0.158 0.069",
        ("cifar10", "imagenet10", "imagenet_dogs", "tiny_imagenet"),
        1,
    ),
    ("anchor", "cluster"): (
        "0.772 0.805 0.698 0.804 0.674 0.588 0.326 0.281 0.069 0.292 0.100 0.042",
        ("cifar10", "imagenet10", "imagenet_dogs", "tiny_imagenet"),
        1,
    ),
    ("cc", "cluster head"): (
        "0.705 0.790 0.637 0.431 0.429 0.266 0.764 0.850 0.726 0.859 0.893 0.822 0.445 0.429 0.274 0.340 0.140 0.071",
        ("cifar10", "cifar100", "stl10", "imagenet10", "imagenet_dogs", "tiny_imagenet"),
        1,
    ),
    ("tcc", "arg max of pi"): (
        "79.0 90.6 73.3 47.9 49.1 31.2 73.2 81.4 68.9 84.8 89.7 82.5 55.4 59.5 41.7 43.5 30.6 15.2",
        ("cifar10", "cifar100", "stl10", "imagenet10", "imagenet_dogs", "tiny_imagenet"),
        100,
    ),
}
MMDC = {
    "not refined": "0.950 0.981 0.703 0.820 0.418 0.446 0.593 0.694 0.719 0.811 0.274 0.119",
    "refined": "0.971 0.990 0.715 0.829 0.422 0.446 0.596 0.696 0.725 0.815 0.254 0.095",
    "best": "0.973 0.991 0.720 0.843 0.423 0.464 0.609 0.741 0.732 0.830 0.277 0.121",
}
CLUSTERS = {"cifar100": 20, "imagenet_dogs": 15, "tiny_imagenet": 200}


@pytest.mark.parametrize("key", LINES, ids=" ".join)
def test_rows_are_the_line_that_the_paper_prints(key):
    line, sets, unit = LINES[key]
    method, quantity = key
    found = [
        p for name in sets for p in methods.published(method, name, CLUSTERS.get(name, 10)) if p.quantity == quantity
    ]
    assert [round(v * unit, 3) for p in found for v in (p.nmi, p.acc, p.ari)] == [float(v) for v in line.split()]


@pytest.mark.parametrize("kind", MMDC)
def test_mmdc_has_means_with_and_without_refinement_and_its_best_run_and_no_ari(kind):
    sets = ("mnist", "cifar10", "cifar100", "stl10", "imagenet10", "tiny_imagenet")
    found = [p for name in sets for p in methods.published("mmdc", name, CLUSTERS.get(name, 10)) if _kind(p) == kind]
    assert [v for p in found for v in (p.nmi, p.acc)] == [float(v) for v in MMDC[kind].split()]
    assert all(p.ari is None for p in found)
    assert all(p.best_of_several == (kind == "best") for p in found)


@pytest.mark.parametrize(
    ("method", "figure"),
    [("anchor", "projection"), ("cc", "projection"), ("tcc", "f"), ("mmdc", "backbone")],  # Figures 3, 4 and 3
)
def test_t_sne_is_of_the_embedding_of_the_papers_figure(method, figure):
    cfg = config.load(config_of(method), {})
    with cfg.method.ignore_type():
        cfg.method.update({"space": "backbone"} if method == "anchor" else {})
    made = methods.make(cfg)
    assert (made.pictured or made.space) == figure


def _kind(p):
    return "best" if p.best_of_several else p.detail.partition(", ")[2]


def test_the_mean_of_table_i_is_refined_for_mnist_alone():
    def main(name):
        return [
            p.detail
            for p in methods.published("mmdc", name, 10)
            if p.source.endswith("Table I") and not p.best_of_several
        ]

    assert main("mnist") == ["mean of 5 runs, refined"]
    assert main("stl10") == ["mean of 5 runs, not refined"]


@pytest.mark.parametrize("path", [p for p in CONFIGS if "digits" not in p.stem and "folder" not in p.stem], ids=str)
def test_every_config_of_a_paper_finds_its_numbers(path):
    cfg = config.load(path, {})
    found = methods.published(cfg.method.name, cfg.data.name, cfg.clusters)
    assert found
    said = path.read_text("utf-8").partition('"""\n\nfrom')[0]
    if not path.stem.endswith("_small"):  # whose docstring is about itself
        assert any(f"{p.nmi:.3f}".lstrip("0") in said for p in found)


def test_nothing_is_made_up():
    assert methods.published("cc", "digits", 10) == []
    assert methods.published("tcc", "cifar100", 100) == []  # the papers cluster its superclasses
    assert methods.published("cc", "mnist", 10) == []
    assert methods.published("anchor", "stl10", 10) == []
    assert methods.published("mmdc", "imagenet_dogs", 15) == []
    assert methods.published("mine", "cifar10", 10) == []


def test_a_quantity_is_one_that_the_method_reports():
    for path in CONFIGS:
        cfg = config.load(path, {}, configs.schemas)
        sizing.by_device(cfg)
        sizing.by_images(cfg, 1000)
        numbers = methods.published(cfg.method.name, cfg.data.name, cfg.clusters)
        assert {p.quantity for p in numbers} <= {*methods.make(cfg).reported}


def test_a_method_from_anywhere_lists_its_own_and_one_that_is_gone_has_none(tmp_path, monkeypatch):
    (tmp_path / "published_by").mkdir()
    (tmp_path / "published_by" / "of_mine.py").write_text(
        "from jaxclust.types import Published\n"
        "PUBLISHED = (Published('Mine, Table 1', 'stl10', 10, 'cluster', 0.5, 0.6),)\n"
        "def make(config): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [(p.source, p.acc) for p in methods.published("published_by.of_mine", "stl10", 10)] == [
        ("Mine, Table 1", 0.6)
    ]
    assert methods.published("published_by.of_mine", "stl10", 20) == []
    assert methods.published("published_by.gone", "stl10", 10) == []
