"""When to try again."""

import math
import random
from dataclasses import dataclass, field

from eventbus.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after the n-th failure: `first * factor ** (n - 1)`, at most `cap`.

    With jitter the wait is drawn evenly from the upper half of that, so that a crowd of failures spreads.
    """

    first: float
    factor: float = 1.0
    cap: float | None = None
    jitter: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.first < math.inf and self.factor >= 1 and (self.cap is None or self.cap >= 0)):
            raise ConfigurationError(f"{self}: first and cap must be >= 0, factor >= 1")

    @classmethod
    def exponential(
        cls, first: float, *, factor: float = 2.0, cap: float | None = None, jitter: bool = False
    ) -> "Backoff":
        """`Backoff.exponential(2.0)` waits 2, 4, 8, … seconds."""
        return cls(first, factor, cap, jitter)

    @classmethod
    def fixed(cls, seconds: float) -> "Backoff":
        """The same wait after every failure."""
        return cls(seconds)

    def delay(self, failures: int) -> float:
        """Seconds to wait after `failures` (>= 1) failed attempts."""
        try:
            wait = self.first * self.factor ** (failures - 1)
        except OverflowError:
            wait = float("inf")
        # Redis keeps due times in milliseconds as doubles; a day is as good as for ever for a wait without a cap.
        wait = min(wait, 86_400.0 if self.cap is None else self.cap)
        return wait * random.uniform(0.5, 1.0) if self.jitter else wait  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failing event is tried (the first time included), and how long it rests in between.

    `attempts=None` tries for ever.
    """

    attempts: int | None = 5
    backoff: Backoff = field(default_factory=lambda: Backoff.exponential(1.0, cap=300.0, jitter=True))

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ConfigurationError(f"RetryPolicy(attempts={self.attempts}): at least 1, or None for no limit")

    def delay_after(self, failures: int) -> float | None:
        """Seconds until the next attempt after `failures` failed ones; None if there is none."""
        if self.attempts is not None and failures >= self.attempts:
            return None
        return self.backoff.delay(failures)
