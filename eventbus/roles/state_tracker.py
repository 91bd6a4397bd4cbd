"""Keeping the state of tracked groups: what starts, progresses and ends is gathered, and written a few times a second.

No handler waits for a write, and a group without `track=True` costs nothing. A process that dies loses what it has not
written, and leaves an old record: eventbus.operating.state_queries tells such a record from a fresh one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from time import time_ns

import orjson
from pydantic import JsonValue

from eventbus.context import Context
from eventbus.contract.delivery import Ack, Dead, Delivery, Release, Retry, Snooze
from eventbus.contract.states import WRITE_INTERVAL, Keep, Notice, Occasion, Phase, Records, Update
from eventbus.errors import EventBusError, Unavailable
from eventbus.event import Envelope, Event, unix_ms
from eventbus.group import Group
from eventbus.handling.listeners import Finished
from eventbus.handling.middleware import CallNext
from eventbus.process.safe_logging import get_logger

AWAY_PAUSE = 1.0  # seconds until another try, while the server is away
CLOSE_GRACE = 2.0  # seconds that the last write may take
BATCH = 500  # events in a write
LIMIT = 10_000  # events of a group whose news may wait to be written; more are not written down

log = get_logger("eventbus.tracking")


class _News:
    """What has become of one event since the last write."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.phase = Phase.ACTIVE
        self.record: dict[str, bytes] = {}
        self.notices: dict[Occasion, bytes] = {}  # of several of one kind, the last

    def update(self, event_id: str) -> Update:
        return Update(event_id, self.version, self.phase, self.record, tuple(self.notices.values()))

    def before(self, later: "_News") -> "_News":
        """Merge this with the news that came after it, into the later one."""
        later.record = self.record | later.record
        later.notices = self.notices | later.notices
        return later


class Tracker:
    """Middleware and listener of tracked groups, and the role that writes."""

    def __init__(self, records: Records, groups: Sequence[Group]) -> None:
        self._records = records
        self._keep = {group.name: Keep(group.keep_completed, group.keep_failed) for group in groups}
        self._news: dict[str, dict[str, _News]] = {name: {} for name in self._keep}
        self._due = asyncio.Event()
        self._trouble = False

    # Hearing ----------------------------------------------------------------------------------------------------------

    async def around(self, event: Event, ctx: Context, call_next: CallNext) -> None:
        """The middleware."""
        delivery = ctx.delivery
        if delivery is not None and (news := self._of(ctx.group, ctx.envelope, delivery)) is not None:
            news.phase = Phase.ACTIVE
            news.record |= {"started": _now(), "attempts": b"%d" % ctx.attempt, "progress": b""}
            ctx.on_progress = lambda progress: self._progressed(ctx, delivery, progress)
        await call_next(event, ctx)

    def _progressed(self, ctx: Context, delivery: Delivery, progress: JsonValue) -> None:
        if (news := self._of(ctx.group, ctx.envelope, delivery)) is None:
            return
        news.record["progress"] = _json(progress)
        notice = Notice(Occasion.PROGRESS, ctx.event_id, ctx.envelope.type, ctx.attempt, progress)
        news.notices[Occasion.PROGRESS] = _packed(notice)

    def ended(self, finished: Finished) -> None:
        """The listener."""
        envelope, outcome = finished.envelope, finished.outcome
        if envelope is None or (news := self._of(finished.group, envelope, finished.delivery)) is None:
            return
        occasion, error = None, None
        match outcome:
            case Ack():
                news.phase, occasion = Phase.COMPLETED, Occasion.COMPLETED
                news.record |= {"finished": _now(), "error": b""}
            case Dead(failure):
                news.phase, occasion, error = Phase.FAILED, Occasion.DEAD, failure.error
                news.record |= {"finished": _now(), "error": _text(error)}
            case Retry(_, failure):
                news.phase, occasion, error = Phase.DELAYED, Occasion.FAILED, failure.error
                news.record["error"] = _text(error)
            case Snooze():
                news.phase = Phase.DELAYED
            case Release():
                news.phase = Phase.WAITING
        if occasion is not None:
            notice = Notice(occasion, envelope.id, envelope.type, finished.delivery.attempt, error=error)
            news.notices[occasion] = _packed(notice)

    def _of(self, group: str, envelope: Envelope, delivery: Delivery) -> _News | None:
        """The news to add to; None if too much waits already, or if a later delivery of the event is known."""
        news, version = self._news[group], _version(delivery)
        known = news.get(envelope.id)
        if known is None and len(news) >= LIMIT:
            return None
        if known is None or known.version < version:
            fresh = _News(version)
            fresh.record = {
                "type": envelope.type.encode(),
                "published": b"%d" % unix_ms(envelope.id),
                "entry": _place(delivery).encode(),
            }
            news[envelope.id] = known = known.before(fresh) if known else fresh
        self._due.set()
        return known if known.version == version else None

    # Writing ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        if any(self._news.values()):  # left by a run that ended
            self._due.set()
        while True:
            await self._due.wait()
            await asyncio.sleep(WRITE_INTERVAL)
            self._due.clear()
            await asyncio.sleep(0 if await self.write() else AWAY_PAUSE)

    async def close(self) -> None:
        """Write what is left, if the server is there to take it."""
        try:
            async with asyncio.timeout(CLOSE_GRACE):
                await self.write()
        except TimeoutError:
            log.warning("state is not written down", reason="the server did not answer in time")

    async def write(self) -> bool:
        """Write all that is known by now. False if the server is away: the rest is kept for the next write."""
        for group, waiting in self._news.items():
            while waiting:
                batch = {event_id: waiting.pop(event_id) for event_id in list(waiting)[:BATCH]}
                try:
                    await self._records.track(group, self._keep[group], [new.update(id_) for id_, new in batch.items()])
                except Unavailable:
                    self._put_back(waiting, batch)
                    return False
                except EventBusError as error:  # no memory: dropped, being worth less than events
                    self._note(group, error)
                except asyncio.CancelledError:
                    self._put_back(waiting, batch)
                    raise
                else:
                    self._trouble = False
        return True

    def _put_back(self, waiting: dict[str, _News], batch: Mapping[str, _News]) -> None:
        for event_id, news in batch.items():
            waiting[event_id] = news.before(waiting[event_id]) if event_id in waiting else news
        self._due.set()

    def _note(self, group: str, error: EventBusError) -> None:
        if not self._trouble:  # once, until it works again
            log.warning("state is not written down", group=group, reason=str(error))
        self._trouble = True


def _packed(notice: Notice) -> bytes:
    told = {"occasion": notice.occasion, "eventId": notice.event_id, "type": notice.type, "attempts": notice.attempts}
    if notice.progress is not None:
        told["progress"] = notice.progress
    if notice.error is not None:
        told["error"] = notice.error
    return orjson.dumps(told)


def _place(delivery: Delivery) -> str:
    """Where `state_queries` finds it: its entry, behind its log's name where the stream has several."""
    subscription, entry = delivery.subscription, delivery.entry_id
    return f"{subscription.log}/{entry}" if subscription.partition else entry


def _version(delivery: Delivery) -> str:
    """A text that rises with each delivery of an event to a group, replays included."""
    entry = delivery.entry_id.partition("@")[0]
    ms, _, sequence = entry.partition("-")
    return f"{int(ms):015d}-{int(sequence or 0):010d}-{delivery.failures:08d}-{delivery.crashes:04d}"


def _now() -> bytes:
    return b"%d" % (time_ns() // 1_000_000)


def _json(value: JsonValue) -> bytes:
    return orjson.dumps(value)


def _text(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
