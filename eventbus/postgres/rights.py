"""Which rights a login lacks that gateways and workers need."""

from typing import NamedTuple

from eventbus.contract.transaction import Connection

_NEEDED = {
    "eventbus_outbox": "SELECT INSERT UPDATE DELETE",
    "eventbus_inbox": "SELECT INSERT DELETE",
    "eventbus_events": "SELECT INSERT",
    "eventbus_executions": "SELECT INSERT",
    "eventbus_replays": "SELECT INSERT UPDATE",
    "eventbus_aggregates": "SELECT INSERT UPDATE",
    "eventbus_aggregate_events": "SELECT INSERT",
    "eventbus_migrations": "SELECT",
}
_LACKING = """
SELECT name, what FROM unnest($1::text[], $2::text[]) AS needed (name, what)
WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(to_regclass(name), what)
"""
# To make and drop partitions takes the owner, and a schema in which he may make tables.
_PARTITIONS = """
SELECT CASE
    WHEN NOT pg_has_role(relowner, 'USAGE') THEN 'is not in the role ' || relowner::regrole::text || ', which owns them'
    WHEN NOT has_schema_privilege(relnamespace, 'CREATE')
    THEN 'may not CREATE in schema ' || relnamespace::regnamespace::text
END FROM pg_class WHERE oid = to_regclass('eventbus_events')
"""


class Lacking(NamedTuple):
    """`rights`: of tables, such as 'INSERT on eventbus_outbox'. `partitions`: why this login can neither make nor drop
    partitions of the history; None if it can."""

    login: str
    rights: list[str]
    partitions: str | None


async def lacking(connection: Connection) -> Lacking:
    """What this login lacks, of the tables that there are."""
    pairs = [(name, what) for name, needed in _NEEDED.items() for what in needed.split()]
    rows = await connection.fetch(_LACKING, [name for name, _ in pairs], [what for _, what in pairs])
    partitions: str | None = await connection.fetchval(_PARTITIONS)
    login: str = await connection.fetchval("SELECT current_user::text")
    return Lacking(login, [f"{row['what']} on {row['name']}" for row in rows], partitions)
