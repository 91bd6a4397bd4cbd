"""Aggregates in PostgreSQL: a row for each with its version, and one for each of its events.

The events are kept here, beside outbox and event store: those are pruned by age, and an aggregate that has lost one of
its events is lost itself.
"""

from collections.abc import Sequence
from typing import TypeVar

from eventbus.contract.aggregates import Aggregate, Key, Snapshot, replay, restore
from eventbus.contract.codec import encode, open_event
from eventbus.contract.transaction import Connection, Row
from eventbus.errors import MissingEvents, WrongVersion
from eventbus.event import Envelope
from eventbus.postgres.outbox import envelope_of

A = TypeVar("A", bound=Aggregate)

PAGE = 1000  # events that are read at a time

_FIND = """
SELECT version, snapshot, snapshot_version, snapshot_schema FROM eventbus_aggregates
WHERE organization = $1 AND name = $2 AND id = $3
"""
_EVENTS = """
SELECT version, event_id, type, meta, data FROM eventbus_aggregate_events
WHERE organization = $1 AND name = $2 AND id = $3 AND version > $4 AND version <= $5 ORDER BY version LIMIT $6
"""
# One statement compares the version and advances it, and waits for others that append to the same aggregate. $4 is the
# expected version, null for any. A new aggregate is inserted, a known one updated; no row if the version is another.
_APPEND = """
WITH advanced AS (
    INSERT INTO eventbus_aggregates AS known
        (organization, name, id, version, snapshot, snapshot_schema, snapshot_version)
    SELECT $1, $2, $3, cardinality($5::uuid[]), $9::text, $10::text, CASE WHEN $9 IS NOT NULL THEN cardinality($5) END
    WHERE coalesce($4::bigint, 0) = 0
       OR EXISTS (SELECT FROM eventbus_aggregates WHERE organization = $1 AND name = $2 AND id = $3)
    ON CONFLICT (organization, name, id) DO UPDATE SET
        version = known.version + excluded.version,
        snapshot = coalesce(excluded.snapshot, known.snapshot),
        snapshot_schema = coalesce(excluded.snapshot_schema, known.snapshot_schema),
        snapshot_version = CASE WHEN excluded.snapshot IS NULL THEN known.snapshot_version
                                ELSE known.version + excluded.version END
    WHERE known.version = coalesce($4, known.version)
    RETURNING version
), written AS (
    INSERT INTO eventbus_aggregate_events (organization, name, id, version, event_id, type, meta, data)
    SELECT $1, $2, $3, advanced.version - cardinality($5) + place, event_id, type, meta, data
    FROM advanced, unnest($5, $6::text[], $7::text[], $8::text[]) WITH ORDINALITY
         AS event (event_id, type, meta, data, place)
)
SELECT version FROM advanced
"""


async def load(connection: Connection, cls: type[A], key: Key) -> A:
    """Rebuild an aggregate; it is at version 0 if nothing of it is stored. Raises MissingEvents if it cannot be
    rebuilt, CodecError for an event that cannot be read, ConfigurationError for one that its class does not apply."""
    row = await connection.fetchrow(_FIND, *key)
    if row is None:
        return restore(cls, key, None, 0)
    aggregate = restore(cls, key, _snapshot(row), row["snapshot_version"] or 0)
    last = row["version"]  # events that others append from now on are left out
    while aggregate.version < last:
        events = await connection.fetch(_EVENTS, *key, aggregate.version, last, PAGE)
        if not events:
            raise MissingEvents(str(key), aggregate.version + 1, last)
        for event in events:
            if event["version"] != aggregate.version + 1:
                raise MissingEvents(str(key), aggregate.version + 1, last)
            replay(aggregate, open_event(envelope_of(event)), event["version"])
    return aggregate


async def append(
    connection: Connection,
    key: Key,
    envelopes: Sequence[Envelope],
    *,
    expected: int | None,
    snapshot: Snapshot | None = None,
) -> int:
    """Append events; returns the version that they led to. `expected` None: any version will do. Raises
    WrongVersion."""
    texts = [[part if isinstance(part, str) else part.decode() for part in encode(e)[1::2]] for e in envelopes]
    version: int | None = await connection.fetchval(
        _APPEND,
        *key,
        expected,
        *([text[place] for text in texts] for place in range(4)),
        *(snapshot or (None, None)),
    )
    if version is None:
        row = await connection.fetchrow(_FIND, *key)
        assert expected is not None, "any version would do"
        raise WrongVersion(str(key), expected, 0 if row is None else row["version"])
    return version


def _snapshot(row: Row) -> Snapshot | None:
    return None if row["snapshot"] is None else Snapshot(row["snapshot"], row["snapshot_schema"])
