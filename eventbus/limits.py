"""How much of a group may run: in a span of time, or at the same time, across all of its processes; and what becomes of
the places of those that take long."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventbus.errors import ConfigurationError
from eventbus.event import Envelope

KeyOf = Callable[[Envelope], str | None]
_ATTRIBUTES = ("organization", "subject", "type")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` handlers of the group start in any `per` seconds, across all processes.

    by  what has a limit of its own each: "organization", "subject", "type", "metadata.NAME", or a function of the
        envelope; None for one limit over the whole group. What has no such key is not limited.
    """

    count: int
    per: float = 1.0
    by: str | KeyOf | None = None

    def __post_init__(self) -> None:
        faults = [] if self.count >= 1 else [f"count={self.count} must be at least 1"]
        faults += [] if 0.01 <= self.per < math.inf else [f"per={self.per} must be at least 0.01 seconds"]
        _raise(self, faults + _key_faults(self.by))


@dataclass(frozen=True, slots=True)
class InFlight:
    """At most `count` handlers of the group run at the same time, across all processes; `by` as in RateLimit."""

    count: int
    by: str | KeyOf | None = None

    def __post_init__(self) -> None:
        faults = [] if self.count >= 1 else [f"count={self.count} must be at least 1"]
        _raise(self, faults + _key_faults(self.by))


Limit = RateLimit | InFlight


@dataclass(frozen=True, slots=True)
class SlowLane:
    """Where handlers go on that have run for `after` seconds, at most `places` of them in each process: they do not
    count towards the group's concurrency any more, so that others start. For groups that call services which may hang;
    with Circuit(slow_after=…), which keeps those that would hang as well from following.
    """

    places: int
    after: float = 10.0

    def __post_init__(self) -> None:
        faults = [] if self.places >= 1 else [f"places={self.places} must be at least 1"]
        faults += [] if 0.01 <= self.after < math.inf else [f"after={self.after} must be at least 0.01 seconds"]
        _raise(self, faults)


def limits_of(
    rate_limit: RateLimit | Sequence[RateLimit] | None, max_in_flight: int | InFlight | Sequence[InFlight] | None
) -> list[Limit]:
    """As Group takes them, in one list; those over the whole group last, so that they are asked last."""
    rates = [rate_limit] if isinstance(rate_limit, RateLimit) else list(rate_limit or ())
    slots = max_in_flight
    if isinstance(slots, int):
        slots = InFlight(slots)
    several = [slots] if isinstance(slots, InFlight) else list(slots or ())
    return sorted([*rates, *several], key=lambda limit: limit.by is None)


def key_of(limit: Limit, envelope: Envelope) -> str | None:
    """What the limit counts this envelope under, '' for the whole group; None if it does not concern it."""
    match limit.by:
        case None:
            return ""
        case str() as name if name.startswith("metadata."):
            return envelope.metadata.get(name.removeprefix("metadata."))
        case str() as name:
            value: str | None = getattr(envelope, name)
            return value
        case by:
            return by(envelope)


def _key_faults(by: str | KeyOf | None) -> list[str]:
    if not isinstance(by, str) or by in _ATTRIBUTES or by.startswith("metadata."):
        return []
    return [f"by={by!r} must be one of {', '.join(_ATTRIBUTES)}, metadata.NAME, or a function of the envelope"]


def _raise(limit: object, faults: list[str]) -> None:
    if faults:
        raise ConfigurationError(f"{type(limit).__name__}: {'; '.join(faults)}")
