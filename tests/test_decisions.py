"""What a person decides about clusters, and what comes of it for old and new images."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclust import decisions
from jaxclust.config import ConfigError
from jaxclust.decisions import Changed, Decisions

Q = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.1, 0.5, 0.4], [0.4, 0.25, 0.35]], np.float32)
X = np.array([[0.0, 0], [10, 0], [0, 10], [10, 1]], np.float32)
NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def decided(*entries) -> Decisions:
    d = Decisions(7, 3)
    for entry in entries:
        d = d._replace(entries=(*d.entries, d.check(entry, NAMES, len(NAMES), X.shape[1])))
    return d


def merge(*groups):
    return {"do": "merge", "groups": [*groups]}


def split(group, *into):
    return {"do": "split", "group": group, "into": [group, *into], "centres": [[0, 0], [10, 0]]}


def rename(group, name):
    return {"do": "rename", "group": group, "name": name}


def move(group, *images):
    return {"do": "move", "images": [*images], "group": group}


def test_without_decisions_groups_are_clusters():
    group, confidence = decided().members(Q, X, NAMES)
    np.testing.assert_array_equal(group, [0, 0, 1, 0])
    np.testing.assert_array_equal(confidence, Q.max(1))
    assert decided().groups() == {0: "", 1: "", 2: ""}


def test_a_merge_draws_in_no_image_of_a_third_cluster():
    d = decided(merge(1, 2))  # the last image is in cluster 0 at 0.4, and in 1 or 2 at 0.6
    group, confidence = d.members(Q, X, NAMES)
    np.testing.assert_array_equal(group, [0, 0, 1, 0])
    np.testing.assert_allclose(confidence, [0.6, 0.5, 0.9, 0.4])
    assert [*d.groups()] == [0, 1]


def test_a_split_is_by_the_nearest_centre_and_a_new_number_is_new():
    d = decided(split(0, 3), rename(3, "far"), merge(0, 3), split(0, 4))
    np.testing.assert_array_equal(d.members(Q, X, NAMES)[0], [0, 4, 1, 4])
    assert d.groups() == {0: "", 1: "", 2: "", 4: ""}
    np.testing.assert_allclose(d.members(Q, X, NAMES)[1], Q.max(1))


def test_a_move_goes_with_what_becomes_of_its_group():
    moved = move(1, "b.jpg", "d.jpg")
    np.testing.assert_array_equal(decided(moved).members(Q, X, NAMES)[0], [0, 1, 1, 1])
    np.testing.assert_array_equal(decided(moved, merge(2, 1)).members(Q, X, NAMES)[0], [0, 2, 2, 2])
    np.testing.assert_array_equal(decided(moved, split(1, 3)).members(Q, X, NAMES)[0], [0, 3, 1, 3])
    back = move(0, "b.jpg")
    np.testing.assert_array_equal(decided(moved, split(1, 3), back).members(Q, X, NAMES)[0], [0, 0, 1, 3])
    assert decided(moved).members(Q, X, NAMES)[1].tolist() == pytest.approx([0.6, 1, 0.5, 1])


def test_images_without_names_are_moved_by_row():
    d = Decisions(7, 3)
    entry = d.check(move(2, 3), None, 4, 2)
    np.testing.assert_array_equal(d._replace(entries=(entry,)).members(Q, X, None)[0], [0, 0, 1, 2])


def test_groups_are_the_same_when_traced():
    d = decided(split(0, 3), merge(1, 2), rename(1, "rest"))
    place, confidence = jax.jit(lambda q, x: d.assign(q, x, jnp))(Q, X)
    expected = d.assign(Q, X)
    np.testing.assert_array_equal(place, expected[0])
    np.testing.assert_allclose(confidence, expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"do": "burn"}, "'burn' is none of them"),
        ({}, "None is none of them"),
        ([], "None is none of them"),
        (rename(9, "x"), "no group 9; there are 0, 1, 2"),
        (rename(True, "x"), "no group True"),
        (rename("1", "x"), "no group '1'"),
        (rename(1, None), "a name is at most 200 characters"),
        (rename(1, "x" * 201), "a name is at most 200 characters"),
        (merge(1), "two or more different groups"),
        (merge(1, 1), "two or more different groups"),
        (merge(1, 7), "no group 7"),
        (split(0, 2), r"makes groups \[0, 3\], not \[0, 2\]"),
        ({**split(0, 3), "centres": [[0, 0]]}, "a split takes 2 to 8 centres of 2 numbers"),
        ({**split(0, 3), "centres": [[0, 0], [1]]}, "a split takes 2 to 8 centres of 2 numbers"),
        ({**split(0, 3), "centres": [[0, 0], [float("nan"), 1]]}, "a split takes 2 to 8 centres of 2 numbers"),
        (move(1), "names no images"),
        (move(1, "../a.jpg"), r"no image '../a.jpg'"),
        (move(1, 0), "no image 0"),
    ],
)
def test_what_makes_no_sense_is_refused(entry, said):
    with pytest.raises(ConfigError, match=said):
        decided().check(entry, NAMES, len(NAMES), 2)


def test_an_entry_keeps_nothing_that_is_not_asked_for():
    assert decided().check(rename(1, " a\n b ") | {"more": 1}, NAMES, 4, 2) == rename(1, "a b")


def test_saved_read_and_undone(tmp_path):
    empty = decisions.load(tmp_path, 7, 3)
    one = decisions.decide(tmp_path, empty, rename(1, "<b>ü\udc80"))
    two = decisions.decide(tmp_path, one, merge(0, 2))
    assert decisions.load(tmp_path, 7, 3) == two
    assert decisions.decide(tmp_path, two, None) == decisions.load(tmp_path, 7, 3) == one
    assert decisions.decide(tmp_path, one, None).entries == ()
    with pytest.raises(ConfigError, match="nothing to undo"):
        decisions.decide(tmp_path, empty, None)


def test_of_many_at_once_one_decides(tmp_path):
    empty, results = Decisions(7, 3), []

    def decide(i):
        try:
            results.append(decisions.decide(tmp_path, empty, rename(1, str(i))))
        except Changed:
            results.append(None)

    threads = [threading.Thread(target=decide, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    [won] = [r for r in results if r]
    assert decisions.load(tmp_path, 7, 3) == won


def test_decisions_belong_to_a_checkpoint(tmp_path):
    one = decisions.decide(tmp_path, Decisions(7, 3), rename(1, "x"))
    with pytest.raises(ConfigError, match="give --step=7"):
        decisions.load(tmp_path, 14, 3)
    decisions.decide(tmp_path, one, None)
    assert decisions.load(tmp_path, 14, 3) == Decisions(14, 3)


@pytest.mark.parametrize("text", ["{", "[]", '{"step": 7}', '{"step": 7, "clusters": 3, "entries": [{}]}'])
def test_a_damaged_file_is_reported(tmp_path, text):
    (tmp_path / decisions.FILE).write_text(text)
    with pytest.raises(ConfigError, match="is damaged"):
        decisions.load(tmp_path, 7, 3)
