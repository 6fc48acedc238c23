"""The passes of a method's plan, placed in a run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from jaxclust.run.errors import ConfigError, hint
from jaxclust.types import Method, Pass


class Stage(NamedTuple):
    """A pass of the plan, placed in the run."""

    epoch: int
    part: int  # the pass's number within its epoch
    todo: Pass
    start: int  # the step before its first
    steps: int
    last: bool  # of its epoch


def timetable(method: Method, examples: Mapping[str, int], epochs: int, batch_size: int) -> Iterator[Stage]:
    """Every pass of the run in order, with the steps it covers.

    Args:
      method: whose plan is laid out.
      examples: images in each split.
      epochs: the run's epochs.
      batch_size: images in a step.

    Raises:
      ConfigError: the plan names a task, refit or split that there is not, or a pass does nothing.
    """
    start = 0
    for epoch in range(epochs):
        plan = method.plan(epoch)
        for part, todo in enumerate(plan):
            _check_pass(todo, method, examples, epoch)
            steps = examples[todo.split] // batch_size
            if not todo.tasks:
                steps = 1
            elif todo.batches:
                steps = min(todo.batches, steps)
            yield Stage(epoch, part, todo, start, steps, last=part == len(plan) - 1)
            start += steps


def _check_pass(todo: Pass, method: Method, examples: Mapping[str, int], epoch: int) -> None:
    refits = (todo.refit,) if todo.refit else ()
    kinds = ("task", todo.tasks, method.tasks), ("refit", refits, method.refits), ("split", (todo.split,), examples)
    for kind, names, known in kinds:
        for name in names:
            if name not in known:
                raise ConfigError(f"the plan of epoch {epoch + 1} names the {kind} {name!r}{hint(name, known)}")
    if not (todo.tasks or refits):
        raise ConfigError(f"the plan of epoch {epoch + 1} has a pass without a task and without a refit")
    draws = {(p.table, p.draws) for name in todo.tasks if (p := method.tasks[name].partners)}
    if len(draws) > 1:  # they are drawn once for a pass
        said = " and ".join(f"{count} from {table!r}" for table, count in sorted(draws))
        raise ConfigError(
            f"the plan of epoch {epoch + 1} has a pass whose tasks draw partners differently ({said}); give each a pass"
        )


def updates(method: Method, stages: Iterable[Stage]) -> dict[str, list[int]]:
    """How often each optimizer acts, by its name: in each epoch."""
    counts: dict[str, list[int]] = {}
    for stage in stages:
        turns = len(stage.todo.tasks)
        for turn, task in enumerate(stage.todo.tasks):
            for name in method.tasks[task].optim:
                mine = counts.setdefault(name, [])
                mine += [0] * (stage.epoch + 1 - len(mine))
                mine[stage.epoch] += len(range(turn, stage.steps, turns))
    return counts
