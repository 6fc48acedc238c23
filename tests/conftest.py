"""Eight virtual CPU devices for every test, and small runs of any config on fake images."""

import contextlib
import os
import signal
from importlib.metadata import version
from pathlib import Path

# Nearly all of the suite's time is compilation. Unoptimised code takes a third as long to compile, and a program in one
# piece three quarters of what many pieces take two workers on two cores.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    # An XLA that no longer knows a flag would abort.
    f"{' --xla_cpu_use_fusion_emitters=false' * version('jaxlib').startswith('0.10.')}"
    f"{' --xla_cpu_parallel_codegen_split_count=1' * version('jaxlib').startswith('0.10.')}"
    f" {os.environ.get('XLA_FLAGS', '')}"  # the last one counts
)
os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np
import pytest

from jaxclust import data, methods, nets
from jaxclust.data import workers
from jaxclust.run import config, messages, sharding
from jaxclust.training import build, compilation, configs

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
METHODS = sorted(p.stem for p in Path(methods.__path__[0]).glob("*.py") if p.stem != "__init__")

# What is tested of every method, with one of them in the fast part.
BY_METHOD = [pytest.param(m, marks=[pytest.mark.slow] * (m != "cc")) for m in METHODS]

# Any config becomes a run of seconds: little network, little images, two steps an epoch.
SMALL = {
    "net.width": "4",
    "net.depth": "18",
    "data.size": "16",
    "train.batch_size": "16",
    "train.epochs": "2",
    "train.log_every": "1",
    "checkpoint.every": "1",
    "eval.batch_size": "16",
    "eval.restarts": "1",
    "eval.held_out": "8",
    "report.looks": "0",
    "report.page": "False",
    "clusters": "4",
}
SHORT = (1, 1)  # blocks of a network of depth 18: a quarter of it, and of its compilation
# At most; the second epoch then does what a long run does late.
SMALL_METHOD = {"init_epoch": 1, "refine_epoch": 1, "group": 8, "queue_instances": 64}

LONG = ("test_distributed.py", "test_damages.py", "test_old_runs.py", "test_launch.py", "test_kill.py")

# Side and channels of the stored images; 96 and 3 elsewhere.
STORED = {"digits": (8, 1), "mnist": (28, 1), "fashion_mnist": (28, 1), "cifar10": (32, 3), "cifar100": (32, 3)}


def pytest_collection_modifyitems(items):
    """The longest first: begun last, one of them would keep one worker busy while the others are idle."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache; tests share one, so that each program is compiled once."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # workers, too
        base = base.parent
    monkeypatch.setenv("JAXCLUST_CACHE", str(base / "cache"))
    compilation.use_cache()


@pytest.fixture(autouse=True)
def decoders_stay(monkeypatch):
    """Those that a test has started decode for the next one, too: their start is most of what decoding takes here."""
    monkeypatch.setattr(workers, "end", lambda: None)


@pytest.fixture(autouse=True)
def signals_heard():
    """What is started in the background, or by nohup, hears some signals not at all, and nor do its children."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGQUIT)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def messages_shown(request):
    """What jaxclust says is shown as the command shows it; to the tests of the library as `logging` is told to."""
    with contextlib.nullcontext() if request.path.parent.name == "estimator" else messages.shown():
        yield


@pytest.fixture(autouse=True)
def few_dots(request, monkeypatch):
    """Pictures of a hundredth of the dots, where no test looks at them."""
    if request.path.parent.name != "pages":
        monkeypatch.setattr("jaxclust.pages.drawing.DPI", 30)


@pytest.fixture(autouse=True)
def short_networks(request, monkeypatch):
    """What is tested of a method, or of a mode, is what it does with a network, which is a short one there."""
    blocks = {"methods": (1, 1, 1, 1), "commands": SHORT}.get(request.path.parent.name)
    if blocks:
        monkeypatch.setitem(nets.BLOCKS, 18, blocks)


def load_fake(s: data.Settings) -> dict[str, data.Source]:
    """36 smooth random images with labels, of the shape in which the data set's images are stored."""
    rng = np.random.default_rng(0)
    side, channels = STORED.get(s.name, (96, 3))
    images = rng.integers(0, 255, (36, side, side, channels)).astype(np.float32)
    images = sum(np.roll(images, i, axis) for axis in (1, 2) for i in range(3)) / 6
    return {n: data.Source(images.astype(np.uint8), np.arange(36, dtype=np.int32) % 4) for n in s.splits}


@pytest.fixture
def fake_data(monkeypatch):
    """Every data set is `load_fake`'s."""
    monkeypatch.setattr(data, "load", load_fake)


@pytest.fixture
def small_run(fake_data, monkeypatch):
    """A function that builds a small run of a config: (config, workdir, devices, overrides) -> build.Run."""
    make_mesh = sharding.make_mesh

    monkeypatch.setitem(nets.BLOCKS, 18, SHORT)

    def make(path: Path | str, workdir: Path, devices: int = 1, overrides=()) -> build.Run:
        monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(devices))
        return build_small(path, workdir, overrides)

    return make


def build_small(path: Path | str, workdir: Path, overrides=()) -> build.Run:
    """A config's run, small."""
    cfg = config.load(str(path), {}, configs.schemas)
    small = SMALL | dict(overrides)
    if small.get("net.stem", cfg.net.stem) == "vgg":
        small["net.depth"] = "4"
    for name, value in SMALL_METHOD.items():
        if name in cfg.method:
            small.setdefault(f"method.{name}", str(min(value, value if cfg.method[name] is None else cfg.method[name])))
    return build.build(str(path), workdir, "train", small)


def environment(devices: int = 1) -> dict[str, str]:
    """Of a command with that many devices, and compilation as quick as the tests'."""
    return os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"}


def config_of(method: str) -> Path:
    """The digits config of a method."""
    return ROOT / "configs" / f"digits_{method}.py"
