"""What changes a session. Each is done when it returns, or is on this machine's disk and its answer says so.

All may be repeated: what has been done is not done again. Each raises NoSuchSession, WrongState or SessionFull if the
session does not take it, Unavailable (done or not: unknown) or Full if neither Redis nor the spool does.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import JsonValue

from eventbus.checks.validation import json_object, text
from eventbus.contract.codec import check_envelope
from eventbus.contract.session_store import (
    LIFETIME,
    MAX_BYTES,
    MAX_EVENTS,
    Ledger,
    SessionId,
    SessionState,
    SessionStatus,
)
from eventbus.errors import SessionFull, WrongState
from eventbus.event import Envelope, uuid7
from eventbus.sessions.committing import Count
from eventbus.sessions.committing import commit as run_commit
from eventbus.sessions.contingency import Contingency
from eventbus.sessions.known import Known
from eventbus.sessions.operations import AddEvents, CommitSession, RollBackSession, SessionOperation, StartSession


class Sessions(NamedTuple):
    """What commands and queries need: where sessions are, and what to do while that is away. `counted`: is told of
    what a commit has appended."""

    ledger: Ledger
    contingency: Contingency
    known: Known
    counted: Count


class Answer(NamedTuple):
    """`contingency`: the command is in the spool, and `state` is what this process knows of the session, or None."""

    state: SessionState | None
    contingency: bool = False


async def start(sessions: Sessions, organization: str, metadata: Mapping[str, JsonValue] = {}) -> Answer:
    """A session that collects events for a day; the state says its id. Raises WrongType or WrongValue."""
    session, now = SessionId(text("organization", organization), uuid7()), datetime.now(UTC)
    metadata = json_object("metadata", metadata)
    begun = SessionState(session.id, SessionStatus.ACTIVE, 0, 0, now, now + timedelta(seconds=LIFETIME), metadata)
    operation = StartSession(session, now, metadata)
    # No operation of this session can be in the spool before it.
    return await _do(
        sessions, operation, lambda: sessions.ledger.start(session, metadata, LIFETIME), lambda _: begun, first=True
    )


async def add(sessions: Sessions, session: SessionId, events: Sequence[Envelope], addition: str = "") -> Answer:
    """Add all events, in order, or none. `addition`: an id; with the same one they are added once only.
    Raises WrongType, WrongValue or CodecError if one of them is no envelope; then none is added."""
    events = [check_envelope(event) for event in events]
    operation = AddEvents(session, datetime.now(UTC), addition or uuid7(), events)
    return await _do(
        sessions,
        operation,
        lambda: sessions.ledger.add(session, operation.addition, events),
        lambda known: _added(known, events),
    )


async def commit(sessions: Sessions, session: SessionId) -> Answer:
    """Publish its events, each once. If it is committed already, that is the answer, and nothing is published."""
    operation = CommitSession(session, datetime.now(UTC))
    return await _do(
        sessions, operation, lambda: run_commit(sessions.ledger, session, count=sessions.counted), _committing
    )


async def roll_back(sessions: Sessions, session: SessionId) -> Answer:
    """Give it up; nothing was published. If it was rolled back already, that is the answer."""
    operation = RollBackSession(session, datetime.now(UTC))
    return await _do(sessions, operation, lambda: sessions.ledger.roll_back(session), _rolled_back)


async def _do(
    sessions: Sessions,
    operation: SessionOperation,
    call: Callable[[], Awaitable[SessionState]],
    expect: Callable[[SessionState | None], SessionState | None],
    *,
    first: bool = False,
) -> Answer:
    """`expect` turns what this process knows of a session into what it is with the operation in the spool; raises what
    the ledger would."""
    session, known = operation.session, sessions.known
    state = await sessions.contingency.do(call, operation, lambda: expect(known.get(session)), first=first)
    answer = Answer(expect(known.get(session)), contingency=True) if state is None else Answer(state)
    if answer.state is not None:
        known.note(session, answer.state)
    return answer


def _added(known: SessionState | None, events: Sequence[Envelope]) -> SessionState | None:
    if known is None:
        return None
    _require(known, SessionStatus.ACTIVE)
    count, size = known.event_count + len(events), known.size + sum(len(event.data) for event in events)
    if count > MAX_EVENTS or size > MAX_BYTES:
        raise SessionFull
    return known._replace(event_count=count, size=size)


def _committing(known: SessionState | None) -> SessionState | None:
    if known is None:
        return None
    _require(known, SessionStatus.ACTIVE, SessionStatus.COMMITTING, SessionStatus.COMMITTED)
    return known if known.status is SessionStatus.COMMITTED else known._replace(status=SessionStatus.COMMITTING)


def _rolled_back(known: SessionState | None) -> SessionState | None:
    if known is None:
        return None
    _require(known, SessionStatus.ACTIVE, SessionStatus.ROLLED_BACK)
    return known._replace(status=SessionStatus.ROLLED_BACK)


def _require(known: SessionState, *wanted: SessionStatus) -> None:
    over = known.status is SessionStatus.ACTIVE and known.expires_at <= datetime.now(UTC)
    status = SessionStatus.EXPIRED if over else known.status
    if status not in wanted:
        raise WrongState(status)
