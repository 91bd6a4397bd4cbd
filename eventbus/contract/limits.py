"""How many handlers of a group may start in a span of time, or run at the same time, across all of its processes; and
where those go on that take long."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventbus.checks.numbers import count_faults, seconds_faults
from eventbus.errors import ConfigurationError
from eventbus.event import Envelope

KeyOf = Callable[[Envelope], str | None]
LONGEST_SPAN = 366 * 86_400.0  # seconds; the due times of a line of hundreds of thousands still fit into a double
_ATTRIBUTES = ("organization", "subject", "type")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` handlers of the group start in any `per` seconds, across all processes.

    by  the key, each value of which has a limit of its own: "organization", "subject", "type", "metadata.NAME", or a
        function of the envelope; None for one limit over the whole group. An event without this key is not limited.
    """

    count: int
    per: float = 1.0
    by: str | KeyOf | None = None

    def __post_init__(self) -> None:
        faults = count_faults("count", self.count) + seconds_faults("per", self.per, least=0.01, most=LONGEST_SPAN)
        _raise(self, faults + _key_faults(self.by))


@dataclass(frozen=True, slots=True)
class InFlight:
    """At most `count` handlers of the group run at the same time, across all processes; `by` as in RateLimit."""

    count: int
    by: str | KeyOf | None = None

    def __post_init__(self) -> None:
        _raise(self, count_faults("count", self.count) + _key_faults(self.by))


Limit = RateLimit | InFlight


@dataclass(frozen=True, slots=True)
class SlowLane:
    """Where handlers go on that have run for `after` seconds, at most `places` of them in each process. They no longer
    count towards the group's concurrency, so that others start. For groups that call services which may hang. Use it
    with Circuit(slow_after=…), which keeps others from making calls that would hang as well.
    """

    places: int
    after: float = 10.0

    def __post_init__(self) -> None:
        _raise(self, count_faults("places", self.places) + seconds_faults("after", self.after, least=0.01))


def limits_of(
    rate_limit: RateLimit | Sequence[RateLimit] | None, max_in_flight: int | InFlight | Sequence[InFlight] | None
) -> list[Limit]:
    """The limits of a Group in one list. Those over the whole group stand last, so that they are asked last."""
    rates = list(rate_limit) if isinstance(rate_limit, Sequence) else [] if rate_limit is None else [rate_limit]
    slots = max_in_flight
    if isinstance(slots, int):
        slots = InFlight(slots)
    several = list(slots) if isinstance(slots, Sequence) else [] if slots is None else [slots]
    strange: list[object] = [each for each in rates if type(each) is not RateLimit]
    strange += [each for each in several if type(each) is not InFlight]
    if strange:
        raise ConfigurationError(f"{strange[0]!r} is no limit: give rate_limit=RateLimit(…), max_in_flight=InFlight(…)")
    return sorted([*rates, *several], key=lambda limit: limit.by is None)


def in_words(limit: Limit) -> str:
    """The limit in words, for people."""
    by = limit.by if limit.by is None or isinstance(limit.by, str) else getattr(limit.by, "__name__", repr(limit.by))
    each = "" if by is None else f" by {by}"
    if isinstance(limit, RateLimit):
        return f"at most {limit.count} starts in {limit.per:g} s{each}"
    return f"at most {limit.count} at a time{each}"


def key_of(limit: Limit, envelope: Envelope) -> str | None:
    """The key under which the limit counts this envelope; '' for the whole group, None if it does not concern it.

    Raises what a function in `by` raises, and TypeError or ValueError if what it returns is no key."""
    match limit.by:
        case None:
            return ""
        case str() as name if name.startswith("metadata."):
            key: object = envelope.metadata.get(name.removeprefix("metadata."))
        case str() as name:
            key = getattr(envelope, name)
        case by:
            key = by(envelope)
    if key is None:
        return None
    if not isinstance(key, str):
        if inspect.iscoroutine(key):
            key.close()  # nobody will await it
        raise TypeError(f"{type(limit).__name__}: by={limit.by!r} gave {key!r}: a key is a str, or None for no limit")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{type(limit).__name__}: by={limit.by!r} gave {key!r}, which is no text: {error}") from None
    return key


def _key_faults(by: str | KeyOf | None) -> list[str]:
    if by is None or (callable(by) and not inspect.iscoroutinefunction(by)):
        return []
    if isinstance(by, str) and (by in _ATTRIBUTES or by.removeprefix("metadata.") not in {"", by}):
        return []
    known = ", ".join(_ATTRIBUTES)
    return [f"by={by!r} must be one of {known}, metadata.NAME, or a function of the envelope that is not async"]


def _raise(limit: object, faults: list[str]) -> None:
    if faults:
        raise ConfigurationError(f"{type(limit).__name__}: {'; '.join(faults)}")
