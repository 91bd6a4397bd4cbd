"""What can be asked of sessions. Each raises Unavailable."""

from eventbus.contract.session_store import SessionId, SessionState
from eventbus.errors import NoSuchSession, Unavailable
from eventbus.event import Envelope
from eventbus.sessions.commands import Sessions


async def status(sessions: Sessions, session: SessionId) -> SessionState:
    """A session's state. Raises NoSuchSession; Unavailable as well while it may be in the spool, and nowhere else."""
    waited = sessions.contingency.waits  # before it is looked for: it may get there meanwhile
    found = await sessions.ledger.find(session)
    if found is not None:
        return found
    if waited:
        raise Unavailable("this session", "it may be in the spool, which is not replayed yet")
    raise NoSuchSession


async def events(sessions: Sessions, session: SessionId, start: int = 0, count: int = 100) -> list[Envelope]:
    """At most `count` entries from position `start` on, in the order of adding, without those that cannot be read, and
    without what is in the spool. Raises NoSuchSession."""
    await status(sessions, session)
    found = await sessions.ledger.events(session, start, count)
    return [event for event in found if isinstance(event, Envelope)]


async def active(sessions: Sessions, organization: str) -> int:
    """How many of an organization's sessions are ACTIVE."""
    return await sessions.ledger.active(organization)
