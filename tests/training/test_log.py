"""What a run leaves on the disk while it trains."""

import io
import json
import struct
import time

import jax.numpy as jnp
from tensorboardX import event_file_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from jaxclust.training.log import Log, _ticking


def events(path):
    """The events of a TensorBoard file: length, its checksum, the event, its checksum."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def test_records_are_means_in_both_files_and_a_second_start_replaces_what_came_after_it(tmp_path, monkeypatch):
    clock = iter([2e9, 1e9])  # goes back
    monkeypatch.setattr(event_file_writer.time, "time", lambda: now)
    for first in (0, 2):
        now = next(clock)
        with Log(tmp_path, step=first, steps=4, epochs=1, images=8, every=2, write=True) as log:
            for step in range(first + 1, 5):
                log.push(step, 0, {"loss": jnp.float32(step)})
            log.drain()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [(r["step"], r["loss"]) for r in records] == [(2, 1.5), (4, 3.5)]
    seen = [e for path in sorted((tmp_path / "tensorboard").iterdir()) for e in events(path)]
    starts = [e.step for e in seen if e.session_log.status == SessionLog.START]
    losses = [(e.step, v.simple_value) for e in seen for v in e.summary.value if v.tag == "train/loss"]
    assert starts == [1, 3]  # from which on TensorBoard forgets: the record of step 2 stays
    assert losses == [(2, 1.5), (4, 3.5), (4, 3.5)]


def test_the_clock_goes_on_while_a_program_is_compiled():
    shown = io.StringIO()
    with tqdm(total=9, file=shown, ncols=60) as bar, _ticking(bar):
        time.sleep(1.3)
    assert "00:01<?" in shown.getvalue()
