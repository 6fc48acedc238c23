"""The report's page: what it shows of clusters, that names are text in it, and that it works in a browser."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from test_findings import SIZE, facts_of

from jaxclust.clusters.typical import typical
from jaxclust.data.originals import Originals
from jaxclust.pages import drawing, markup, thumbnails
from jaxclust.pages.report import clusters, matrix, page
from jaxclust.pages.report.figures import Figure
from jaxclust.pages.report.tsne import Map

HOSTILE = (
    "<script>alert(1)</script>.png",
    "</script><img src=x onerror=alert(1)>.png",
    "it's \"quoted\" & 'more'.png",
    "two\nlines\tand\rmore.png",
    "\N{WOMAN}\u200d\N{ROCKET} \N{GRINNING FACE}.png",
    "half\udce9.png",
    "\u202egnp.exe",
    "$title ${body} {0} %s \\u003c.png",
)
RNG = np.random.default_rng(0)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def labelled(**more):
    """A run with labels, of which 7 are not those of their cluster, and images that tell where they are from."""
    facts = facts_of()
    labels = (facts.group + 1).astype(np.int32) % 4
    labels[3:10] = 0
    images = RNG.integers(0, 255, (len(labels), 8, 8, 1), np.uint8)
    confidence = RNG.uniform(0.5, 1, len(labels)).astype(np.float32)
    scores = {
        name: {**row, "acc": 0.9, "nmi": 0.8} if isinstance(row, dict) else row for name, row in facts.scores.items()
    }
    facts = facts._replace(labels=labels, classes=("ant", "bee", "cat", "dog"), images=images, confidence=confidence)
    return facts._replace(scores=scores, settings={**facts.settings, "data.labels": "folders"}, **more)


def maps_of(facts, epochs=(0, 10)) -> list[Map]:
    """Maps of every fourth image."""
    rows = np.arange(0, len(facts.group), 4)
    return [
        Map(10 * e, e, rows, RNG.uniform(size=(len(rows), 2)).astype(np.float32), facts.group[rows], facts.space)
        for e in epochs
    ]


class Parsed(HTMLParser):
    """What a browser makes of a page: text, attributes and the content of scripts and styles."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts, self.styles = ["html"], [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        kept = {"script": self.scripts, "style": self.styles}.get(self.tags[-1], self.text)
        kept.append(data)

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


def test_clusters_show_their_typical_least_certain_and_failed_images():
    facts = labelled()
    first, *_ = found = clusters.of(facts, 5)
    assert [one.size for one in found] == [SIZE] * 4
    rows = np.arange(SIZE)
    assert first.typical.tolist() == typical(facts.x, rows, 5).tolist()
    assert first.uncertain.tolist() == np.argsort(facts.confidence[:SIZE])[:5].tolist()
    failed = rows[3:10]
    assert first.failures.tolist() == failed[np.argsort(-facts.confidence[failed])][:5].tolist()
    assert (first.failed, first.label, first.labels) == (7, 1, ((1, SIZE - 7), (0, 7)))
    assert first.confidence == pytest.approx(facts.confidence[:SIZE].mean())
    middles = [facts.x[facts.group == g].mean(axis=0) for g in range(4)]
    assert first.nearest == 1 + np.argmin([np.linalg.norm(middles[0] - m) for m in middles[1:]])


def test_a_cluster_without_images_and_one_without_a_class_have_what_they_have():
    facts = labelled(groups={0: "", 1: "", 2: "", 3: "", 4: "empty"})
    empty = clusters.of(facts, 5)[-1]
    assert (empty.title, empty.size, empty.nearest, len(empty.typical), empty.label) == ("empty", 0, None, 0, None)
    two = facts._replace(labels=facts.labels % 2, classes=("odd", "even"))
    left = [one for one in clusters.of(two, 5)[:4] if one.label is None]
    assert len(left) == 2
    assert all(one.failed == 0 and one.labels for one in left)
    assert "no label is left to match it" in page.html(two, [], [])


def decoded(sheet) -> np.ndarray:
    assert sheet.uri.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.uri.partition(",")[2]))))


class Read:
    """Images that remember which of them were read."""

    def __init__(self, images):
        self.images, self.shape, self.rows = images, images.shape, []

    def __getitem__(self, row):
        self.rows.append(row)
        return self.images[row]


def test_small_images_are_kept_as_they_are_and_only_those_shown_are_read():
    images = Read(RNG.integers(0, 255, (9, 8, 6, 1), np.uint8))
    sheet = thumbnails.sheet(images, [7, 2, 5], columns=2)
    assert (sheet.columns, sheet.lines, sheet.width, sheet.height) == (2, 2, 6, 8)
    whole = decoded(sheet)[..., 0]
    np.testing.assert_array_equal(whole[:8, 6:], images.images[2, ..., 0])
    np.testing.assert_array_equal(whole[8:, :6], images.images[5, ..., 0])
    assert images.rows == [7, 2, 5]


@pytest.mark.parametrize(
    ("shape", "size"), [((32, 32, 3), (32, 32)), ((300, 200, 3), (64, 96)), ((50, 50, 4), (48, 48))]
)
def test_large_images_become_small_and_do_not_run_into_each_other(shape, size):
    images = np.zeros((4, *shape), np.uint8)
    images[1] = 255
    sheet = thumbnails.sheet(images, [0, 1, 2])
    assert (sheet.width, sheet.height) == size
    whole = decoded(sheet).mean(axis=2)
    width = size[0]
    assert whole[:, : width - 1].max() < 12
    assert whole[:, width + 1 : 2 * width - 1].min() > 243
    assert whole.shape == (size[1], 3 * width)


def test_a_report_shows_originals_in_their_shape_and_decodes_no_others(tmp_path):
    facts = labelled()
    names = [f"{row:04}.png" for row in range(len(facts.group))]
    for row, name in enumerate(names):
        Image.new("RGB", (300, 100), (250, 0, 0) if row % 2 else (0, 0, 250)).save(tmp_path / name)
    (tmp_path / names[4]).unlink()
    decoded_rows = set()

    class Watched(Originals):
        def decode(self, row, most):
            decoded_rows.add(row)
            return super().decode(row, most)

    facts = facts._replace(files=names, originals=Watched(tmp_path, names))
    sheet = thumbnails.sheet(facts.images, [3, 4, 6], largest=page.PHOTO, originals=facts.originals)
    assert (sheet.width, sheet.height) == (page.PHOTO, page.PHOTO)
    whole = decoded(sheet)
    assert [whole[:, at : at + page.PHOTO, 3].any(axis=1).sum() for at in (0, 192, 384)] == [64, 192, 64]
    assert np.abs(whole[96, 96, :3].astype(int) - (250, 0, 0)).max() < 12

    decoded_rows.clear()
    shown = {
        int(row)
        for one in clusters.of(facts, page.SHOWN[0][1])
        for row in (*one.typical, *one.uncertain, *one.failures)
    }
    page.html(facts, [], [])
    assert decoded_rows == shown < set(range(len(names)))


def test_pictures_of_noise_still_make_a_page_to_mail():
    images = RNG.integers(0, 255, (8, 96, 96, 3), np.uint8)  # nothing compresses worse
    weight = {side: len(thumbnails.sheet(images, range(8), largest=side).uri) / 8 for side in (64, 96)}
    points = 1000 * weight[page.POINT]
    assert points + page.MANY * weight[thumbnails.LARGEST] < 30e6
    assert points + 3 * page.SHOWN[-1][1] * 200 * weight[page.LITTLE] < 30e6  # of 200 clusters


def test_a_page_without_labels_says_nothing_about_labels():
    facts = facts_of(labels=None, settings=facts_of().settings | {"data.labels": ""})
    source = page.html(facts, maps_of(facts), [])
    seen = Parsed(source)
    said = " ".join(seen.text + seen.values("title") + seen.values("aria-label") + seen.values("value"))
    for word in ("label", "class", "ACC", "NMI", "ARI", "AMI", "acc", "failure", "wrong", "published", "Hungarian"):
        assert not re.search(rf"\b{word}", said), word
    assert not {"label", "classes"} & json.loads(seen.scripts[0])["points"].keys()

    said = "".join(Parsed(page.html(labelled(), maps_of(facts), [])).text)
    assert "ACC" in said
    assert "Failures: not bee (7)" in re.sub(r"\s+", " ", said)


def test_images_come_before_numbers_and_a_confidence_beside_that_of_a_guess():
    facts = labelled()
    with drawing.style():
        drawn = matrix.draw(facts)
    seen = Parsed(page.html(facts, maps_of(facts), drawn))
    parts = [value for tag, key, value in seen.attributes if (tag, key) == ("section", "id")]
    assert parts == ["findings", "clusters", "map-section", "scores", "confusion", "curves"]
    said = re.sub(r"\s+", " ", "".join(seen.text))
    assert f"confidence {facts.confidence[:SIZE].mean():.2f} (1 is certain, 0.25 a guess)" in said


def test_names_are_text_wherever_they_stand():
    facts = labelled(classes=HOSTILE[:4], groups=dict(enumerate(HOSTILE[4:])), name=HOSTILE[0])
    files = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(len(facts.group))]
    facts = facts._replace(files=files, settings=facts.settings | {"data.dir": HOSTILE[1], "data.name": HOSTILE[2]})
    source = page.html(facts, maps_of(facts), [])
    seen = Parsed(source)
    assert seen.tags.count("script") == 2
    assert "img" not in seen.tags
    assert not any(key.startswith("on") for _, key, _ in seen.attributes)
    assert "\n" not in "".join(seen.values("title"))
    source.encode()  # no half pair

    said = "".join(seen.text)
    for name in map(markup.shown, (*HOSTILE[:4], *HOSTILE[4:])):
        assert name in said
    assert "two\\nlines\\tand\\rmore.png" in said
    assert "half\\udce9.png" in said
    assert HOSTILE[4] in said  # an emoji of several parts stays one
    assert any(title.startswith(markup.shown(HOSTILE[0])) for title in seen.values("title"))
    data = json.loads(seen.scripts[0])
    assert data["points"]["name"] == [markup.shown(files[row]) for row in maps_of(facts)[0].rows]
    assert "<" not in seen.scripts[0]


def test_the_page_lets_nothing_in_but_its_own_styles_and_script():
    facts = labelled()
    figure = Figure("curve", "A <curve>", "b & c", '<svg><g style="fill: var(--muted)"/></svg>', b"", ("a",), [(1,)])
    source = page.html(facts, maps_of(facts), [figure, figure._replace(name="confusion_matrix")])
    seen = Parsed(source)
    policy = next(value for value in seen.values("content") if "default-src" in value)
    hashes = {
        kind: set(re.findall(r"'sha256-([^']+)'", part))
        for kind, part in zip(("default", "style", "script"), policy.split(";"))
    }

    def digest(content):
        return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()

    assert hashes["style"] == {*map(digest, seen.styles)}
    assert hashes["script"] == {digest(seen.scripts[-1])}
    assert "unsafe" not in policy
    assert not seen.values("style")
    assert not seen.values("src")
    assert {value.partition(":")[0] for value in seen.values("href") if ":" in value} == {"data"}
    assert not re.search(r"url\((?!data:image/webp)", "".join(seen.styles))
    assert "fill: var(--muted)" in "".join(seen.styles)
    assert seen.text.count("A <curve>") == 2


def test_writing_replaces_the_old_report_or_leaves_it(tmp_path, monkeypatch):
    facts, folder = labelled(), tmp_path / "report"
    made = page.write(facts, folder)
    assert made == folder / "index.html"
    first = made.read_text("utf-8")
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert {"cluster_sizes.png", "cluster_sizes.csv", "confusion_matrix.png"} <= figures
    assert "confusion_matrix.csv" in first

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(page.figures, "draw", lambda *_: [])  # takes seconds
        m.setattr(page, "write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            page.write(facts._replace(name="other"), folder)
    assert made.read_text("utf-8") == first
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_page_works_in_a_browser(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    facts = labelled(groups={0: HOSTILE[0], 1: "", 2: HOSTILE[2], 3: ""}, files=[f"<b>{i}" for i in range(4 * SIZE)])
    path = tmp_path / "index.html"
    path.write_text(page.html(facts, maps_of(facts, (0, 5, 10)), []))
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 360, "height": 740}, reduced_motion="reduce", color_scheme="dark")
        trouble, asked = [], []
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
        tab.click("#theme")  # light, whatever the system has
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"

        assert tab.locator("#legend button").all_inner_texts() == [HOSTILE[0], "cluster 1", HOSTILE[2], "cluster 3"]
        tab.click("#legend button:nth-child(2)")
        tab.focus("#map")
        tab.keyboard.press("ArrowRight")  # one of cluster 1, as that is shown alone
        rows = [int(row) for row in re.findall(r"<b>(\d+)", tab.inner_text("#seen"))]
        assert len(rows) == 1
        assert facts.group[rows[0]] == 1
        assert "cluster 1" in tab.inner_text("#seen")
        assert tab.locator("#seen .mapped").count() == 1
        tab.check("input[value=classes]")
        assert tab.locator("#legend button").all_inner_texts() == ["ant", "bee", "cat", "dog"]
        tab.focus("#epoch")
        tab.keyboard.press("Home")
        assert tab.inner_text("#when") == "epoch 0"

        tab.select_option("#order", "unsure")
        first = np.argmin([facts.confidence[facts.group == g].mean() for g in range(4)])
        assert tab.locator(".card").first.get_attribute("id") == f"cluster-{first}"
        tab.focus(".card .t[tabindex='0']")
        tab.keyboard.press("ArrowRight")
        assert tab.inner_text("#tip") == tab.locator(".card .t").nth(1).get_attribute("title")
        tab.keyboard.press("Escape")
        assert not tab.is_visible("#tip")
        browser.close()
    assert trouble == []
    assert asked == [path.as_uri()] + [url for url in asked if url.startswith("data:")]
