"""Documents are true where a machine can tell: links, lengths, and the commands that they show."""

import ast
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import CONFIGS, ROOT

from jaxclust import __version__, commands, main
from jaxclust.commands import usage
from jaxclust.run import config
from jaxclust.training import configs

PAGES = [
    p
    for p in ROOT.rglob("*.md")
    if not {".venv", ".pytest_cache", "runs", "dist", "node_modules"} & set(p.relative_to(ROOT).parts)
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


def settings_of(given: Path | str, overrides: dict[str, str]) -> set[str]:
    return {*config.flatten(config.load(given, overrides, configs.schemas).to_dict())}


SETTINGS = set().union(*(settings_of(path, {}) for path in CONFIGS))
FLAGS = {flag for action in usage.parser(commands.find())[0]._actions for flag in action.option_strings}
DOCUMENTS = [*PAGES, *CONFIGS, ROOT / "jaxclust" / "main.py"]
OURS = re.compile(r"(?:jaxclust|python -m jaxclust\.main|launch/slurm\.sh|launch/local\.sh \d) (--[^`\n]*)")
PLACEHOLDERS = {"section.key", "SETTING", "data.json"}  # of a sentence about settings in general; and a file


def text_of(document: Path) -> str:
    """A page, or a file's docstring, with each command on one line."""
    text = document.read_text("utf-8").replace("\\\n", "")
    return ast.get_docstring(ast.parse(text)) if document.suffix == ".py" else text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_command_takes_what_it_is_shown_with(document):
    for line in OURS.findall(text_of(document)):
        args, overrides, _ = main.parse(shlex.split(line, comments=True))
        if args.config and args.config.startswith("configs/"):
            settings_of(args.config, overrides)  # which refuses one that it does not know, or a value of another kind
        assert {*overrides} <= SETTINGS, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_flags_settings_modes_and_configs_in_a_sentence_are_there(document):
    text = text_of(document)
    sections = "|".join(name for name, kind in config.SECTIONS.items() if kind is Mapping)
    named = re.findall(rf"--config\.([\w.]*\w)|`((?:{sections})\.[\w.]+)[=`]", text)
    assert {a or b for a, b in named} <= SETTINGS | PLACEHOLDERS
    for span in [text] if document.suffix == ".py" else re.findall(r"`(--[^`\n]+)`", text):
        for flag in re.findall(r"(?<!\S)--\w[\w-]*", span):
            assert flag in FLAGS, span
    for mode in re.findall(r"--mode=([a-z-]+)", text):
        assert mode in commands.find(), mode
    for name in re.findall(r"configs/(\w+\.py)", text):
        assert ROOT / "configs" / name in CONFIGS or name == "digits_simclr.py", name
