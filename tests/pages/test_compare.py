"""A comparison of runs, from files that are written as runs write them."""

import contextlib
import csv
import html
import io
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from conftest import config_of
from scipy import stats

from jaxclust import main
from jaxclust.pages import compare, table
from jaxclust.pages.compare import groups, paired, runs
from jaxclust.pages.table import Cell, Table
from jaxclust.run import config, messages
from jaxclust.run.errors import ConfigError

ACC = {"cc": (0.81, 0.84, 0.80), "mmdc": (0.86, 0.88, 0.87)}


def write(path: Path, method="cc", seed=0, acc=0.8, labels=True, step=1400, done=True, looks=5, **over) -> Path:
    """A workdir; `over` are settings, with __ for a point."""
    path.mkdir(parents=True)
    cfg = config.load(config_of(method), {k.replace("__", "."): str(v) for k, v in over.items()} | {"seed": str(seed)})
    (path / "config.json").write_text(cfg.to_json())
    (path / "environment.json").write_text(json.dumps({"devices": ["cpu:0 cpu", "cpu:1 cpu"]}))
    seen = [{"step": i, "epoch": i, "acc": acc * i / 4} for i in range(looks)]
    (path / "progress.jsonl").write_text("".join(json.dumps(look) + "\n" for look in seen))
    logged = [{"step": i, "epoch": i, "images_per_second": 100.0 * i} for i in (1, 2, 3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in logged))
    if done:
        own = clustering(acc, labels) | {"confidence": 0.9}
        rows = {"cluster": own, "kmeans_projection": clustering(acc + 0.02, labels)}
        pixels = clustering(0.79 + 0.001 * seed, labels)
        scores = {"step": step, "seed": seed, **rows, "kmeans_pixels": pixels, "paper": {"cluster head": own}}
        (path / "scores.json").write_text(json.dumps(scores))
    return path


def clustering(acc, labels):
    known = {"acc": acc, "nmi": acc - 0.05, "ari": acc - 0.1, "ami": acc - 0.06} if labels else {}
    return known | {"used_clusters": 10, "sizes": [180] * 10, "size_entropy": 0.99, "silhouette": acc - 0.5}


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Three seeds of two methods."""
    folder = tmp_path_factory.mktemp("six")
    return [write(folder / f"{m}_{s}", m, s, ACC[m][s]) for m in ACC for s in range(3)]


@pytest.fixture(scope="module")
def written(six):
    """What the command writes of them: the folder, and what it prints."""
    folder = six[0].parent.with_name("out")
    with contextlib.redirect_stdout(io.StringIO()) as printed, messages.shown():
        main.main(
            ["--mode=compare", f"--runs={six[0].parent / 'cc_*'},{','.join(map(str, six[3:]))}", f"--workdir={folder}"]
        )
    return folder, printed.getvalue()


def said(*paths):
    """The comparison as Markdown."""
    return compare.markdown(*compare.gather(paths))


def read(paths, names=None):
    return [runs.read(path, name) for path, name in zip(paths, names or runs.names(paths))]


def rows_of(path):
    with path.open() as f:
        return list(csv.DictReader(f))


def test_runs_that_differ_in_nothing_but_the_seed_and_harmless_settings_are_one_row(tmp_path):
    paths = [write(tmp_path / "a", seed=0), write(tmp_path / "b", seed=1, report__page=False, data__dir="/elsewhere")]
    [data] = groups.group(read(paths))
    assert [[run.name for run in group.runs] for group in data.groups] == [["a", "b"]]
    assert data.groups[0].name == "cc"


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (dict(method="cc"), dict(method="tcc"), ["cc", "tcc"]),
        (dict(net__depth=18), dict(net__depth=34), ["net.depth=18", "net.depth=34"]),
        (dict(net__depth=18, optim__lr=0.1), dict(net__depth=34, optim__lr=0.2), ["net.depth=18", "net.depth=34"]),
        (dict(train__epochs=200), dict(train__epochs=100), ["train.epochs=200", "train.epochs=100"]),
        (dict(step=1400), dict(step=700), ["step=1400", "step=700"]),
        (dict(eval__restarts=10), dict(eval__restarts=1), ["eval.restarts=10", "eval.restarts=1"]),
    ],
    ids=lambda value: None,
)
def test_groups_are_named_by_the_fewest_settings_that_tell_them_apart(tmp_path, first, second, names):
    paths = [write(tmp_path / "a", **first), write(tmp_path / "b", **second)]
    [data] = groups.group(read(paths))
    assert [group.name for group in data.groups] == names


def test_two_settings_name_the_groups_where_one_is_not_enough(tmp_path):
    paths = [write(tmp_path / f"{d}_{lr}", net__depth=d, optim__lr=lr) for d in (18, 34) for lr in (0.1, 0.2)]
    [data] = groups.group(read(paths))
    assert data.naming == ("net.depth", "optim.lr")
    assert data.groups[3].name == "net.depth=34, optim.lr=0.2"


def test_more_settings_than_are_tried_together_still_tell_the_groups_apart(tmp_path):
    names = ("net__depth", "net__width", "optim__lr", "optim__decay", "train__epochs")
    paths = [write(tmp_path / "none")] + [write(tmp_path / name, **{name: 7}) for name in names]
    [data] = groups.group(read(paths))
    assert len({group.name for group in data.groups}) == 6
    assert len(data.naming) == 5


def test_what_the_paper_evaluates_on_another_view_is_a_row_of_its_own(tmp_path):
    path = write(tmp_path / "a")
    scores = json.loads((path / "scores.json").read_text("utf-8"))
    scores["paper"]["cluster head"] |= {"acc": 0.123}
    (path / "scores.json").write_text(json.dumps(scores))
    line = next(line for line in said(path).splitlines() if "cluster head, shown as in the paper" in line)
    assert "0.123" in line


def test_means_and_spreads_are_those_of_the_runs(written):
    folder, printed = written
    found = {(row["group"], row["clustering"]): row for row in rows_of(folder / "results.csv")}
    row = found["cc", "own clusters: cluster head"]
    assert float(row["acc_mean"]) == pytest.approx(statistics.mean(ACC["cc"]))
    assert float(row["acc_sd"]) == pytest.approx(statistics.stdev(ACC["cc"]))
    assert row["seeds"] == "3"
    assert "0.817 ± 0.021" in printed
    assert len([key for key in found if key[1] == "k-means on raw pixels"]) == 1  # no setting touches it


def test_scores_over_epochs_are_drawn_with_their_spread(written):
    folder, _ = written
    found = rows_of(folder / "figures" / "curves_digits_acc.csv")
    last = next(row for row in found if row["group"] == "mmdc" and row["epoch"] == "4")
    assert float(last["acc_mean"]) == pytest.approx(statistics.mean(ACC["mmdc"]))
    assert float(last["acc_sd"]) == pytest.approx(statistics.stdev(ACC["mmdc"]))
    assert (folder / "figures" / "curves_digits_acc.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_needs_nothing_but_itself(written):
    folder, _ = written
    names = {path.name for path in folder.iterdir()}
    assert names == {"index.html", "results.md", "results.tex", "results.csv", "runs.csv", "p_values.csv", "figures"}
    page = (folder / "index.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<svg") == len(list((folder / "figures").glob("*.png")))


def test_the_paired_test_is_the_t_test_on_differences_of_equal_seeds():
    a, b = {0: 0.81, 1: 0.84, 2: 0.80, 9: 0.1}, {2: 0.87, 1: 0.88, 0: 0.86, 7: 0.9}
    found = paired.test(a, b)
    d = np.array([0.05, 0.04, 0.07])
    t = d.mean() / (d.std(ddof=1) / np.sqrt(3))
    half = stats.t.ppf(0.975, 2) * d.std(ddof=1) / np.sqrt(3)
    assert found.n == 3
    assert found.difference == pytest.approx(d.mean())
    assert found.p == pytest.approx(2 * stats.t.sf(t, 2))
    assert found.p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert found.seldom


def test_what_cannot_be_tested_has_no_p():
    assert paired.test({0: 0.5}, {1: 0.6}) == (0, None, None, None, None)
    assert paired.test({0: 0.5}, {0: 0.75}) == (1, 0.25, None, None, None)
    constant = paired.test({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.4, 1: 0.5, 2: 0.6})  # alike but for rounding
    assert constant.n == 3
    assert constant.p is None


def test_the_weakness_of_few_seeds_is_said_in_numbers():
    # t of 2 degrees of freedom at 97.5 % is 4.303; of three signs that are all alike, Wilcoxon's p is 2 / 2^3.
    assert "2.5 times" in paired.weakness(3)
    assert "less than 0.25" in paired.weakness(3)
    assert stats.wilcoxon([0.1, 0.2, 0.3]).pvalue == pytest.approx(0.25)
    assert "nothing can be tested" in paired.weakness(1)
    assert "Wilcoxon" not in paired.weakness(10)


def test_each_group_is_tested_against_the_best(written):
    folder, printed = written
    p = stats.ttest_rel(ACC["cc"], ACC["mmdc"]).pvalue
    assert f"−0.053 (p = {p:.3f})" in printed
    assert "mmdc is above cc in ACC of own clusters by 0.053 on average over 3 seeds" in printed
    found = rows_of(folder / "p_values.csv")
    assert any(float(row["p"]) == pytest.approx(p) for row in found if row["score"] == "acc" and row["a"] == "cc")


def test_the_best_is_bold_and_the_second_underlined_and_what_prints_alike_ranks_alike():
    cells = [Cell(v) for v in (0.8001, 0.7999, 0.5, None, 0.5004, 0.4, 0.99)]
    competing = [True] * 6 + [False]
    assert [cell.place for cell in table.placed(cells, competing)] == [1, 1, 2, 0, 2, 0, 0]
    assert [cell.place for cell in table.placed([Cell(0.5), Cell(None)], [True, True])] == [0, 0]
    shown = Table("", "", ("a", "b", "c"), [("x", "y", Cell(0.5, place=1)), ("x", "z", Cell(0.25, 0.1, place=2))])
    assert "**0.500**" in table.markdown(shown)
    assert "<ins>0.250 ± 0.100</ins>" in table.markdown(shown)
    assert r"\textbf{0.500}" in table.latex(shown, "l")
    assert r"\underline{0.250 $\pm$ 0.100}" in table.latex(shown, "l")
    assert "<b>0.500</b>" in table.in_html(shown)


def test_the_terminal_sees_no_marks_of_markdown(six, tmp_path):
    own = write(tmp_path / "a_b*c", "tcc", optim__lr=0.1)
    found = compare.plain(*compare.gather([*six, own]))
    assert not re.search(r"\*\*|<ins>|\\|^\|", found, re.MULTILINE)
    assert "* is the best, + the second best." in found
    lines = [line for line in found.splitlines() if "±" in line and not line.endswith(".")]
    assert len({line.index("±") for line in lines}) == 1  # columns are even
    assert sum(" *" in line for line in lines) == 1


def test_published_numbers_are_rows_of_their_own_and_the_best_of_several_does_not_compete(tmp_path):
    lines = said(write(tmp_path / "a", "mmdc", acc=0.3, data__name="cifar10")).splitlines()
    best = next(line for line in lines if "best of 5 runs" in line)
    assert "0.843" in best
    assert "**" not in best
    assert any("MMDC, Table V" in line and "**0.829**" in line for line in lines)


def test_a_run_alone_has_a_table_without_spread(tmp_path):
    found = said(write(tmp_path / "a"))
    assert "0.800" in found
    assert not re.search(r"\d ± ", found)
    assert "single run" in found


def test_a_run_without_scores_is_named_and_left_out(six, tmp_path):
    young = write(tmp_path / "young", seed=7, done=False)
    assert "young has no scores yet" in said(*six, young)
    with pytest.raises(ConfigError, match=r"none of the runs has scores yet \(young\)"):
        said(young)


def test_a_run_that_has_gone_on_since_it_was_scored_is_named(tmp_path):
    assert "a was scored at step 2 but has trained to step 3" in said(write(tmp_path / "a", step=2))


def test_groups_without_a_common_seed_are_not_tested(tmp_path):
    found = said(write(tmp_path / "a", "cc", seed=0), write(tmp_path / "b", "tcc", seed=1))
    assert "have no seed in common" in found
    assert "nothing can be tested" in found
    assert "p =" not in found


def test_runs_without_labels_stand_apart_with_scores_that_need_none(six, tmp_path):
    found = said(*six, *(write(tmp_path / f"plain_{s}", seed=s, labels=False) for s in range(2)))
    labelled, unlabelled = found.split("## digits (no labels)")
    assert "NMI" in labelled
    assert "Silhouette" in unlabelled
    assert "**" in labelled
    assert "**" not in unlabelled  # each is in an embedding of its own
    assert "nothing in this table says which clustering is the better one" in unlabelled
    assert "NMI" not in unlabelled
    assert "not compared with each other" in unlabelled


def test_groups_without_a_common_clustering_are_not_compared(tmp_path):
    a, b = write(tmp_path / "a", "cc"), write(tmp_path / "b", "tcc")
    scores = json.loads((b / "scores.json").read_text("utf-8"))
    kept = {key: scores[key] for key in ("step", "seed", "kmeans_pixels")}
    (b / "scores.json").write_text(json.dumps(kept | {"kmeans_other": scores["cluster"], "paper": {}}))
    assert "no clustering in common" in said(a, b)


def test_a_comparison_leaves_what_else_is_in_its_folder(tmp_path):
    mine = tmp_path / "out" / "figures" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    compare.run([write(tmp_path / "a", looks=0)], tmp_path / "out")
    assert mine.read_bytes() == b"mine"


def test_the_same_run_is_not_counted_twice(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    with pytest.raises(ConfigError, match="is given twice"):
        said(a, tmp_path / "b" / ".." / "a")
    with pytest.raises(ConfigError, match="a and b have the same settings and the seed 0"):
        said(a, b)


def test_a_comparison_does_not_go_into_the_workdir_of_a_run(six):
    with pytest.raises(ConfigError, match="is the workdir of a run"):
        compare.run(six, six[0])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged"),
        ("config.json", "{}", "has no seed"),
        ("scores.json", '{"step": 1', "scores.json is damaged"),
        ("scores.json", '{"step": 1}', "not what an evaluation writes"),
        ("scores.json", '{"step": 1, "cluster": {"sizes": 3}}', "not what an evaluation writes"),
        ("scores.json", b"\xff\xfe\x00", "scores.json is damaged"),
        ("progress.jsonl", '{"step": 1}\nnonsense\n', r"line 2 of .*progress.jsonl is damaged"),
        ("metrics.jsonl", "3\n", r"line 1 of .*metrics.jsonl is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, file, content, message):
    path = write(tmp_path / "a")
    (path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        said(path)


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    path = write(tmp_path / "a")
    with (path / "progress.jsonl").open("a") as f:
        f.write('{"step": 5, "epo')
    assert len(runs.read(path, "a").looks) == 5


def test_runs_are_found_by_workdir_folder_and_pattern(six):
    folder = six[0].parent
    assert runs.find([folder]) == six
    assert runs.find([folder / "mmdc_*"]) == six[3:]
    assert runs.find([six[0], folder / "mmdc_[01]"]) == [six[0], *six[3:5]]
    with pytest.raises(ConfigError, match="there is no run in"):
        runs.find([folder / "tcc_*"])


def test_names_have_as_many_folders_as_tell_them_apart():
    paths = [Path("/r/cc/0"), Path("/r/tcc/0"), Path("/r/tcc/1")]
    assert runs.names(paths) == ["cc/0", "tcc/0", "1"]


EVIL = "a|b*_<script>alert(1)</script>&amp;\n\x1b[31m\\ $x$ {%} #~^ \"'` 🙂"


def test_names_and_settings_are_text_whatever_they_hold(tmp_path, capsys):
    evil = EVIL.replace("/", "")
    paths = [write(tmp_path / evil, method__instance_split=EVIL, looks=0), write(tmp_path / "tame", looks=0)]
    compare.run(paths, tmp_path / "out")
    lines = (tmp_path / "out" / "results.md").read_text("utf-8").splitlines()
    assert "\x1b" not in capsys.readouterr().out + "".join(lines)
    assert len({line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")}) == 1
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "<script" not in page
    assert html.escape("<script>alert(1)</script>&amp;") in page
    tex = (tmp_path / "out" / "results.tex").read_text("utf-8")
    assert tex.isascii()
    assert r"a\textbar{}b*\_\textless{}script\textgreater{}" in tex
    assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")
    head = next(line for line in (tmp_path / "out" / "results.md").read_text("utf-8").splitlines() if "own" in line)
    assert r"a\|b\*\_\<script>" in head
    assert r"\&amp;" in head


def test_latex_spells_what_it_would_take_for_a_command():
    assert table.in_latex("50 % of a_b & c#d $e {f} ~^\\") == (
        r"50 \% of a\_b \& c\#d \$e \{f\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert table.in_latex("a--b---c") == "a-{}-b-{}-{}-c"
    assert table.in_latex("[2cm]") == "{[}2cm]"
    assert table.in_latex("é") == "(U+00E9)"


def test_a_folder_is_one_data_set_however_it_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["photos", "photos/", "./photos", str(tmp_path / "photos"), "other"]
    found = [
        runs.read(write(tmp_path / f"{i}", seed=i, data__name="folder", data__dir=at), f"{i}")
        for i, at in enumerate(typed)
    ]
    assert sorted(len(data.groups[0].runs) for data in groups.group(found)) == [1, 4]
