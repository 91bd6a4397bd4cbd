"""Metrics of real processes, scraped over HTTP, and traces through real servers."""

import asyncio
import os
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider

from eventbus import Context, EventBus, Group, Worker
from eventbus.errors import ConfigurationError
from eventbus.telemetry import Metrics, Survey, prometheus
from tests.integration.observed import Observed
from tests.unit.telemetry.scrape import Samples, parse, scrape
from tests.unit.telemetry.test_tracing import Recorder, ids, parent
from tests.waiting import PATIENCE, eventually, until

EVENTS = 100


@asynccontextmanager
async def observed(redis_url: str) -> AsyncIterator[int]:
    """A worker process; the port of its metrics."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.observed"),
        env={**os.environ, "EVENTBUS_REDIS_URL": redis_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            yield int(await process.stdout.readline())
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.stdout.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def fetched(port: int) -> Samples:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text

    return parse(await asyncio.to_thread(read))


async def test_a_process_tells_exactly_what_it_did(redis_url: str) -> None:
    """100 events, of which 10 fail once and 4 are rejected (1, 26, 51, 76)."""
    async with EventBus(redis_url) as bus:
        await bus.publish_many([Observed(number=number) for number in range(EVENTS)])
        async with observed(redis_url) as port:

            async def done() -> Samples:
                told = await fetched(port)
                ended = [
                    told.get(("eventbus_processed_total", "eyes", end, "observed.thing"), 0) for end in ("ack", "dead")
                ]
                return told if sum(ended) == EVENTS else {}

            told = await eventually(done)
        metrics = Metrics()
        await Survey(metrics, bus.transport, None).look()
    counts = {key[2]: value for key, value in told.items() if key[0] == "eventbus_processed_total"}
    assert counts == {"ack": 96, "dead": 4, "retry": 10, "snooze": 0, "release": 0}
    assert told["eventbus_handler_seconds_count", "eyes", "observed.thing"] == 110
    assert told["eventbus_end_to_end_seconds_count", "eyes"] == 96
    assert 0 < told["eventbus_end_to_end_seconds_sum", "eyes"] < 96 * 60
    assert told["eventbus_up", "redis"] == 1
    assert told["eventbus_stream_length", "observed"] == EVENTS
    assert ("process_resident_memory_bytes",) in told  # whatever else the program has registered
    left = scrape(metrics)
    assert (left["eventbus_dead_letters", "observed"], left["eventbus_backlog", "eyes", "observed"]) == (4, 0)
    assert (left["eventbus_lag", "eyes", "observed"], left["eventbus_pending", "eyes", "observed"]) == (0, 0)


async def test_a_port_that_is_taken_is_a_configuration_error() -> None:
    port, stop = prometheus.serve(Metrics(), 0)
    with pytest.raises(ConfigurationError, match=f":{port}"):
        prometheus.serve(Metrics(), port)
    stop()


async def test_what_goes_through_the_outbox_is_counted_and_one_trace(redis_url: str, migrated_url: str) -> None:
    recorder = Recorder(TracerProvider())
    seen = Group("seen")
    handled: list[int] = []

    @seen.on(Observed)
    async def see(event: Observed, ctx: Context) -> None:
        async with ctx.transaction() as tx:
            if event.number:
                await tx.publish(Observed(number=event.number - 1))
        handled.append(event.number)

    async with EventBus(redis_url, database=migrated_url, tracer=recorder.tracer) as bus:
        worker = Worker(bus, [seen])
        running = asyncio.create_task(worker.run())
        with recorder.tracer.start_as_current_span("request"):
            async with bus.transaction() as tx:
                await tx.publish(Observed(number=1))
        await until(lambda: handled == [1, 0] and len(recorder.spans) == 5)
        metrics = bus.metrics
        await Survey(metrics, bus.transport, bus.database).look()
        await worker.stop()
        await running
    request, first, process, second, last = recorder.spans
    assert [span.name for span in recorder.spans[1:]] == ["publish observed", "process observed"] * 2
    assert [parent(span) for span in recorder.spans] == [None, ids(request), ids(first), ids(process), ids(second)]
    assert parent(last) == ids(second)
    told = scrape(metrics)
    assert told["eventbus_published_total", "stored", "observed"] == 2
    assert told["eventbus_up", "postgres"] == 1
