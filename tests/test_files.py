"""Writing and locking: nobody is in a folder that somebody else holds, whatever becomes of the folder."""

import os
import threading
import time

import pytest

from jaxclust.files import alone_in, replace_folder


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
    assert (path / "deep" / "a").read_text() == "one"
    write(path, "two")
    assert (path / "deep" / "a").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_what_a_kill_left_is_cleared_away_and_what_it_took_comes_back(tmp_path):
    path = tmp_path / "report"
    write(path, "one")
    os.rename(path, tmp_path / ".report.old")  # killed between the two renames
    (tmp_path / ".report.new").mkdir()
    (tmp_path / ".report.new" / "half").write_text("")
    with pytest.raises(TypeError):
        write(path, None)
    assert (path / "deep" / "a").read_text() == "one"
    (tmp_path / ".report.new").mkdir()
    (tmp_path / ".report.new" / "half").write_text("")
    write(path, "two")
    assert [p.name for p in path.iterdir()] == ["deep"]
    assert [p.name for p in tmp_path.iterdir()] == ["report"]
