"""SIGKILL at any moment loses nothing: the same command again ends with the same bits. More: helpers/faults.py."""

import json

import pytest
from helpers.faults import STEPS, command, digests, ends, start, wait_for

pytestmark = pytest.mark.slow


def test_a_run_killed_twice_equals_one_left_alone(tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    codes, said = ends(start(command(alone)))
    assert codes == [0], said

    for step in (3, 20):  # before the first checkpoint; after the centres are placed
        running = start(command(killed))
        wait_for(step, killed, running)
        running[0].kill()
        assert ends(running)[0] == [-9]
    codes, said = ends(start(command(killed)))
    assert codes == [0], said

    assert digests(killed) == digests(alone)
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert steps == list(range(1, STEPS + 1))
    assert (alone / "scores.json").read_bytes() == (killed / "scores.json").read_bytes()
