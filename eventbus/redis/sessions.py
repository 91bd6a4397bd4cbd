"""Sessions in Redis: a hash, a list of events and a set of additions for each, one script for each step."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson
from pydantic import JsonValue

from eventbus.checks import validation
from eventbus.contract.codec import Fields, decode, encode, pairs
from eventbus.contract.session_store import (
    CURSOR_HOLDS,
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
from eventbus.errors import CodecError, NoSuchSession, SessionFull, SessionRefused, WrongState
from eventbus.event import Envelope, stream_of
from eventbus.redis import scripts
from eventbus.redis.keys import (
    active_sessions_key,
    committing_key,
    cursor_key,
    recovering_key,
    session_keys,
    stream_keys,
)
from eventbus.redis.links import Argument, Command, Links, Reply
from eventbus.redis.partitions import Partitions
from eventbus.redis.scripts import moment, ms, unix

NOTES = 500  # that are told at a time
_FIELDS = (b"id", b"type", b"meta", b"data")


class RedisLedger:
    """See eventbus.contract.session_store.Ledger."""

    def __init__(self, links: Links, namespace: str, partitions: Partitions) -> None:
        self._links = links
        self._partitions = partitions
        self._namespace = namespace

    async def start(self, session: SessionId, metadata: Mapping[str, JsonValue], seconds: float) -> SessionState:
        keys = session_keys(self._namespace, session)
        command = scripts.SESSION_START((keys.state, keys.active), 0, session.id, ms(seconds), orjson.dumps(metadata))
        return await self._told(session, command)

    async def add(
        self, session: SessionId, addition: str, events: Sequence[Envelope], at: datetime | None = None
    ) -> SessionState:
        keys = session_keys(self._namespace, session)
        size = sum(len(event.data) for event in events)
        bounds = (MAX_EVENTS, MAX_BYTES, size)
        where = (keys.state, keys.events, keys.additions)
        command = scripts.SESSION_ADD(where, _judged(at), addition, *bounds, *(_pack(event) for event in events))
        return await self._told(session, command)

    async def roll_back(self, session: SessionId, at: datetime | None = None) -> SessionState:
        keys = session_keys(self._namespace, session)
        where = (keys.state, keys.active, keys.events, keys.additions)
        return await self._told(session, scripts.SESSION_ROLL_BACK(where, _judged(at), session.id, ms(LIFETIME)))

    async def register(self, session: SessionId) -> int:
        note: int = await scripts.call(
            self._links, scripts.SESSION_NOTE((committing_key(self._namespace),), _member(session))
        )
        return note

    async def begin(self, session: SessionId, note: int, at: datetime | None = None) -> tuple[SessionState, Run]:
        keys = session_keys(self._namespace, session)
        where = (keys.state, keys.active, keys.events, keys.additions)
        counts = orjson.dumps({stream: division.now for stream, division in self._partitions.divisions.items()})
        command = scripts.SESSION_BEGIN(where, _judged(at), session.id, note, ms(NOTE_HOLDS), counts)
        reply = await scripts.call(self._links, command)
        return _state(session, reply), Run(session, reply[3], orjson.loads(reply[4] or b"{}"))

    async def publish(self, run: Run, portion: Portion) -> int:
        lanes = stream_keys(self._namespace, portion.stream).lanes
        fields: list[Argument] = [
            part for position, event in portion.events for part in (position, event.priority, *encode(event))
        ]
        where = (cursor_key(self._namespace, portion.stream, run.session), *lanes)
        bounds = (run.began, ms(RUN_HOLDS), portion.since, portion.until)
        cursor: int = await scripts.call(self._links, scripts.SESSION_PUBLISH(where, *bounds, *fields))
        if cursor < 0:
            raise Stale(f"session {run.session.id}: this commit began a day ago")
        return cursor

    async def finish(self, session: SessionId, batches: int, streams: Sequence[str]) -> SessionState:
        keys = session_keys(self._namespace, session)
        where = (keys.state, keys.events, keys.additions)
        return await self._told(
            session, scripts.SESSION_FINISH(where, 0, batches, orjson.dumps(list(streams)), ms(LIFETIME))
        )

    async def forget(self, session: SessionId, streams: Sequence[str]) -> None:
        """The cursors first: if this process dies before the note is gone, another finds the note and repeats this."""
        cursors: list[Command] = [
            ("PEXPIRE", cursor_key(self._namespace, stream, session), ms(CURSOR_HOLDS)) for stream in streams
        ]
        await scripts.run_all(self._links, cursors)
        await self._links.execute("ZREM", committing_key(self._namespace), _member(session))

    async def unfinished(self, after: float, interval: float) -> list[Note]:
        where = (committing_key(self._namespace), recovering_key(self._namespace))
        if not await self._links.execute("ZCARD", where[0]):  # as nearly always: every process asks, again and again
            return []
        flat = await scripts.call(self._links, scripts.SESSION_UNFINISHED(where, ms(after), ms(interval), NOTES))
        return [
            Note(_session(member.decode(errors="replace")), age / 1000)
            for member, age in zip(flat[::2], flat[1::2], strict=True)
        ]

    async def find(self, session: SessionId) -> SessionState | None:
        try:
            keys = session_keys(self._namespace, session)
            return await self._told(session, scripts.SESSION_FIND((keys.state,), 0))
        except NoSuchSession:
            return None

    async def events(self, session: SessionId, start: int, count: int) -> list[Envelope | Unreadable]:
        if count < 1:  # to Redis a negative end is a place counted from the last event
            return []
        keys = session_keys(self._namespace, session)
        packed = await self._links.execute("LRANGE", keys.events, start, start + count - 1)
        return [_unpack(each) for each in packed]

    async def set_aside(self, event: Unreadable) -> None:
        try:
            stream = stream_of(validation.event_type("type", event.fields[b"type"].decode()))
        except (KeyError, ValueError):
            return
        told = f"it was collected in a session, and cannot be published: {event.reason}"
        letter = ("dead.group", "", "dead.error", told.encode(errors="backslashreplace"), "dead.attempts", 0)
        fields = [part for pair in event.fields.items() for part in pair]
        await self._links.execute("XADD", stream_keys(self._namespace, stream).dead, "*", *fields, *letter)

    async def active(self, organization: str) -> int:
        time = await self._links.execute("TIME")
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        count: int = await self._links.execute(
            "ZCOUNT", active_sessions_key(self._namespace, organization), f"({now}", "+inf"
        )
        return count

    async def _told(self, session: SessionId, command: Command) -> SessionState:
        return _state(session, await scripts.call(self._links, command))


def _state(session: SessionId, reply: Reply) -> SessionState:
    """The session as a script's reply tells it. Raises NoSuchSession, WrongState, SessionFull, Stale or SessionRefused
    if the script refused."""
    word, status, flat = reply[:3]
    if status is None:
        raise NoSuchSession
    if word == b"STATE":
        raise WrongState(status.decode())
    if word == b"FULL":
        raise SessionFull
    if word == b"STALE":
        raise Stale(f"session {session.id}: it was noted for its commit too long ago")
    if word == b"LOST":
        raise SessionRefused("events of the session are not there any more: has Redis evicted them?")
    found = pairs(flat)
    return SessionState(
        session.id,
        SessionStatus(status.decode()),
        int(found[b"count"]),
        int(found[b"bytes"]),
        moment(int(found[b"created"])),
        moment(int(found[b"expires"])),
        orjson.loads(found[b"metadata"]),
        int(found.get(b"published", 0)),
        int(found.get(b"batches", 0)),
        orjson.loads(found.get(b"streams", b"[]")),
    )


def _judged(at: datetime | None) -> int:
    return 0 if at is None else unix(at)


def _pack(event: Envelope) -> bytes:
    """The values of its fields, a line each: in none but the last can there be a line break."""
    return b"\n".join(part if isinstance(part, bytes) else part.encode() for part in encode(event)[1::2])


def _unpack(packed: bytes) -> Envelope | Unreadable:
    try:
        return decode(unpacked(packed))
    except (CodecError, ValueError) as error:  # written by another program, or damaged
        parts = packed.split(b"\n", 3)
        fields = dict(zip(_FIELDS, parts, strict=False)) if len(parts) == len(_FIELDS) else {b"collected": packed}
        return Unreadable(fields, str(error))


def unpacked(packed: bytes) -> Fields:
    """An event of a session, as it will stand in its stream."""
    return dict(zip(_FIELDS, packed.split(b"\n", 3), strict=True))


def _member(session: SessionId) -> str:
    """The id first: an organization may be called anything."""
    return f"{session.id} {session.organization}"


def _session(member: str) -> SessionId:
    session_id, _, organization = member.partition(" ")
    return SessionId(organization, session_id)
