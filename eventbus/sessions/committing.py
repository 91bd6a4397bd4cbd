"""A commit: all events of a session into their streams, each once, whoever dies meanwhile and however often it is run.

See eventbus.contract.session_store for its steps. No process owns a commit: whoever runs it again, at any moment and
beside others that run it, goes the same way and finds done what is done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from eventbus.contract.partitions import log_of
from eventbus.contract.session_store import (
    Ledger,
    Portion,
    Run,
    SessionId,
    SessionState,
    SessionStatus,
    Stale,
    Unreadable,
)
from eventbus.errors import EventBusError, Full, NoSuchSession, Unavailable, WrongState
from eventbus.event import Envelope
from eventbus.process import crash_points
from eventbus.process.safe_logging import get_logger

BATCH = 250  # events that are read at a time; those of one stream among them are appended in one step
TRIES = 3

log = get_logger("eventbus.sessions")

Count = Callable[[Sequence[Envelope]], None]

_COMMITTABLE = {SessionStatus.ACTIVE, SessionStatus.COMMITTING, SessionStatus.COMMITTED}


def _uncounted(_events: Sequence[Envelope]) -> None:
    return


async def commit(
    ledger: Ledger, session: SessionId, at: datetime | None = None, *, count: Count = _uncounted
) -> SessionState:
    """The session is COMMITTED when it returns, or was before. `at`: see eventbus.contract.session_store.
    `count`: is told of events that this run has appended.

    Raises NoSuchSession, WrongState: nothing has changed. Raises Unavailable or Full: it may be COMMITTING, and then
    somebody's `Recovery` ends it."""
    found = await ledger.find(session)
    if found is None:
        raise NoSuchSession
    if found.status not in _COMMITTABLE and at is None:
        raise WrongState(found.status)
    for _ in range(TRIES):
        with suppress(Stale):  # this process has slept: begin again
            return await _commit(ledger, session, at, count)
    raise Unavailable("Redis", "its clocks or this process' own pauses let no commit come to its end")


async def _commit(ledger: Ledger, session: SessionId, at: datetime | None, count: Count) -> SessionState:
    note = await ledger.register(session)
    crash_points.point("session.registered")
    state, run = await ledger.begin(session, note, at)
    crash_points.point("session.committing")
    if state.status is not SessionStatus.COMMITTED:
        batches, streams = await _publish(ledger, run, count)
        crash_points.point("session.published")
        state = await ledger.finish(session, batches, streams)
        crash_points.point("session.committed")
    await ledger.forget(session, state.streams)
    return state


async def _publish(ledger: Ledger, run: Run, count: Count) -> tuple[int, list[str]]:
    """Returns how many batches that were, and the streams that they went to.

    If a stream refuses its events, those of other streams are published all the same. Its error is raised at the end,
    and the session stays COMMITTING until that is mended. What is no event cannot be published: it is set
    aside, and logged."""
    batches, position, reached, refused = 0, 0, dict[str, int](), dict[str, EventBusError]()
    while found := await ledger.events(run.session, position, BATCH):
        events = [(place, event) for place, event in enumerate(found, position) if isinstance(event, Envelope)]
        for place, event in enumerate(found, position):
            if isinstance(event, Unreadable):
                await _set_aside(ledger, run.session, place, event)
        for portion in portions(events, reached, run.partitions):
            if portion.stream in refused:
                continue
            try:
                cursor = await ledger.publish(run, portion)
            except (Unavailable, Full, Stale):
                raise
            except EventBusError as error:
                refused[portion.stream] = error
                continue
            if cursor < portion.since:  # Redis has lost what was there: begin again from where the cursor is now
                raise Stale(f"session {run.session.id}: the cursor of {portion.stream} went back")
            crash_points.point("session.appended")
            count([event for place, event in portion.events if place >= cursor])
            reached[portion.stream] = portion.until
            batches += 1
        position += len(found)
    if refused:
        raise next(iter(refused.values()))
    return batches, sorted(reached)


async def _set_aside(ledger: Ledger, session: SessionId, place: int, event: Unreadable) -> None:
    """If the process dies after this, it is set aside once more: two dead letters are better than none."""
    await ledger.set_aside(event)
    log.error("an event of a session cannot be published", session=session.id, place=place, reason=event.reason)


def portions(
    events: Sequence[tuple[int, Envelope]], reached: dict[str, int], partitions: Mapping[str, int] = {}
) -> Iterator[Portion]:
    """These events, with their positions in the session, by stream, or by log where it has partitions. `reached`: where
    those before them end in each."""
    streams: dict[str, list[tuple[int, Envelope]]] = {}
    for place, event in events:
        streams.setdefault(log_of(event, None, partitions.get(event.stream, 1)), []).append((place, event))
    for stream, found in streams.items():
        yield Portion(stream, reached.get(stream, 0), found[-1][0] + 1, found)
