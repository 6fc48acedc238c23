"""Optimizers: the config's `optim` section -> optax."""

import dataclasses

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
    schedule: str  # "constant", or "cosine" to zero over the whole run
    warmup_epochs: float  # of linear warm-up from zero

    def __post_init__(self):
        if self.name not in OPTIMIZERS:
            raise ValueError(f"optim.name is {self.name!r}; choose one of {', '.join(OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optim.schedule is {self.schedule!r}; choose one of {', '.join(SCHEDULES)}")
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
