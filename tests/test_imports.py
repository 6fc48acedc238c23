"""Imports point down only, and reading data never brings TensorFlow along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxclust

PACKAGE = Path(jaxclust.__path__[0])
RANKS = [
    {"types", "files", "preemption"},
    {"config", "nets", "losses", "assign", "sharding", "watch"},
    {"methods", "data", "builders", "views", "optim", "checkpoint", "metrics", "log", "distributed"},
    {"decisions", "predictions"},
    {"feed"},
    {"train", "evaluate", "probe", "suggest_k", "prepare"},
    {"progress", "predict"},
    {"report", "browse"},
    {"build"},
    {"interop"},
    {"modes"},
    {"main", "estimator"},
    {"bench"},
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
METHOD_MAY_IMPORT = {"types", "config", "nets", "losses", "assign"}


def imports(path: Path) -> set[str]:
    """The top-level names of jaxclust that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxclust":
            found |= {alias.name for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxclust."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("jaxclust.")}
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" and p.parent.name != "configs")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if name == "methods":
        assert imports(path) <= METHOD_MAY_IMPORT  # never another method
    for imported in imports(path) - {name}:  # a package's files may import each other
        assert RANK[imported] < RANK[name], f"{name} imports {imported}"


@pytest.mark.parametrize("name", ["train", "evaluate", "probe"])
def test_the_loop_knows_no_method_and_no_data_set_by_name(name):
    words = {"anchor", "cc", "tcc", "mmdc", "cifar10", "digits", "mnist"}
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    used = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert not words & (used | imports(PACKAGE / f"{name}.py"))


def test_nothing_imports_tensorflow():
    code = "import sys, jaxclust.main, tensorflow_datasets; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
