"""A run of which any one file is damaged: every mode works, or says in a sentence what is wrong, and waits for nothing.

All damages to all that a mode reads, which takes hours:

    DAMAGES=all python -m pytest -n 0 -m slow tests/run/test_damages.py
"""

import contextlib
import faulthandler
import functools
import hashlib
import io
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import SHORT, SMALL, config_of
from PIL import Image

from jaxclust import main, nets
from jaxclust.pages.browse import serving
from jaxclust.run import sharding

SECONDS = 120  # at most, for one mode
ALL = os.environ.get("DAMAGES") == "all"
SHARE = 1 if ALL else 0.05  # of what a mode reads, that is tried
UNREAD = SHARE / 20  # of what it does not read, but may look for


def flipped(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(b ^ 0x55 for b in content[len(content) // 2 :])
    path.write_bytes(content)


def instead(make):
    """Something else in place of the file."""
    return lambda path: (path.unlink(), make(path))


DAMAGES = {
    "another form": lambda path: path.write_text("[1]\n"),
    "deep": lambda path: path.write_text("[" * 100_000 + "\n"),
    "null": lambda path: path.write_text('{"step": null}\n'),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flipped,
    "gone": Path.unlink,
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "an endless file": instead(lambda path: path.symlink_to("/dev/zero")),
}
MODES = {
    "train": ["--config.train.epochs=2"],
    "evaluate": [],
    "probe": [],
    "suggest-k": ["--k=2:3"],
    "report": [],
    "browse": ["--port=0"],
    "export": [],
    "predict": ["--images=photos"],
    "compare": ["--runs=run"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished run, a copy of it in mid-flight, and photos."""
    home = tmp_path_factory.mktemp("damages")
    (home / "photos").mkdir()
    for i in range(4):
        Image.effect_noise((16, 16), 50).save(home / "photos" / f"{i}.png")
    return home


def said_by(mode: str, home: Path, config: tuple[str, ...]) -> tuple[int, str]:
    """The exit code and what the mode says on standard error."""
    argv = ["--config=" + str(config_of("cc")), *config] if mode == "train" else []
    argv += [f"--mode={mode}", *([] if mode == "compare" else ["--workdir=run"]), *MODES[mode][mode == "train" :]]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(home):
        code = main.cli(argv)
    return code, err.getvalue()


def anew(home: Path) -> None:
    shutil.rmtree(home / "run", ignore_errors=True)
    shutil.copytree(home / "whole", home / "run")


@functools.cache
def read_by(mode: str, home: Path, config: tuple[str, ...], files: tuple[Path, ...]) -> set[Path]:
    """The files of a run that the mode reads, as their times of access say; all where the file system notes none."""
    anew(home)
    for name in files:
        os.utime(home / "run" / name, (0, (home / "run" / name).stat().st_mtime))
    said_by(mode, home, config)
    read = {name for name in files if not (path := home / "run" / name).is_file() or path.stat().st_atime > 0}
    return read or set(files)


def kind_of(name: Path) -> str:
    """The files of a kind are read by the same lines: they differ by a number, or by the figure that is drawn."""
    return str(name) if ALL else re.sub(r"\d+", "0", re.sub(r"(?<=report/figures/)\w+", "figure", str(name)))


def choice(*of: str) -> float:
    """A number in [0, 1) that belongs to these words."""
    return int(hashlib.sha256("\0".join(of).encode()).hexdigest()[:8], 16) / 2**32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damaged_file_is_lived_with_or_named(damage, home, fake_data, monkeypatch):
    monkeypatch.setitem(nets.BLOCKS, 18, SHORT)
    monkeypatch.setattr(serving, "serve", lambda library, *_: library.now())
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(1))
    small = SMALL | {"report.looks": "2", "report.page": "True", "net.width": "4"}
    config = tuple(f"--config.{name}={value}" for name, value in small.items())
    if not (home / "whole").exists():
        assert said_by("train", home, config) == (0, "")
        for mode in MODES:
            assert said_by(mode, home, config)[0] == 0, mode
        (home / "run").rename(home / "whole")
    files = tuple(sorted(path.relative_to(home / "whole") for path in (home / "whole").rglob("*") if path.is_file()))
    wrong = []
    for mode in MODES:
        reads = read_by(mode, home, config, files)
        one_of = {(kind_of(name), name in reads): name for name in files}
        for (kind, read), name in one_of.items():
            if choice(damage, kind, mode) > (SHARE if read else UNREAD):
                continue
            anew(home)
            DAMAGES[damage](home / "run" / name)
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
            try:
                code, said = said_by(mode, home, config)
            except BaseException as e:
                wrong.append((str(name), mode, repr(e)[:200]))
            else:
                if code not in (0, 1, 2) or (code and not said.splitlines()[-1].startswith("jaxclust: ")):
                    wrong.append((str(name), mode, code, said[-300:]))
            finally:
                faulthandler.cancel_dump_traceback_later()
    assert not wrong, "\n".join(map(str, wrong))
