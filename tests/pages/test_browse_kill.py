"""SIGKILL of the page's server at any moment: no decision that it acknowledged is lost, and no file is half there."""

import contextlib
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import browsed
from helpers.browsed import COUNT, GROUPS

from jaxclust.clusters import journal, table
from jaxclust.run import cells, workdir

pytestmark = pytest.mark.slow
KILLS = 20
LIFE = 1.0  # seconds of a server, at most, once it answers


@contextlib.contextmanager
def living(folder: Path, seconds: float = 600) -> Iterator[http.client.HTTPConnection]:
    """A line to a server that is killed after so many seconds, or at the end."""
    command = [sys.executable, browsed.__file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline().rpartition(":")[2].strip(" /\n"))
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as line:
                yield line
        finally:
            killer.cancel()
            process.kill()
            _, errors = process.communicate(timeout=60)
        assert errors == ""


def ask(line: http.client.HTTPConnection, path: str, body: dict | None = None) -> dict:
    """The answer; an OSError or HTTPException if the server is no more."""
    headers = {"content-type": "application/json", "origin": f"http://127.0.0.1:{line.port}"}
    line.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
    answer = line.getresponse()
    said = answer.read()
    assert answer.status == 200, said
    return json.loads(said)


def decide(line: http.client.HTTPConnection, state: dict, entry: dict) -> dict:
    if entry["do"] == "undo":
        return ask(line, "/api/undo", {"seen": state["version"]})
    return ask(line, "/api/decide", {"seen": state["version"], "entry": entry})


def any_entry(rng: random.Random, state: dict) -> dict:
    rows, group = rng.sample(range(COUNT), 3), rng.choice(state["groups"])["group"]
    new = {"do": "new", "rows": rows, "name": f"new {rng.random()} ü \ud800"}
    move = {"do": "move", "rows": rows, "group": group}
    rename = {"do": "rename", "group": group, "name": f"named {rng.random()}"}
    return rng.choice([new, new, move, rename, {"do": "undo"}] if state["decided"] else [new])


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Reads the files all the while: each is whole, or not there yet."""
    path, ending, wrong, read = folder / workdir.CLUSTERS, threading.Event(), [], []

    def watch() -> None:
        while not ending.wait(0.005):
            try:
                read.append(journal.load(folder, 7, GROUPS))
                with path.open(newline="", encoding="utf-8") if path.exists() else contextlib.nullcontext() as f:
                    header, *rows = cells.read(f) if f else [[*table.COLUMNS], *[None] * COUNT]
                assert (header, len(rows)) == ([*table.COLUMNS], COUNT)
            except Exception as e:
                wrong.append(e)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        ending.set()
        watching.join()
    assert wrong == []
    assert len(read) > KILLS


def test_what_was_acknowledged_outlives_every_kill(tmp_path, record_property):
    browsed.make(tmp_path)
    rng, acknowledged, asked = random.Random(0), 0, None
    versions = [browsed.library(tmp_path).now().version]  # with no decision, the first, the second ... acknowledged one

    def take(state: dict, entry: dict | None) -> None:
        """Takes over what is there: what was acknowledged, with or without the one thing that was asked since."""
        if entry and entry["do"] == "undo" and state["version"] == versions[-2]:
            versions.pop()
        elif entry and entry["do"] != "undo" and state["decided"] == len(versions):
            versions.append(state["version"])
        assert (state["version"], state["decided"]) == (versions[-1], len(versions) - 1)

    with watched(tmp_path):
        for _ in range(KILLS):
            gone = contextlib.suppress(OSError, http.client.HTTPException)
            with gone, living(tmp_path, rng.uniform(0, LIFE)) as line:
                take(state := ask(line, "/api/state"), asked)
                while True:
                    asked, before = any_entry(rng, state), versions[-1]
                    take(state := decide(line, state, asked), asked)
                    assert versions[-1] != before
                    acknowledged += 1
    record_property("acknowledged", acknowledged)
    assert acknowledged > KILLS

    with living(tmp_path) as line:
        take(state := ask(line, "/api/state"), asked)
        now = browsed.library(tmp_path).now()
        wanted = table.text(browsed.files(), now.names, now.members.group, now.members.confidence)
        while (tmp_path / workdir.CLUSTERS).read_bytes() != wanted.encode("utf-8", "backslashreplace"):
            time.sleep(0.01)
        for version in reversed(versions[:-1]):  # each of them is there, in its order
            state = decide(line, state, {"do": "undo"})
            assert state["version"] == version
    assert state["decided"] == 0
