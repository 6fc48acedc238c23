"""Six methods from outside: what forty systems ask of the interface, resumed, on one device and on eight."""

import json

import jax
import numpy as np
import pytest
from conftest import ROOT, config_of
from helpers.foreign import neighbours
from sklearn.datasets import load_digits

from jaxclust import main
from jaxclust.commands.work.evaluate import run_evaluation
from jaxclust.commands.work.train import run_training
from jaxclust.data.feed import epoch_order
from jaxclust.ops import metrics
from jaxclust.run import preemption
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.errors import ConfigError
from jaxclust.training import build, loop
from jaxclust.training.refit import make_refit
from jaxclust.training.step import make_step
from jaxclust.types import Pass

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "decay": 1e-3, "schedule": "constant", "warmup_epochs": 0.0}
ADAM = SGD | {"name": "adam", "lr": 1e-3}
METHODS = {  # name -> settings, optimizers, epochs, steps
    "kmeans": ({}, SGD, 1, 1),
    "spectral": ({"neighbours": 5}, SGD, 1, 1),
    "dec": (
        {"pretrain": 1, "batches": 1, "tolerance": 1e-9},
        {
            "layer0": SGD | {"trains": ("encoder0", "decoder0")},
            "layer1": SGD | {"trains": ("encoder1", "decoder1")},
            "cluster": SGD | {"trains": ("encoder0", "encoder1", "mu")},
        },
        5,
        None,
    ),
    "gan": ({}, {"D": SGD | {"trains": ("D",)}, "G": SGD | {"trains": ("G",)}}, 3, 6),
    "moco": ({"momentum": 0.9, "tau": 0.5}, SGD, 3, 6),
    "neighbours": ({}, SGD, 3, 6),
}


def write(name: str, folder, optim=None, **settings):
    """A config of a foreign method; the path."""
    own, optimizers, epochs, _ = METHODS[name]
    path = folder / f"{name}.py"
    path.write_text(
        "import runpy\n"
        "def get_config():\n"
        f"    config = runpy.run_path({str(config_of('cc'))!r})['get_config']()\n"
        "    del config.method, config.optim\n"
        f"    config.method = {own | settings | {'name': f'helpers.foreign.{name}'}!r}\n"
        f"    config.optim = {optim or optimizers!r}\n"
        f"    config.train.epochs = {epochs}\n"
        "    return config\n"
    )
    return path


@pytest.fixture
def foreign(small_run, tmp_path):
    """A function that builds a small run of a foreign method."""

    def make(name, workdir="run", devices=1, optim=None, overrides=(), **settings):
        path = write(name, tmp_path, optim, **settings)
        epochs = {"train.epochs": str(METHODS[name][2])}
        return small_run(path, tmp_path / workdir, devices, epochs | dict(overrides))

    return make


def arrays(state) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


STOPPED = [pytest.param(name, marks=[pytest.mark.slow] * (name != "kmeans")) for name in METHODS]


@pytest.mark.parametrize("name", STOPPED)
def test_it_trains_is_evaluated_and_goes_on_bit_for_bit_where_it_was_stopped(name, foreign, tmp_path):
    run = foreign(name, "straight")
    straight = run_training(run)
    if METHODS[name][3] is not None:
        assert int(straight.step) == METHODS[name][3]
    run_evaluation(run, straight)
    scores = json.loads((tmp_path / "straight" / "scores.json").read_text("utf-8"))
    assert set(run.plan.method.reported) == scores["paper"].keys()

    asked = []
    for _ in range(20):  # after every batch, and once in each refit: in the middle of passes, too
        stopped = foreign(name, "stopped")
        try:
            with pytest.raises(preemption.Preempted):
                run_training(stopped, lambda: asked.append(0) or len(asked) % 2 == 0)
        except pytest.fail.Exception:
            break
    assert len(asked) > 1
    again = run_training(foreign(name, "stopped"))
    for a, b in zip(arrays(straight), arrays(again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_one_device_and_eight_agree(name, foreign):
    one, eight = (run_training(foreign(name, f"on_{n}", n)) for n in (1, 8))
    for a, b in zip(arrays(one), arrays(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(np.abs(a.astype(float)).max(initial=0), 1e-2))


@pytest.mark.parametrize("rule", [SGD, ADAM, ADAM | {"name": "adamw"}])
def test_what_a_task_does_not_train_stays_bit_identical_over_a_hundred_steps(rule, foreign):
    """Of a GAN: parameters, moments, counts and decay of the one while only the other is trained."""
    run = foreign("gan", optim={"D": rule | {"trains": ("D",)}, "G": rule | {"trains": ("G",)}})
    feed = build.feeds(run)["train"]
    chunk = next(feed.batches(epoch_order(0, 0, 0, len(feed), 16)))
    for task, mine, other in (("generator", "G", "D"), ("discriminator", "D", "G")):
        step = jax.jit(make_step(run.plan.method.tasks[task], run.plan.views, run.plan.optimizers))
        state = start = run.init()
        for _ in range(100):
            state, _ = step(state, chunk)
        for part in ("params", "opt"):
            before, after = getattr(start, part), getattr(state, part)
            jax.tree.map(np.testing.assert_array_equal, before[other], after[other])
            moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), before[mine], after[mine])
            assert any(jax.tree.leaves(moved))


def test_a_flat_optimizer_moves_what_gets_no_gradient_and_named_ones_do_not(foreign):
    """Why they have names: with one for all, decay and momentum move a discriminator that is not trained."""
    named = foreign("gan").plan
    assert {name: o.trains for name, o in named.optimizers.items()} == {"D": ("D",), "G": ("G",)}
    with pytest.raises(ConfigError, match=r"optim\.D, which is not there .*main"):
        foreign("gan", optim=SGD)
    with pytest.raises(ConfigError, match=r"optim\.D\.trains names 'E', which is no parameter"):
        foreign("gan", optim={"D": SGD | {"trains": ("E",)}, "G": SGD | {"trains": ("G",)}})
    with pytest.raises(ConfigError, match=r"optim\.trains goes with named sections"):
        foreign("moco", optim=SGD | {"trains": ("f",)})


def test_a_refit_is_compiled_once_a_run(foreign):
    run = foreign("kmeans")
    traced = []

    def counted(*args):
        traced.append(0)
        return run.plan.method.refits["centres"].update(*args)

    todo = run.plan.method.refits["centres"]._replace(update=counted)
    refit, feed, state = make_refit(todo, run.plan.views, run.plan.mesh, 16), build.feeds(run)["train"], run.init()
    for _ in range(3):
        state = refit(state, feed)
    assert len(traced) == 1


def test_training_ends_when_the_method_is_done(foreign, tmp_path):
    run = foreign("dec", overrides={"train.epochs": "12"}, tolerance=0.5)
    state = run_training(run)
    assert float(state.memory["changed"]) < 0.5
    assert int(state.step) < run.plan.stages[-1].start
    again = run_training(foreign("dec", overrides={"train.epochs": "12"}, tolerance=0.5))
    for a, b in zip(arrays(state), arrays(again), strict=True):
        np.testing.assert_array_equal(a, b)
    with Checkpoints(tmp_path / "run", None) as checkpoints:
        assert checkpoints.steps[-1] == int(state.step)


def test_predictions_are_made_by_the_shown_twin_and_an_export_has_no_queue(foreign, tmp_path):
    from safetensors.numpy import load_file

    from jaxclust.inference.export.export import weights

    run = foreign("moco")
    state = run_training(run)
    run_evaluation(run, state)
    x = np.load(tmp_path / "run" / "predictions" / "twin.npy")
    moved = state.replace(params=jax.tree.map(lambda p: p * 0, state.params))
    run_evaluation(run, moved)
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "predictions" / "twin.npy"), x)
    (tmp_path / "w.safetensors").write_bytes(
        weights(build.Opened(run.config, tmp_path, run.plan.method, {}, state, None))
    )
    names = {name.split(".")[0] + "." + name.split(".")[1] for name in load_file(tmp_path / "w.safetensors")}
    assert names == {"params.f", "shown.twin"}
    assert main.cli(["--mode=predict", f"--workdir={tmp_path / 'run'}", f"--images={ROOT / '.github' / 'images'}"]) == 0


def test_clusters_of_the_train_split_alone_are_scored_and_new_images_refused(foreign, tmp_path, capsys):
    run = foreign("spectral")
    state = run_training(run)
    run_evaluation(run, state)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text("utf-8"))
    assert scores["cluster"]["sizes"] == np.bincount(state.memory["labels"], minlength=4).tolist()
    command = ["--mode=predict", f"--workdir={tmp_path / 'run'}", f"--images={ROOT / '.github' / 'images'}"]
    assert main.cli(command) == 2
    assert "clusters the images that it is trained on" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("resident", ["always", "never"])
def test_partners_are_the_neighbours_and_the_same_streamed(resident, foreign):
    run = foreign("neighbours", resident, overrides={"data.resident": resident})
    seen = []
    state = run_training(run)
    records = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(record["near"] == 1 for record in records)
    images = run.sources["train"].images
    view = run.plan.views["plain"]
    h = np.stack([np.asarray(view(image, jax.random.key(0))) for image in images]).reshape(len(images), -1)
    squared = ((h[:, None] - h[None]) ** 2).sum(-1) + np.diag(np.full(len(h), np.inf))
    nearest = np.sort(np.argsort(squared, axis=1)[:, : neighbours.NEAREST], axis=1)
    np.testing.assert_array_equal(np.sort(state.memory["nearest"], axis=1), nearest)
    table = np.asarray(state.memory["nearest"])
    for stage in run.plan.stages:
        order = epoch_order(0, stage.epoch, stage.part, len(images), 16)
        drawn = loop.partner_order(0, stage, order, table, 2).reshape(*order.shape, 2)
        seen.append(drawn)
        assert all(set(drawn[i, j]) <= set(table[row]) for i, rows in enumerate(order) for j, row in enumerate(rows))
    assert (seen[0] != seen[1]).any()


def test_a_plan_that_names_nothing_is_refused(foreign, monkeypatch):
    from helpers.foreign import kmeans

    make = kmeans.make
    for todo, said in (
        (Pass("no"), r"the plan of epoch 1 names the task 'no'"),
        (Pass(None), r"a pass without a task and without a refit"),
        (Pass(None, refit="centers"), r"names the refit 'centers' \(did you mean centres\?\)"),
        (Pass(None, split="test", refit="centres"), r"names the split 'test'"),
    ):
        monkeypatch.setattr(kmeans, "make", lambda c, todo=todo: make(c)._replace(plan=lambda epoch: (todo,)))
        with pytest.raises(ConfigError, match=said):
            foreign("kmeans")


def test_memory_that_is_not_there_and_partners_that_do_not_agree_are_refused(foreign, monkeypatch):
    make = neighbours.make

    def changed(**change):
        def made(config):
            method = make(config)
            return method._replace(**{name: new(method) for name, new in change.items()})

        return made

    def drawing(method, table, draws):
        partners = method.tasks["pairs"].partners._replace(table=table, draws=draws)
        return method.tasks | {"other": method.tasks["pairs"]._replace(partners=partners)}

    for made, said in (
        (changed(shown=lambda m: ("twin",)), r"predict is shown 'twin', which is not in the method's memory"),
        (changed(tasks=lambda m: drawing(m, "nearby", 2)), r"partners from 'nearby', which is not .*memory"),
        (
            changed(tasks=lambda m: drawing(m, "nearest", 1), plan=lambda m: lambda epoch: (Pass(("pairs", "other")),)),
            r"draw partners differently \(1 from 'nearest' and 2 from 'nearest'\)",
        ),
    ):
        monkeypatch.setattr(neighbours, "make", made)
        with pytest.raises(ConfigError, match=said):
            foreign("neighbours")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("kmeans", 0.7), ("spectral", 0.75)])
def test_on_the_real_digits_it_finds_digits(name, least, tmp_path, monkeypatch):
    path = write(name, tmp_path, **({"neighbours": 10} if name == "spectral" else {}))
    run = build.build(str(path), tmp_path / "run", "train", {"data.size": "8", "train.batch_size": "256"})
    state = run_training(run)
    run_evaluation(run, state)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text("utf-8"))["cluster"]
    assert scores["acc"] > least
    labels = load_digits().target
    if name == "spectral":
        assert scores["nmi"] == pytest.approx(metrics.nmi(labels, np.asarray(state.memory["labels"])))
