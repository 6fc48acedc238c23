"""Optimizers: the config's `optim` section -> optax."""

import dataclasses
import itertools

import jax
import optax

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str  # "adam" or "sgd"
    lr: float
    momentum: float  # SGD's momentum; Adam's first decay rate
    decay: float  # weight decay, added to the gradient of tensors of two or more axes
    schedule: str | tuple  # "constant", "cosine" to zero over the whole run, or ((epoch, factor), ...): times factor
    warmup_epochs: float  # of linear warm-up from zero

    def __post_init__(self):
        if self.name not in OPTIMIZERS:
            raise ValueError(f"optim.name is {self.name!r}; choose one of {', '.join(OPTIMIZERS)}")
        if not (self.schedule in SCHEDULES if isinstance(self.schedule, str) else _are_drops(self.schedule)):
            raise ValueError(
                f"optim.schedule is {self.schedule!r}; choose one of {', '.join(SCHEDULES)}, or give "
                "((epoch, factor), ...) with rising epochs from 1 and positive factors"
            )
        if self.lr <= 0:
            raise ValueError(f"optim.lr is {self.lr}; it must be positive")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optim.momentum is {self.momentum}; it must be at least 0 and less than 1")
        if self.decay < 0 or self.warmup_epochs < 0:
            raise ValueError("optim.decay and optim.warmup_epochs must not be negative")


def learning_rate(s: Settings, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the step, over a run of `steps` steps."""
    warmup = min(round(s.warmup_epochs * steps_per_epoch), steps)
    if s.schedule == "cosine":
        after = optax.cosine_decay_schedule(s.lr, max(steps - warmup, 1))
    elif not isinstance(s.schedule, str):
        drops = {round(epoch * steps_per_epoch) - warmup: factor for epoch, factor in s.schedule}
        after = optax.piecewise_constant_schedule(s.lr, drops)
    else:
        after = optax.constant_schedule(s.lr)
    return optax.join_schedules([optax.linear_schedule(0.0, s.lr, warmup), after], [warmup]) if warmup else after


def make(s: Settings, steps: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer. Decay goes into the gradient before momentum, as in the papers' PyTorch code."""
    lr = learning_rate(s, steps, steps_per_epoch)
    if s.name == "adam":
        rule = optax.adam(lr, b1=s.momentum)
    else:
        rule = optax.sgd(lr, momentum=s.momentum or None)
    if not s.decay:
        return rule
    return optax.chain(optax.add_decayed_weights(s.decay, mask=_matrices), rule)


def _matrices(params):
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def _are_drops(schedule):
    """Whether `schedule` is ((epoch, factor), ...) with epochs 1 <= e1 < e2 < ... and factors above 0."""
    try:
        epochs, factors = zip(*schedule)
        return epochs[0] >= 1 and all(a < b for a, b in itertools.pairwise(epochs)) and min(factors) > 0
    except (TypeError, ValueError):
        return False
