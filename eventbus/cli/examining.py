"""What `eventbus schema check` looks at: Redis by pages, PostgreSQL by its indexes, each place up to a bound."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec

from eventbus.cli import connections
from eventbus.contract.codec import Fields
from eventbus.contract.priorities import LANES
from eventbus.contract.transaction import Connection
from eventbus.event import stream_of
from eventbus.operating.schemas import Examination, Storage
from eventbus.redis.inspection import find_logs
from eventbus.redis.links import Links
from eventbus.redis.unsettled import dead_letters, in_flight, in_sessions, scheduled
from eventbus.settings import Settings

# In the order in which events go through these places: one that moves on meanwhile may be met twice, and is never
# missed.
TABLES = {
    Storage.OUTBOX: "eventbus_outbox",
    Storage.STORED: "eventbus_events",
    Storage.AGGREGATE: "eventbus_aggregate_events",
}
IN_REDIS = (Storage.SCHEDULED, Storage.STREAM, Storage.DEAD)

Named = tuple[str | None, Fields]  # what it is known by, if not by its id


@dataclass(slots=True)
class Looked:
    """`partly`: where there was more than was looked at. `not_at`: what could not be looked at. Both in words."""

    examination: Examination = field(default_factory=Examination)
    partly: list[str] = field(default_factory=list)
    not_at: list[str] = field(default_factory=list)


async def look(places: Sequence[Storage], streams: Sequence[str] | None, limit: int) -> Looked:
    """Look at the events of these streams, or of all. Raises Unavailable if a server is away that is configured."""
    looked = Looked()
    in_database = [place for place in TABLES if place in places]
    in_redis = [place for place in IN_REDIS if place in places]
    if Storage.SESSION in places:
        async with connections.redis() as links:
            source = _unnamed(in_sessions(links, connections.NAMESPACE), streams)
            await _take(looked, Storage.SESSION, source, limit, "some of all")
    if in_database:
        await _look_into_database(looked, in_database, streams, limit)
    if in_redis:
        async with connections.redis() as links:
            for stream in await find_logs(links, connections.NAMESPACE, streams or None):
                for place in in_redis:
                    await _look_at_stream(looked, links, place, stream, limit)
    return looked


async def _look_at_stream(looked: Looked, links: Links, place: Storage, stream: str, limit: int) -> None:
    match place:
        case Storage.SCHEDULED:
            source = _unnamed(scheduled(links, connections.NAMESPACE, stream))
            await _take(looked, place, source, limit, f"some of {stream}")
        case Storage.DEAD:
            letters = dead_letters(links, connections.NAMESPACE, stream)
            await _take(looked, place, letters, limit, f"the oldest of {stream}")
        case _:
            for priority in LANES:
                source = _unnamed(in_flight(links, connections.NAMESPACE, stream, priority))
                await _take(looked, place, source, limit, f"the oldest of {stream}, priority {priority}")


async def _unnamed(source: AsyncIterator[Fields], streams: Sequence[str] | None = None) -> AsyncGenerator[Named, None]:
    """The events of these streams, or all; they are known by their ids alone."""
    async for fields in source:
        if not streams or stream_of(fields[b"type"].decode()) in streams:
            yield None, fields


async def _take(looked: Looked, place: Storage, source: AsyncGenerator[Named, None], limit: int, part: str) -> None:
    count = 0
    async with aclosing(source) as found:
        async for name, fields in found:
            if count == limit:
                looked.partly.append(f"{place}: {limit:,}, {part}")
                return
            looked.examination.look(place, fields, name)
            count += 1


# PostgreSQL -----------------------------------------------------------------------------------------------------------


async def _look_into_database(
    looked: Looked, places: Sequence[Storage], streams: Sequence[str] | None, limit: int
) -> None:
    if Settings().database_url is None or not find_spec("asyncpg"):
        lacks = "no database is configured" if Settings().database_url is None else "asyncpg is not installed"
        looked.not_at.append(f"{', '.join(places)}: {lacks}")
        return
    from eventbus.postgres.sampling import has, unpublished  # noqa: PLC0415 - asyncpg is an extra

    async with _connected() as connection:
        for place in places:
            if not await has(connection, TABLES[place]):
                looked.not_at.append(f"{place}: there is no table {TABLES[place]}; see `eventbus migrate`")
            elif place is Storage.OUTBOX:
                await _take(looked, place, _unnamed(unpublished(connection), streams), limit, "the oldest of all")
            else:
                await _look_at_stored(looked, place, connection, streams, limit)


@asynccontextmanager
async def _connected() -> AsyncIterator[Connection]:
    from eventbus.postgres import Database  # noqa: PLC0415 - asyncpg is an extra

    database = Database(Settings().require_database_url(), pool_size=1)
    await database.connect()
    try:
        async with database.connection() as connection:
            yield connection
    finally:
        await database.close()


async def _look_at_stored(
    looked: Looked, place: Storage, connection: Connection, streams: Sequence[str] | None, limit: int
) -> None:
    from eventbus.postgres.sampling import sample, stored_types  # noqa: PLC0415 - asyncpg is an extra

    for event_type in await stored_types(connection, TABLES[place]):
        if streams and stream_of(event_type) not in streams:
            continue
        found = await sample(connection, TABLES[place], event_type, limit)
        for fields in found.rows:
            looked.examination.look(place, fields)
        if not found.whole:
            part = f"spread over the time between the first and the last of {event_type}"
            looked.partly.append(f"{place}: {len(found.rows):,}, {part}")
