"""What stands between a publish and the transport: counting, and spans where they are wanted."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from eventbus.contract.outgoing import Appender, Outgoing, fates_of
from eventbus.errors import EventBusError
from eventbus.event import Origin, Status
from eventbus.telemetry.metrics import Metrics

Append = Callable[[Sequence[Outgoing]], Awaitable[list[Status]]]


class Traces(Protocol):
    """What is asked of eventbus.telemetry.tracing, whose package may not be there."""

    async def publish(self, outgoing: Sequence[Outgoing], append: Append) -> list[Status]: ...
    def descend(self, origin: Origin) -> Origin: ...


class Publishing:
    """`tracing` may be set until something is published."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.tracing: Traces | None = None

    async def append(self, outgoing: Sequence[Outgoing], append: Append) -> list[Status]:
        """Append as a publish: traced and counted. One that raises counts as failed."""
        try:
            statuses = await (append(outgoing) if self.tracing is None else self.tracing.publish(outgoing, append))
        except BaseException:
            self._metrics.count_failed(outgoing)
            raise
        self._metrics.count_published(outgoing, statuses)
        return statuses

    async def append_relayed(self, outgoing: Sequence[Outgoing], append: Append) -> list[Status]:
        """As `append`, for the relay. It tries each event until it has succeeded: only that counts."""
        try:
            statuses = await (append(outgoing) if self.tracing is None else self.tracing.publish(outgoing, append))
        except EventBusError as error:
            fates = fates_of(error, len(outgoing))
            for item, fate in zip(outgoing, fates, strict=True):
                if isinstance(fate, Status):
                    self._metrics.count_published([item], [fate])
            raise
        self._metrics.count_published(outgoing, statuses)
        return statuses

    def relayed(self, appender: Appender) -> Appender:
        """What the relay appends to."""
        return _Relayed(self, appender)

    def descend(self, origin: Origin) -> Origin:
        """The origin of a transaction's events, with the current span: their own begin only when they are relayed."""
        return origin if self.tracing is None else self.tracing.descend(origin)


class _Relayed:
    def __init__(self, publishing: Publishing, appender: Appender) -> None:
        self._publishing = publishing
        self._appender = appender

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        return await self._publishing.append_relayed(outgoing, partial(self._appender.append, again=again))
