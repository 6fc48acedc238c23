"""Writing and locking: nobody is in a folder that somebody else holds, whatever becomes of the folder."""

import os
import threading
import time

from jaxclust.files import alone_in


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
