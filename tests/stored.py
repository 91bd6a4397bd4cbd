"""Rows of the event store, written by hand: for tests of what is read from it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol

from eventbus.contract.codec import encode
from eventbus.contract.history import Ending, Execution
from eventbus.event import Envelope, uuid7
from eventbus.postgres.history import made


class Writer(Protocol):
    """A connection, or what writes through one."""

    async def execute(self, query: str, /, *args: Any) -> object: ...


def id_of(moment: datetime) -> str:
    """Of an event that was made then."""
    ms = f"{int(moment.timestamp() * 1000):012x}"
    return f"{ms[:8]}-{ms[8:]}{uuid7()[13:]}"


async def partition(writer: Writer) -> None:
    """One for every month, where the tables have none that fits."""
    for table in ("eventbus_events", "eventbus_executions"):
        await writer.execute(f"CREATE TABLE IF NOT EXISTS {table}_all PARTITION OF {table} DEFAULT")


async def record(writer: Writer, envelopes: Iterable[Envelope]) -> None:
    for envelope in envelopes:
        meta = encode(envelope)[5]
        await writer.execute(
            "INSERT INTO eventbus_events VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            *(envelope.id, made(envelope.id), envelope.type, envelope.organization, envelope.subject),
            *(envelope.correlation, envelope.causation_id),
            *(meta.decode() if isinstance(meta, bytes) else meta, envelope.data.decode()),
        )


async def record_executions(writer: Writer, executions: Iterable[Execution]) -> None:
    for told in executions:
        await writer.execute(
            "INSERT INTO eventbus_executions VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            *(told.event_id, made(told.event_id), uuid7(), told.group, told.attempt, told.outcome),
            *(told.seconds, told.error, told.finished_at),
        )


def execution(
    of: Envelope, group: str, outcome: Ending = Ending.COMPLETED, attempt: int = 1, error: str | None = None
) -> Execution:
    """One that ended as many seconds behind its event as it is the n-th attempt."""
    return Execution(of.id, group, attempt, outcome, 0.25, error, of.time + timedelta(seconds=attempt))
