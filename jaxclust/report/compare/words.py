"""A comparison in words: what is better by how much, and what to know before believing it."""

from collections.abc import Sequence

from jaxclust.report.compare import paired
from jaxclust.report.compare.rows import Row, Score, Tests, best, kind_of
from jaxclust.report.compare.runs import DataSet
from jaxclust.report.compare.tables import p_value, signed


def findings(data: DataSet, columns: Sequence[Score], groups: Sequence[Row], tests: Tests) -> list[str]:
    """The comparison in words, by ACC (without labels by silhouette) of the methods' own clusters."""
    if len(data.groups) < 2:
        return []
    score = next(column for column in columns if column.key in ("acc", "silhouette"))
    kinds = list(dict.fromkeys(kind_of(row) for row in groups))
    kind = next((k for k in kinds if sum(kind_of(row) == k for row in groups) > 1), None)
    top = best(groups, kind, score.key) if kind else None
    if top is None:
        return ["The groups have no clustering in common that could be compared."]
    said = []
    for row in (r for r in groups if kind_of(r) == kind and r is not top):
        found = tests.get((score.key, kind, row.group, top.group))
        if found is None:
            continue
        by = f"{score.name} of {kind}"
        if not found.n:
            said.append(f"{top.group} and {row.group} have no seed in common, so {by} is not tested between them.")
        elif found.p is None:
            why = "one seed" if found.n == 1 else f"each of {found.n} seeds"
            same = f"{signed(found.difference)} on {why}" if found.difference else f"nothing at all on {why}"
            said.append(f"{top.group} differs from {row.group} in {by} by {same}: not testable.")
        else:
            verdict = "chance alone would seldom give that" if found.seldom else "that may be chance"
            said.append(
                f"{top.group} is above {row.group} in {by} by {found.difference:.3f} on average over {found.n} seeds "
                f"(95 % interval {signed(found.low)} to {signed(found.high)}, p {p_value(found.p)}): {verdict}."
            )
    ns = sorted({test.n for test in tests.values()})
    said += [paired.weakness(ns[0])] if ns else []
    if sum(1 for _ in data.groups) > 2:
        said.append("No p is corrected for the number of comparisons: of twenty true zeros one comes out below 0.05.")
    return said


def notes(data: DataSet) -> list[str]:
    """What a reader must know before believing the table."""
    said = []
    if len(data.runs) == 1:
        said.append("This is a single run: there is no spread, and nothing to compare it with but published numbers.")
    elif single := [group.name for group in data.groups if len(group.runs) == 1]:
        said.append(f"One seed only, so without a spread: {'; '.join(single)}.")
    if len({tuple(run.seed for run in group.runs) for group in data.groups}) > 1:
        said.append("The groups were not trained on the same seeds; tests use those that two groups share.")
    for what, value in (("epochs", lambda r: r.settings.get("train.epochs")), ("step", lambda r: r.step)):
        per = {group.name: value(group.runs[0]) for group in data.groups}
        if len(set(per.values())) > 1:
            told = "; ".join(f"{name}: {v}" for name, v in per.items())
            said.append(f"The groups were scored after different numbers of {what.rstrip('s')}s ({told}).")
    said += [
        f"{run.name} was scored at step {run.step:,} but has trained to step {run.trained:,}; "
        f"--mode=evaluate scores it as it is now."
        for run in data.runs
        if run.trained > run.step
    ]
    hidden = len(data.differing) - len(data.naming)
    if hidden > 0 and len(data.groups) > 1:
        said.append(
            f"Groups are named by {' and '.join(data.naming)}; they differ in {hidden} other "
            f"setting{'s' * (hidden > 1)} too, listed below."
        )
    if not data.labelled:
        said.append(
            "There are no labels. A silhouette is measured in each clustering's own embedding, and a method that pulls "
            "clusters apart there has a high one whether or not they mean anything."
        )
    return said
