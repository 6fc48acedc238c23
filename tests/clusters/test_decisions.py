"""What a person decides about clusters, and what comes of it for old and new images."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclust.clusters import decisions, journal, reach
from jaxclust.clusters.decisions import Decisions
from jaxclust.clusters.journal import Changed
from jaxclust.run import workdir
from jaxclust.run.errors import ConfigError

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


def new(group, *images, name="", origins=(0,), centre=(10, 0), radius=2.0, stay=()):
    about = {"from": [*origins], "centre": [*centre], "radius": radius, "stay": [*stay]}
    return {"do": "new", "images": [*images], "group": group, "name": name, **about}


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


def test_a_new_cluster_has_the_selected_images_and_no_other_of_the_run():
    d = decided(new(3, "b.jpg", name=" my\ncats ", stay=["d.jpg"]))  # d.jpg is within the radius
    assert d.groups() == {0: "", 1: "", 2: "", 3: "my cats"}
    group, confidence = d.members(Q, X, NAMES)
    np.testing.assert_array_equal(group, [0, 3, 1, 0])
    np.testing.assert_allclose(confidence, [0.6, 1, 0.5, 0.4])
    assert d.next_group() == 4
    d = decided(new(3, "b.jpg", "c.jpg", stay=["d.jpg"]), split(3, 4), move(0, "c.jpg"), merge(1, 4), rename(1, "x"))
    np.testing.assert_array_equal(d.members(Q, X, NAMES)[0], [0, 1, 0, 0])


def test_new_images_near_the_selected_ones_come_into_the_new_cluster():
    d = decided(new(3, "b.jpg", stay=["d.jpg"]))
    place, confidence = d.assign(Q, X)
    np.testing.assert_array_equal(place, [0, 3, 1, 3])
    np.testing.assert_allclose(confidence, [0.6, 0.5, 0.5, 0.4])
    np.testing.assert_allclose(d.follow(Q, X).sum(1), 1)
    elsewhere = decided(new(3, "b.jpg", origins=(1,)))  # from which neither comes
    np.testing.assert_array_equal(elsewhere.assign(Q, X)[0], [0, 0, 1, 0])
    np.testing.assert_array_equal(decided(new(3, "b.jpg", radius=0)).assign(Q, X)[0], [0, 0, 1, 0])


def test_a_new_cluster_reaches_as_far_as_it_can_be_told_from_the_others():
    x = np.array([[0.0], [1], [2], [5], [6]], np.float32)
    centre, radius, near = reach.reach(x, np.array([1, 1, 1, 0, 0], bool))
    assert (centre.tolist(), radius, near.any()) == ([1], 2.5, False)
    centre, radius, near = reach.reach(x, np.array([1, 0, 1, 0, 0], bool))
    assert (radius, near.tolist()) == (2.5, [False, True, False, False, False])
    assert reach.reach(x, np.array([0, 0, 0, 0, 1], bool))[1] == 0.5
    assert reach.reach(x, np.array([1, 0, 0, 0, 1], bool))[1] == 0  # their mean is among the others
    assert reach.reach(x, np.ones(5, bool))[1] > 3.2  # nothing else is there
    assert reach.reach(x[[0, 0]], np.array([1, 0], bool))[1] == 0  # the same image twice


def test_images_without_names_are_moved_by_row():
    d = Decisions(7, 3)
    entry = d.check(move(2, 3), None, 4, 2)
    np.testing.assert_array_equal(d._replace(entries=(entry,)).members(Q, X, None)[0], [0, 0, 1, 2])


def test_groups_are_the_same_when_traced():
    d = decided(split(0, 3), merge(1, 2), rename(1, "rest"), new(4, "a.jpg", origins=(0, 3), centre=(1, 1)))
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
        (rename(9, "x"), "no cluster 9; there are 0, 1, 2"),
        (rename(True, "x"), "no cluster True"),
        (rename("1", "x"), "no cluster '1'"),
        (rename(1, None), "a name is at most 200 characters"),
        (rename(1, "x" * 201), "a name is at most 200 characters"),
        (merge(1), "two or more different clusters"),
        (merge(1, 1), "two or more different clusters"),
        (merge(1, 7), "no cluster 7"),
        (split(0, 2), r"makes clusters \[0, 3\], not \[0, 2\]"),
        ({**split(0, 3), "centres": [[0, 0]]}, "a split takes 2 to 8 centres of 2 numbers"),
        ({**split(0, 3), "centres": [[0, 0], [1]]}, "a split takes 2 to 8 centres of 2 numbers"),
        ({**split(0, 3), "centres": [[0, 0], [float("nan"), 1]]}, "a split takes 2 to 8 centres of 2 numbers"),
        (move(1), "about images names none"),
        (move(1, "../a.jpg"), r"no image '../a.jpg'"),
        (move(1, 0), "no image 0"),
        (new(2, "a.jpg"), "gets the number 3, not 2"),
        (new(True, "a.jpg"), "gets the number 3, not True"),
        (new(3), "about images names none"),
        (new(3, "e.jpg"), "no image 'e.jpg'"),
        ({**new(3, "a.jpg"), "images": "a.jpg"}, "about images names none"),
        ({**new(3, "a.jpg"), "name": 5}, "a name is at most 200 characters"),
        ({**new(3, "a.jpg"), "from": []}, "one or more different clusters"),
        ({**new(3, "a.jpg"), "from": [0, 0]}, "one or more different clusters"),
        ({**new(3, "a.jpg"), "from": [3]}, "no cluster 3"),
        ({**new(3, "a.jpg"), "from": None}, "one or more different clusters"),
        ({**new(3, "a.jpg"), "centre": [[0, 0]]}, "a centre of 2 numbers"),
        ({**new(3, "a.jpg"), "centre": [0, float("inf")]}, "a centre of 2 numbers"),
        ({**new(3, "a.jpg"), "centre": {"x": 1}}, "a centre of 2 numbers"),
        ({**new(3, "a.jpg"), "radius": -1}, "a radius of 0 or more, not -1"),
        ({**new(3, "a.jpg"), "radius": float("nan")}, "a radius of 0 or more, not nan"),
        ({**new(3, "a.jpg"), "radius": True}, "a radius of 0 or more, not True"),
        ({**new(3, "a.jpg"), "stay": None}, "about images names none"),
        (new(3, "a.jpg", stay=["e.jpg"]), "no image 'e.jpg'"),
        ({**new(3, "a.jpg"), "radius": None}, "a radius of 0 or more, not None"),
    ],
)
def test_what_makes_no_sense_is_refused(entry, said):
    with pytest.raises(ConfigError, match=said):
        decided().check(entry, NAMES, len(NAMES), 2)


def test_an_entry_keeps_nothing_that_is_not_asked_for():
    assert decided().check(rename(1, " a\n b ") | {"more": 1}, NAMES, 4, 2) == rename(1, "a b")


def test_saved_read_and_undone(tmp_path):
    empty = journal.load(tmp_path, 7, 3)
    one = journal.decide(tmp_path, empty, rename(1, "<b>ü\udc80"))
    two = journal.decide(tmp_path, one, merge(0, 2))
    assert journal.load(tmp_path, 7, 3) == two
    assert journal.decide(tmp_path, two, None) == journal.load(tmp_path, 7, 3) == one
    assert journal.decide(tmp_path, one, None).entries == ()
    with pytest.raises(ConfigError, match="nothing to undo"):
        journal.decide(tmp_path, empty, None)


def test_of_many_at_once_one_decides(tmp_path):
    empty, results = Decisions(7, 3), []

    def decide(i):
        try:
            results.append(journal.decide(tmp_path, empty, rename(1, str(i))))
        except Changed:
            results.append(None)

    threads = [threading.Thread(target=decide, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    [won] = [r for r in results if r]
    assert journal.load(tmp_path, 7, 3) == won


def test_decisions_belong_to_a_checkpoint(tmp_path):
    one = journal.decide(tmp_path, Decisions(7, 3), rename(1, "x"))
    with pytest.raises(ConfigError, match="give --step=7"):
        journal.load(tmp_path, 14, 3)
    journal.decide(tmp_path, one, None)
    assert journal.load(tmp_path, 14, 3) == Decisions(14, 3)


UNKNOWN = [
    json.dumps({"step": 7, "clusters": 3, "entries": [entry]})
    for entry in ({"do": "burn", "group": 1}, {"do": ["new"]}, {"do": "move", "group": 1}, {"do": "new", "group": 3})
]


@pytest.mark.parametrize("text", ["{", "[]", '{"step": 7}', '{"step": 7, "clusters": 3, "entries": [{}]}', *UNKNOWN])
def test_a_damaged_file_is_reported(tmp_path, text):
    (tmp_path / workdir.DECISIONS).write_text(text)
    with pytest.raises(ConfigError, match="is damaged"):
        journal.load(tmp_path, 7, 3)


@pytest.mark.parametrize("seed", range(4))
def test_images_of_a_run_are_carried_a_few_at_a_time_to_where_all_at_once_would_be(seed, monkeypatch):
    monkeypatch.setattr(decisions, "CHUNK", 7)
    rng = np.random.default_rng(seed)
    q, x = rng.dirichlet(np.ones(9), 200).astype(np.float32), rng.normal(size=(200, 2)).astype(np.float32)
    d = Decisions(7, 9)
    rows = rng.permutation(200)[:5].tolist()
    for entry in (
        merge(5, 2),
        split(3, 9),
        rename(3, "cats"),
        merge(0, 3),
        new(10, *rows, origins=(5, 9), centre=(0, 0), radius=0.7, stay=(1, 2)),
        split(10, 11),
        move(8, 0),
    ):
        d = d._replace(entries=(*d.entries, d.check(entry, None, 200, 2)))
    place, confidence = d.assign(q, x, keys=range(200))
    group, sure = d.without_moves(q, x, None)
    np.testing.assert_array_equal(group, np.array([*d.groups()])[place])
    np.testing.assert_array_equal(sure, confidence)
    assert sorted(clusters for clusters, _ in d._joined()) == [[0, 2, 3, 5]]
