"""Spans, with OpenTelemetry's own SDK and an exporter that keeps them."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode, Tracer

from eventbus import EventBus, Group, Origin, Worker
from eventbus.context import Context
from eventbus.contract.codec import decode
from eventbus.contract.delivery import Delivery
from eventbus.errors import Full
from eventbus.event import Status
from eventbus.telemetry.tracing import find_tracing
from tests.samples import consumer, receive
from tests.unit.telemetry.events import Answered, Asked, oracle, scribe
from tests.waiting import PATIENCE, until

OUTSIDE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    """A tracer and the spans that it has ended."""

    def __init__(self, provider: TracerProvider) -> None:
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(TracerProvider())


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 0.1)


@asynccontextmanager
async def working(tracer: Tracer, groups: Sequence[Group]) -> AsyncIterator[EventBus]:
    async with EventBus("memory://", tracer=tracer) as bus:
        worker = Worker(bus, groups)
        running = asyncio.create_task(worker.run())
        try:
            yield bus
        finally:
            await worker.stop()
            await running


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def taken_apart(traceparent: str | None) -> tuple[tuple[int, int], bool]:
    """Trace id, span id; and whether it is sampled."""
    assert traceparent is not None
    version, trace_id, span_id, flags = traceparent.split("-")
    assert (version, len(trace_id), len(span_id), len(flags)) == ("00", 32, 16, 2)
    return (int(trace_id, 16), int(span_id, 16)), bool(int(flags, 16) & 1)


def carried(delivery: Delivery) -> tuple[tuple[int, int], bool]:
    return taken_apart(decode(delivery.fields).traceparent)


async def test_a_chain_of_events_is_one_trace(recorder: Recorder) -> None:
    async with working(recorder.tracer, [oracle(), scribe()]) as bus:
        receipt = await bus.publish(Asked(fate="answer"))
        await until(lambda: len(recorder.spans) == 4)
    asked, process, answered, write = recorder.spans
    assert [span.name for span in recorder.spans] == [
        "publish question",
        "process question",
        "publish answer",
        "process answer",
    ]
    assert [span.kind for span in recorder.spans] == [SpanKind.PRODUCER, SpanKind.CONSUMER] * 2
    assert parent(asked) is None
    assert [parent(process), parent(answered), parent(write)] == [ids(asked), ids(process), ids(answered)]
    body = len(b'{"fate":"answer"}')
    told = {
        "messaging.system": "eventbus",
        "messaging.destination.name": "question",
        "messaging.message.id": receipt.id,
        "messaging.message.conversation_id": receipt.id,
        "messaging.message.body.size": body,
        "cloudevents.event_type": "question.asked",
    }
    assert attributes(asked) == told | {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "eventbus.publish.status": "stored",
    }
    assert attributes(process) == told | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "oracle",
        "eventbus.attempt": 1,
    }
    assert attributes(write)["messaging.message.conversation_id"] == receipt.id


async def test_a_span_that_is_current_is_the_parent_of_a_publish(recorder: Recorder) -> None:
    async with EventBus("memory://", tracer=recorder.tracer) as bus:
        with recorder.tracer.start_as_current_span("request"):
            await bus.publish(Asked(), origin=Origin(traceparent=OUTSIDE))
    request, publish = recorder.spans
    assert parent(publish) == ids(request)


async def test_without_one_it_is_what_the_event_descends_from(recorder: Recorder) -> None:
    async with working(recorder.tracer, [oracle()]) as bus:
        await bus.publish(Asked(), origin=Origin(traceparent=OUTSIDE))
        await until(lambda: len(recorder.spans) == 2)
    publish, process = recorder.spans
    assert parent(publish) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert parent(process) == ids(publish)


async def test_many_events_have_a_span_each_and_carry_it(recorder: Recorder) -> None:
    async with EventBus("memory://", tracer=recorder.tracer) as bus:
        receipts = await bus.publish_many([Asked(), Asked()])
        deliveries = await receive(bus.transport, consumer(stream="question"), 2)
    assert [attributes(span)["messaging.message.id"] for span in recorder.spans] == [r.id for r in receipts]
    assert [carried(delivery)[0] for delivery in deliveries] == [ids(span) for span in recorder.spans]
    assert all(sampled for _, sampled in map(carried, deliveries))


async def test_each_attempt_is_a_span_and_failures_say_what_they_were(recorder: Recorder) -> None:
    async with working(recorder.tracer, [oracle()]) as bus:
        await bus.publish(Asked(fate="retry"))
        await until(lambda: len(recorder.spans) == 3)
    publish, first, second = recorder.spans
    assert [parent(first), parent(second)] == [ids(publish), ids(publish)]
    assert [attributes(span)["eventbus.attempt"] for span in (first, second)] == [1, 2]
    assert attributes(first)["error.type"] == "ValueError"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "postgresql://ann:***@host says no"
    [event] = first.events
    assert dict(event.attributes or {})["exception.message"] == "postgresql://ann:***@host says no"
    assert "error.type" not in attributes(second)
    assert second.status.status_code is StatusCode.UNSET


async def test_a_publish_that_fails_ends_its_span_with_the_error(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> list[Status]:
        raise Full("no memory")

    async with EventBus("memory://", tracer=recorder.tracer) as bus:
        monkeypatch.setattr(bus.transport, "append", refuse)
        with pytest.raises(Full):
            await bus.publish(Asked())
    [span] = recorder.spans
    assert attributes(span)["error.type"] == "eventbus.errors.Full"


async def test_a_traceparent_that_is_none_begins_a_new_trace(recorder: Recorder) -> None:
    async with working(recorder.tracer, [oracle()]) as bus:
        await bus.publish(Asked(), origin=Origin(traceparent="00-nonsense\r\n"))
        await until(lambda: len(recorder.spans) == 2)
    publish, process = recorder.spans
    assert parent(publish) is None
    assert parent(process) == ids(publish)


async def test_what_is_not_sampled_is_carried_on_as_such() -> None:
    recorder = Recorder(TracerProvider(sampler=ALWAYS_OFF))
    async with EventBus("memory://", tracer=recorder.tracer) as bus:
        await bus.publish(Asked())
        [delivery] = await receive(bus.transport, consumer(stream="question"))
    assert recorder.spans == []
    assert carried(delivery)[1] is False


async def test_a_tracer_that_does_nothing_leaves_the_traceparent_as_it_was() -> None:
    async with EventBus("memory://", tracer=NoOpTracer()) as bus:
        await bus.publish(Asked(), origin=Origin(traceparent=OUTSIDE))
        [delivery] = await receive(bus.transport, consumer(stream="question"))
    assert OUTSIDE.encode() in delivery.fields[b"meta"]


async def test_without_tracing_a_traceparent_is_handed_from_event_to_event() -> None:
    seen: list[str | None] = []
    listener = Group("listener")

    @listener.on(Answered)
    async def note(event: Answered, ctx: Context) -> None:
        seen.append(ctx.envelope.traceparent)

    assert find_tracing() is None, "no SDK is set up in the tests' process"
    async with EventBus("memory://") as bus:
        assert bus.middleware == ()
        worker = Worker(bus, [oracle(), listener])
        running = asyncio.create_task(worker.run())
        await bus.publish(Asked(fate="answer"), origin=Origin(traceparent=OUTSIDE))
        await until(lambda: seen)
        await worker.stop()
        await running
    assert seen == [OUTSIDE]


def test_events_of_a_transaction_descend_from_the_span_that_is_current(recorder: Recorder) -> None:
    bus = EventBus("memory://", tracer=recorder.tracer)
    bus._publishing.begin_tracing()
    with recorder.tracer.start_as_current_span("request"):
        origin = bus._publishing.descend(Origin(correlation_id="c", traceparent=OUTSIDE))
    [request] = recorder.spans
    assert taken_apart(origin.traceparent)[0] == ids(request)
    assert origin.correlation_id == "c"
    assert bus._publishing.descend(Origin(traceparent=OUTSIDE)).traceparent == OUTSIDE
    assert trace.get_current_span().get_span_context().is_valid is False


PROGRAM = """
import asyncio, sys
from eventbus import Event, EventBus
{setup}
class Said(Event, type="word.said"): pass
async def main():
    async with EventBus("memory://") as bus:
        await bus.publish(Said())
        print(len(bus.middleware), {spans})
asyncio.run(main())
"""
SETUP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
"""


SPANS = "[span.name for span in exporter.get_finished_spans()]"
API = "import opentelemetry.trace"


@pytest.mark.parametrize(
    ("setup", "spans", "printed"),
    [(SETUP, SPANS, "1 ['publish word']"), (API, "[]", "0 []"), ("", "[]", "0 []")],
    ids=["sdk", "api", "nothing"],
)
def test_spans_begin_where_a_program_has_set_up_an_sdk(setup: str, spans: str, printed: str) -> None:
    program = PROGRAM.format(setup=setup, spans=spans)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.strip() == printed
