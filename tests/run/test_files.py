"""Writing and locking: nobody is in a folder that somebody else holds, whatever becomes of the folder."""

import errno
import fcntl
import os
import secrets
import stat
import threading
import time

import pytest

from jaxclust.run.errors import ConfigError
from jaxclust.run.files import in_place, is_inside, read_records, replace_folder, replacing, write_json
from jaxclust.run.locks import alone_in, locked


def test_only_one_is_in_a_folder_though_its_holders_rename_and_remove_it(tmp_path):
    folder, inside, most = tmp_path / "held", [], []

    def hold(i):
        for turn in range(20):
            with alone_in(folder, ""):
                inside.append(i)
                most.append(len(inside))
                time.sleep(0.001)
                inside.remove(i)  # who gives the folder away has left it
                if turn % 3 == 0:
                    os.rename(folder, tmp_path / f"done {i} {turn}")
                elif turn % 3 == 1:
                    folder.rmdir()

    threads = [threading.Thread(target=hold, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1


def write(path, text):
    with replace_folder(path) as new:
        (new / "deep").mkdir()
        (new / "deep" / "a").write_text(text)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report"
    write(path, "one")
    with pytest.raises(TypeError):
        write(path, None)
    assert (path / "deep" / "a").read_text("utf-8") == "one"
    write(path, "two")
    assert (path / "deep" / "a").read_text("utf-8") == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_what_a_kill_left_is_cleared_away_and_what_it_took_comes_back(tmp_path):
    path = tmp_path / "report"
    write(path, "one")
    os.rename(path, tmp_path / ".report.old")  # killed between the two renames
    (tmp_path / ".report.new").mkdir()
    (tmp_path / ".report.new" / "half").write_text("")
    with pytest.raises(TypeError):
        write(path, None)
    assert (path / "deep" / "a").read_text("utf-8") == "one"
    (tmp_path / ".report.new").mkdir()
    (tmp_path / ".report.new" / "half").write_text("")
    write(path, "two")
    assert [p.name for p in path.iterdir()] == ["deep"]
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("line", ["nonsense", "[1]", "3", '{"epoch": 1}', '{"step": "x"}'])
def test_a_damaged_record_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(ConfigError, match=rf"line 2 of {path} is damaged \(.+\); take that line out"):
        read_records(path)
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": ')
    assert read_records(path) == [{"step": 1}, {"step": 2}]


def test_what_lies_beside_a_file_is_not_written_to(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    words = [f"{i:06x}" for i in range(5)]
    for word, target in zip(words, ("../mine", "../new")):
        (tmp_path / "run" / f".scores.json.{word}").symlink_to(target)
    os.mkfifo(tmp_path / "run" / f".scores.json.{words[2]}")
    (tmp_path / "run" / f".scores.json.{words[3]}").mkdir()
    (tmp_path / "run" / "scores.json").symlink_to("../mine")
    drawn = iter(words)
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(drawn))
    write_json(tmp_path / "run" / "scores.json", {"a": 1})
    assert (tmp_path / "run" / "scores.json").read_text("utf-8") == '{\n  "a": 1\n}\n'
    assert not (tmp_path / "run" / "scores.json").is_symlink()
    assert (tmp_path / "mine").read_text("utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run"]
    assert [*drawn] == []


def test_a_file_is_made_with_the_permissions_that_any_has(tmp_path):
    (tmp_path / "any").touch()
    write_json(tmp_path / "one.json", {})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "two"):
        raise ZeroDivisionError
    assert (tmp_path / "one.json").stat().st_mode == (tmp_path / "any").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["any", "one.json"]


@pytest.mark.parametrize("place", ["report", ".report.new", ".report.old"])
@pytest.mark.parametrize("target", ["../around", "../nowhere"])
def test_a_folder_is_not_replaced_through_a_link(place, target, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "around" / "deep").mkdir(parents=True)
    (tmp_path / "around" / "a").write_text("mine")
    (tmp_path / "run" / place).symlink_to(target)
    if place != "report":
        write(tmp_path / "run" / "report", "one")
        (tmp_path / "run" / ".report.new").mkdir()
        (tmp_path / "run" / ".report.new" / "link").symlink_to("../../around")
    write(tmp_path / "run" / "report", "two")
    assert (tmp_path / "run" / "report" / "deep" / "a").read_text("utf-8") == "two"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report"]
    assert sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "around").rglob("*")) == [
        "around/a",
        "around/deep",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["around", "run"]


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_only_a_file_that_lies_right_there_is_appended_to(kind, tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    (tmp_path / "mine").write_text("mine")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": "../mine", "dangling": "../new"}[kind])
    with pytest.raises(ConfigError, match=r"metrics\.jsonl is a link, or no file at all"):
        open(path, "a", encoding="utf-8", opener=in_place)  # noqa: SIM115
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run"]
    assert (tmp_path / "mine").read_text("utf-8") == "mine"
    with open(tmp_path / "new", "a", encoding="utf-8", opener=in_place) as f:
        f.write("a")
    assert (tmp_path / "new").read_text("utf-8") == "a"


@pytest.fixture
def no_folder_locks(monkeypatch):
    """As over NFS and on Lustre, where locks of folders hold on one machine at most."""
    flock = fcntl.flock

    def files_only(fd, how):
        return None if stat.S_ISDIR(os.fstat(fd).st_mode) else flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", files_only)


def test_what_holds_a_folder_is_no_lock_of_a_folder(no_folder_locks, tmp_path):
    test_only_one_is_in_a_folder_though_its_holders_rename_and_remove_it(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_where_nothing_can_be_locked_it_goes_on_with_a_warning(number, tmp_path, monkeypatch, caplog):
    def refuse(fd, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(tmp_path / "report", "one")
    write(tmp_path / "report", "two")
    with locked(tmp_path / ".lock"):
        pass
    assert (tmp_path / "report" / "deep" / "a").read_text("utf-8") == "two"
    [said] = caplog.messages  # once
    assert f"{tmp_path} cannot be locked ({os.strerror(number)})" in said


def test_a_lock_names_its_holder(tmp_path):
    with locked(tmp_path / ".lock"), pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
        locked(tmp_path / ".lock").__enter__()
    with locked(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_file_is_not_taken_for_a_lock(kind, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    for name in (".lock", ".report.new.lock"):
        path = tmp_path / name
        {"link": lambda p: p.symlink_to(mine), "fifo": os.mkfifo, "folder": os.mkdir}[kind](path)
    with pytest.raises(ConfigError, match="remove it"):
        locked(tmp_path / ".lock").__enter__()
    with pytest.raises(ConfigError, match="remove it"):
        write(tmp_path / "report", "one")
    assert mine.read_text("utf-8") == "precious"


def test_a_folder_that_is_a_link_is_not_filled_or_emptied(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").write_text("precious")
    (tmp_path / ".report.new").symlink_to("theirs")
    write(tmp_path / "report", "one")
    assert (tmp_path / "theirs" / "a").read_text("utf-8") == "precious"
    assert (tmp_path / "report" / "deep" / "a").read_text("utf-8") == "one"


def test_a_path_is_inside_a_folder_wherever_its_links_lead(tmp_path):
    for name, leads in (("in", "folder/a"), ("out", "other"), ("circle", "circle")):
        (tmp_path / name).symlink_to(tmp_path / leads)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "out").symlink_to(tmp_path / "other")
    within = ["folder", "folder/a/b", "in", "in/x", "other/../folder", "circle/../folder/a"]
    beyond = [".", "folder 2", "folder/..", "folder/out", "folder/out/x", "out", "circle", "circle/x", "x" * 5000]
    assert [path for path in within + beyond if is_inside(tmp_path / path, tmp_path / "folder")] == within
    assert is_inside(tmp_path / "in", tmp_path / "in")


def test_a_folder_in_a_files_place_is_named_and_left(tmp_path):
    (tmp_path / "scores.json" / "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"scores.json is a folder, and a file of that name is to be written"):
        write_json(tmp_path / "scores.json", {})
    assert [path.name for path in tmp_path.rglob("*")] == ["scores.json", "mine"]
