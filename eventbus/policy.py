"""Whether to try again, and when."""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from eventbus.checks.numbers import count_faults, seconds_faults
from eventbus.errors import LONGEST_DELAY, ConfigurationError, Reject, RetryLater, SnoozeFor, Unavailable


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after the n-th failure: `first * factor ** (n - 1)`, at most `cap`.

    With jitter the wait is drawn evenly from the upper half of that, so that many failures at once spread out.
    """

    first: float
    factor: float = 1.0
    cap: float | None = None
    jitter: bool = False

    def __post_init__(self) -> None:
        cap = 0.0 if self.cap is None else self.cap
        faults = [fault for value in (self.first, cap) for fault in seconds_faults("", value, most=LONGEST_DELAY)]
        if faults or not (_is_number(self.factor) and 1 <= self.factor < math.inf):
            raise ConfigurationError(
                f"{self}: first and cap must be 0 to {LONGEST_DELAY:.0f} seconds, which is a year, and factor >= 1"
            )

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


_VERDICTS = (Reject, RetryLater, SnoozeFor, Unavailable)

ErrorTypes = tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failing event is tried (the first time included), how long it rests in between, and after which
    errors.

    attempts        None tries for ever
    backoff         the rest after a failed attempt
    retry_on        exceptions after which it is tried again; after others it is a dead letter at once. Left out: all
    dead_letter_on  exceptions after which it is not tried again
    backoff_on      the rest after some exceptions, instead of `backoff`

    Each exception class stands for its subclasses, too; the nearest in the exception's method resolution order decides:
    with `dead_letter_on=(LookupError,), retry_on=(KeyError,)` a KeyError is tried again. The policy does not decide on
    Unavailable and on verdicts of the handler (SnoozeFor, Reject, RetryLater), but `attempts` holds for RetryLater,
    too. Of an exception group the exceptions inside are judged, see eventbus.handling.verdict.

    Raises ConfigurationError naming all that cannot work.
    """

    attempts: int | None = 5
    backoff: Backoff = field(default_factory=lambda: Backoff.exponential(1.0, cap=300.0, jitter=True))
    retry_on: ErrorTypes = ()
    dead_letter_on: ErrorTypes = ()
    backoff_on: Mapping[type[BaseException], Backoff] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = []
        if self.attempts is not None and count_faults("attempts", self.attempts):
            faults.append(f"attempts={self.attempts!r} must be at least 1, a whole number, or None for no limit")
        faults += _find_faults("retry_on", self.retry_on)
        faults += _find_faults("dead_letter_on", self.dead_letter_on)
        faults += _find_faults("backoff_on", self.backoff_on)
        if not faults:
            both = set(self.retry_on) & set(self.dead_letter_on)
            idle = set(self.backoff_on) & set(self.dead_letter_on)
            faults += [f"{_names(both)} in retry_on and in dead_letter_on"] if both else []
            faults += [f"{_names(idle)} in backoff_on, but dead_letter_on never tries it again"] if idle else []
        if faults:
            raise ConfigurationError("RetryPolicy: " + "; ".join(faults))

    def delay_after(self, failures: int, error: BaseException | None = None) -> float | None:
        """Seconds until the next attempt after `failures` failed ones, the last of them with `error`; None if there is
        none."""
        if (self.attempts is not None and failures >= self.attempts) or not self._tries_after(error):
            return None
        kind = next((kind for kind in type(error).__mro__ if kind in self.backoff_on), None)
        backoff = self.backoff if kind is None else self.backoff_on[kind]
        return backoff.delay(failures)

    def _tries_after(self, error: BaseException | None) -> bool:
        for kind in type(error).__mro__:
            if kind in self.retry_on:
                return True
            if kind in self.dead_letter_on:
                return False
        return error is None or not self.retry_on


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _find_faults(name: str, kinds: object) -> list[str]:
    if not isinstance(kinds, Iterable):
        return [f"{name}={kinds!r} must be a tuple of exception classes: ({getattr(kinds, '__name__', 'ValueError')},)"]
    faults = []
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            faults.append(f"{name}: {kind!r} is no exception class")
        elif issubclass(kind, BaseExceptionGroup):
            faults.append(f"{name}: of {kind.__name__} the exceptions inside are judged; name their classes")
        elif issubclass(kind, _VERDICTS):
            faults.append(f"{name}: {kind.__name__} says itself what is to be done, whatever the policy")
    return faults


def _names(kinds: Iterable[type]) -> str:
    return ", ".join(sorted(kind.__qualname__ for kind in kinds))
