"""Optimizers: the config's `optim` section -> optax.

The section is flat, and then the one optimizer "main" trains everything; or it holds a section for each optimizer,
which trains the parameters that its `trains` names and leaves all others alone. A schedule counts the updates of its
own optimizer.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxclust.run.checkpoint import MAIN
from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.schema import Check, option, settings
from jaxclust.types import PyTree

SCHEDULES = ("constant", "cosine")
Rule = Callable[["Settings", optax.Schedule], optax.GradientTransformation]
RULES: dict[str, tuple[Rule, bool]] = {  # name -> the rule, and whether it decays weights itself
    "adam": (lambda s, lr: optax.adam(lr, b1=s.momentum, b2=s.b2, eps=s.eps), False),
    "adamw": (lambda s, lr: optax.adamw(lr, s.momentum, s.b2, s.eps, weight_decay=s.decay, mask=_decayed(s)), True),
    "sgd": (lambda s, lr: optax.sgd(lr, momentum=s.momentum or None, nesterov=s.nesterov), False),
    "rmsprop": (
        lambda s, lr: optax.rmsprop(
            lr, s.b2, s.eps, momentum=s.momentum or None, eps_in_sqrt=False, bias_correction=False
        ),
        False,
    ),
    "lars": (
        lambda s, lr: optax.lars(
            lr, s.decay, weight_decay_mask=_decayed(s) or True, trust_ratio_mask=_matrices, momentum=s.momentum
        ),
        True,
    ),
    "muon": (
        lambda s, lr: optax.contrib.muon(
            lr,
            beta=s.momentum,
            eps=s.eps,
            weight_decay=s.decay,
            adam_b1=s.momentum,
            adam_b2=s.b2,
            adam_weight_decay=s.decay if s.decay_all else 0.0,
            muon_weight_dimension_numbers=_as_matrices,
        ),
        True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One optimizer.

    Args:
      name: "adam", "adamw", "sgd", "rmsprop", "lars" or "muon", which is AdamW for tensors of one axis.
      lr: the learning rate.
      momentum: SGD's, LARS's, Muon's and RMSprop's momentum; Adam's first decay rate.
      decay: weight decay. AdamW, LARS and Muon have their own place for it; the others add it to the gradient.
      schedule: "constant"; "cosine", to `floor` over the whole run; ((epoch, factor), ...), each of which multiplies
        the rate by its factor; ("step", updates, factor), which does so after every so many updates; or ("inverse",
        gamma, power), lr (1 + gamma t)^-power after t updates.
      warmup_epochs: of linear warm-up from zero.
      trains: parameters at the top level that are trained; () is all.
      floor: what a cosine falls to, as a share of `lr`.
      decay_all: whether tensors of one axis, biases and normalisation, decay too.
      b2: second decay rate of Adam and AdamW (and where Muon is AdamW); that of the mean square in RMSprop.
      eps: added to a root, outside of it, by Adam, AdamW and RMSprop, and to a norm by Muon.
      nesterov: whether SGD's momentum looks ahead.
    """

    name: str = option(choices=RULES)
    lr: float = option(above=0)
    momentum: float = option(at_least=0, below=1)
    decay: float = option(at_least=0)
    schedule: str | tuple = option(
        check=Check(
            lambda schedule: _is_schedule(schedule),
            f"choose one of {', '.join(SCHEDULES)}, or give ((epoch, factor), ...) with rising epochs from 1 and "
            'positive factors, ("step", updates, factor) or ("inverse", gamma, power)',
        )
    )
    warmup_epochs: float = option(at_least=0)
    trains: tuple = ()
    floor: float = option(0.0, at_least=0, at_most=1)
    decay_all: bool = False
    b2: float = option(0.999, at_least=0, below=1)
    eps: float = option(1e-8, at_least=0)
    nesterov: bool = False

    def __post_init__(self):
        if self.nesterov and self.name != "sgd":
            raise ConfigError(f"optim.nesterov is True, but only sgd knows it, and optim.name is {self.name!r}")


class Optimizer(NamedTuple):
    """Which parameters are trained, and how."""

    rule: optax.GradientTransformation
    trains: tuple[str, ...] = ()  # names at the top level of the parameters; () is all

    def of(self, params: PyTree) -> PyTree:
        """The parameters that it trains."""
        return {name: params[name] for name in self.trains} if self.trains else params

    def updated(self, params: PyTree, grads: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """The parameters after an update, and its next state; what it does not train is as it was.

        Args:
          params: all of them.
          grads: at least of those that it trains.
          state: its own.
        """
        mine = self.of(params)
        updates, state = self.rule.update(self.of(grads), state, mine)
        mine = optax.apply_updates(mine, updates)
        return ({**params, **mine} if self.trains else mine), state


def sections(section: Mapping[str, Any]) -> dict[str, Settings]:
    """The optimizers of the config's section by name.

    Raises:
      ConfigError: it is neither flat nor named sections, or one of them makes no sense.
    """
    if any(not isinstance(part, Mapping) and not hasattr(part, "items") for part in section.values()):
        flat = settings(Settings, section, "optim")
        if flat.trains:
            raise ConfigError(
                "optim.trains goes with named sections, optim.NAME.trains; one optimizer trains everything"
            )
        return {MAIN: flat}
    return {name: settings(Settings, part, f"optim.{name}") for name, part in section.items()}


def make_all(section: Mapping[str, Any], updates: Mapping[str, Sequence[int]]) -> dict[str, Optimizer]:
    """The optimizers of the config's section, by name.

    Args:
      section: of the config.
      updates: of each optimizer, how many it makes in each epoch.
    """
    made = {}
    for name, s in sections(section).items():
        counts = [count for count in updates.get(name, ()) if count]
        made[name] = Optimizer(make(s, max(sum(counts), 1), counts[0] if counts else 1), tuple(s.trains))
    return made


def check(optimizers: Mapping[str, Optimizer], used: Mapping[str, Sequence[str]], params: PyTree) -> None:
    """Checks names that only meet in a run.

    Args:
      optimizers: by name.
      used: of each task, its optimizers.
      params: of the method, perhaps abstract.

    Raises:
      ConfigError: an optimizer trains what there is not, a task uses one that there is not, or two for one parameter.
    """
    for name, optimizer in optimizers.items():
        for trained in optimizer.trains:
            if trained not in params:
                raise ConfigError(
                    f"optim.{name}.trains names {trained!r}, which is no parameter{hint(trained, params)}"
                )
    for task, names in used.items():
        for name in names:
            if name not in optimizers:
                raise ConfigError(
                    f"the task {task} is trained by optim.{name}, which is not there{hint(name, optimizers)}"
                )
        trained = [key for name in names for key in (optimizers[name].trains or tuple(params))]
        if twice := next((key for key in trained if trained.count(key) > 1), None):
            raise ConfigError(
                f"the task {task} trains {twice} with two optimizers of {', '.join(names)}; name it in one"
            )


def learning_rate(s: Settings, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the update, over a run of `steps` of them."""
    warmup = min(round(s.warmup_epochs * steps_per_epoch), steps)
    if s.schedule == "cosine":
        after = optax.cosine_decay_schedule(s.lr, max(steps - warmup, 1), s.floor)
    elif isinstance(s.schedule, str):
        after = optax.constant_schedule(s.lr)
    elif s.schedule[0] == "step":
        _, every, factor = s.schedule
        after = optax.exponential_decay(s.lr, every, factor, staircase=True)
    elif s.schedule[0] == "inverse":
        _, gamma, power = s.schedule
        after = lambda count: s.lr * (1 + gamma * jnp.asarray(count, jnp.float32)) ** -power  # noqa: E731
    else:
        drops = {round(epoch * steps_per_epoch) - warmup: factor for epoch, factor in s.schedule}
        after = optax.piecewise_constant_schedule(s.lr, drops)
    return optax.join_schedules([optax.linear_schedule(0.0, s.lr, warmup), after], [warmup]) if warmup else after


def make(s: Settings, steps: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """One optimizer. Where decay goes into the gradient it does so before momentum, as in the papers' PyTorch code."""
    rule, decays = RULES[s.name]
    made = rule(s, learning_rate(s, steps, steps_per_epoch))
    if decays or not s.decay:
        return made
    return optax.chain(optax.add_decayed_weights(s.decay, mask=_decayed(s)), made)


def _decayed(s: Settings) -> Callable[[PyTree], PyTree] | None:
    return None if s.decay_all else _matrices


def _matrices(params: PyTree) -> PyTree:
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def _as_matrices(params: PyTree) -> PyTree:
    """How Muon sees each kernel: a convolution as a matrix, too, from all that goes in to what comes out."""
    numbers = optax.contrib.MuonDimensionNumbers
    return jax.tree.map(lambda p: numbers(tuple(range(p.ndim - 1)), p.ndim - 1) if p.ndim >= 2 else None, params)


def _is_schedule(schedule: str | tuple) -> bool:
    if isinstance(schedule, str):
        return schedule in SCHEDULES
    return _is_rule(schedule) or _are_drops(schedule)


def _is_rule(schedule: tuple) -> bool:
    """Whether `schedule` is ("step", updates, factor) or ("inverse", gamma, power)."""
    if len(schedule) != 3 or schedule[0] not in ("step", "inverse"):
        return False
    first, second = schedule[1:]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (first, second)):
        return False
    return second > 0 and (first >= 1 if schedule[0] == "step" else first >= 0)


def _are_drops(schedule: Any) -> bool:
    """Whether `schedule` is ((epoch, factor), ...) with epochs 1 <= e1 < e2 < ... and factors above 0."""
    try:
        epochs, factors = zip(*schedule)
        return epochs[0] >= 1 and all(a < b for a, b in itertools.pairwise(epochs)) and min(factors) > 0
    except (TypeError, ValueError):
        return False
