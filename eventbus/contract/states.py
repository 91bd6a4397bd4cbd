"""The state of events in tracked groups: the record that is kept of each, and the notices that tell of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

import orjson
from pydantic import JsonValue

WRITE_INTERVAL = 0.1  # seconds between writes of what has become of events
PROGRESS_LIMIT = 4_096  # bytes of JSON


def check_progress(progress: JsonValue) -> None:
    """Raises ValueError unless progress is a number from 0 to 100, or other JSON of at most PROGRESS_LIMIT bytes."""
    if isinstance(progress, int | float) and not isinstance(progress, bool) and not 0 <= progress <= 100:
        raise ValueError(f"progress({progress}): a number is 0 to 100")
    try:
        size = len(orjson.dumps(progress))
    except orjson.JSONEncodeError as error:
        raise ValueError(f"progress({progress!r:.100}) is no JSON: {error}") from None
    if size > PROGRESS_LIMIT:
        raise ValueError(f"progress of {size} bytes: at most {PROGRESS_LIMIT}")


class Phase(StrEnum):
    """Where an event is, for one group."""

    WAITING = "waiting"
    DELAYED = "delayed"  # scheduled, or resting until it is tried again
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"  # a dead letter
    UNKNOWN = "unknown"  # never stored, trimmed, or of a group that keeps no more of it


class State(NamedTuple):
    """An event in a tracked group.

    attempts   how often its handler was started, as far as it is known
    progress   what the handler said last: 0 to 100, or any JSON
    error      why the last attempt failed
    published, started, finished  started: the last attempt; finished: completed or failed
    """

    event_id: str
    phase: Phase
    type: str | None = None
    attempts: int = 0
    progress: JsonValue = None
    error: str | None = None
    published: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None


class Counts(NamedTuple):
    """How many events of a group are in each phase now. `completed` and `failed` are totals since it was first tracked.

    waiting  None where the server cannot tell
    delayed  those that rest until they are tried again, and all that its streams have scheduled, for whichever group
    """

    waiting: int | None
    delayed: int
    active: int
    completed: int
    failed: int


class Occasion(StrEnum):
    """What a notice is about."""

    COMPLETED = "completed"
    FAILED = "failed"  # an attempt, and there will be another
    DEAD = "dead"
    PROGRESS = "progress"


class Notice(NamedTuple):
    """What is told to whoever watches a group now."""

    occasion: Occasion
    event_id: str
    type: str
    attempts: int
    progress: JsonValue = None
    error: str | None = None


class Update(NamedTuple):
    """What has become of an event since the last update of it.

    version  rises with each delivery of the event to the group, so that an update of a worker which lost its lease is
             not taken for news
    record   what is known: JSON under the names that a record has in Redis
    notices  JSON, in order
    replaces for a correction: when the record to be corrected was written. One written since then is left alone.
             None: this is news
    """

    event_id: str
    version: str
    phase: Phase
    record: dict[str, bytes]
    notices: tuple[bytes, ...] = ()
    replaces: bytes | None = None


class Keep(NamedTuple):
    """How many records of events that have ended a group keeps."""

    completed: int
    failed: int


class Records(Protocol):
    """Where the states of tracked groups are written down. Their loss delays or hides news; it loses no event."""

    async def track(self, group: str, keep: Keep, updates: Sequence[Update]) -> None:
        """Write all updates down. One whose version is older than the known one changes nothing, and sending updates
        again does no harm. Raises Unavailable, Full."""

    async def find(self, group: str, event_id: str) -> Mapping[str, bytes]:
        """The record of an event, empty if there is none. Among its fields are `phase`, and by the server's clock, in
        ms, `written` and `now`."""

    async def totals(self, group: str) -> tuple[int, int]:
        """How many have completed and failed since the group was first tracked."""

    def watch(self, group: str) -> AsyncIterator[bytes]:
        """Notices from now on."""
