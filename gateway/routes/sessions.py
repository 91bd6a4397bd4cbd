"""/api/sessions: events that are collected, and published together or not at all.

A session belongs to its user, and its events belong to the organization of the token. A caller who is neither admin nor
system may name no other user than himself in an event. Sessions are not in PostgreSQL, and work while it is away.
"""

from contextlib import suppress
from uuid import UUID

from eventbus.contract.session_store import MAX_EVENTS, SessionId
from eventbus.errors import NoSuchSession, Unavailable
from eventbus.sessions import commands, queries
from gateway.endpoints.api import Call, Routes
from gateway.events import session_bodies
from gateway.events.event_status import OVERSEERS
from gateway.events.session_bodies import (
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
from handlers.common.paging import Page

PATH = "/api/sessions"

sessions = Routes(PATH)


@sessions.post(status=201, location=PATH + "/{session_id}", transaction=False, optional_body=True)
async def start_session(call: Call, body: NewSession) -> Started:
    """Start a session; it collects events for a day."""
    metadata = session_bodies.owned(body.metadata, call.caller)
    return session_bodies.started(await commands.start(call.bus.sessions, call.organization, metadata))


@sessions.post(
    "/{session_id}/events",
    status=202,
    location=PATH + "/{session_id}",
    transaction=False,
    max_parts=20 * MAX_EVENTS,
    example={"type": "lead.enrich", "data": {"leadId": "lead-1"}},
)
async def add_events(call: Call, session_id: UUID, body: NewEvents) -> Added:
    """Add an event to a session, or a list of them: all or none.

    What is added is checked now; its id and what it descends from are settled now. A session has at most 10,000 events
    and 8 MiB of their JSON."""
    session = await _own(call, session_id)
    events = await session_bodies.prepare(body, call.caller, call.origin)
    return session_bodies.added(session, await commands.add(call.bus.sessions, session, events, call.key))


@sessions.get("/{session_id}", transaction=False)
async def get_session(call: Call, session_id: UUID) -> SessionShown:
    """A session. Its end can be seen for a day."""
    return session_bodies.shown(await queries.status(call.bus.sessions, await _own(call, session_id)))


@sessions.get("/{session_id}/events", transaction=False)
async def list_events_of_session(call: Call, session_id: UUID, query: CollectedQuery) -> Page[EventShown]:
    """The events of a session, in the order of adding; none, where it was rolled back."""
    session, start = await _own(call, session_id), query.cursor or 0
    return session_bodies.page(await queries.events(call.bus.sessions, session, start, query.limit + 1), query)


@sessions.post("/{session_id}/commit", transaction=False)
async def commit_session(call: Call, session_id: UUID) -> Committed:
    """Publish the events of a session, each once; again, it answers the same and publishes nothing."""
    session = await _own(call, session_id)
    return session_bodies.committed(session, await commands.commit(call.bus.sessions, session))


@sessions.post("/{session_id}/rollback", transaction=False)
async def roll_back_session(call: Call, session_id: UUID) -> RolledBack:
    """Give a session up: nothing of it was, or will be, published."""
    session = await _own(call, session_id)
    return session_bodies.rolled_back(session, await commands.roll_back(call.bus.sessions, session))


async def _own(call: Call, session_id: UUID) -> SessionId:
    """The session of this id in the caller's organization: no id leads to that of another organization. Raises
    NoSuchSession for another user's, as far as that can be told. While Redis is away, this process goes by the sessions
    that it has seen; one that it has not seen may be used by whoever knows its id."""
    session, sessions = SessionId(call.organization, str(session_id)), call.bus.sessions
    if call.caller.roles & OVERSEERS:
        return session
    state = sessions.known.get(session)
    if state is None:
        with suppress(Unavailable):
            state = await queries.status(sessions, session)
            sessions.known.note(session, state)  # its owner never changes: Redis is asked for him once
    if state is not None and not session_bodies.is_owner(state, call.caller):
        raise NoSuchSession
    return session
