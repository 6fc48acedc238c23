"""SIGTERM, SIGUSR1 and Ctrl-C at any moment: the state is saved, and going on ends with the same bits."""

import os
import signal

import jax
import numpy as np
import pytest
from conftest import SMALL, SMALL_METHOD, config_of

from jaxclust import main
from jaxclust.clusters import embed
from jaxclust.data import feed
from jaxclust.ops import metrics
from jaxclust.run import checkpoint
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.preemption import Preempted, Preemption
from jaxclust.training import log

pytestmark = pytest.mark.slow

VGG = {"net.stem": "vgg", "net.depth": "4"}  # the least there is to compile
SETTINGS = SMALL | VGG | {"method.init_epoch": str(SMALL_METHOD["init_epoch"])}


@pytest.fixture
def command(small_run):
    """A function that runs the command in a workdir, -> its exit code; two epochs of two steps, centres between."""

    def run(workdir):
        flags = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
        small_run(config_of("anchor"), workdir, overrides=SETTINGS)  # one device
        return main.cli([f"--config={config_of('anchor')}", f"--workdir={workdir}", *flags])

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return tmp_path_factory.mktemp("alone")


def last_state(workdir, like):
    with Checkpoints(workdir, keep=None) as checkpoints:
        return checkpoints.steps, jax.tree.leaves(checkpoints.restore(like).replace(key=None))


def after_call(count, function, number):
    """`function`, with the signal `number` after its call number `count`."""
    calls = []

    def signalled(*args, **kwargs):
        result = function(*args, **kwargs)
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return result

    return signalled


# A moment: (the signal, where it comes, after which of its calls, the step that is then saved)
MOMENTS = {
    "in an epoch": (signal.SIGTERM, log.Log, "push", 3, 3),
    "in a refit": (signal.SIGUSR1, feed.Feed, "batches", 2, 2),  # the sweep's
    "in a save under way": (signal.SIGTERM, checkpoint.Checkpoints, "save", 1, 2),
    "at the end of training": (signal.SIGUSR1, checkpoint.Checkpoints, "save", 3, 4),
    "in the evaluation": (signal.SIGTERM, embed, "train_split", 1, 4),
    "in a score": (signal.SIGUSR1, metrics, "labelled", 1, 4),
    "Ctrl-C in an epoch": (signal.SIGINT, log.Log, "push", 3, 3),
    "Ctrl-C in a refit": (signal.SIGINT, feed.Feed, "batches", 2, 2),
    "Ctrl-C in the evaluation": (signal.SIGINT, embed, "train_split", 1, 4),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_saves_and_the_same_command_ends_with_the_same_bits(
    moment, command, small_run, alone, tmp_path, monkeypatch, capsys
):
    number, where, name, count, step = MOMENTS[moment]
    if not (alone / "scores.json").exists():
        assert command(alone) == 0
    with monkeypatch.context() as m:
        m.setattr(where, name, after_call(count, getattr(where, name), number))
        assert command(tmp_path) == (130 if number == signal.SIGINT else 75)
    said = capsys.readouterr().err
    saved = "interrupted, and saved; the same command goes on" if step < 4 else "interrupted; what was saved stays"
    assert (saved if number == signal.SIGINT else "stopped as asked") in said
    like = small_run(config_of("anchor"), tmp_path, overrides=SETTINGS).like
    assert last_state(tmp_path, like)[0][-1] == step
    assert command(tmp_path) == 0
    for a, b in zip(last_state(alone, like)[1], last_state(tmp_path, like)[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (alone / "scores.json").read_bytes() == (tmp_path / "scores.json").read_bytes()
    assert len((tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()) == 4


def test_a_signal_waits_while_held_and_is_not_lost():
    def nobody_asks(preemption):
        with preemption.held():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR1)

    with Preemption() as preemption:
        with pytest.raises(Preempted):
            nobody_asks(preemption)
        os.kill(os.getpid(), signal.SIGTERM)  # on the way out: it breaks nothing off
        assert preemption.due()
