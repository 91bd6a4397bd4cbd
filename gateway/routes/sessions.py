"""/api/sessions: events that are collected, and published together or not at all.

Any registered type may be in a session, so that it takes the roles that publishing takes. The events are the token's
organization's, whatever the role. Nothing of it is in PostgreSQL: it works while that is away.
"""

from uuid import UUID

from eventbus.ledger import SessionId
from eventbus.sessions import commands, queries
from gateway import collecting
from gateway.api import Call, Routes
from gateway.collecting import (
    Added,
    CollectedQuery,
    Committed,
    EventShown,
    NewEvents,
    NewSession,
    RolledBack,
    SessionShown,
    Started,
)
from gateway.routes.events import PUBLISHERS
from handlers.paging import Page

PATH = "/api/sessions"

sessions = Routes(PATH)


@sessions.post(status=201, location=PATH + "/{session_id}", roles=PUBLISHERS, transaction=False)
async def start_session(call: Call, body: NewSession) -> Started:
    """Start a session; it collects events for a day."""
    return collecting.started(await commands.start(call.bus.sessions, call.organization, body.metadata))


@sessions.post(
    "/{session_id}/events",
    status=202,
    location=PATH + "/{session_id}",
    roles=PUBLISHERS,
    transaction=False,
    example={"type": "lead.enrich", "data": {"leadId": "lead-1"}},
)
async def add_events(call: Call, session_id: UUID, body: NewEvents) -> Added:
    """Add an event to a session, or a list of them: all or none.

    What is added is checked now; its id and what it descends from are settled now. A session has at most 10,000 events
    and 8 MiB of their JSON."""
    session = _named(call, session_id)
    events = collecting.prepare(body, call.organization, call.origin)
    return collecting.added(session, await commands.add(call.bus.sessions, session, events, call.key))


@sessions.get("/{session_id}", roles=PUBLISHERS, transaction=False)
async def get_session(call: Call, session_id: UUID) -> SessionShown:
    """A session. Its end can be seen for a day."""
    return collecting.shown(await queries.status(call.bus.sessions, _named(call, session_id)))


@sessions.get("/{session_id}/events", roles=PUBLISHERS, transaction=False)
async def list_events_of_session(call: Call, session_id: UUID, query: CollectedQuery) -> Page[EventShown]:
    """The events of a session, in the order of adding; none, where it was rolled back."""
    session, start = _named(call, session_id), query.cursor or 0
    return collecting.page(await queries.events(call.bus.sessions, session, start, query.limit + 1), query)


@sessions.post("/{session_id}/commit", roles=PUBLISHERS, transaction=False)
async def commit_session(call: Call, session_id: UUID) -> Committed:
    """Publish the events of a session, each once; again, it answers the same and publishes nothing."""
    session = _named(call, session_id)
    return collecting.committed(session, await commands.commit(call.bus.sessions, session))


@sessions.post("/{session_id}/rollback", roles=PUBLISHERS, transaction=False)
async def roll_back_session(call: Call, session_id: UUID) -> RolledBack:
    """Give a session up: nothing of it was, or will be, published."""
    session = _named(call, session_id)
    return collecting.rolled_back(session, await commands.roll_back(call.bus.sessions, session))


def _named(call: Call, session_id: UUID) -> SessionId:
    """Another organization's is not there, whoever knows its id."""
    return SessionId(call.organization, str(session_id))
