"""Where sessions are kept: events that are collected, and then published together or not at all.

ACTIVE ─► COMMITTING ─► COMMITTED        collects; its events are being appended; all of them are in their streams
   ├────► ROLLED_BACK                    given up, and nothing was published
   └────► EXPIRED                        its time was over before anybody committed it

Each call is one step: it happens or it does not. It may be made again: a step that was done already is answered as if
it were done now. `eventbus.sessions` puts the steps together.

A commit leads through several places that know nothing of each other, and no lock holds them together:

1. `register`  notes, where every process looks, that this session is about to be committed
2. `begin`     ACTIVE becomes COMMITTING, unless the note is too old to rely on
3. `publish`   appends a portion to one stream, and moves a cursor that is kept with that stream, in one step: events
               before the cursor are in the stream, and to send them again (by a successor, or by a zombie that wakes)
               changes nothing
4. `finish`    COMMITTING becomes COMMITTED
5. `forget`    takes the note back, and lets the cursors expire

If a process dies in between, `unfinished` finds the note, and another process does all of this again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from eventbus.contract.codec import Fields
from eventbus.errors import EventBusError
from eventbus.event import Envelope

LIFETIME = 86_400.0  # seconds that a session collects; and then, that its end can be seen
MAX_EVENTS = 10_000
MAX_BYTES = 8 * 2**20  # of the events' JSON

NOTE_HOLDS = 30.0  # seconds after `register` in which `begin` relies on the note
NOTE_STANDS = (
    120.0  # seconds after which a note that led to nothing may be taken back; beyond NOTE_HOLDS, for clocks that differ
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
    """The organization is part of it: for another one the session is not there. '' stands for no organization."""

    organization: str
    id: str


class SessionState(NamedTuple):
    """`size`: bytes of JSON. Once it is committed: `published` events are in `streams`, appended in `batches`."""

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
    """A process that commits a session, since the ledger's time `began` (ms). `partitions`: how many each stream had
    when the commit was first begun, if more than one. Whoever goes on with it goes by that: else events would go to
    another log than those before them."""

    session: SessionId
    began: int
    partitions: Mapping[str, int] = {}


class Portion(NamedTuple):
    """Events of a session that go to one stream, or one log of it, each with its position in the session: from `since`
    on, and below `until`. Events of the session below `since`, as far as they go there, are in it already."""

    stream: str
    since: int
    until: int
    events: Sequence[tuple[int, Envelope]]


class Unreadable(NamedTuple):
    """An entry of a session that cannot be read as an event."""

    fields: Fields
    reason: str


class Note(NamedTuple):
    """A note that somebody was about to commit a session, `age` seconds ago. It may be committed by now, or not."""

    session: SessionId
    age: float


class Stale(EventBusError):
    """So much time has passed between two steps of a commit that it must begin again; nothing has changed."""


class Ledger(Protocol):
    """Every call raises Unavailable (done or not: unknown), and each that writes Full (nothing was done).

    at  when an operation that comes late was acknowledged: whether the session has expired is judged by this moment,
        if it is earlier than now
    """

    async def start(self, session: SessionId, metadata: Mapping[str, JsonValue], seconds: float) -> SessionState:
        """Begin a session that collects for `seconds`. One that has this id already is returned as it is."""

    async def add(
        self, session: SessionId, addition: str, events: Sequence[Envelope], at: datetime | None = None
    ) -> SessionState:
        """Add all events, in order; once for each `addition` (an id), however often it is made.

        Raises NoSuchSession, WrongState if it is not ACTIVE, SessionFull; then none was added."""

    async def roll_back(self, session: SessionId, at: datetime | None = None) -> SessionState:
        """Give it up, with its events. Raises NoSuchSession, WrongState if it is neither ACTIVE nor rolled back."""

    async def register(self, session: SessionId) -> int:
        """Note that it is about to be committed; returns the time of the note (ms)."""

    async def begin(self, session: SessionId, note: int, at: datetime | None = None) -> tuple[SessionState, Run]:
        """COMMITTING from now on, unless it was committed before. `note`: what `register` returned.

        Raises Stale, NoSuchSession, WrongState, or SessionRefused if events of it are not there any more."""

    async def publish(self, run: Run, portion: Portion) -> int:
        """Append those events that are not there yet; returns the cursor as it was before. If that is below `since`,
        earlier events are missing, and nothing was done. Raises Stale, or another EventBusError if the stream refuses
        the events: then nothing was done, either."""

    async def finish(self, session: SessionId, batches: int, streams: Sequence[str]) -> SessionState:
        """All is published: it is COMMITTED. If it was COMMITTED already, it is returned as it is.

        Raises NoSuchSession, WrongState."""

    async def forget(self, session: SessionId, streams: Sequence[str]) -> None:
        """Take the note back; for whoever knows that the session will never be COMMITTING from now on."""

    async def unfinished(self, after: float, interval: float) -> list[Note]:
        """Notes that are older than `after` seconds, the oldest first. Of all processes that ask within `interval`
        seconds one is told, the others find nothing."""

    async def find(self, session: SessionId) -> SessionState | None:
        """None if it was never there, or is not any more."""

    async def events(self, session: SessionId, start: int, count: int) -> list[Envelope | Unreadable]:
        """At most `count` events from position `start` on, in their order; Unreadable where one cannot be read."""

    async def set_aside(self, event: Unreadable) -> None:
        """Make it a dead letter of no group. If not even its stream can be read from it, nothing is done."""

    async def active(self, organization: str) -> int:
        """How many of its sessions are ACTIVE."""
