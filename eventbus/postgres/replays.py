"""Which events of the store may be sent again without a second effect, and the record of those that were."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import orjson

from eventbus.contract.history import Selection
from eventbus.contract.replays import Matched, Replay, Source
from eventbus.contract.transaction import Connection, Row
from eventbus.event import Envelope
from eventbus.postgres.history import conditions
from eventbus.postgres.outbox import envelope_of
from eventbus.postgres.relay import RETENTION

# Less than RETENTION: an inbox row that is found now must still be there when the event is handled, a while from now.
REMEMBERED = RETENTION - timedelta(days=1)

# $1: the group, $2: the time from which on no inbox row can have been pruned.
_FORGOTTEN = """
    made_at < $2
    AND NOT EXISTS (
        SELECT FROM eventbus_inbox AS inbox
        WHERE inbox.event_id = eventbus_events.event_id AND inbox.group_name = $1 AND inbox.processed_at >= $2
    )
    AND coalesce((
        SELECT bool_or(outcome = 'completed') FROM eventbus_executions AS done
        WHERE done.event_id = eventbus_events.event_id AND done.made_at = eventbus_events.made_at
          AND done.group_name = $1
    ), true)
"""
# $3: the group as it is written in `meta`, or '' if copies for it are unwanted. At most two attributes follow `only`
# (eventbus.contract.codec). All are matched up to the end, so that no `only` further inside is taken for it.
_FOR_IT = r"""
    coalesce(substring(meta FROM '"only":"((?:[^"\\]|\\.)*)"(?:,"version":[0-9]+)?(?:,"replayed":true)?\}$') = $3, true)
"""
_KEEP = """
INSERT INTO eventbus_replays
    (replay_id, began_at, by_whom, why, source, group_name, filter, new_ids, matched, replayed, last_event, ended_at)
VALUES ($1::uuid, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11::uuid, $12)
ON CONFLICT (replay_id) DO UPDATE
SET replayed = excluded.replayed, last_event = excluded.last_event, ended_at = excluded.ended_at
"""
_LATEST = """
SELECT replay_id, began_at, by_whom, why, source, group_name, filter, new_ids, matched, replayed, last_event, ended_at
FROM eventbus_replays ORDER BY began_at DESC LIMIT $1
"""


class PostgresReplays:
    """eventbus.contract.replays.Replays, on a pool."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._connect = connect

    async def count(self, wanted: Selection, group: str, *, copies: bool) -> list[Matched]:
        where, values = conditions(wanted, 4)
        query = f"""
        SELECT type, count(*) AS total, count(*) FILTER (WHERE {_FORGOTTEN}) AS forgotten
        FROM eventbus_events WHERE {where} AND {_FOR_IT} GROUP BY type ORDER BY type
        """  # noqa: S608 - of parts written here
        async with self._connect() as connection:
            rows = await connection.fetch(query, group, _remembered_since(), _only(group, copies), *values)
        return [Matched(row["type"], row["total"], row["forgotten"]) for row in rows]

    async def page(self, wanted: Selection, group: str, *, copies: bool, forgotten: bool, limit: int) -> list[Envelope]:
        where, values = conditions(wanted, 4)
        place = len(values) + 4
        query = f"""
        SELECT event_id, type, meta, data FROM eventbus_events
        WHERE {where} AND {_FOR_IT} AND (${place} OR NOT ({_FORGOTTEN})) ORDER BY event_id LIMIT ${place + 1}
        """  # noqa: S608 - of parts written here
        async with self._connect() as connection:
            rows = await connection.fetch(
                query, group, _remembered_since(), _only(group, copies), *values, forgotten, limit
            )
        return [envelope_of(row) for row in rows]

    async def keep(self, replay: Replay) -> None:
        async with self._connect() as connection:
            await connection.execute(
                _KEEP,
                *(replay.id, replay.began_at, replay.by, replay.why, replay.source, replay.group),
                *(replay.filter, replay.new_ids, replay.matched, replay.replayed, replay.last, replay.ended_at),
            )

    async def latest(self, limit: int) -> list[Replay]:
        async with self._connect() as connection:
            return [_replay(row) for row in await connection.fetch(_LATEST, limit)]


def _only(group: str, copies: bool) -> str:
    return orjson.dumps(group).decode()[1:-1] if copies else ""


def _remembered_since() -> datetime:
    return datetime.now(UTC) - REMEMBERED


def _replay(row: Row) -> Replay:
    return Replay(
        id=str(row["replay_id"]),
        began_at=row["began_at"],
        by=row["by_whom"],
        why=row["why"],
        source=Source(row["source"]),
        group=row["group_name"],
        filter=row["filter"],
        new_ids=row["new_ids"],
        matched=row["matched"],
        replayed=row["replayed"],
        last=None if row["last_event"] is None else str(row["last_event"]),
        ended_at=row["ended_at"],
    )
