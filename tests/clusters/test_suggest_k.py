"""Choosing K: known numbers of clusters are found, one cloud is admitted, and doubts are said."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxclust.clusters import suggest_k
from jaxclust.clusters.suggest_k import curves
from jaxclust.run.errors import ConfigError

FIXTURES = Path(__file__).parent.parent / "fixtures"
RUNS = json.loads((FIXTURES / "suggest_k.json").read_text("utf-8"))  # run -> embedding -> columns of its table


def blobs(k: int, n: int = 300, width: int = 8, seed: int = 0) -> np.ndarray:
    """k round clusters of one size, f32[n, width], about nine standard deviations apart or more."""
    rng = np.random.default_rng(seed)
    centres = 6 * np.stack([np.roll(np.eye(width)[0], i) for i in range(width)] + [-np.eye(width)[i] for i in range(8)])
    return (centres[np.arange(n) % k] + rng.normal(size=(n, width))).astype(np.float32)


def read(columns: dict) -> suggest_k.Table:
    return suggest_k.Table(**{name: np.array(v) if isinstance(v, list) else v for name, v in columns.items()})


def table(**columns) -> suggest_k.Table:
    """A table made up for K = 2..13, ten clusters by every criterion, but for the columns given."""
    k = np.arange(2, 14)
    rising = np.minimum(k, 10) / 12
    made = dict(
        k=k,
        silhouette=rising,
        davies_bouldin=2 - rising,
        stability=np.where(k == 10, 0.95, 0.6),
        stability_sd=np.full(len(k), 0.02),
        bic=np.abs(k - 10.0),
        reference_silhouette=np.full(len(k), 0.1),
        reference_stability=np.full(len(k), 0.3),
        single_bic=100.0,
        images=60000,
        sampled=2000,
        asked=13,
    )
    return suggest_k.Table(**(made | columns))


@pytest.mark.parametrize("k", [2, 3, 7])
def test_blobs_are_counted(k):
    scores = suggest_k.score(blobs(k), range(2, k + 4), seed=0)
    found, reasons = suggest_k.recommend(scores)
    assert found == k
    assert set(suggest_k.preferences(scores).values()) == {k}
    assert len(reasons) == 5  # four criteria and the vote: nothing to warn of


def test_the_digits_are_counted_within_one():
    x = np.load(FIXTURES / "suggest_k.npz")["anchor"][::6]  # in the data set's order, which mixes the digits
    found, _ = suggest_k.recommend(suggest_k.score(x, range(2, 17), seed=0))
    assert abs(found - 10) <= 1


@pytest.mark.parametrize("run", RUNS)
def test_each_run_on_the_digits_counts_them_within_one(run):
    """From the tables that runs of all methods and several seeds gave, so that a change of the vote shows at once."""
    tables = {name: read(columns) for name, columns in RUNS[run].items()}
    found, _ = suggest_k.recommend(tables[suggest_k.clearest(tables)])
    assert abs(found - 10) <= 1


def test_one_cloud_is_called_one_cloud():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)) * np.arange(1, 9)  # elongated: two halves of it are very stable
    found, reasons = suggest_k.recommend(suggest_k.score(x, range(2, 9), seed=0))
    assert found is None
    assert reasons[0].startswith("There are no clear clusters")
    assert "single Gaussian" in reasons[0]


def test_the_clearest_embedding_is_believed():
    noisy = blobs(4) + np.random.default_rng(1).normal(size=(300, 8)) * 3
    tables = {name: suggest_k.score(x, range(2, 6), 0) for name, x in {"noisy": noisy, "clear": blobs(4)}.items()}
    assert suggest_k.clearest(tables) == "clear"


def test_a_seed_gives_one_table_whatever_the_scale_and_place_of_the_embeddings():
    x = blobs(3)
    a, b, c = (suggest_k.score(x, [4, 2, 3, 3], seed) for seed in (0, 0, 1))
    for name, column in a._asdict().items():
        np.testing.assert_array_equal(column, getattr(b, name))
    assert a.k.tolist() == [2, 3, 4]
    assert not np.array_equal(a.stability, c.stability)
    moved = suggest_k.score(1e6 * x.astype(np.float64) + 1e4, [2, 3, 4], seed=0)
    np.testing.assert_allclose(moved.silhouette, a.silhouette, rtol=1e-4)
    np.testing.assert_allclose(moved.bic, a.bic, rtol=1e-4)


def test_the_criteria_are_those_of_clusters_that_touch_nothing():
    """Far apart, three points repeated: every criterion is at its best value, known without computing."""
    x = np.repeat(np.eye(3), 40, axis=0)
    scores = suggest_k.score(x, range(2, 9), seed=0)
    assert scores.k.tolist() == [2, 3]  # no more clusters than different points
    assert scores.silhouette[1] == pytest.approx(1)
    assert scores.stability[1] == 1
    assert scores.davies_bouldin[1] == pytest.approx(0, abs=1e-6)
    assert suggest_k.recommend(scores)[0] == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.41, 0.42], 5),  # goes on rising a little
        ([0.1, 0.2, 0.3, 0.4, 0.2, 0.1], 5),  # turns around
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 2),  # falls from the start
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 7),  # rises to the end
        ([0.1, 0.1, 0.1, 0.6, 0.6, 0.6], 5),  # a step
        ([0.3] * 6, 2),
    ],
)
def test_the_corner_is_where_a_curve_stops_rising(values, expected):
    assert suggest_k.corner(np.arange(2, 8), np.array(values)) == expected


def test_stability_favours_the_fewest_clusters_that_noise_allows():
    stability = np.array([0.99, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.94, 0.95, 0.96, 0.95, 0.94])  # K = 2..13
    reference = np.where(np.arange(2, 14) == 2, 0.97, 0.3)  # any cloud has two stable halves
    made = table(stability=stability, reference_stability=reference)
    assert suggest_k.preferences(made)["stability"] == 9
    assert suggest_k.steadiest(made, 10, 13) == 10


def test_no_single_criterion_decides():
    silhouette = np.minimum(np.arange(2, 14), 4) / 8  # wants 4
    found, reasons = suggest_k.recommend(table(silhouette=silhouette))
    assert found == 10
    assert "Of the four, 4, 10, 10, 10, the middle two are both 10" in reasons[4]
    assert "disagree" in reasons[5]


def test_a_k_at_the_edge_of_the_range_is_said_to_be_one():
    k = np.arange(2, 14)
    rising = table(silhouette=k / 15, davies_bouldin=2 - k / 15, stability=k / 15, bic=-1.0 * k)
    found, reasons = suggest_k.recommend(rising)
    assert found == 13
    assert "there may be more" in reasons[-1]
    falling = table(k=k + 3, silhouette=1 / k, davies_bouldin=k, stability=1 / k, bic=1.0 * k, asked=16)
    found, reasons = suggest_k.recommend(falling)
    assert found == 5
    assert "there may be fewer" in reasons[-1]


def test_a_run_that_finds_the_number_it_was_told_is_doubted():
    assert "trained for 11 clusters" in suggest_k.recommend(table(), trained=11)[1][-1]
    assert suggest_k.recommend(table(), trained=20) == suggest_k.recommend(table())


def test_clusters_of_less_than_five_points_are_not_scored():
    scores = suggest_k.score(blobs(3, n=30), range(2, 31), seed=0)
    found, reasons = suggest_k.recommend(scores)
    assert (scores.k[-1], scores.asked, found) == (6, 30, None)
    assert "K above 6 was left out" in reasons[-1]


@pytest.mark.parametrize(("n", "found"), [(20, None), (99, None), (100, 3)])
def test_few_images_are_said_to_be_too_few(n, found):
    scores = suggest_k.score(blobs(3, n=n), range(2, 5), seed=0)
    k, reasons = suggest_k.recommend(scores)
    assert k == found
    assert suggest_k.headline(scores, k) == ("3 clusters" if found else "too few images to tell")
    assert found or reasons[0].startswith(f"There are too few images to tell: {n} here, and it takes 100 at least")


def test_subsamples_that_agree_no_better_than_in_a_cloud_show_no_clusters():
    shapeless = table(reference_stability=np.full(12, 0.96))
    k, reasons = suggest_k.recommend(shapeless)
    assert k is None
    assert reasons[0].startswith("There are no clear clusters: even at K = 10 subsamples agree to 0.95, and one")
    assert suggest_k.headline(shapeless, k) == "no clear clusters"


@pytest.mark.parametrize(
    ("x", "ks", "message"),
    [
        (np.full((50, 4), 0.3), [2], "50 of 50 embeddings are the same"),
        (np.r_[np.zeros((45, 4)), np.eye(5, 4)], [2], "46 of 50 embeddings are the same"),
        (np.where(np.arange(50)[:, None] < 3, np.nan, 1.0), [2], "of 3 of 50 images are not finite"),
        (blobs(3, n=19), [2], "only 19 images"),
        (blobs(3, n=30), [7, 8], r"30 images \(30 different .* too few for 7 clusters; score 6 at most"),
        (np.arange(50) % 3 * np.ones((1, 1)), [2], "shape"),
        (blobs(3), [], "at least one K"),
        (blobs(3), [1, 2], "none below 2"),
    ],
    ids=["constant", "nearly constant", "nan", "few", "fewer than K asks", "flat", "no K", "K of one"],
)
def test_what_cannot_be_scored_is_said_in_a_sentence(x, ks, message):
    if message == "shape":
        x, message = x[0], r"shape \(50,\)"
    with pytest.raises(ConfigError, match=message):
        suggest_k.score(x, ks, seed=0)


@pytest.mark.parametrize("k", [10, None])
def test_the_plot_has_four_labelled_panels(k, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **kw: (drawn.append(figure), save(figure, *a, **kw)))
    path = tmp_path / "suggest_k.png"
    path.write_bytes(b"an older plot")
    curves.plot(table(), k, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000
    assert [p.name for p in tmp_path.iterdir()] == ["suggest_k.png"]
    axes = drawn[0].axes
    assert [a.get_title("left") for a in axes] == ["Silhouette", "Davies-Bouldin", "Stability", "BIC"]
    assert all(a.get_xlabel() and a.get_ylabel() for a in axes)
    marked = [[line for line in a.lines if list(line.get_xdata()) == [10, 10]] for a in axes]
    assert all(bool(lines) == bool(k) for lines in marked)


def test_a_plot_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(figure, path, **_):
        path.write_bytes(b"half a plot")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    path = tmp_path / "suggest_k.png"
    path.write_bytes(b"an older plot")
    with pytest.raises(OSError, match="no space"):
        curves.plot(table(), 10, path)
    assert path.read_bytes() == b"an older plot"
    assert [p.name for p in tmp_path.iterdir()] == ["suggest_k.png"]
