"""Several processes: who they are, that they compute what one does, and that losing one hangs nobody."""

import signal
import socket
import sys

import numpy as np
import pytest
from conftest import METHODS, ROOT, environment
from helpers import faults
from helpers.faults import EPOCH, SLOW, ends, logged, start, wait_for
from helpers.layout import assert_close

from jaxclust.run import distributed
from jaxclust.run.distributed import Processes, devices, find
from jaxclust.run.errors import ConfigError

SLURM = {
    "SLURM_JOB_ID": "70000",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
JOB = {"JOB_COMPLETION_INDEX": "2", "JAXCLUST_COORDINATOR": "train-0.train:8476", "JAXCLUST_NUM_PROCESSES": "4"}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # the batch script itself
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SLURM, Processes("gpu007:61808", 8, 5, 1, 4)),
        (SLURM | {"SLURM_STEP_NODELIST": "m1,gpu[007-008]"}, Processes("m1:61808", 8, 5, 1, 4)),
        (SLURM | {"SLURM_STEP_NODELIST": "gpu[3,7-8]x"}, Processes("gpu3x:61808", 8, 5, 1, 4)),
        (SLURM | {"SLURM_STEP_NODELIST": "localhost"}, Processes("localhost:61808", 8, 5, 1, 4, "[::]:61808")),
        (JOB, Processes("train-0.train:8476", 4, 2)),
        ({"JOB_COMPLETION_INDEX": "2"}, None),  # an Indexed Job of runs that have nothing to do with each other
        (MPI | {"JAXCLUST_COORDINATOR": "a:1"}, Processes("a:1", 4, 3, 1, 2)),
    ],
)
def test_processes_are_found_from_what_started_them(env, expected):
    assert find(None, None, None, env) == expected


def test_flags_come_before_the_environment():
    assert find("[::1]:99", 2, 1, SLURM) == Processes("[::1]:99", 2, 1)


@pytest.mark.parametrize(
    ("flags", "env", "sentence"),
    [
        (("a:1", None, None), {}, "--coordinator alone is not enough; give --num_processes and --process_id too"),
        (("a", 2, 0), {}, "'a'; give HOST:PORT"),
        (("a:70000", 2, 0), {}, "'a:70000'; give HOST:PORT"),
        (("a:1", 2, 2), {}, "number this process 2 of 2"),
        ((None, None, None), MPI, "mpirun -x JAXCLUST_COORDINATOR=HOST:PORT"),
        ((None, None, None), JOB | {"JAXCLUST_NUM_PROCESSES": "four"}, "JAXCLUST_NUM_PROCESSES is 'four'"),
    ],
)
def test_what_does_not_fit_is_named(flags, env, sentence):
    with pytest.raises(ConfigError) as e:
        find(*flags, env)
    assert sentence in str(e.value)


def test_processes_of_a_machine_share_its_gpus():
    four = [Processes("a:1", 4, i, i, 4) for i in range(4)]
    assert [devices(p, "0,1,2,3") for p in four] == [[0], [1], [2], [3]]
    assert devices(four[3], "0,1,2,3,4,5,6,7") == [6, 7]
    assert devices(four[3], "5") is None  # the launcher has shared them out
    assert devices(four[3], None) is None
    assert devices(Processes("a:1", 2, 1), "0,1,2,3") is None  # one process on each machine
    with pytest.raises(ConfigError, match="4 processes of this machine cannot share 6 GPUs"):
        devices(four[0], "0,1,2,3,4,5")


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize("index", [0, 1])
def test_processes_that_do_not_meet_end_with_a_sentence(index):
    code = "from jaxclust.run import distributed as d; d.TIMEOUT = 2; d.join(d.Processes(*{}), {{}})"
    argv = [sys.executable, "-c", code.format((f"127.0.0.1:{a_free_port()}", 2, index))]
    [status], said = ends(start(argv))
    assert status == 1
    assert "did not meet at 127.0.0.1" in said
    assert "within 2 s" in said
    assert "check the coordinator's address" in said.splitlines()[-1]


def test_a_coordinators_port_that_is_taken_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(distributed.RunError, match=f"cannot listen at {where}"):
            distributed.join(Processes(where, 2, 0), {})


def written(folder, processes, devices):
    """What tests/helpers/layout.py writes on that many processes of that many devices each."""
    argv = [sys.executable, "-m", "helpers.layout", str(folder)]
    env = environment(devices) | {"PYTHONPATH": str(ROOT / "tests")}
    meet = [f"127.0.0.1:{a_free_port()}", str(processes)]
    calls = [[*argv, *meet, str(i)] for i in range(processes)] if processes > 1 else [argv]
    codes, said = ends([process for call in calls for process in start(call, env=env)])
    assert not any(codes), said
    return {path.stem: list(np.load(path).values()) for path in folder.iterdir()}


@pytest.mark.slow
def test_every_layout_equals_one_device(tmp_path_factory):
    """Losses, gradients, statistics and memory of every step, and the evaluation, of every method."""
    seen = {layout: written(tmp_path_factory.mktemp("layout"), *layout) for layout in ((1, 8), (2, 4), (4, 2))}
    for layout, histories in seen.items():
        for method in METHODS:
            assert len(histories[method]) > 100, layout
            assert_close(seen[1, 8][f"{method} 1"], histories[method])


@pytest.mark.slow
def test_a_run_loses_a_process_is_stopped_and_moves_to_other_layouts(tmp_path):
    """Two processes of four devices, and one of one device: nothing is lost on the way, and nobody hangs."""
    alone, moved = tmp_path / "alone", tmp_path / "moved"

    running = start(faults.command(moved, **SLOW), 2, 4)
    wait_for(EPOCH + 2, moved, running)
    running[1].kill()
    codes, said = ends(running, faults.DEAD)
    assert codes[0] in (1, -signal.SIGABRT), said  # JAX's runtime may notice first, and ends the process itself
    assert "the processes have lost each other" in said or "another task died" in said

    running = start(faults.command(moved, **SLOW), 2, 4)
    wait_for(2 * EPOCH + 2, moved, running)
    running[1].terminate()
    codes, said = ends(running)
    assert codes == [75, 75], said
    assert said.count("stopped as asked") == 1

    stopped = logged(moved)
    one = start(faults.command(alone, **SLOW))
    codes, said = ends(start(faults.command(moved, **SLOW, **{"train.epochs": "4"})))
    assert codes == [0], said
    codes, said = ends(start(faults.command(moved, **SLOW), 2, 4))
    assert codes == [0, 0], said
    assert ends(one)[0] == [0]
    assert 2 * EPOCH < stopped < 4 * EPOCH
    assert faults.difference(moved, alone) < 1e-3
