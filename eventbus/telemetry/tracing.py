"""Spans by OpenTelemetry's conventions for messaging: `publish lead` (producer) and `process lead` (consumer).

The traceparent of the publishing span travels in the envelope and is the parent of the spans of its handlers: all that
one request set in motion is one trace. Without tracing, a traceparent that came from outside still travels on: see
eventbus.event.Origin.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventbus import event as events
from eventbus.context import Context
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import hide_password
from eventbus.event import Envelope, Event, Origin
from eventbus.handling.middleware import CallNext

_FORMAT = TraceContextTextMapPropagator()
_MESSAGE_LIMIT = 1_000  # characters


class Tracing:
    """What one bus traces, with one tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def publish(
        self, outgoing: Sequence[Outgoing], append: Callable[[Sequence[Outgoing]], Awaitable[list[events.Status]]]
    ) -> list[events.Status]:
        """Append inside of one span for each event; what is appended carries its span's traceparent."""
        spans = [self._begin_publish(item.envelope) for item in outgoing]
        stamped = [
            item._replace(envelope=_stamp(item.envelope, span)) for item, span in zip(outgoing, spans, strict=True)
        ]
        try:
            statuses = await append(stamped)
            for span, status in zip(spans, statuses, strict=True):
                span.set_attribute("eventbus.publish.status", status.value)
        except BaseException as error:
            for span in spans:
                _note(span, error)
            raise
        finally:
            for span in spans:
                span.end()
        return statuses

    async def process(self, event: Event, ctx: Context, call_next: CallNext) -> None:
        """A Middleware: the handler runs in a span of its own, from which all that it publishes descends."""
        with self._processing(ctx):
            await call_next(event, ctx)

    @contextmanager
    def _processing(self, ctx: Context) -> Iterator[None]:
        envelope = ctx.envelope
        span = self._tracer.start_span(
            f"process {envelope.stream}",
            context=_context(envelope.traceparent),
            kind=SpanKind.CONSUMER,
            attributes={
                **_attributes(envelope, "process", "process"),
                "messaging.consumer.group.name": ctx.group,
                "eventbus.attempt": ctx.attempt,
            },
        )
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as error:
            _note(span, error)
            raise
        finally:
            span.end()

    def descend(self, origin: Origin) -> Origin:
        """The origin with the traceparent of the current span, if there is one: for events of a transaction."""
        current = _traceparent(trace.get_current_span())
        return origin if current is None else origin._replace(traceparent=current)

    def _begin_publish(self, envelope: Envelope) -> Span:
        """A producer's span. Its parent is the current span; without one, the span that the event descends from."""
        current = trace.get_current_span().get_span_context().is_valid
        return self._tracer.start_span(
            f"publish {envelope.stream}",
            context=None if current else _context(envelope.traceparent),
            kind=SpanKind.PRODUCER,
            attributes=_attributes(envelope, "publish", "send"),
        )


def find_tracing() -> Tracing | None:
    """Tracing with the tracer of the SDK that this program has set up; None if it has set up none."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return Tracing(provider.get_tracer("eventbus", version("eventbus")))


def _attributes(envelope: Envelope, name: str, kind: str) -> dict[str, str | int]:
    return {
        "messaging.system": "eventbus",
        "messaging.destination.name": envelope.stream,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.message.id": envelope.id,
        "messaging.message.conversation_id": envelope.correlation,
        "messaging.message.body.size": len(envelope.data),
        "cloudevents.event_type": envelope.type,
    }


def _note(span: Span, error: BaseException) -> None:
    message = hide_password(str(error))[:_MESSAGE_LIMIT]
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    span.set_attribute("error.type", kind)
    span.add_event("exception", {"exception.type": kind, "exception.message": message})
    span.set_status(Status(StatusCode.ERROR, message))


def _stamp(envelope: Envelope, span: Span) -> Envelope:
    traceparent = _traceparent(span)
    return envelope if traceparent is None else envelope._replace(traceparent=traceparent)


def _context(traceparent: str | None) -> TraceContext:
    """The parent that a traceparent names; none at all if there is none, or it is not well formed."""
    return _FORMAT.extract({"traceparent": traceparent} if traceparent else {}, TraceContext())


def _traceparent(span: Span) -> str | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
