"""The memory of all that happened: every event, and what each group made of it. `eventbus.postgres` keeps it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from eventbus.contract.tap import Passing
from eventbus.event import Envelope


class Ending(StrEnum):
    """How one execution of a handler ended. FAILED: it will be tried again. RELEASED: given back by its worker."""

    COMPLETED = "completed"
    FAILED = "failed"
    SNOOZED = "snoozed"
    RELEASED = "released"
    DEAD = "dead"


class Execution(NamedTuple):
    """One execution of a group's handler. `seconds` that it took; `error`, one line, if there was one."""

    event_id: str
    group: str
    attempt: int
    outcome: Ending
    seconds: float
    error: str | None
    finished_at: datetime


class Recorded(NamedTuple):
    """An event of the store."""

    envelope: Envelope
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events are wanted: those that match every field that is given.

    organization  None for events of all organizations, which is for operators alone
    ids           those with these ids
    types         dotted types; `lead.*` is all of a stream
    subject       what they are about: the key that they were published with
    since, until  made from this moment on, and before that one
    after         the id of an event; only those behind it, in the order of their ids
    """

    organization: str | None = None
    ids: Collection[str] = ()
    types: Collection[str] = ()
    subject: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: str | None = None


class History(Protocol):
    """Reads of the event store. All raise Unavailable while PostgreSQL is away."""

    async def find(self, event_id: str) -> Recorded | None:
        """One event by its id. Raises ValueError if the id is none of an event."""

    async def select(self, wanted: Selection, *, limit: int = 100) -> list[Recorded]:
        """Oldest first, at most `limit`."""

    async def count(self, wanted: Selection) -> int: ...

    async def executions(self, event_ids: Sequence[str]) -> list[Execution]:
        """The executions of all these events, in the order in which they ended. One whose effect was committed is among
        them even if its worker has not written it down (or died before): with `seconds` 0.0."""


class HistoryWriter(Protocol):
    """Writes of the event store. All raise Unavailable while PostgreSQL is away."""

    async def record(self, events: Sequence[Passing]) -> None:
        """Store each event once, however often it passes. Those that PostgreSQL cannot hold are failed, no others."""

    async def note(self, executions: Sequence[tuple[str, Execution]]) -> None:
        """Write down executions, each with an id (a UUID); one whose id is there already is not written again."""

    async def prepare(self) -> None:
        """Make room for what will be written next."""

    async def expire(self, keep: timedelta) -> None:
        """Drop, in whole months, what was made longer ago than that."""
