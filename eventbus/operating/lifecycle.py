"""What a bus is made of, and how it is opened and closed: the part of `EventBus` that publishes nothing."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from eventbus.checks.addresses import show_url
from eventbus.checks.numbers import count_faults
from eventbus.contract.broker import Broker
from eventbus.contract.circuits import Calls
from eventbus.contract.codec import MAX_PAYLOAD
from eventbus.contract.partitions import division_faults
from eventbus.contract.retention import Retention
from eventbus.contract.transaction import Database
from eventbus.errors import ConfigurationError
from eventbus.handling.listeners import AnyListener
from eventbus.handling.middleware import Middleware, find_faults
from eventbus.memory import MemoryTransport
from eventbus.process.affinity import Affinity
from eventbus.process.closing import Closing
from eventbus.process.resources import Resources
from eventbus.publishing.breaker import Breaker
from eventbus.publishing.inflight import PublishSlots
from eventbus.publishing.publisher import MAX_PUBLISH_BYTES, Publisher
from eventbus.publishing.spool import SPOOL_BYTES, Spool
from eventbus.redis import COMMAND_TIMEOUT, RedisTransport
from eventbus.sessions import Contingency, Known
from eventbus.settings import Settings
from eventbus.telemetry import Metrics
from eventbus.telemetry.publishing import Publishing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

PUBLISH_TIMEOUT = 5.0  # seconds
MAX_PUBLISHES = 10_000

_IN_MEMORY = "memory://"
_NAMESPACE = re.compile(r"[A-Za-z0-9._:-]{1,100}")  # other characters have a meaning in patterns or hash tags


class Lifecycle(ABC):
    """A bus that can be opened and closed. The arguments: see EventBus."""

    def __init__(
        self,
        url: str | None = None,
        *,
        database: str | None = None,
        database_pool_size: int | None = None,
        database_statement_cache: int | None = None,
        database_schema: str | None = None,
        publish_timeout: float = PUBLISH_TIMEOUT,
        max_publishes: int = MAX_PUBLISHES,
        max_publish_bytes: int = MAX_PUBLISH_BYTES,
        spool: Path | str | None = None,
        spool_bytes: int = SPOOL_BYTES,
        max_payload: int = MAX_PAYLOAD,
        min_replicas: int = 0,
        partitions: Mapping[str, int] = {},
        retention: Retention = Retention(),
        history: timedelta | None = None,
        namespace: str = "eb",
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[AnyListener] = (),
        tracer: "Tracer | None" = None,
    ) -> None:
        counts = {"publish_timeout": publish_timeout, "max_publishes": max_publishes, "spool_bytes": spool_bytes}
        counts |= {"max_payload": max_payload, "max_publish_bytes": max_publish_bytes}
        wrong = [*find_faults(middleware), *count_faults("min_replicas", min_replicas, least=0)]
        wrong += division_faults(partitions)
        _check(wrong, namespace, counts, history, kept=database is not None)
        target = url or Settings().require_redis_url()
        self._max_payload = max_payload
        self._min_replicas = min_replicas
        self.retention = retention
        self.history_kept = history
        self.middleware = tuple(middleware)
        self.metrics = Metrics()
        self.listeners = tuple(listeners)
        self._publishing = Publishing(self.metrics, tracer)
        self.resources = Resources()
        self.affinity = Affinity(must_be_open=not target.startswith(_IN_MEMORY))
        self._transport = _broker_at(
            target, namespace, min(publish_timeout, COMMAND_TIMEOUT), self.affinity, partitions
        )
        self.closing = Closing()
        self.spool = self.metrics.spool = Spool(spool, limit=spool_bytes) if spool is not None else None
        self._breaker = Breaker()
        self._make_ways_out(f"Redis at {show_url(target)}", publish_timeout, max_publishes, max_publish_bytes)
        self._known, self._calls = Known(), Calls()
        using = (database_pool_size, database_statement_cache, database_schema)
        self._database = _database_at(database, max_payload, *using) if database else None
        self._assemble()

    def _make_ways_out(self, server: str, timeout: float, limit: int, most: int) -> None:
        """For what is published, and for what sessions collect: to `server`, as messages call it, or the spool."""
        self._publisher = Publisher(
            self._transport,
            self.spool,
            self._breaker,
            server=server,
            timeout=timeout,
            limit=limit,
            most=most,
            affinity=self.affinity,
        )
        self._contingency = Contingency(self.spool, self._breaker, server=server, timeout=timeout)

    @abstractmethod
    def _assemble(self) -> None:
        """Make the parts, for the transport of now."""

    @property
    def transport(self) -> Broker:
        """What carries the events; another one may be put in its place before the bus is opened."""
        return self._transport

    @transport.setter
    def transport(self, transport: Broker) -> None:
        self._transport = self._publisher.transport = transport
        self._assemble()

    @property
    def database(self) -> Database | None:
        """The database of outbox and inbox, if there is one; another one may be put in its place, too."""
        return self._database

    @database.setter
    def database(self, database: Database | None) -> None:
        self._database = database
        self._assemble()

    @property
    def in_flight(self) -> PublishSlots:
        """Publishes that wait for Redis now: `len(bus.in_flight)`."""
        return self._publisher.in_flight

    async def __aenter__(self) -> Self:
        self.affinity.enter()
        try:
            await self.transport.connect()
            if self.database is not None:
                await self.database.connect()
        except BaseException:
            await self.close()
            raise
        self.middleware = (*self._publishing.begin_tracing(), *self.middleware)
        if self.spool is not None:
            self.spool.start(self.transport, self._breaker)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the bus, in the event loop that it was opened in; in another loop this raises ConfigurationError.

        Workers that still run give back what they hold first. A second call does nothing. A call in a forked child
        process does nothing either: the connections belong to the parent."""
        if self.affinity.forked or self.affinity.closed or self.closing.begun:
            return
        if self.affinity.loop is not None:
            self.affinity.check()
        try:
            await self.closing.begin()
            await self.resources.close()
            if self.spool is not None:
                await self.spool.close()
            if self.database is not None:
                await self.database.close()
            await self.transport.close()
        finally:
            self.affinity.leave()


def _check(
    wrong: Sequence[str], namespace: object, counts: Mapping[str, float], history: timedelta | None, *, kept: bool
) -> None:
    """Raises ConfigurationError naming all that is wrong with an EventBus' arguments. `wrong`: what was found before;
    `kept`: it has a database."""
    wrong = [*wrong, *(f"{name} {value} must be positive" for name, value in counts.items() if value <= 0)]
    if not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
        wrong.append(f"namespace={namespace!r:.120} must be 1 to 100 letters, digits, '.', '_', ':' or '-'")
    if history is not None and (not kept or history <= timedelta()):
        wrong.append(f"history={history} needs database=…, and must be above 0, or None")
    if wrong:
        raise ConfigurationError("EventBus: " + "; ".join(wrong))


def _broker_at(url: str, namespace: str, timeout: float, affinity: Affinity, partitions: Mapping[str, int]) -> Broker:
    """The transport for a URL; not connected yet. `timeout`: seconds that a command may take."""
    if url.startswith(_IN_MEMORY):
        return MemoryTransport()  # one log each: there is nothing to spread
    return RedisTransport(url, namespace=namespace, timeout=timeout, affinity=affinity, partitions=partitions)


def _database_at(
    dsn: str, max_payload: int, pool_size: int | None, statement_cache: int | None, schema: str | None
) -> Database:
    """The database for an address; not connected yet. Raises ConfigurationError where asyncpg is not installed."""
    try:
        from eventbus.postgres import Database as Postgres  # noqa: PLC0415 - asyncpg is an extra
    except ImportError:
        raise ConfigurationError("database=… needs asyncpg: pip install 'eventbus[postgres]'") from None
    using = {"pool_size": pool_size, "statement_cache": statement_cache}
    return Postgres(dsn, **using, schema=schema, max_payload=max_payload)
