"""How fast steps are made, and how long the rest will take; what is spent on compiling does not count."""

import time

ENOUGH, SECONDS = 50, 10.0  # steps, or seconds of at least three, after which a pace is worth telling
LONG = 3600.0  # seconds from which it is worth knowing what would be shorter


class Pace:
    """Is told of every step that has been made, and of what else has taken time."""

    def __init__(self) -> None:
        self._begin: float | None = None  # when the first step was there
        self._steps = 0  # after that one

    def step(self) -> None:
        if self._begin is None:
            self._begin = time.perf_counter()
        else:
            self._steps += 1

    def leave_out(self, seconds: float) -> None:
        """Time that went into something else than steps."""
        if self._begin is not None:
            self._begin += seconds

    @property
    def seconds(self) -> float | None:
        """Of a step; None before the second."""
        if self._begin is None or not self._steps:
            return None
        return (time.perf_counter() - self._begin) / self._steps

    @property
    def known(self) -> bool:
        """Whether enough steps have been measured."""
        each = self.seconds
        return each is not None and (self._steps >= ENOUGH or (self._steps >= 3 and each * self._steps >= SECONDS))


def forecast(each: float, steps: int, epochs: int, images: int) -> str:
    """A line about the time that training takes.

    Args:
      each: seconds of a step.
      steps: that are left.
      epochs: that these are part of.
      images: in a step.
    """
    left = each * steps
    said = f"training takes about {duration(left)} from here on: {steps:,} steps at {images / each:,.0f} images/s"
    if left <= LONG:
        return said
    fewer = int(epochs * LONG / left)
    shorter = f"--config.train.epochs={fewer} takes about an hour; " * (fewer > 0)
    return (
        f"{said}. Shorter, and with poorer clusters: {shorter}half of --config.data.size, or of --config.net.width, "
        f"takes about a quarter of the time, in another --workdir"
    )


def duration(seconds: float) -> str:
    """A length of time as one says it."""
    for unit, name, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds < most * unit:
            return f"{seconds / unit:.0f} {name}" if unit < 3600 else f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86400:.1f} days"
