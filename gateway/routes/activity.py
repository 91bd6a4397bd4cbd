"""/api/metrics: what has become of the organization's events lately, whichever workers handled them."""

from datetime import datetime
from enum import StrEnum

from eventbus.contract.activity_stats import FIVE_MINUTES, HOUR
from eventbus.errors import UnknownEventType
from eventbus.event import event_class
from eventbus.sessions import queries
from gateway.callers.auth import Caller
from gateway.endpoints.api import Call, Routes
from handlers.common.fields import Answer, Query

activity = Routes("/api/metrics")


class Window(StrEnum):
    FIVE_MINUTES = "5m"
    HOUR = "1h"


_WINDOWS = {Window.FIVE_MINUTES: FIVE_MINUTES, Window.HOUR: HOUR}


class ActivityQuery(Query):
    window: Window = Window.FIVE_MINUTES


class RecentFailure(Answer):
    """A dead letter of one group."""

    event_id: str
    type: str
    group: str
    error: str
    attempts: int
    at: datetime


class Activity(Answer):
    """`since`: where the window begins, at a full minute. `events_processed`: done or dead, once for each group that
    handled them; `success_rate`: the share of those that were done. Both rates are null where there was nothing."""

    window: Window
    since: datetime
    events_processed: int
    success_rate: float | None
    average_duration_ms: float | None
    events_per_minute: float
    retries: int
    active_sessions: int
    recent_failures: list[RecentFailure]


@activity.get(transaction=False)
async def get_activity(call: Call, query: ActivityQuery) -> Activity:
    """How the organization's events have fared.

    Within the last five minutes or the last hour, by the counts of all workers, which are a second old. The last 20
    failures are those of the last two hours, whichever window is asked for. Failures of events that are meant for one
    user are told to admins."""
    found = await call.bus.events.activity(call.organization, _WINDOWS[query.window])
    average = found.average_seconds
    return Activity(
        window=query.window,
        since=found.since,
        events_processed=found.processed,
        success_rate=found.success_rate,
        average_duration_ms=None if average is None else round(average * 1000, 3),
        events_per_minute=round(found.per_minute, 3),
        retries=found.retries,
        active_sessions=await queries.active(call.bus.sessions, call.organization),
        recent_failures=[
            RecentFailure(**failure._asdict()) for failure in found.failures if _is_shown(failure.type, call.caller)
        ],
    )


def _is_shown(event_type: str, caller: Caller) -> bool:
    """Whether the caller may see failures of this type: an error may quote the event's data. Those of a type that is
    meant for one user are for admins and systems, and so are those of an unknown type, which may be."""
    if caller.roles & {"admin", "system"}:
        return True
    try:
        return "user_id" not in event_class(event_type).model_fields
    except UnknownEventType:
        return False
