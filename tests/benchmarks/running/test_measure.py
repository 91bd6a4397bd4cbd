"""Percentiles, and a loop whose stalls count for every event that they hold up."""

import asyncio
import time
from unittest import mock

import pytest

from benchmarks.running.measure import WARM_UP, Latency, OpenLoop, percentile
from tests import virtual


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (1, 0.5, 1),
        (1, 0.99, 1),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (100, 0.99, 99),
        (101, 0.99, 100),
        (1000, 0.95, 950),
        (4, 1, 4),
    ],
)
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(
    count: int, share: float, expected: int
) -> None:
    assert percentile(range(1, count + 1), share) == expected


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="was anything measured"):
        percentile([], 0.5)


def test_latency_is_in_milliseconds_in_whatever_order_it_was_measured() -> None:
    latency = Latency.of("x", 500, [0.003, 0.001, 0.002, 0.1])
    assert (latency.events, latency.p50, latency.p99, latency.max) == (4, 2.0, 100.0, 100.0)


@virtual.in_virtual_time
async def test_a_stall_counts_for_every_event_that_was_due_meanwhile() -> None:
    loop = OpenLoop(rate=100, seconds=0.5)

    async def send(number: int) -> None:
        if number == 10:
            virtual.loop().pass_time(0.2)
        loop.started(number)

    def clock() -> float:  # who looks at it again and again must see it go on
        virtual.loop().pass_time(1e-6)
        return virtual.loop().time()

    with mock.patch.object(time, "perf_counter", clock):
        await loop.run(send, lambda _: None)
    assert len(loop.latencies) == loop.count == 50
    held_up = [latency for latency in loop.latencies if latency > 0.05]
    assert 14 <= len(held_up) <= 16, sorted(loop.latencies)  # those due in the first 150 ms of the stall
    assert all(latency >= 0 for latency in loop.latencies)


async def test_the_events_that_go_ahead_are_not_measured() -> None:
    loop, sent = OpenLoop(rate=1000, seconds=0.01), list[int]()

    async def send(number: int) -> None:
        sent.append(number)
        loop.started(number)

    await loop.run(send, lambda _: None)
    assert (len(sent), len(loop.latencies)) == (WARM_UP + 10, 10)


async def test_an_event_that_never_starts_ends_the_loop_with_an_error() -> None:
    loop = OpenLoop(rate=1000, seconds=0.01)

    async def send(number: int) -> None:
        if number != 3:
            loop.started(number)

    with pytest.raises(TimeoutError):
        await loop.run(send, lambda _: None, patience=0.2)


async def test_a_send_that_fails_ends_the_loop_with_its_error() -> None:
    loop = OpenLoop(rate=1000, seconds=0.3)

    async def send(number: int) -> None:
        await asyncio.sleep(0)
        if number == 3:
            raise ConnectionError("gone")
        loop.started(number)

    with pytest.raises(ConnectionError, match="gone"):
        await loop.run(send, lambda _: None)
