"""A session as a program holds it: commit on exit, rollback on exception."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pydantic import JsonValue

from eventbus.contract.codec import check_origin, envelop
from eventbus.contract.session_store import SessionId
from eventbus.errors import EventBusError
from eventbus.event import NORMAL_PRIORITY, Event, Origin
from eventbus.process.safe_logging import get_logger
from eventbus.sessions import commands
from eventbus.sessions.commands import Answer, Sessions

log = get_logger("eventbus.sessions")


class Session:
    """Events that are published together, or not at all. `committed`: the answer to the commit, once it has come."""

    def __init__(self, sessions: Sessions, session: SessionId, origin: Origin, max_payload: int) -> None:
        self._sessions = sessions
        self._session = session
        self._origin = origin
        self._max_payload = max_payload
        self.committed: Answer | None = None

    @property
    def id(self) -> str:
        return self._session.id

    async def add(self, event: Event, *, key: str | None = None, priority: int = NORMAL_PRIORITY) -> Answer:
        """Keep an event until the commit. What is in its envelope is settled now: its id, its origin, its JSON.

        Raises as `eventbus.sessions.commands` says, and CodecError as `EventBus.publish`."""
        organization = self._session.organization or None
        envelope = envelop(
            event,
            self._origin,
            key=key,
            priority=priority,
            organization=organization,
            max_payload=self._max_payload,
        )
        return await commands.add(self._sessions, self._session, [envelope])


@asynccontextmanager
async def opened(
    sessions: Sessions, organization: str, metadata: Mapping[str, JsonValue], origin: Origin, max_payload: int
) -> AsyncIterator[Session]:
    """What EventBus.session does."""
    origin = check_origin(origin)
    started = await commands.start(sessions, organization, metadata)
    assert started.state is not None, "who starts a session knows it"
    place = SessionId(organization, started.state.id)
    session = Session(sessions, place, origin, max_payload)
    try:
        yield session
    except BaseException:
        await _give_up(sessions, place)
        raise
    session.committed = await commands.commit(sessions, place)


async def _give_up(sessions: Sessions, session: SessionId) -> None:
    """A failure is only logged: the caller's own error matters more, and without a commit nothing is published."""
    try:
        await commands.roll_back(sessions, session)
    except EventBusError as error:
        log.warning("session left behind", session=session.id, reason=str(error))
