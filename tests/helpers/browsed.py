"""A small run to browse, and the server on it as a process: `python browsed.py FOLDER`."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jaxclust.data.originals import Originals
from jaxclust.inference.arrange import arrange
from jaxclust.pages.browse import server
from jaxclust.pages.browse.library import Library
from jaxclust.pages.browse.serving import serve
from jaxclust.run import messages

COUNT, SIDE, GROUPS = 60, 8, 3
NAMES = {
    0: "<script>document.title='hacked'</script>.png",
    1: "\"quotes\" & 'more' <img src=x onerror=alert(1)>.png",
    2: "two\nlines.png",
    3: "emoji 🐈 \u202egnp.png",
    4: os.fsdecode(b"no utf-8 \xff.png"),
    5: "sub/a link inside.png",
    6: "a link out of the folder.png",
    7: "a pipe.png",
    8: "a folder.png",
    9: "gone.png",
    10: "a page.png",
    11: "a link in a circle.png",
}
UNUSABLE = range(6, 12)
SECRET = "not for the browser"


def make_run(folder: Path, count: int) -> np.ndarray:
    """The run alone, `run.npz`; its images, u8[count, SIDE, SIDE, 3]."""
    rng = np.random.default_rng(0)
    truth = np.arange(count) % GROUPS
    images = rng.integers(0, 90, (count, SIDE, SIDE, 3)) + 60 * truth[:, None, None, None]
    images = images.astype(np.uint8)
    q = rng.uniform(0.0, 0.2, (count, GROUPS))
    q[np.arange(count), truth] = rng.uniform(0.5, 0.9, count)
    x = np.eye(GROUPS, 4)[truth] * 5 + rng.normal(0, 0.5, (count, 4))
    np.savez(
        folder / "run.npz", images=images.astype(np.uint8), q=(q / q.sum(1)[:, None]).astype("f4"), x=x.astype("f4")
    )
    return images


def make(folder: Path) -> None:
    """Three well separated groups of twenty small images, whose files have all kinds of names and of troubles."""
    images = make_run(folder, COUNT)
    data = folder / "data"
    data.mkdir()
    for row, file in enumerate(files()):
        (data / file).parent.mkdir(exist_ok=True)  # "</script>" makes a folder
        if row not in UNUSABLE and row != 5:
            Image.fromarray(images[row]).resize((300, 300), Image.Resampling.NEAREST).save(data / file)
    (folder / "secret.png").write_bytes((data / files()[20]).read_bytes())
    (folder / "secret.txt").write_text(SECRET)
    (data / NAMES[5]).symlink_to(data / files()[20])
    (data / NAMES[6]).symlink_to(folder / "secret.png")
    os.mkfifo(data / NAMES[7])
    (data / NAMES[8]).mkdir()
    (data / NAMES[10]).write_text(f"<!doctype html><script>alert('{SECRET}')</script>")
    (data / NAMES[11]).symlink_to(data / NAMES[11])


def files() -> list[str]:
    return [NAMES.get(row, f"{row:03}.png") for row in range(COUNT)]


def library(folder: Path) -> Library:
    run = np.load(folder / "run.npz")
    named = (folder / "data").exists()
    where = (files(), Originals(folder / "data", files())) if named else (None, None)
    return Library(folder, 7, run["images"], *where, run["q"], run["x"])


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The port of a server on the run in `folder`. It must end well on Ctrl-C."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
            yield int(said.rpartition(":")[2].strip(" /\n"))
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


if __name__ == "__main__":
    run, data = library(Path(sys.argv[1])), Path(sys.argv[1]) / "data"

    def embed(image):
        """Of an image that the run has, what the run says of it; of others, something, and that they are novel."""
        far = np.abs(run.images.astype(int) - image).mean((1, 2, 3))
        row = far.argmin()
        return server.Embedded(run.q[[row]], run.x[[row]], far[[row]] > 40)

    def sort(now, into, copy):
        """Of the images whose files are there."""
        return arrange(data, (SIDE, SIDE, 3), SIDE, into, run.files, now.members.group, now.names, copy)

    with messages.shown():
        serve(run, 0, embed, sort if data.exists() else None)
