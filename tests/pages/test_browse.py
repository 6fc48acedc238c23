"""The server behind the page: groups, pictures, decisions, and what two windows see of each other."""

import json
import os
import socket
from io import BytesIO

import numpy as np
import pytest
from helpers import browsed
from helpers.browsed import COUNT, GROUPS, NAMES, SIDE, UNUSABLE
from PIL import Image
from starlette.testclient import TestClient

from jaxclust.clusters.decisions import Decisions
from jaxclust.clusters.typical import typical
from jaxclust.data.originals import Originals
from jaxclust.pages.browse import pictures, server, serving, words
from jaxclust.pages.browse.library import Library
from jaxclust.run import workdir
from jaxclust.run.errors import ConfigError

RENAME = {"do": "rename", "group": 1, "name": "cats"}


@pytest.fixture
def library(tmp_path):
    browsed.make(tmp_path)
    return browsed.library(tmp_path)


def window(library: Library, embed=None) -> TestClient:
    """What a browser's window asks, without a socket between."""
    app = server.application(library, 80, embed)
    return TestClient(app, base_url="http://127.0.0.1", headers={"origin": "http://127.0.0.1"})


@pytest.fixture
def page(library):
    return window(library)


def decide(page: TestClient, entry, seen=None) -> dict:
    seen = page.get("/api/version").json()["version"] if seen is None else seen
    asked = json.dumps({"seen": seen, "entry": entry})  # in ASCII: UTF-8 has no half of a surrogate pair
    answer = page.post("/api/decide", content=asked, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def undo(page: TestClient):
    return page.post("/api/undo", json={"seen": page.get("/api/version").json()["version"]})


def sizes(state: dict) -> dict[int, int]:
    return {group["group"]: group["size"] for group in state["groups"]}


def rows(page: TestClient, group: int, order: str = "typical") -> list[int]:
    return page.get(f"/api/group/{group}?order={order}").json()["rows"]


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


def test_groups_and_the_orders_of_their_images(page, library):
    state = page.get("/api/state").json()
    assert sizes(state) == {0: 20, 1: 20, 2: 20}
    assert (state["images"], state["decided"], state["last"], state["news"]) == (COUNT, 0, None, [])
    members, sure = np.arange(1, COUNT, GROUPS), library.q[1::GROUPS, 1]
    assert rows(page, 1, "file") == members.tolist()
    assert rows(page, 1) == members[np.argsort(-sure)].tolist()
    assert rows(page, 1, "uncertain") == members[np.argsort(sure)].tolist()
    assert state["groups"][1]["typical"] == typical(library.x, members, 12).tolist()
    assert state["groups"][1]["confidence"] == pytest.approx(sure.mean())


def test_decisions_are_kept_and_every_one_can_be_undone(page, library):
    sizes_then = [sizes(page.get("/api/state").json())]
    for entry in (
        RENAME,
        {"do": "merge", "groups": [1, 0]},
        {"do": "split", "group": 1, "parts": 3},
        {"do": "move", "rows": [4, 2, 2], "group": 3},
    ):
        sizes_then.append(sizes(decide(page, entry)))
    assert sizes_then[2] == {1: 40, 2: 20}
    assert sum(sizes_then[3].values()) == COUNT
    assert sizes_then[3].keys() == {1, 2, 3, 4}
    assert {2, 4} <= set(rows(page, 3))
    again = window(browsed.library(library.workdir)).get("/api/state").json()  # another process, another day
    assert sizes(again) == sizes_then[4]
    assert again["groups"][0]["name"] == "cats"
    kept = json.loads((library.workdir / workdir.DECISIONS).read_text("utf-8"))["entries"]
    assert kept[3] == {"do": "move", "images": [NAMES[2], NAMES[4]], "group": 3}
    for then in reversed(sizes_then[:-1]):
        assert sizes(undo(page).json()) == then
    assert undo(page).status_code == 400
    assert json.loads((library.workdir / workdir.DECISIONS).read_text("utf-8"))["entries"] == []


def test_what_a_new_cluster_reaches_is_found_by_the_server_alone(page, library):
    told = {"group": 0, "images": ["020.png"], "from": [2], "centre": [0] * 4, "radius": 1e9, "stay": [], "more": 1}
    kept = []
    for more in ({}, told):
        state = decide(page, {"do": "new", "rows": [4, 1, 4], "name": " my\ncats"} | more)
        assert sizes(state) == {0: 20, 1: 18, 2: 20, 3: 2}
        assert state["last"] == "2 images were made a new cluster, “my cats”"
        kept += json.loads((library.workdir / workdir.DECISIONS).read_text("utf-8"))["entries"]
        undo(page)
    assert kept[0] == kept[1]
    assert (kept[0]["group"], kept[0]["images"], kept[0]["from"]) == (3, [NAMES[1], NAMES[4]], [1])
    np.testing.assert_allclose(kept[0]["centre"], library.x[[1, 4]].mean(axis=0), rtol=1e-6)


def test_images_placed_by_hand_are_not_typical(page):
    state = decide(page, {"do": "move", "rows": [0], "group": 1})
    assert rows(page, 1)[-1] == 0
    assert rows(page, 1, "uncertain")[-1] == 0
    assert page.get("/api/group/1").json()["placed"] == [0]
    assert 0 not in state["groups"][1]["typical"]
    assert state["last"] == "1 image was moved to cluster 1"


def test_a_preview_is_what_the_split_then_makes_and_decides_nothing(page, library):
    decide(page, {"do": "merge", "groups": [0, 1]})
    seen = page.get("/api/version").json()["version"]
    answer = page.post("/api/preview", json={"seen": seen, "group": 0, "parts": 2}).json()
    assert page.get("/api/version").json()["version"] == seen
    parts = {part["group"]: part["size"] for part in answer["parts"]}
    assert parts == {0: 20, 3: 20}  # k-means finds the two groups that were merged
    state = decide(page, {"do": "split", "group": 0, "parts": 2})
    assert sizes(state) == parts | {2: 20}
    assert [g["typical"] for g in state["groups"] if g["group"] in parts] == [p["typical"] for p in answer["parts"]]


def test_alike_images_are_not_split(library):
    library.x = np.zeros_like(library.x)
    page = window(library)
    seen = page.get("/api/version").json()["version"]
    answer = page.post("/api/preview", json={"seen": seen, "group": 0, "parts": 2})
    assert (answer.status_code, "differ enough" in answer.json()["error"]) == (400, True)


def test_a_window_that_has_not_seen_the_latest_decision_changes_nothing(page, library):
    other = window(browsed.library(library.workdir))  # another process
    seen = page.get("/api/version").json()["version"]
    other.get("/api/state")
    decide(other, {"do": "merge", "groups": [1, 2]})
    decide(other, RENAME)
    before = (library.workdir / workdir.DECISIONS).read_bytes()
    for path, asked in (
        ("decide", {"entry": {"do": "rename", "group": 1, "name": "dogs"}}),
        ("undo", {}),
        ("preview", {"group": 1, "parts": 2}),
    ):
        answer = page.post(f"/api/{path}", json={"seen": seen, **asked})
        assert answer.status_code == 409
        state = answer.json()
        assert state["news"] == ["cluster 2 was merged into cluster 1", "cluster 1 was renamed “cats”"]
        assert sizes(state) == {0: 20, 1: 40}  # what the window now shows
    assert (library.workdir / workdir.DECISIONS).read_bytes() == before
    decide(page, {"do": "rename", "group": 1, "name": "dogs"}, state["version"])  # once more, having seen it


def test_what_was_undone_elsewhere_is_told(page):
    first = decide(page, RENAME)["version"]
    decide(page, {"do": "merge", "groups": [1, 2]})
    undo(page), undo(page)
    news = page.get(f"/api/state?seen={first}").json()["news"]
    assert news == ["taken back: cluster 1 was renamed “cats”"]
    assert page.get("/api/state?seen=0123").json()["news"] == ["the clusters were changed in another window"]


def test_long_news_are_counted():
    entries = tuple({"do": "move", "images": [i], "group": 0} for i in range(9))
    news = words.news(Decisions(7, 3), Decisions(7, 3, entries))
    assert (len(news), news[-1]) == (words.TOLD + 1, "and 5 more")


def test_a_file_that_cannot_be_read_is_said_to_be_so(page, library):
    (library.workdir / workdir.DECISIONS).write_text('{"step": 7, "clusters": 3, "entries": [{"do": "move"}]}')
    answer = page.get("/api/state")
    assert answer.status_code == 400
    assert str(library.workdir / workdir.DECISIONS) in answer.json()["error"]
    (library.workdir / workdir.DECISIONS).unlink()
    assert page.get("/api/state").status_code == 200


def test_a_decision_that_cannot_be_saved_is_said_not_to_be(page, library):
    (library.workdir / f".{workdir.DECISIONS}.lock").mkdir()
    answer = page.post("/api/undo", json={"seen": page.get("/api/version").json()["version"]})
    assert (answer.status_code, "is no file to be locked" in answer.json()["error"]) == (400, True)


def test_a_sheet_holds_the_images_of_its_rows(library):
    library.originals = None
    page = window(library)
    asked = [*range(3, 14), 0]
    answer = page.get(f"/api/sheet?rows={','.join(map(str, asked))}")
    assert answer.headers["cache-control"].startswith("private")
    sheet, step = pixels(answer.content), SIDE + 2 * pictures.GUTTER
    assert sheet.shape == (2 * step, pictures.COLUMNS * step, 3)
    for place, row in enumerate(asked):
        line, column = divmod(place, pictures.COLUMNS)
        tile = sheet[line * step :, column * step :][:step, :step]
        np.testing.assert_array_equal(tile[1:-1, 1:-1], library.images[row])
        np.testing.assert_array_equal(tile[0, 1:-1], library.images[row][0])


@pytest.mark.parametrize("shape", [(8, 8, 1), (300, 200, 3), (150, 150, 1)])
def test_images_of_any_shape_come_as_thumbnails(shape):
    images = np.full((3, *shape), 200, np.uint8)
    picture = pictures.sheet([pictures.thumbnail(images, None, row) for row in (2, 0)])
    height, width = pictures.thumbnail_size(shape)
    assert (height, width) == {8: (8, 8), 300: (128, 85), 150: (128, 128)}[shape[0]]
    sheet = pixels(picture.content)
    assert sheet.shape[:2] == (height + 2, 8 * (width + 2))
    assert abs(int(sheet[height // 2, width // 2].max()) - 200) < 3


def test_thumbnails_are_made_of_the_originals_in_their_shape_and_none_breaks_a_sheet(page, library):
    colours = {20: (250, 0, 0), 21: (0, 0, 250)}
    Image.new("RGB", (600, 200), colours[20]).save(library.workdir / "data" / "020.png")
    turned = Image.Exif()
    turned[0x112] = 6  # a quarter to the right
    Image.new("RGB", (400, 100), colours[21]).save(library.workdir / "data" / "021.png", exif=turned)
    asked = [20, 21, *UNUSABLE]
    about = page.get("/api/state").json()["sheet"]
    assert (about["width"], about["height"], about["most"]) == (pictures.PHOTO, pictures.PHOTO, pictures.AT_ONCE)
    answer = page.get(f"/api/sheet?rows={','.join(map(str, asked))}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    sheet, step = pixels(answer.content), pictures.PHOTO + 2 * pictures.GUTTER
    assert sheet.shape == (step, pictures.COLUMNS * step, 4)
    boxes = {20: (192, 64), 21: (48, 192)}
    for place, row in enumerate(asked):
        tile = sheet[1 : step - 1, place * step + 1 : (place + 1) * step - 1]
        width, height = boxes.get(row, (192, 192))
        assert tile[..., 3].any(axis=0).sum() == width
        assert tile[..., 3].any(axis=1).sum() == height
        middle = tile[90:102, 90:102, :3].mean(axis=(0, 1))
        wanted = colours.get(row, library.images[row][3:5, 3:5].mean(axis=(0, 1)))  # what the network gets
        assert np.abs(middle - wanted).max() < (12 if row in colours else 60)


def test_few_thumbnails_are_kept_and_each_is_decoded_once(library, monkeypatch):
    monkeypatch.setattr(pictures, "KEPT", 4)
    decoded = []
    original = Originals.decode
    monkeypatch.setattr(
        Originals, "decode", lambda self, row, most: (decoded.append(row), original(self, row, most))[1]
    )
    page = window(library)
    for rows in ("20,21", "21,20", "22,23,24", "21"):
        page.get(f"/api/sheet?rows={rows}")
    assert decoded == [20, 21, 22, 23, 24, 21]


def test_neighbours_are_the_nearest_by_angle(page, library):
    about = page.get("/api/image/4").json()
    unit = library.x / np.linalg.norm(library.x, axis=1, keepdims=True)
    cosine = unit @ unit[4]
    cosine[4] = -1
    nearest = np.argsort(-cosine)[:24]
    assert [one["row"] for one in about["neighbours"]] == nearest.tolist()
    np.testing.assert_allclose([one["cosine"] for one in about["neighbours"]], cosine[nearest], rtol=1e-5)
    assert [one["group"] for one in about["neighbours"]] == (nearest % GROUPS).tolist()


def test_names_arrive_as_they_are(page):
    for row, file in NAMES.items():
        answer = page.get(f"/api/image/{row}")
        assert answer.json()["file"] == file
        assert answer.content.isascii()
        assert answer.headers["content-type"] == "application/json"
    name = decide(page, {"do": "rename", "group": 0, "name": "</script> \ud800 🐈"})["groups"][0]["name"]
    assert name == page.get("/api/state").json()["groups"][0]["name"] == "</script> \ud800 🐈"


def test_an_original_is_shown_where_the_file_still_lies_in_the_data(page, library):
    for row in range(COUNT):
        answer = page.get(f"/api/original/{row}")
        assert page.get(f"/api/pixels/{row}").status_code == 200
        if row in UNUSABLE:
            assert (answer.status_code, answer.headers["content-type"]) == (422, "application/json"), NAMES[row]
        else:
            assert pixels(answer.content).shape == (300, 300, 3)
    np.testing.assert_array_equal(pixels(page.get("/api/pixels/30").content), library.images[30])


def test_without_files_in_a_folder_there_are_no_originals(library):
    library.originals = None
    page = window(library)
    assert page.get("/api/original/0").status_code == 404
    assert page.get("/api/state").json()["originals"] is False


def test_images_that_are_no_files_are_not_sorted_into_folders(page, library):
    assert page.get("/api/state").json()["sorted"] is None
    before = sorted(library.workdir.rglob("*"))
    for into in ("../elsewhere", workdir.SORTED):
        asked = {"seen": page.get("/api/version").json()["version"], "into": into, "copy": True}
        answer = page.post("/api/sort", json=asked)
        assert (answer.status_code, "not at hand as files" in answer.json()["error"]) == (404, True)
    assert sorted(library.workdir.rglob("*")) == before


def test_a_search_finds_what_is_most_like_an_image(library):
    shown = []

    def embed(image):
        shown.append(image)
        return server.Embedded(library.q[[25]], library.x[[25]], np.array([len(shown) > 1]))

    page = window(library, embed)
    decide(page, {"do": "merge", "groups": [2, 1]})
    out = BytesIO()
    Image.fromarray(library.images[25]).resize((80, 80), Image.Resampling.NEAREST).save(out, "PNG")
    found = page.post("/api/search", content=out.getvalue(), headers={"content-type": "image/png"}).json()
    assert (found["group"], found["neighbours"][0]["row"]) == (2, 25)
    assert found["confidence"] == pytest.approx(library.q[25, 1:].sum())
    assert (shown[0].shape, shown[0].dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert found["novel"] is False
    again = page.post("/api/search", content=out.getvalue(), headers={"content-type": "image/png"}).json()
    assert again["novel"] is True
    for content in (b"", b"no image", out.getvalue()[:60], b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        answer = page.post("/api/search", content=content, headers={"content-type": "application/octet-stream"})
        assert answer.status_code == 422, content


def test_undoing_costs_no_new_assignment(page, library, monkeypatch):
    decide(page, {"do": "merge", "groups": [1, 2]})
    monkeypatch.setattr(Decisions, "members", None)  # a rename, and what was shown before, need none
    decide(page, RENAME)
    assert sizes(undo(page).json()) == {0: 20, 1: 40}
    assert sizes(undo(page).json()) == {0: 20, 1: 20, 2: 20}


def test_a_taken_port_is_a_sentence(library):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match=r"port \d+ is taken; give"):
        serving.serve(library, other.getsockname()[1])
    with pytest.raises(ConfigError, match="port 70000 cannot be used"):
        serving.serve(library, 70000)


def test_the_page_needs_nothing_from_elsewhere():
    page = server.files("jaxclust.pages.browse") / "page"
    texts = {f.name: f.read_text("utf-8") for f in page.iterdir()}
    assert {"browse.html", "browse.css", "browse.js", "icon.svg"} <= texts.keys()
    for name, text in texts.items():
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), name
        for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", "onload="):
            assert unsafe not in text, (name, unsafe)


def test_only_the_loopback_interface_is_listened_on(tmp_path):
    browsed.make(tmp_path)
    with browsed.serving(tmp_path) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            pass
        if os.uname().sysname == "Linux":  # where all of 127.0.0.0/8 is this machine
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), timeout=60)
