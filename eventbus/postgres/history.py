"""Reading the event store."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

from eventbus.contract.history import Ending, Execution, Recorded, Selection
from eventbus.contract.transaction import Connection, Row
from eventbus.event import unix_ms
from eventbus.postgres.outbox import envelope_of

COLUMN = 300  # characters: an index entry has room for two such texts in UTF-8, and an id

_FIND = """
SELECT event_id, type, meta, data, recorded_at FROM eventbus_events WHERE event_id = $1::uuid AND made_at = $2
"""
_EXECUTIONS = """
SELECT event_id, group_name, attempt, outcome, seconds, error, finished_at FROM eventbus_executions
WHERE event_id = ANY($1::uuid[]) AND made_at BETWEEN $2 AND $3 ORDER BY finished_at, execution_id
"""
_COMMITTED = "SELECT event_id, group_name, processed_at FROM eventbus_inbox WHERE event_id = ANY($1::uuid[])"


class EventStore:
    """eventbus.contract.history.History, on a pool."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._connect = connect

    async def find(self, event_id: str) -> Recorded | None:
        made(event_id)
        async with self._connect() as connection:
            return await find(connection, event_id)

    async def select(self, wanted: Selection, *, limit: int = 100) -> list[Recorded]:
        async with self._connect() as connection:
            return await select(connection, wanted, limit=limit)

    async def count(self, wanted: Selection) -> int:
        where, values = conditions(wanted)
        query = f"SELECT count(*) FROM eventbus_events WHERE {where}"  # noqa: S608 - of parts written here
        async with self._connect() as connection:
            count: int = await connection.fetchval(query, *values)
            return count

    async def executions(self, event_ids: Sequence[str]) -> list[Execution]:
        async with self._connect() as connection:
            return await executions(connection, event_ids)


async def find(connection: Connection, event_id: str) -> Recorded | None:
    """As History.find, on a connection of the caller's."""
    row = await connection.fetchrow(_FIND, event_id, made(event_id))
    return None if row is None else _recorded(row)


async def select(connection: Connection, wanted: Selection, *, limit: int = 100) -> list[Recorded]:
    """As History.select, on a connection of the caller's."""
    where, values = conditions(wanted)
    query = f"""
    SELECT event_id, type, meta, data, recorded_at FROM eventbus_events
    WHERE {where} ORDER BY event_id LIMIT ${len(values) + 1}
    """  # noqa: S608 - of parts written here
    return [_recorded(row) for row in await connection.fetch(query, *values, limit)]


async def executions(connection: Connection, event_ids: Sequence[str]) -> list[Execution]:
    """As History.executions, on a connection of the caller's."""
    if not event_ids:
        return []
    times = [made(event_id) for event_id in event_ids]
    rows = await connection.fetch(_EXECUTIONS, list(event_ids), min(times), max(times))
    found = [_execution(row) for row in rows]
    found += _mended(found, await connection.fetch(_COMMITTED, list(event_ids)))
    return sorted(found, key=lambda execution: execution.finished_at)


def _mended(found: Sequence[Execution], committed: Sequence[Row]) -> Iterator[Execution]:
    """Executions that nobody wrote down, because their worker died or has not got to it, while the inbox says that
    their effect was committed. How long they took is not known."""
    written: dict[tuple[str, str], list[Execution]] = {}
    for each in found:
        written.setdefault((each.event_id, each.group), []).append(each)
    for row in committed:
        event_id, group, at = str(row["event_id"]), row["group_name"], row["processed_at"]
        mine = written.get((event_id, group), [])
        if not any(each.outcome is Ending.COMPLETED or each.finished_at >= at for each in mine):
            attempt = 1 + max((each.attempt for each in mine if each.outcome is Ending.FAILED), default=0)
            yield Execution(event_id, group, attempt, Ending.COMPLETED, 0.0, None, at)


def made(event_id: str) -> datetime:
    """The time in an event's id, to the millisecond: the column `made_at`. Raises ValueError for an id of no event."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms(event_id))


def column(text: str | None) -> str | None:
    """A text as it is kept in a column by which events are found: at most COLUMN characters, without null characters.
    PostgreSQL holds no null character in a text, and no long text in an index. The whole text is in `meta`."""
    if text is None or (len(text) <= COLUMN and "\0" not in text):
        return text
    return text.replace("\0", "")[:COLUMN]


def conditions(wanted: Selection, first: int = 1) -> tuple[str, list[object]]:
    """(the condition behind WHERE, its values). The first value is $`first`, and so on."""
    values: list[object] = []

    def place(value: object) -> str:
        values.append(value)
        return f"${first + len(values) - 1}"

    parts = ["true"]
    if wanted.organization is not None:
        parts.append(f"organization = {place(column(wanted.organization))}")
    if wanted.ids:
        times = [made(event_id) for event_id in wanted.ids]
        parts.append(f"event_id = ANY({place(list(wanted.ids))}::uuid[])")
        parts.append(f"made_at BETWEEN {place(min(times))} AND {place(max(times))}")
    if wanted.types:
        exact = place([name for name in wanted.types if not name.endswith(".*")])
        whole = place([name.removesuffix(".*") for name in wanted.types if name.endswith(".*")])
        parts.append(f"(type = ANY({exact}::text[]) OR split_part(type, '.', 1) = ANY({whole}::text[]))")
    if wanted.subject is not None:
        parts.append(f"subject = {place(column(wanted.subject))}")
    if wanted.correlation_id is not None:
        parts.append(f"correlation_id = {place(column(wanted.correlation_id))}")
    if wanted.since is not None:
        parts.append(f"made_at >= {place(wanted.since)}")
    if wanted.until is not None:
        parts.append(f"made_at < {place(wanted.until)}")
    if wanted.after is not None:
        parts.append(f"event_id > {place(wanted.after)}::uuid AND made_at >= {place(made(wanted.after))}")
    return " AND ".join(parts), values


def _recorded(row: Row) -> Recorded:
    return Recorded(envelope_of(row), row["recorded_at"])


def _execution(row: Row) -> Execution:
    return Execution(
        str(row["event_id"]),
        row["group_name"],
        row["attempt"],
        Ending(row["outcome"]),
        row["seconds"],
        row["error"],
        row["finished_at"],
    )
