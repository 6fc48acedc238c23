"""Imports point down only, and reading data never brings TensorFlow along."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.rooms import ROOMS, drawing

import jaxclust

PACKAGE = Path(jaxclust.__path__[0])
ORDER = [*ROOMS]
METHOD_MAY_IMPORT = {"types", "run", "nets", "ops"}
# The package's own file is in no room: it shows what the rooms have for others.
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py" and p.parent.name != "configs")


@functools.cache
def modules_of(path: Path) -> set[str]:
    """The full names of what a file imports of jaxclust; of a function's own imports too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxclust":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("jaxclust.")}
    return found


def imports(path: Path) -> set[str]:
    """The rooms that a file imports."""
    rooms = {name.split(".")[1] for name in modules_of(path)}
    return {"version" if room == "__version__" else room for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").strip("_")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    if room == "methods":
        assert imports(path) <= METHOD_MAY_IMPORT  # never another method
    for imported in imports(path) - {room}:  # a room's files may import each other
        assert ORDER.index(imported) < ORDER.index(room), f"{room} imports {imported}"


def test_no_module_imports_itself_by_way_of_others():
    def name(path: Path) -> str:
        return ".".join(("jaxclust", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")

    paths = {name(path): path for path in PACKAGE.rglob("*.py") if path.parent.name != "configs"}

    def below(module: str) -> set[str]:
        """What is imported when a module is: at its top, and not in a function."""
        found = set()
        for node in ast.parse(paths[module].read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxclust":
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    found.add(full if full in paths else node.module)
        return found - {module}

    seen, open_ = set(), []

    def visit(module: str) -> None:
        assert module not in open_, f"a circle: {' -> '.join([*open_[open_.index(module) :], module])}"
        if module in seen:
            return
        open_.append(module)
        for other in sorted(below(module)):
            visit(other)
        open_.pop()
        seen.add(module)

    for module in paths:
        visit(module)


def test_the_drawing_of_the_rooms_is_of_these_rooms():
    found: dict[str, set[str]] = {}
    for path in FILES:
        found.setdefault(room_of(path), set()).update(imports(path) - {room_of(path)})
    assert set(found) == set(ROOMS)
    assert drawing(found) in (ROOT / ".github" / "CONTRIBUTING.md").read_text("utf-8"), drawing(found)


@pytest.mark.parametrize("name", ["training/loop", "training/step", "training/timetable", "clusters/evaluate"])
def test_the_loop_knows_no_method_and_no_data_set_by_name(name):
    words = {"anchor", "cc", "tcc", "mmdc", "cifar10", "digits", "mnist"}
    tree = ast.parse((PACKAGE / f"{name}.py").read_text("utf-8"))
    used = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert not words & (used | imports(PACKAGE / f"{name}.py"))


def test_nothing_imports_tensorflow():
    code = "import sys, jaxclust.main, tensorflow_datasets; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
