"""A comparison in words: what is better by how much, and what to know before believing it."""

from collections.abc import Sequence

import numpy as np

from jaxclust.pages.compare import paired
from jaxclust.pages.compare.groups import DataSet
from jaxclust.pages.compare.rows import Row, Score, Tests, best, shared
from jaxclust.pages.compare.tables import p_value, signed

MOST = 5  # groups that are spoken of


def findings(data: DataSet, columns: Sequence[Score], groups: Sequence[Row], tests: Tests) -> list[str]:
    """The comparison in words, by ACC of the methods' own clusters; without labels nothing compares."""
    score = next((column for column in columns if column.key == "acc"), None)
    if len(data.groups) < 2 or not score:
        return []
    kind = shared(groups)
    top = best(groups, kind, score.key) if kind else None
    rivals = [row for row in groups if row.kind == kind and row is not top and row.values(score.key)]
    if not rivals:
        return ["The groups have no clustering in common that could be compared."]
    rivals.sort(key=lambda row: -np.mean([*row.values(score.key).values()]))
    said = [
        _against(top.group, row.group, f"{score.name} of {kind}", tests[score.key, kind, row.group, top.group])
        for row in rivals[:MOST]
    ]
    if len(rivals) > MOST:
        said.append(f"{len(rivals) - MOST} more groups are further below; the table of paired tests has them.")
    counts = {test.n for test in tests.values()}
    said.append(paired.weakness(min({n for n in counts if n > 1} or counts)))
    if len(data.groups) > 2:
        said.append("No p is corrected for the number of comparisons: of twenty true zeros one comes out below 0.05.")
    return said


def _against(top: str, other: str, by: str, found: paired.Paired) -> str:
    if not found.n:
        return f"{top} and {other} have no seed in common, so {by} is not tested between them."
    where = "one seed" if found.n == 1 else f"{found.n} seeds"
    way = "above" if found.difference > 0 else "below"
    if found.p is None:
        if abs(found.difference) < 1e-12:
            return f"{top} and {other} are equal in {by} on {where}."
        every = "" if found.n == 1 else ", the same on each, which no test can judge"
        return f"{top} is {way} {other} in {by} by {abs(found.difference):.3f} on {where}{every}."
    verdict = "chance alone would seldom give that" if found.seldom else "that may be chance"
    return (
        f"{top} is {way} {other} in {by} by {abs(found.difference):.3f} on average over {where} (95 % interval of the "
        f"difference {signed(found.low)} to {signed(found.high)}, p {p_value(found.p)}): {verdict}."
    )


def notes(data: DataSet) -> list[str]:
    """What a reader must know before believing the table."""
    said = []
    if len(data.runs) == 1:
        said.append("This is a single run: its scores have no spread, and another seed may do better or worse.")
    elif single := [group.name for group in data.groups if len(group.runs) == 1]:
        said.append(f"One seed only, so without a spread: {'; '.join(single)}.")
    if len({tuple(run.seed for run in group.runs) for group in data.groups}) > 1:
        said.append("The groups were not trained on the same seeds; tests use those that two groups share.")
    epochs = {group.name: group.runs[0].settings.get("train.epochs") for group in data.groups}
    steps = {group.name: f"{group.runs[0].step:,}" for group in data.groups}
    for what, per, told in (("epochs", epochs, len(set(epochs.values())) > 1), ("steps", steps, "step" in data.naming)):
        if told:
            each = "; ".join(f"{name}: {count}" for name, count in per.items())
            said.append(f"The groups were scored after different numbers of {what} ({each}).")
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
            f"setting{'s' * (hidden > 1)} too; the page lists them."
        )
    if not data.labelled:
        said.append(
            "There are no labels, and nothing in this table says which clustering is the better one: a silhouette is "
            "measured in each network's own embedding, and a method that pulls clusters apart there has a high one "
            "whether or not they mean anything. Look at the reports of the runs."
        )
    return said
