"""Documents are true where a machine can tell: links, lengths, and the commands that they show."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

from jaxclust import __version__, commands
from jaxclust.run import config
from jaxclust.training import configs

PAGES = [
    p for p in ROOT.rglob("*.md") if not {".venv", "runs", "dist", "node_modules"} & set(p.relative_to(ROOT).parts)
]


def anchors(path: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#{1,6} (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        assert where.exists(), target
        assert where.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(where), target


def test_the_readme_is_read():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_the_newest_changes_are_those_of_this_version():
    newest = re.search(r"^## (.+)$", (ROOT / "jaxclust" / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert newest[1] == __version__


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_name_what_there_is(page):
    text, modes = page.read_text("utf-8"), commands.find()
    for mode in re.findall(r"--mode=([a-z-]+)", text):
        assert mode in modes, mode
    shipped = {path.name for path in (ROOT / "configs").glob("*.py")}
    for name in re.findall(r"configs/(\w+\.py)", text):
        assert name in shipped or name == "digits_simclr.py", name
    cfg = config.flatten(config.load(ROOT / "configs" / "digits_cc.py", {}, configs.schemas))
    for name in re.findall(r"--config\.((?:data|net|optim|train|eval|checkpoint|report)\.\w+)", text):
        assert name in cfg, name
