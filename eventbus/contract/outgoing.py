"""What is to be appended, and what became of it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from eventbus.checks.validation import moment, seconds, wrong_type
from eventbus.contract.codec import MAX_PAYLOAD, check_envelope
from eventbus.contract.dedupe import Once, check_once
from eventbus.errors import EventBusError, Full, Unavailable, WrongValue
from eventbus.event import Envelope, Status


class NotBegun(EventBusError):
    """What Outlet.begin began has changed nothing. The same may well succeed with `append`."""


Fate = Status | EventBusError  # of one item of several: its status, or why that is not known, or why it was refused


class Incomplete(EventBusError):
    """Of several that were to be appended, not all are known to be stored: see `fates_of`."""

    def __init__(self, fates: Sequence[Fate]) -> None:
        super().__init__(f"{sum(isinstance(fate, Status) for fate in fates)} of {len(fates)} were stored")
        self.fates = fates


def statuses(fates: Sequence[Fate]) -> list[Status]:
    """The status of each item, if every item has one. Otherwise raises as `append` does: Unavailable, else Full, else
    the first refusal, with an Incomplete as its cause."""
    errors = [fate for fate in fates if isinstance(fate, EventBusError)]
    for error in sorted(errors, key=lambda error: (not isinstance(error, Unavailable), not isinstance(error, Full))):
        raise error from Incomplete(fates)
    return [fate for fate in fates if isinstance(fate, Status)]


def fates_of(error: EventBusError, count: int) -> Sequence[Fate]:
    """The fate of each of the `count` items of an `append` that has raised this error: its status; Unavailable, if it
    may be stored or not; or what it was refused with, and it is not stored."""
    return error.__cause__.fates if isinstance(error.__cause__, Incomplete) else [error] * count


class Outgoing(NamedTuple):
    """An envelope to append: at once, or `delay` seconds from now, or not before `at`, a moment with a time zone.

    Both are by the transport's own clock, which is the server's. With `once`, it is appended only if no other event
    holds its dedupe key."""

    envelope: Envelope
    delay: float = 0.0
    at: datetime | None = None
    once: Once | None = None

    @property
    def later(self) -> bool:
        """Whether it is to be scheduled. A moment may turn out to have passed: that is for the transport to see."""
        return self.delay > 0 or self.at is not None


def outgoing(envelope: Envelope, delay: float | None, at: datetime | None, once: Once | None = None) -> Outgoing:
    """An envelope as its publisher wants it. Raises WrongType or WrongValue for what is no point in time."""
    if delay is not None and at is not None:
        raise WrongValue(f"publish(delay={delay!r}, at={at!r}): give one of them; a delay is a number of seconds")
    soonest = 0.0 if delay is None else seconds("delay", delay)
    return Outgoing(envelope, soonest, None if at is None else moment("at", at), once)


def check_outgoing(item: Outgoing, max_payload: int = MAX_PAYLOAD) -> Outgoing:
    """An item that was made elsewhere, as it is kept, once checked. Raises as `outgoing` and codec.check_envelope."""
    if not isinstance(item, Outgoing):
        raise wrong_type("item", item, "an Outgoing")
    once = None if item.once is None else check_once(item.once)
    delay = item.delay or None  # where there is a moment, it is 0
    return outgoing(check_envelope(item.envelope, max_payload), delay, item.at, once)


class Appender(Protocol):
    """The first of the six verbs, for whoever needs no other."""

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        """Store or schedule, in order. Raises Unavailable (stored or not: unknown), Full, or what the server refused
        one with; of several, the others may be stored all the same: `fates_of` tells of each.

        DUPLICATE: it was there, appended before; or, of one with `once`, another holds its dedupe key."""


class Outlet(Appender, Protocol):
    """What a publisher asks for, beside `append`."""

    def begin(self, outgoing: Outgoing, /) -> asyncio.Future[object] | None:
        """As `append` of this item, if that can begin at once: the future is done when it is stored, and may raise what
        `append` raises, or NotBegun. None means that it cannot, and that nothing was done: use `append`.

        For an item with `once`, `begun` turns the future's result into its status."""

    def begun(self, reply: object, /) -> Status:
        """The status of an item with `once`; `reply` is what the future of `begin` gave."""

    async def holder(self, envelope: Envelope, once: Once) -> str | None:
        """The id of the event that holds this one's dedupe key; None if none does (any more)."""

    async def cancel(self, event_id: str, stream: str | None = None) -> bool:
        """Take back what is scheduled; without a stream, wherever it is. False if it is not scheduled (any more)."""
