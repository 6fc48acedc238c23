"""The page in a browser: what is clicked there is decided, kept, and seen in every window."""

import contextlib
import json
import os
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers import browsed
from helpers.browsed import COUNT, NAMES
from PIL import Image

from jaxclust.run import cells, workdir
from jaxclust.run.files import encoded

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to drive; apt-get install chromium"),
]
PATIENCE = 60_000  # milliseconds, on a machine with other work


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browsed")
    browsed.make(folder)
    with browsed.serving(folder) as port:
        yield folder, f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser():
    sync_api.expect.set_options(timeout=PATIENCE)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    with (
        sync_api.sync_playwright() as driver,
        contextlib.closing(driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)) as browser,
    ):
        yield browser


@pytest.fixture
def opened(served, browser):
    """A function that opens a window on the run, in which nothing is decided yet."""
    folder, url = served
    (folder / workdir.DECISIONS).unlink(missing_ok=True)
    wrong, contexts = [], []

    def open_window(where: str = "", **how):
        contexts.append(browser.new_context(**how))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("dialog", lambda d: wrong.append(f"a dialog: {d.message}"))
        page.on(
            "console", lambda m: m.type == "error" and not re.search("400|409|422", m.text) and wrong.append(m.text)
        )
        page.goto(f"{url}{where}")
        page.wait_for_selector(".card, .tile")
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert not wrong


def entries(served) -> list[dict]:
    path = served[0] / workdir.DECISIONS
    return json.loads(path.read_text("utf-8"))["entries"] if path.exists() else []


def cards(page) -> dict[str, str]:
    """What the overview says: name -> how many images."""
    found = page.locator(".card").all()
    return {card.locator("h2").inner_text(): card.locator(".small span").first.inner_text() for card in found}


def expect_cards(page, wanted: dict[str, str]) -> None:
    sync_api.expect(page.locator(".card h2")).to_have_text([*wanted])
    assert cards(page) == wanted


def rename(page, name: str) -> None:
    page.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.keyboard.press("Enter")


def choose(page, name: str) -> None:
    page.locator("dialog .choice", has_text=name).click()


def test_what_is_decided_by_clicking_is_kept_and_can_be_undone(opened, served):
    page, expect = opened(), sync_api.expect
    page.get_by_role("link", name="Cluster 1").click()
    rename(page, "cats")
    expect(page.locator("h1")).to_have_text("cats")

    page.locator(".tile").nth(3).hover()
    page.locator(".tile").nth(3).locator(".check").click()
    page.locator(".tile").nth(5).click(modifiers=["Shift"])
    expect(page.locator("#bar")).to_contain_text("3 images selected")
    page.get_by_role("button", name="Move to").click()
    choose(page, "Cluster 2")
    expect(page.locator(".group.head .hint")).to_contain_text("17 images")
    expect(page.locator("#bar")).to_be_hidden()

    page.get_by_role("button", name="Split").click()
    page.locator(".numbers label", has_text="3").click()
    expect(page.locator(".parts section")).to_have_count(3)
    page.get_by_role("button", name="Split into 3").click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("#undo")).to_have_attribute("title", re.compile("“cats” was split into 3 parts"))

    page.get_by_role("link", name="All clusters").first.click()
    page.get_by_role("checkbox", name="Select Cluster 0").check()
    page.get_by_role("checkbox", name="Select Cluster 3").check()
    page.locator("#bar").get_by_role("button", name="Merge").click()
    page.locator("dialog .choice", has_text="Cluster 0").click()
    page.locator("dialog .primary").click()
    expect(page.locator(".card h2")).to_have_text(["Cluster 0", "cats", "Cluster 2", "Cluster 4"])

    state = cards(page)
    assert state["Cluster 2"] == "23 images"
    assert sum(int(size.split()[0]) for size in state.values()) == COUNT
    page.reload()
    expect_cards(page, state)
    assert [entry["do"] for entry in entries(served)] == ["rename", "move", "split", "merge"]

    for left in (3, 2, 1, 0):
        with page.expect_response("**/api/undo"):
            page.get_by_role("button", name="Undo").click()
        expect(page.locator("#undo")).to_be_enabled() if left else expect(page.locator("#undo")).to_be_disabled()
        expect(page.locator(".card")).to_have_count(5 if left == 3 else 3)
        assert len(entries(served)) == left
    page.reload()
    expect_cards(page, {"Cluster 0": "20 images", "Cluster 1": "20 images", "Cluster 2": "20 images"})


def test_selected_images_become_a_new_cluster_until_it_is_undone(opened, served):
    page, other, expect = opened("#/cluster/1/file"), opened(), sync_api.expect
    page.locator(".tile").nth(3).hover()
    page.locator(".tile").nth(3).locator(".check").click()
    page.locator(".tile").nth(5).click(modifiers=["Shift"])
    page.locator("#bar").get_by_role("button", name="New cluster").click()
    expect(page.locator("dialog h2")).to_have_text("New cluster of 3 images")
    page.get_by_role("textbox", name="Name").fill("  cats &\t<b>dogs ")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator(".notice", has_text="is new")).to_contain_text("cats & <b>dogs is new")
    expect(page.locator("#bar")).to_be_hidden()
    expect(page.locator(".group.head .hint")).to_contain_text("17 images")
    page.get_by_role("link", name="Show it").click()
    expect(page.locator("h1")).to_have_text("cats & <b>dogs")
    expect(page.locator(".tile")).to_have_count(3)
    made = {"Cluster 0": "20 images", "Cluster 1": "17 images", "Cluster 2": "20 images", "cats & <b>dogs": "3 images"}
    page.get_by_role("link", name="All clusters").first.click()
    expect_cards(page, made)
    expect_cards(other, made)
    [entry] = entries(served)
    assert (entry["do"], entry["group"], entry["name"], entry["from"]) == ("new", 3, "cats & <b>dogs", [1])
    assert entry["images"] == [browsed.files()[row] for row in (10, 13, 16)]

    page.goto(f"{page.url.partition('#')[0]}#/cluster/3/file/image/13")
    expect(page.locator(".neighbour")).to_have_count(24)
    page.keyboard.press("n")  # of the open image, without a name
    page.keyboard.press("Enter")
    expect(page.locator(".notice", has_text="Cluster 4 is new")).to_contain_text("1 image")
    assert [entry["images"] for entry in entries(served)][1:] == [["013.png"]]
    page.keyboard.press("Escape")
    for left in (1, 0):
        with page.expect_response("**/api/undo"):
            page.keyboard.press("Control+z")
        expect(page.locator("#undo")).to_be_enabled() if left else expect(page.locator("#undo")).to_be_disabled()
    expect(page.locator(".notice", has_text="Cluster 3 is no more")).to_be_visible()  # which was shown
    expect_cards(page, {"Cluster 0": "20 images", "Cluster 1": "20 images", "Cluster 2": "20 images"})
    assert entries(served) == []


def test_the_table_is_fetched_as_it_is_decided(opened, served):
    page = opened("#/cluster/1")
    rename(page, "=cats")
    sync_api.expect(page.locator("h1")).to_have_text("=cats")
    page.get_by_role("link", name="All clusters").first.click()
    with page.expect_download() as fetching:
        page.get_by_role("link", name="CSV").click()
    assert fetching.value.suggested_filename == workdir.CLUSTERS
    with Path(fetching.value.path()).open(newline="", encoding="utf-8") as f:
        header, *rows = cells.read(f)
    assert header == ["file", "cluster", "name", "confidence"]
    files = [encoded(file).decode() for file in browsed.files()]
    named = {file: ["0", "1", "2"][row % 3] for row, file in enumerate(files)}
    assert {row[0]: row[1] for row in rows} == named
    assert {row[2] for row in rows if row[1] == "1"} == {"=cats"}
    assert {row[2] for row in rows if row[1] != "1"} == {""}


def test_images_are_sorted_into_folders_at_a_place_that_is_typed(opened, served, tmp_path):
    page, expect = opened("#/cluster/1"), sync_api.expect
    rename(page, "cats/dogs")
    expect(page.locator("h1")).to_have_text("cats/dogs")
    page.get_by_role("link", name="All clusters").first.click()

    def sort(proposed, into):
        page.get_by_role("button", name="Folders").click()
        expect(page.get_by_role("textbox", name="Folder")).to_have_value(str(proposed))
        page.get_by_role("textbox", name="Folder").fill(str(into))
        page.get_by_role("button", name="Sort", exact=True).click()

    before = [path for path in sorted(served[0].rglob("*")) if path.is_dir()]
    for place, said in (("data/x", "is inside the run's own folder"), ("../" + "x" * 300, "File name too long")):
        sort(served[0] / workdir.SORTED, place)
        expect(page.locator(".notice.lasting")).to_contain_text(said)
        page.get_by_role("button", name="Dismiss").click()
    assert [path for path in sorted(served[0].rglob("*")) if path.is_dir()] == before

    sort(served[0] / workdir.SORTED, tmp_path / "a" / "mine")
    expect(page.locator(".notice.lasting")).to_contain_text("Sorted: 57 links")
    expect(page.locator(".notice.lasting")).to_contain_text(str(tmp_path / "a" / "mine"))
    made = {path.name: len([*path.iterdir()]) for path in (tmp_path / "a" / "mine").iterdir() if path.is_dir()}
    assert made == {"0": 19, "1 cats_dogs": 20, "2": 18}  # of some files nothing is there
    page.get_by_role("button", name="Dismiss").click()
    sort(tmp_path / "a" / "mine", tmp_path / "a" / "mine")  # is proposed again
    expect(page.locator(".notice.lasting")).to_contain_text("Sorted: 57 links")


def test_two_windows_never_overwrite_each_other_silently(opened, served):
    expect = sync_api.expect
    one, two = opened("#/cluster/1"), opened("#/cluster/1")
    two.get_by_role("button", name="Rename", exact=True).click()
    two.get_by_role("textbox", name="Name").fill("dogs")
    rename(one, "cats")
    expect(one.locator("h1")).to_have_text("cats")
    two.keyboard.press("Enter")
    expect(two.locator(".notice.lasting")).to_contain_text("Not saved: somebody else has changed the clusters.")
    expect(two.locator(".notice.lasting")).to_contain_text("Cluster 1 was renamed “cats”")
    expect(two.locator("h1")).to_have_text("cats")
    assert [entry["name"] for entry in entries(served)] == ["cats"]
    rename(two, "dogs")  # once more, and now knowing
    expect(two.locator("h1")).to_have_text("dogs")
    expect(one.locator("h1")).to_have_text("dogs", timeout=PATIENCE)  # without a click there
    expect(one.locator(".notice", has_text="Changed in another window")).to_contain_text("“cats” was renamed “dogs”")
    assert [entry["name"] for entry in entries(served)] == ["cats", "dogs"]


def test_an_open_preview_of_a_split_is_not_decided_once_it_is_stale(opened, served):
    one, two = opened("#/cluster/1"), opened("#/cluster/1")
    two.keyboard.press("s")
    sync_api.expect(two.locator(".parts section")).to_have_count(2)
    rename(one, "cats")
    sync_api.expect(one.locator("h1")).to_have_text("cats")
    two.get_by_role("button", name="Split into 2").click()
    sync_api.expect(two.locator(".notice.lasting")).to_contain_text("Not saved")
    assert len(entries(served)) == 1


def test_names_are_text(opened):
    page, expect = opened("#/cluster/0"), sync_api.expect
    name = "<img src=x onerror=alert(1)><script>document.title='hacked'</script> & \"'🐈"
    rename(page, name)
    expect(page.locator("h1")).to_have_text(name)
    for row in range(5):
        page.goto(f"{page.url.partition('#')[0]}#/cluster/0/file/image/{row}")
        expect(page.locator(".large img")).to_have_attribute("src", f"/api/original/{row}")
        shown = page.locator(".file").evaluate("h => Array.from(h.textContent, c => c.codePointAt(0))")
        assert shown == [ord(c) for c in NAMES[row]]
        assert page.locator(".looking script, .looking .side img").count() == 0
    page.goto(f"{page.url.partition('#')[0]}#/")
    expect(page.locator(".card h2").first).to_have_text(name)
    assert "hacked" not in page.title()


def test_an_address_may_change_before_the_groups_are_known(opened):
    page = opened()
    page.route("**/api/state", lambda route: (page.evaluate("location.hash = '/cluster/2'"), route.continue_()))
    page.reload()
    sync_api.expect(page.locator("h1")).to_have_text("Cluster 2")


def test_an_address_of_version_0_1_leads_to_the_same_place(opened):
    page = opened("#/group/1/file/image/13")
    sync_api.expect(page.locator("h1")).to_have_text("Cluster 1")
    sync_api.expect(page.locator(".file")).to_have_text("013.png")


def test_an_image_large_its_neighbours_and_its_move(opened, served):
    page, expect = opened("#/cluster/1/file"), sync_api.expect
    page.locator(".tile").nth(4).click()  # row 13
    expect(page.locator(".file")).to_have_text("013.png")
    expect(page.locator(".large img")).to_have_js_property("naturalWidth", 300)  # the original
    expect(page.locator(".neighbour")).to_have_count(24)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".file")).to_have_text("016.png")
    page.keyboard.press("m")
    page.keyboard.type("cluster 2")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_text("Cluster 2")
    assert entries(served) == [{"do": "move", "images": ["016.png"], "group": 2}]
    page.locator(".neighbour").first.click()
    expect(page.locator(".file")).not_to_have_text("016.png")
    page.keyboard.press("Escape")
    expect(page.locator(".looking")).to_have_count(0)
    page.goto(f"{page.url.partition('#')[0]}#/cluster/0/file/image/9")  # its file is gone
    expect(page.locator(".large img")).to_have_js_property("naturalWidth", browsed.SIDE)
    expect(page.locator(".side")).to_contain_text("The original file is not there")


def test_a_dropped_image_finds_its_like(opened, served):
    page, expect = opened(), sync_api.expect
    image = np.load(served[0] / "run.npz")["images"][22]
    out = BytesIO()
    Image.fromarray(image).save(out, "PNG")
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
            window.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [*out.getvalue()],
    )
    expect(page.locator(".side .chip")).to_have_text("Cluster 1")
    page.locator(".neighbour").first.click()
    expect(page.locator(".file")).to_have_text("022.png")
    page.keyboard.press("Escape")
    page.locator("#file").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.locator(".notice.lasting")).to_contain_text("Not an image of a kind that is read")


def test_it_can_be_worked_by_keyboard(opened, served):
    page, expect = opened(), sync_api.expect
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Cluster 1")
    page.locator(".tile").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#bar")).to_contain_text("2 images selected")
    page.keyboard.press("m")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    expect(page.locator(".group.head .hint")).to_contain_text("18 images")
    page.keyboard.press("r")
    page.keyboard.type("cats")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("cats")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")  # faster than the first is answered
    expect(page.locator("h1")).to_have_text("Cluster 1")
    expect(page.locator(".group.head .hint")).to_contain_text("20 images")
    expect(page.locator(".notice.lasting")).to_have_count(0)
    assert entries(served) == []
    page.keyboard.press("?")
    expect(page.locator("dialog h2")).to_have_text("Keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator(".card")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(opened, scheme):
    page = opened(viewport={"width": 360, "height": 700}, color_scheme=scheme, has_touch=True, is_mobile=True)
    for where in ("#/", "#/cluster/1/uncertain", "#/cluster/1/typical/image/4"):
        page.goto(f"{page.url.partition('#')[0]}{where}")
        page.wait_for_selector({"#/": ".card", "#/cluster/1/uncertain": ".tile"}.get(where, ".neighbour"))
        wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        assert page.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 200))") == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", back)[0]) > 128) == (scheme == "light")


def test_of_a_long_list_only_what_is_in_sight_exists(browser, tmp_path):
    browsed.make_run(tmp_path, 30_000)
    with browsed.serving(tmp_path) as port, contextlib.closing(browser.new_page()) as page:
        page.goto(f"http://127.0.0.1:{port}/#/cluster/2/file")
        page.locator(".tile").first.focus()
        page.keyboard.press("End")
        last = page.locator(".tile[aria-posinset='10000']")
        sync_api.expect(last).to_be_focused()
        sync_api.expect(last).to_be_in_viewport()
        sync_api.expect(last).to_have_attribute("style", re.compile("background-image"))
        assert page.locator(".tile").count() < 500
        last.click()
        sync_api.expect(page.locator(".look h2")).to_have_text("Image 29999")
