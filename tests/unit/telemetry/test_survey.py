"""Surveys: made for a reader only, at an interval, and silent about what cannot be read."""

import asyncio
from collections.abc import Collection

import pytest

from eventbus.contract.circuits import Circuit
from eventbus.contract.inspection import StreamState
from eventbus.errors import Unavailable
from eventbus.memory import MemoryTransport
from eventbus.telemetry import Metrics, Survey
from tests.samples import consumer, outgoing, receive
from tests.unit.telemetry.scrape import scrape
from tests.waiting import until


class Counted(MemoryTransport):
    """Knows how often it was asked; may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.searches = self.inspections = 0
        self.error: Exception | None = None

    async def find_streams(self) -> list[str]:
        self.searches += 1
        return await super().find_streams()

    async def inspect(self, streams: Collection[str]) -> list[StreamState]:
        self.inspections += 1
        if self.error is not None:
            raise self.error
        return await super().inspect(streams)


@pytest.fixture
def transport() -> Counted:
    return Counted()


async def test_a_survey_shows_what_streams_hold(transport: Counted) -> None:
    await transport.append(outgoing(1, 2, 3))
    await receive(transport, consumer(), 2)
    metrics = Metrics()
    await Survey(metrics, transport, None, ["lead"]).look()
    told = scrape(metrics)
    assert (told["eventbus_backlog", "billing", "order"], told["eventbus_pending", "billing", "order"]) == (1, 2)
    assert told["eventbus_stream_length", "lead"] == 0
    assert told["eventbus_up", "redis"] == 1
    assert told["eventbus_circuits_open",] == 0
    assert ("eventbus_up", "postgres") not in told


async def test_a_survey_counts_the_circuits_that_are_open(transport: Counted) -> None:
    metrics = Metrics()
    for name, failures in (("n8n:a", 1), ("n8n:b", 1), ("n8n:c", 2)):
        await transport.circuits.failed(Circuit(name, failures=failures))
    await Survey(metrics, transport, None).look()
    assert scrape(metrics)["eventbus_circuits_open",] == 2


async def test_while_the_server_is_away_no_old_number_is_shown(transport: Counted) -> None:
    await transport.append(outgoing(1))
    metrics = Metrics()
    survey = Survey(metrics, transport, None)
    await survey.look()
    transport.error = Unavailable("Redis", "away")
    await survey.look()
    assert scrape(metrics)["eventbus_up", "redis"] == 0
    assert ("eventbus_circuits_open",) not in scrape(metrics)
    assert ("eventbus_stream_length", "order") not in scrape(metrics)
    transport.error = None
    await survey.look()
    assert scrape(metrics)["eventbus_stream_length", "order"] == 1


async def test_streams_are_searched_for_now_and_then_and_read_each_time(transport: Counted) -> None:
    survey = Survey(Metrics(), transport, None)
    for _ in range(13):
        await survey.look()
    assert (transport.searches, transport.inspections) == (3, 13)


async def test_nothing_is_asked_while_nobody_reads(transport: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.telemetry.survey.INTERVAL", 0.001)
    metrics = Metrics()
    running = asyncio.create_task(Survey(metrics, transport, None).run())
    await asyncio.sleep(0.02)
    assert transport.inspections == 0
    metrics.exposed = True
    await until(lambda: transport.inspections)
    transport.error = RuntimeError("a defect of ours must not end the worker")
    before = transport.inspections
    await until(lambda: transport.inspections > before + 1)
    assert not running.done()
    running.cancel()
