"""The processes of a run: found from the command line or from what started them, and joined through JAX.

    SLURM        a step of several tasks; each task is a process
    Kubernetes   an Indexed Job; each pod is a process, and the manifest says where the first one is
    Open MPI     mpirun; each rank is a process

JAX's distributed runtime does the rest: process 0 opens the coordinator's port, the others come to it, and devices
talk to each other through NCCL on GPUs and gloo on CPUs.
"""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax

from jaxclust.run.errors import ConfigError, RunError

logger = logging.getLogger(__name__)

TIMEOUT = 300  # seconds that processes wait for each other at the start: machines may still be fetching their images
HEARTBEAT = 30  # seconds of silence after which a process counts as dead, and the others end
FAREWELL = 60  # seconds that a process that has finished waits for the others


class Processes(NamedTuple):
    coordinator: str  # HOST:PORT of process 0
    count: int  # type: ignore[assignment]  # nobody counts in such a tuple
    index: int  # type: ignore[assignment]  # of this one
    local_index: int = 0  # among the processes of this machine
    local_count: int = 1
    bind: str | None = None  # HOST:PORT that process 0 listens at; None is `coordinator`


def find(coordinator: str | None, count: int | None, index: int | None, env: Mapping[str, str]) -> Processes | None:
    """The processes that this one is among, or None when it is alone.

    Args:
      coordinator: `--coordinator`, HOST:PORT.
      count: `--num_processes`.
      index: `--process_id`.
      env: environment variables.

    Raises:
      ConfigError: flags or environment contradict themselves or lack something.
    """
    flags = {"--coordinator": coordinator, "--num_processes": count, "--process_id": index}
    missing = [name for name, value in flags.items() if value is None]
    if coordinator is not None and count is not None and index is not None:
        return _checked(Processes(coordinator, count, index), "--coordinator, --num_processes and --process_id")
    if len(missing) < 3:
        given = ", ".join(name for name, value in flags.items() if value is not None)
        raise ConfigError(f"{given} alone is not enough; give {' and '.join(missing)} too")
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in env:
        return _checked(_slurm(env), "SLURM's environment")
    if "JOB_COMPLETION_INDEX" in env and "JAXCLUST_COORDINATOR" in env:
        count = _number(env, "JAXCLUST_NUM_PROCESSES")
        index = _number(env, "JOB_COMPLETION_INDEX")
        return _checked(Processes(env["JAXCLUST_COORDINATOR"], count, index), "the Job's environment")
    if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return _checked(_open_mpi(env), "Open MPI's environment")
    return None


def join(processes: Processes, env: Mapping[str, str]) -> None:
    """Joins the other processes; from here on `jax.devices()` are those of all of them.

    Where they do not come together within `TIMEOUT` seconds, this process ends with a sentence and exit code 1.

    Raises:
      ConfigError: see `devices`.
      RunError: the coordinator's port cannot be opened.
    """
    index, count, where = processes.index, processes.count, processes.coordinator
    logger.warning("process %d of %d, by way of %s; waits up to %d s for the others", index, count, where, TIMEOUT)
    local = devices(processes, env.get("CUDA_VISIBLE_DEVICES"))
    # JAX would end the process itself, with a stack trace of C++.
    late = threading.Timer(TIMEOUT, _give_up, [processes])
    late.daemon = True
    late.start()
    try:
        _wait_for_name(where)
        if index == 0:
            _try_port(processes.bind or where)
        jax.distributed.initialize(
            where,
            count,
            index,
            local_device_ids=local,
            cluster_detection_method="deactivate",  # found above, and another answer would be a surprise
            initialization_timeout=2 * TIMEOUT,
            coordinator_bind_address=processes.bind or where,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=FAREWELL,
        )
    finally:
        late.cancel()


def _wait_for_name(address: str) -> None:
    """Waits until the name of the host is known: that of a pod is not yet when the others start."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
            return
        except socket.gaierror:
            time.sleep(1)


def _try_port(address: str) -> None:
    """Opens and closes a port: JAX crashes now and then where it cannot."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        socket.create_server((host, int(port)), family=socket.getaddrinfo(host, None)[0][0]).close()
    except OSError as e:
        raise RunError(
            f"process 0 cannot listen at {address} ({e.strerror}); give an address of its machine and a free port"
        ) from e


def _give_up(processes: Processes) -> None:
    found = "not all came to process 0" if processes.index == 0 else "nobody answered there, or not all came"
    logger.error(
        "jaxclust: the %d processes did not meet at %s within %d s: %s; check the coordinator's address and port, and "
        "that every process was started",
        processes.count,
        processes.coordinator,
        TIMEOUT,
        found,
    )
    os._exit(1)


def devices(processes: Processes, visible: str | None) -> list[int] | None:
    """This process's share of the machine's GPUs, as positions among the visible ones; None is all of them.

    Args:
      processes: how many share the machine.
      visible: CUDA_VISIBLE_DEVICES, where it is set. A launcher that gives each process its own GPU shows it only that.

    Raises:
      ConfigError: the GPUs cannot be shared out evenly.
    """
    count, local = len((visible or "").split(",")), processes.local_count
    if local == 1 or count == 1:
        return None
    if count % local:
        raise ConfigError(f"{local} processes of this machine cannot share {count} GPUs (CUDA_VISIBLE_DEVICES) evenly")
    each = count // local
    return list(range(processes.local_index * each, (processes.local_index + 1) * each))


def _slurm(env: Mapping[str, str]) -> Processes:
    """A task of a step. Jobs that share a node differ in their ids, and so in their ports (as JAX has it)."""
    port = 2**16 - 2**12 + _number(env, "SLURM_JOB_ID") % 2**12
    # n1,n2 or n[01-03,7],m1
    node = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\]([^\[,]*))?", env.get("SLURM_STEP_NODELIST", ""))
    first = "".join(part or "" for part in node.groups()) if node else ""
    # "4(x2),3": the tasks of each node
    here = env.get("SLURM_STEP_TASKS_PER_NODE", "1").split(",")[0].split("(")[0]
    coordinator = f"{first}:{port}"
    return Processes(
        coordinator,
        _number(env, "SLURM_STEP_NUM_TASKS"),
        _number(env, "SLURM_PROCID"),
        _number(env, "SLURM_LOCALID"),
        int(here),
        # Debian has a machine's own name mean its loopback, where no other machine could come to.
        f"[::]:{port}" if _number(env, "SLURM_STEP_NUM_NODES") > 1 and _is_loopback(first) else None,
    )


def _open_mpi(env: Mapping[str, str]) -> Processes:
    if "JAXCLUST_COORDINATOR" not in env:
        raise ConfigError(
            "Open MPI does not say where its first process is; give it: mpirun -x JAXCLUST_COORDINATOR=HOST:PORT ..."
        )
    return Processes(
        env["JAXCLUST_COORDINATOR"],
        _number(env, "OMPI_COMM_WORLD_SIZE"),
        _number(env, "OMPI_COMM_WORLD_RANK"),
        _number(env, "OMPI_COMM_WORLD_LOCAL_RANK"),
        _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE"),
    )


def _number(env: Mapping[str, str], name: str) -> int:
    if not env.get(name, "").isdecimal():
        raise ConfigError(f"the environment variable {name} is {env.get(name)!r}, which is not a whole number")
    return int(env[name])


def _checked(processes: Processes, source: str) -> Processes:
    host, _, port = processes.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"the coordinator's address in {source} is {processes.coordinator!r}; give HOST:PORT")
    if not 0 <= processes.index < processes.count:
        raise ConfigError(
            f"{source} number this process {processes.index} of {processes.count}; it must be from 0 to one less"
        )
    return processes


def _is_loopback(host: str) -> bool:
    try:
        return socket.gethostbyname(host).startswith("127.")
    except socket.gaierror:
        return False
