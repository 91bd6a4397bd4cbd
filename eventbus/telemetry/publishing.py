"""What stands between a publish and the transport: counting, and spans where they are wanted."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from eventbus.contract.outgoing import Appender, Outgoing, fates_of
from eventbus.errors import EventBusError
from eventbus.event import Origin, Status
from eventbus.handling.middleware import Middleware
from eventbus.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Append = Callable[[Sequence[Outgoing]], Awaitable[list[Status]]]


class Traces(Protocol):
    """What is asked of eventbus.telemetry.tracing, whose package may not be there."""

    async def publish(self, outgoing: Sequence[Outgoing], append: Append) -> list[Status]: ...
    def descend(self, origin: Origin) -> Origin: ...


class Publishing:
    """`tracer`: for spans; None takes that of an SDK which is set up when tracing begins."""

    def __init__(self, metrics: Metrics, tracer: "Tracer | None" = None) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self.tracing: Traces | None = None

    def begin_tracing(self) -> list[Middleware]:
        """Trace from now on, if there is something to trace with; returns what goes around handlers then.

        An SDK that is set up has imported `opentelemetry.trace`. Without it, and without a tracer, nothing is imported
        and tracing costs nothing."""
        if self.tracing is not None or (self._tracer is None and "opentelemetry.trace" not in sys.modules):
            return []
        from eventbus.telemetry.tracing import Tracing, find_tracing  # noqa: PLC0415 - opentelemetry-api is an extra

        tracing = Tracing(self._tracer) if self._tracer is not None else find_tracing()
        if tracing is None:
            return []
        self.tracing = tracing
        return [tracing.process]

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
