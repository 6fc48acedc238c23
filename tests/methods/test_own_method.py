"""The page on writing a method holds a method that works: its code is run as it stands there."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment
from PIL import Image
from sklearn.datasets import load_digits

from jaxclust import commands, methods, nets
from jaxclust.commands.work.evaluate import run_evaluation
from jaxclust.commands.work.train import run_training
from jaxclust.data.prepare import sets
from jaxclust.methods import cc
from jaxclust.run.errors import ConfigError

PAGE = (Path(methods.__path__[0]) / "README.md").read_text("utf-8")
METHOD, CONFIG, NOTEBOOK = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def write(folder: Path) -> None:
    """The page's two files."""
    (folder / "my_methods").mkdir()
    (folder / "my_methods" / "simclr.py").write_text(METHOD)
    (folder / "digits_simclr.py").write_text(CONFIG)


@pytest.mark.slow
def test_the_pages_method_trains_and_is_evaluated(small_run, tmp_path, monkeypatch):
    assert len(PAGE.partition("## What else")[0].splitlines()) <= 90
    write(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    run = small_run(tmp_path / "digits_simclr.py", tmp_path / "run")
    state = run_training(run)
    assert int(state.step) == 4
    run_evaluation(run, state)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text("utf-8"))
    assert {"cluster", "kmeans_projection"} <= scores.keys()


def test_the_pages_equations_can_be_called():
    rng = np.random.default_rng(0)
    y = rng.dirichlet(np.ones(10), (2, 128)).astype(np.float32)
    z = rng.normal(size=(2, 128, 16)).astype(np.float32)
    exec(NOTEBOOK, {"z_a": z[0], "z_b": z[1], "y_a": y[0], "y_b": y[1]})
    assert float(cc.instance_loss(*z, tau=0.5)) > 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such.method", "there is no module no_such on the import path"),
        ("helpers.rooms", r"defines no make\(\)"),
        ("ccc", r"method.name is 'ccc' \(did you mean cc\?\)"),
        ("mine.broken", "cannot be imported: ZeroDivisionError in line 2: division by zero"),
        (".cc", r"'\.cc', which is no name of a module"),
        ("mine..broken", "which is no name of a module"),
        ("mine.broke", r"no module mine\.broke on the import path \(did you mean mine\.broken\?\)"),
        ("mine.needs", "that module imports no_such_package, which is not there"),
    ],
)
def test_a_method_that_is_none_is_named(name, said, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.py").write_text("# a comment\n1 / 0")
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "needs.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=said):
        methods.load(name)


def test_a_file_of_each_kind_is_found_by_its_name_and_gone_with_it(tmp_path, monkeypatch):
    """Nothing that has to be edited names methods, modes, backbones or data sets."""
    spec = "import dataclasses\nfrom jaxclust.data.prepare.sets.stl10 import STL10\n"
    spec += "MINE = dataclasses.replace(STL10, name='mine')\n"
    mode = "from jaxclust.commands import Command\nCOMMAND = Command('says hello', print)\n"
    kinds = ((methods, METHOD), (nets, NET), (commands, mode), (sets, spec))
    with monkeypatch.context() as m:
        for package, text in kinds:
            folder = tmp_path / package.__name__
            folder.mkdir()
            (folder / "mine.py").write_text(text)
            m.setattr(package, "__path__", [*package.__path__, str(folder)])
        assert "mine" in methods.known()
        assert methods.load("mine").make
        net = nets.backbone(nets.Settings(depth=1, stem="", width=3, kind="mine"))
        assert net.features == 3
        assert commands.find()["mine"].help == "says hello"
        assert "mine" in sets.specs()
    for package, _ in kinds:
        sys.modules.pop(f"{package.__name__}.mine")
        delattr(package, "mine")
    assert "mine" not in (*methods.known(), *commands.find(), *sets.specs())
    with pytest.raises(ConfigError, match=r"net\.kind is 'mine'"):
        nets.backbone(nets.Settings(depth=1, stem="", width=3, kind="mine"))


@pytest.mark.parametrize("kind", ["resnet", "vgg"])
def test_a_kind_of_network_must_be_that_of_its_depth_and_stem(kind):
    other = dict(depth=18, stem="cifar") if kind == "vgg" else dict(depth=4, stem="vgg")
    with pytest.raises(ValueError, match=f"net.kind is '{kind}', but net.depth"):
        nets.Settings(width=4, kind=kind, **other)


NET = """
import flax.linen as nn


class Net(nn.Module):
    features: int
    dtype: object

    @nn.compact
    def __call__(self, x, train):
        self.variable("batch_stats", "seen", lambda: 0.0)
        return nn.tanh(nn.Dense(self.features, dtype=self.dtype)(x.reshape(x.shape[0], -1)))


def make(settings, dtype, kernel_init):
    return Net(settings.width, dtype)
"""
ESTIMATOR = """
import jaxclust
assert "site" in jaxclust.__file__
settings = {"method.tau": 0.5, "net.kind": "my_methods.net"}
estimator = jaxclust.DeepCluster("my_methods.simclr", n_clusters=2, epochs=1, batch_size=8, settings=settings)
print(len(estimator.fit_predict("photos")))
"""


@pytest.mark.slow
def test_from_an_empty_folder_with_the_wheel_installed(tmp_path):
    """Method, backbone and config are the user's; training, evaluation, new images, export and the estimator."""
    pack = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(pack, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    folder = tmp_path / "empty"
    folder.mkdir()
    write(folder)
    (folder / "my_methods" / "net.py").write_text(NET)
    (folder / "photos").mkdir()
    for i, digit in enumerate(load_digits().images[:40]):
        Image.fromarray((digit * 15).astype(np.uint8)).save(folder / "photos" / f"{i}.png")
    small = "--config.net.kind=my_methods.net --config.net.width=8 --config.train.epochs=1 --config.report.looks=1"
    env = environment(1) | {"PYTHONPATH": str(tmp_path / "site"), "JAXCLUST_CACHE": str(tmp_path / "cache")}
    console = "import sys; sys.path.remove(''); from jaxclust.main import cli; sys.exit(cli(sys.argv[1:]))"
    for words in (
        ["-c", console, "--config=digits_simclr.py", "--workdir=run", *small.split()],
        ["-m", "jaxclust.main", "--mode=evaluate", "--workdir=run"],
        ["-m", "jaxclust.main", "--mode=predict", "--workdir=run", "--images=photos"],
        ["-m", "jaxclust.main", "--mode=export", "--workdir=run"],
        ["-c", ESTIMATOR],
    ):
        done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr[-2000:])
    assert done.stdout.split()[-1] == "40"
