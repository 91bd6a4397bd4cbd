"""What operators have set, or somebody by hand."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group
from eventbus.memory import MemoryTransport
from eventbus.operating.aborting import abort, aborts
from eventbus.operating.control import Watch, pause, paused, resume
from tests.waiting import until
from tests.working import working


class Done(Event, type="control.done"):
    pass


STRANGE = (
    *(b"1", b"", b"{", b"[]", b"null", b"true", b"\xff", b"yes please"),
    *(
        b'{"by": 1, "at": "2026-01-01T00:00:00Z"}',
        b'{"by": "x"}',
        b'{"by": "x", "at": "soon"}',
        b'{"by": "x", "at": 5}',
    ),
)


@pytest.mark.parametrize("value", STRANGE, ids=repr)
async def test_a_value_that_is_no_note_counts_as_a_pause_and_is_told_once(value: bytes) -> None:
    transport, seen = MemoryTransport(), list[Mapping[str, bytes]]()
    await transport.control("pause:jobs", value)
    await transport.control("abort:jobs:e", value)
    await transport.control("unheard of", value)
    assert (await paused(transport))["jobs"].by == "unknown"
    assert aborts(await transport.controls()) == {}
    await abort(transport, "e-2", None, "why", timedelta(hours=1))
    watch = Watch(transport, seen.append)
    with capture_logs() as logs:
        for _ in range(3):
            await watch.look()
    assert len(seen) == 3
    assert sorted(line["control"] for line in logs) == ["abort:jobs:e", "pause:jobs", "unheard of"]
    assert not await pause(transport, "jobs")
    assert await resume(transport, "jobs")
    assert await paused(transport) == {}


async def test_a_note_without_a_zone_or_a_reason_is_one() -> None:
    transport = MemoryTransport()
    await transport.control("pause:jobs", b'{"by": "ann", "at": "2026-01-01T00:00:00"}')
    assert (await paused(transport))["jobs"] == ("ann", datetime(2026, 1, 1, tzinfo=UTC), "")


async def test_no_value_ends_a_worker() -> None:
    group = Group("jobs")

    @group.on(Done)
    async def handle(_event: Done, _ctx: Context) -> None: ...

    async with EventBus("memory://") as bus:
        await bus.transport.control("pause:jobs", b"1")
        with capture_logs() as logs:
            async with working(bus, group), asyncio.timeout(60):
                await until(lambda: any(line["event"] == "paused" for line in logs), timeout=60)
                await bus.transport.control("pause:jobs", None)
                await until(lambda: any(line["event"] == "resumed" for line in logs), timeout=60)
