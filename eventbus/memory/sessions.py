"""Sessions inside one process: the rules of Redis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import JsonValue

from eventbus.contract.session_store import (
    LIFETIME,
    MAX_BYTES,
    MAX_EVENTS,
    NOTE_HOLDS,
    RUN_HOLDS,
    Note,
    Portion,
    Run,
    SessionId,
    SessionState,
    SessionStatus,
    Stale,
    Unreadable,
)
from eventbus.errors import NoSuchSession, SessionFull, WrongState
from eventbus.event import Envelope


@dataclass(slots=True)
class _Kept:
    """`gone_at`: from when on the session cannot be seen any more; None while it is being committed."""

    state: SessionState
    gone_at: datetime | None
    events: list[Envelope] = field(default_factory=list)
    additions: set[str] = field(default_factory=set)


class MemoryLedger:
    """See eventbus.contract.session_store.Ledger. `store` appends to a stream. Cursors are kept for as long as the
    process lives."""

    def __init__(self, now: Callable[[], datetime], store: Callable[[Envelope], None]) -> None:
        self._now = now
        self._store = store
        self._sessions: dict[SessionId, _Kept] = {}
        self._cursors: dict[tuple[SessionId, str], int] = {}
        self._notes: dict[SessionId, datetime] = {}
        self._told_until: datetime | None = None

    async def start(self, session: SessionId, metadata: Mapping[str, JsonValue], seconds: float) -> SessionState:
        now, time = self._now(), timedelta(seconds=seconds)
        if self._known(session) is None:
            state = SessionState(session.id, SessionStatus.ACTIVE, 0, 0, now, now + time, dict(metadata))
            self._sessions[session] = _Kept(state, now + 2 * time)
        return self._state(self._kept(session), None)

    async def add(
        self, session: SessionId, addition: str, events: Sequence[Envelope], at: datetime | None = None
    ) -> SessionState:
        kept = self._kept(session)
        if addition in kept.additions:
            return self._state(kept, at)
        self._require(kept, at, SessionStatus.ACTIVE)
        count = kept.state.event_count + len(events)
        size = kept.state.size + sum(len(event.data) for event in events)
        if count > MAX_EVENTS or size > MAX_BYTES:
            raise SessionFull
        kept.events += events
        kept.additions.add(addition)
        kept.state = kept.state._replace(event_count=count, size=size)
        return kept.state

    async def roll_back(self, session: SessionId, at: datetime | None = None) -> SessionState:
        kept = self._kept(session)
        if self._require(kept, at, SessionStatus.ACTIVE, SessionStatus.ROLLED_BACK) is SessionStatus.ACTIVE:
            kept.events.clear()
            self._end(kept, kept.state._replace(status=SessionStatus.ROLLED_BACK))
        return kept.state

    async def register(self, session: SessionId) -> int:
        self._notes[session] = now = self._now()
        return _ms(now)

    async def begin(self, session: SessionId, note: int, at: datetime | None = None) -> tuple[SessionState, Run]:
        kept, now = self._kept(session), _ms(self._now())
        status = self._require(kept, at, SessionStatus.ACTIVE, SessionStatus.COMMITTING, SessionStatus.COMMITTED)
        if now - note > NOTE_HOLDS * 1000:
            raise Stale(f"session {session.id}: it was noted for its commit too long ago")
        if status is SessionStatus.ACTIVE:
            kept.state, kept.gone_at = kept.state._replace(status=SessionStatus.COMMITTING), None
        return kept.state, Run(session, now)

    async def publish(self, run: Run, portion: Portion) -> int:
        if _ms(self._now()) - run.began > RUN_HOLDS * 1000:
            raise Stale(f"session {run.session.id}: this commit began a day ago")
        place = run.session, portion.stream
        cursor = self._cursors.get(place, 0)
        if portion.since <= cursor < portion.until:
            for position, event in portion.events:
                if position >= cursor:
                    self._store(event)
            self._cursors[place] = portion.until
        return cursor

    async def finish(self, session: SessionId, batches: int, streams: Sequence[str]) -> SessionState:
        kept = self._kept(session)
        status = self._require(kept, None, SessionStatus.COMMITTING, SessionStatus.COMMITTED)
        if status is SessionStatus.COMMITTING:
            committed = kept.state._replace(status=SessionStatus.COMMITTED, published=kept.state.event_count)
            self._end(kept, committed._replace(batches=batches, streams=list(streams)))
        return kept.state

    async def forget(self, session: SessionId, _streams: Sequence[str]) -> None:
        self._notes.pop(session, None)

    async def unfinished(self, after: float, interval: float) -> list[Note]:
        now = self._now()
        if self._told_until is not None and now < self._told_until:
            return []
        ages = [Note(session, (now - noted).total_seconds()) for session, noted in self._notes.items()]
        found = sorted((note for note in ages if note.age >= after), key=lambda note: -note.age)
        if found:
            self._told_until = now + timedelta(seconds=interval)
        return found

    async def find(self, session: SessionId) -> SessionState | None:
        kept = self._known(session)
        return None if kept is None else self._state(kept, None)

    async def events(self, session: SessionId, start: int, count: int) -> list[Envelope | Unreadable]:
        kept = self._known(session)
        return [] if kept is None else [*kept.events[start : start + count]]

    async def set_aside(self, event: Unreadable) -> None:
        raise NotImplementedError("events are kept as they are here")

    async def active(self, organization: str) -> int:
        mine = [kept for session, kept in self._sessions.items() if session.organization == organization]
        return sum(self._state(kept, None).status is SessionStatus.ACTIVE for kept in mine)

    def _end(self, kept: _Kept, state: SessionState) -> None:
        kept.state, kept.gone_at = state, self._now() + timedelta(seconds=LIFETIME)

    def _require(self, kept: _Kept, at: datetime | None, *wanted: SessionStatus) -> SessionStatus:
        status = self._state(kept, at).status
        if status not in wanted:
            raise WrongState(status)
        return status

    def _state(self, kept: _Kept, at: datetime | None) -> SessionState:
        judged = self._now() if at is None else min(at, self._now())
        expired = kept.state.status is SessionStatus.ACTIVE and judged >= kept.state.expires_at
        return kept.state._replace(status=SessionStatus.EXPIRED) if expired else kept.state

    def _kept(self, session: SessionId) -> _Kept:
        kept = self._known(session)
        if kept is None:
            raise NoSuchSession
        return kept

    def _known(self, session: SessionId) -> _Kept | None:
        kept = self._sessions.get(session)
        if kept is not None and kept.gone_at is not None and kept.gone_at <= self._now():
            del self._sessions[session]
            return None
        return kept


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
