"""What starts a run: SLURM, one machine, Kubernetes; and the check of a GPU."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import kubernetes_validate
import numpy as np
import pytest
import yaml
from conftest import ROOT, config_of, environment

from jaxclust import main
from jaxclust.run import sharding
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.training import build, looks

LAUNCH = ROOT / "launch"
SETTINGS = {
    "net.depth": "4",
    "net.stem": "vgg",
    "net.width": "4",
    "data.size": "16",
    "train.batch_size": "256",
    "train.epochs": "6",
    "train.log_every": "1",
    "method.views": '("plain","plain")',
    "checkpoint.every": "100",
    "eval.restarts": "1",
    "report.looks": "0",
    "report.page": "False",
}
EPOCH = 7  # steps
STEPS = 6 * EPOCH


def flags(workdir: Path, **more: str) -> list[str]:
    settings = SETTINGS | more
    return [f"--config={config_of('cc')}", f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in settings.items())]


def path_to(bin: Path = Path(sys.executable).parent) -> dict[str, str]:
    """The environment of a process with one device, whose `python` is the one in `bin`."""
    return environment() | {"PATH": f"{bin}:{os.environ['PATH']}"}


def logged(workdir: Path) -> list[int]:
    """The steps in the run's log, in order."""
    records = workdir / "metrics.jsonl"
    lines = records.read_text("utf-8").splitlines(keepends=True) if records.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def wait_for(what: str, condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


# Kubernetes


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict]:
    """The objects of kubernetes.yaml by their kinds."""
    return {o["kind"]: o for o in yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text("utf-8"))}


def pod_of(manifest) -> tuple[dict, dict[str, str]]:
    """The Job's container, and its environment."""
    [container] = manifest["Job"]["spec"]["template"]["spec"]["containers"]
    return container, {e["name"]: e["value"] for e in container["env"]}


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_the_manifest_is_valid(manifest, version):
    assert manifest.keys() == {"Service", "PersistentVolumeClaim", "Job"}
    for kubernetes_object in manifest.values():
        kubernetes_validate.validate(kubernetes_object, version, strict=True)


def test_the_manifest_agrees_with_itself(manifest):
    service, job = manifest["Service"], manifest["Job"]
    container, env = pod_of(manifest)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    host, port = env["JAXCLUST_COORDINATOR"].split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert int(port) == service["spec"]["ports"][0]["port"]
    assert int(env["JAXCLUST_NUM_PROCESSES"]) == spec["completions"] == spec["parallelism"]
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [manifest["PersistentVolumeClaim"]["metadata"]["name"]]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.mark.slow
def test_the_pods_of_the_job_train_together_and_the_first_one_writes(manifest, tmp_path):
    container, env = pod_of(manifest)
    with socket.create_server(("127.0.0.1", 0)) as s:
        env["JAXCLUST_COORDINATOR"] = f"127.0.0.1:{s.getsockname()[1]}"
    env |= path_to()
    more = {"train.epochs": "1", "report.looks": "1", "report.page": "True"}
    command = [*container["command"], *flags(tmp_path / "run", **more)]
    pods = [
        subprocess.Popen(
            command, env=env | {"JOB_COMPLETION_INDEX": str(i)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for i in range(int(env["JAXCLUST_NUM_PROCESSES"]))
    ]
    said = [pod.communicate(timeout=240) for pod in pods]
    assert [pod.returncode for pod in pods] == [0] * len(pods), said
    assert b"2 devices" in said[0][0]
    assert [line for line in said[1][0].splitlines() if not line.startswith(b"[Gloo]")] == []
    assert logged(tmp_path / "run") == list(range(1, EPOCH + 1))
    assert [look["epoch"] for look in looks.read(tmp_path / "run")] == [0, 1]
    assert (tmp_path / "run" / "report" / "index.html").exists()


# One machine


@pytest.fixture
def stand_in(tmp_path):
    """A folder with a `python` that runs the lines it is given, knowing the number `i` of its process."""

    def make(*lines: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        body = (
            "import os, signal, sys, time",
            "if sys.argv[1] == '-c': sys.exit(exec(sys.argv[2]))",
            "i = int(dict(a.partition('=')[::2] for a in sys.argv)['--process_id'])",
            *lines,
        )
        (folder / "python").write_text("\n".join((f"#!{sys.executable}", *body)) + "\n")
        (folder / "python").chmod(0o755)
        return folder

    return make


@pytest.mark.parametrize("arguments", [[], ["--config=configs/digits_cc.py"], ["0"]])
def test_local_without_a_number_is_told_how(arguments):
    done = subprocess.run([LAUNCH / "local.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: launch/local.sh N")


def test_local_ends_with_the_code_of_the_first_that_failed(stand_in):
    env = path_to(stand_in("time.sleep([0, 4, 0.3][i])", "sys.exit([0, 3, 4][i])"))
    assert subprocess.run([LAUNCH / "local.sh", "3"], env=env).returncode == 4


def test_local_gives_each_process_its_gpu(stand_in):
    env = path_to(stand_in("os.write(1, f'{i}:{os.environ[\"CUDA_VISIBLE_DEVICES\"]} '.encode())"))
    for visible, given in ((None, ["0:0", "1:1"]), ("4,6", ["0:4", "1:6"])):
        env.pop("CUDA_VISIBLE_DEVICES", None)
        env |= {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
        said = subprocess.run([LAUNCH / "local.sh", "2"], env=env, check=True, capture_output=True, text=True).stdout
        assert sorted(said.split()) == given


@pytest.mark.parametrize("name", ["TERM", "USR1", "INT"])
def test_local_hands_signals_on_and_waits(stand_in, name):
    number = getattr(signal, f"SIG{name}")
    env = path_to(
        stand_in(
            f"signal.signal({number:d}, lambda *_: (time.sleep(0.5 * i), os.write(1, b'saved '), sys.exit(75)))",
            "os.write(1, b'up ')",
            "time.sleep(60)",
        )
    )
    local = subprocess.Popen([LAUNCH / "local.sh", "2"], env=env, stdout=subprocess.PIPE)
    assert [local.stdout.read(3) for _ in range(2)] == [b"up "] * 2
    local.send_signal(number)
    assert local.communicate(timeout=60)[0] == b"saved saved "
    assert local.returncode == 75


# A check of a GPU


@pytest.fixture
def with_gpu(tmp_path):
    """A folder with a `python` that sees a GPU, notes what else it is told to run, and ends that with a code."""

    def make(code: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        body = (
            "import sys",
            "if sys.argv[1] == '-c': sys.exit('torch' in sys.argv[2] or print('a GPU'))",
            f"print(*sys.argv[1:], file=open({str(tmp_path / 'told')!r}, 'a'))",
            f"sys.exit({code})",
        )
        (folder / "python").write_text("\n".join((f"#!{sys.executable}", *body)) + "\n")
        (folder / "python").chmod(0o755)
        return folder

    return make


def test_every_script_is_one_to_bash():
    for script in LAUNCH.glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("arguments", [["soon"], ["0"], ["15", "--config.net.width=8"]])
def test_a_check_without_a_time_or_a_folder_is_told_how(arguments):
    done = subprocess.run([LAUNCH / "gpu_check.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: launch/gpu_check.sh")


def test_a_check_without_a_gpu_says_so_and_leaves_nothing(tmp_path):
    done = subprocess.run([LAUNCH / "gpu_check.sh"], env=path_to(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("gpu_check: JAX sees no GPU here")
    assert list(tmp_path.iterdir()) == []


def test_a_check_does_again_only_what_was_not_whole(with_gpu, tmp_path):
    command = [LAUNCH / "gpu_check.sh", "15", "kept", "--config.net.width=8"]

    def told(code: str) -> list[str]:
        (tmp_path / "told").unlink(missing_ok=True)
        subprocess.run(command, env=path_to(with_gpu(code)), cwd=tmp_path, check=True, capture_output=True)
        return [line for line in (tmp_path / "told").read_text("utf-8").splitlines() if "jaxclust" in line]

    first = told("any(a.endswith(('_cc.py', '/cc')) for a in sys.argv)")  # what has to do with CC fails
    assert len(first) == 8 + 4 + 1  # steps, training, and the scores of the one that did not end
    for line in first[:-5]:
        assert "--mode=bench --steps --config=configs/cifar10_" in line
        assert "--config.net.width=8" in line
    again = told("0")
    assert len(again) == 3
    assert all("_cc.py" in line for line in again)
    assert "--workdir=kept/cc" in again[-1]


# SLURM


@pytest.mark.parametrize(
    ("code", "ended_by_slurm", "requeued"),
    [(0, False, False), (1, False, False), (75, False, True), (143, False, True), (75, True, False)],
)
def test_a_slurm_job_that_was_stopped_goes_back_into_the_queue(tmp_path, code, ended_by_slurm, requeued):
    for name, line in (
        ("srun", f"{'kill -TERM $PPID; sleep 0.1; ' * ended_by_slurm}exit {code}"),
        ("scontrol", f'echo "$@" > {tmp_path}/requeued'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    env = path_to(tmp_path) | {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n1", "SLURM_CPUS_PER_TASK": "1"}
    assert subprocess.run([LAUNCH / "slurm.sh"], env=env).returncode == code
    assert (tmp_path / "requeued").exists() == requeued


def slurm_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    with contextlib.suppress(subprocess.SubprocessError):
        states = subprocess.run(["sinfo", "-h", "-o", "%T"], check=True, timeout=10, capture_output=True, text=True)
        return "idle" in states.stdout
    return False


def final_parameters(workdir: Path):
    args, overrides, _ = main.parse(flags(workdir))
    with Checkpoints(workdir, keep=None) as checkpoints:
        assert checkpoints.steps[-1] == STEPS
        return checkpoints.restore(build.build(args.config, args.workdir, args.mode, overrides).like).params


@pytest.mark.slow
@pytest.mark.skipif(not slurm_answers(), reason="no SLURM with an idle node answers")
def test_a_preempted_slurm_job_ends_as_if_left_alone(tmp_path, monkeypatch):
    def scontrol(*words) -> str:
        return subprocess.run(["scontrol", *words], check=True, capture_output=True, text=True).stdout

    alone, preempted, log = tmp_path / "alone", tmp_path / "preempted", tmp_path / "log"
    env = path_to()
    subprocess.run([LAUNCH / "local.sh", "2", *flags(alone)], check=True, env=env, stdout=subprocess.DEVNULL)

    def ended() -> bool:
        state = scontrol("show", "job", job)
        if "JobState=PENDING" in state:
            # SLURM would wait two minutes, and counts them anew when it has cleared the first start away. Within the
            # second in which it ended the first start, the node takes the second one for the same, and fails the job.
            time.sleep(5)
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"])  # may have started meanwhile
        return "JobState=COMPLETED" in state

    options = ["--parsable", f"--output={log}", "--gpus-per-node=0", "--ntasks-per-node=2", "--cpus-per-task=1"]
    sbatch = ["sbatch", *options, LAUNCH / "slurm.sh", *flags(preempted)]
    job = subprocess.run(sbatch, check=True, env=env, cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    try:
        wait_for("the third step", lambda: 3 in logged(preempted))
        subprocess.run(["scancel", "--signal=TERM", job], check=True)
        wait_for("back in the queue", lambda: "Restarts=1" in scontrol("show", "job", job))
        wait_for("the end", ended)
    except BaseException:
        print(log.read_text("utf-8") if log.exists() else "no log", file=sys.stderr)
        print(scontrol("show", "job", job), scontrol("show", "node"), file=sys.stderr)
        subprocess.run(["scancel", job])
        raise
    assert "restarts: 0" in log.read_text("utf-8")
    assert "restarts: 1" in log.read_text("utf-8")
    assert "resuming from step" in log.read_text("utf-8")
    assert logged(preempted) == list(range(1, STEPS + 1))

    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(1))
    a, b = (jax.tree.leaves(final_parameters(workdir)) for workdir in (alone, preempted))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
