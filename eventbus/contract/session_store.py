"""Where sessions are kept: events that are collected, and then published together or not at all.

ACTIVE ─► COMMITTING ─► COMMITTED        collects; its events are being appended; all of them are in their streams
   ├────► ROLLED_BACK                    given up, and nothing was published
   └────► EXPIRED                        its time was over before anybody committed it

Each call is one step that happens or does not, and may be made again: what has been done already is answered as if it
were done now. `eventbus.sessions` puts the steps together.

A commit leads through several places that know nothing of each other, and no lock holds them together:

1. `register`  notes, where every process looks, that this session is about to be committed
2. `begin`     ACTIVE becomes COMMITTING, unless the note is too old to rely on
3. `publish`   appends a portion to one stream, behind a cursor that is kept with that stream, in one step: what stands
               before the cursor is there, and whoever sends it again (a successor, a zombie that wakes) changes nothing
4. `finish`    COMMITTING becomes COMMITTED
5. `forget`    takes the note back, and lets the cursors expire

Who dies in between is found by `unfinished`, and all of it is done again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from eventbus.contract.codec import Fields
from eventbus.errors import EventBusError
from eventbus.event import Envelope

LIFETIME = 86_400.0  # seconds that a session collects; and that its end can be seen
MAX_EVENTS = 10_000
MAX_BYTES = 8 * 2**20  # of the events' JSON

NOTE_HOLDS = 30.0  # seconds after `register` in which `begin` relies on the note
NOTE_STANDS = (
    120.0  # seconds after which a note that has led to nothing may be taken back; clocks may differ by the rest
)
RUN_HOLDS = 86_400.0  # seconds after `begin` in which a process may append
CURSOR_HOLDS = 2 * RUN_HOLDS  # seconds that cursors are kept, from the end of the commit on


class SessionStatus(StrEnum):
    ACTIVE = "ACTIVE"
    COMMITTING = "COMMITTING"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"
    EXPIRED = "EXPIRED"


class SessionId(NamedTuple):
    """The organization is part of it: another one's session is not there. '' is none."""

    organization: str
    id: str


class SessionState(NamedTuple):
    """`size`: bytes of JSON. `published` and `batches`: of one that is committed. `streams` have its events then."""

    id: str
    status: SessionStatus
    event_count: int
    size: int
    created_at: datetime
    expires_at: datetime
    metadata: Mapping[str, JsonValue] = {}
    published: int = 0
    batches: int = 0
    streams: Sequence[str] = ()


class Run(NamedTuple):
    """A process that commits a session, since the ledger's time `began` (ms)."""

    session: SessionId
    began: int


class Portion(NamedTuple):
    """Events of a session that go to one stream, by their positions in the session, which are from `since` on and below
    `until`. All of its events of this stream below `since` are there already."""

    stream: str
    since: int
    until: int
    events: Sequence[tuple[int, Envelope]]


class Unreadable(NamedTuple):
    """What stands in a session in the place of an event, and is none."""

    fields: Fields
    reason: str


class Note(NamedTuple):
    """A session that somebody wanted to commit `age` seconds ago, and that may not be committed."""

    session: SessionId
    age: float


class Stale(EventBusError):
    """So much time has passed between two steps of a commit that it must begin again; nothing has changed."""


class Ledger(Protocol):
    """Every call raises Unavailable (done or not: unknown), and each that writes Full (nothing was done).

    at  the moment by which a session's time is judged, if it is earlier than now: when the operation was acknowledged
    """

    async def start(self, session: SessionId, metadata: Mapping[str, JsonValue], seconds: float) -> SessionState:
        """A session that collects for so long. One with this id that is there already is told, and not changed."""

    async def add(
        self, session: SessionId, addition: str, events: Sequence[Envelope], at: datetime | None = None
    ) -> SessionState:
        """Add them all, in order; once, however often this addition is made.

        Raises NoSuchSession, WrongState if it is not ACTIVE, SessionFull; then none was added."""

    async def roll_back(self, session: SessionId, at: datetime | None = None) -> SessionState:
        """Give it up, with its events. Raises NoSuchSession, WrongState if it is neither ACTIVE nor rolled back."""

    async def register(self, session: SessionId) -> int:
        """Note that it is about to be committed; the time of the note."""

    async def begin(self, session: SessionId, note: int, at: datetime | None = None) -> tuple[SessionState, Run]:
        """COMMITTING from now on, or committed before.

        Raises Stale, NoSuchSession, WrongState, or SessionRefused if events of it are not there any more."""

    async def publish(self, run: Run, portion: Portion) -> int:
        """Append what of it is not there; returns the cursor as it was before. One below `since`: nothing was done,
        for something before it lacks. Raises Stale, or another EventBusError if the stream refuses it: then nothing
        was done, either."""

    async def finish(self, session: SessionId, batches: int, streams: Sequence[str]) -> SessionState:
        """All is published: COMMITTED. One that is committed already is told, and not changed.

        Raises NoSuchSession, WrongState."""

    async def forget(self, session: SessionId, streams: Sequence[str]) -> None:
        """Take the note back; for whoever knows that the session will never be COMMITTING from now on."""

    async def unfinished(self, after: float, interval: float) -> list[Note]:
        """Notes that are older than `after` seconds, the oldest first. Of all processes that ask within `interval`
        seconds one is told, the others find nothing."""

    async def find(self, session: SessionId) -> SessionState | None:
        """None if it was never there, or is not any more."""

    async def events(self, session: SessionId, start: int, count: int) -> list[Envelope | Unreadable]:
        """From this position on, in the order of adding; what cannot be read is told in its place."""

    async def set_aside(self, event: Unreadable) -> None:
        """Make it a dead letter of no group; nothing is done where it does not even tell its stream."""

    async def active(self, organization: str) -> int:
        """How many of its sessions are ACTIVE."""
