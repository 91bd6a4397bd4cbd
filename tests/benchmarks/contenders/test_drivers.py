"""The drivers of ours and of the raw client, as the runner starts them, on a real server."""

import sys
from typing import Any

import pytest
import redis

from benchmarks.contenders import ours, raw
from benchmarks.contenders.driver import Unsupported
from benchmarks.running.child import DriverFailed, drive
from tests.waiting import PATIENCE

MODULES = ("benchmarks.contenders.ours", "benchmarks.contenders.raw")
COUNT = 1_503  # no multiple of the tasks, nor of a pipeline


async def perform(module: str, task: str, url: str, *options: object) -> dict[str, Any]:
    argv = [sys.executable, "-m", module, task, "--url", url, *map(str, options)]
    return dict(await drive(argv, lambda _: None))


def stored(url: str, module: str) -> int:
    with redis.Redis.from_url(url, socket_timeout=PATIENCE) as client:
        return int(client.xlen(raw.STREAM if module == "benchmarks.contenders.raw" else ours.STREAM))


def pending(url: str, module: str) -> list[tuple[int, int]]:
    """Of each group: how many are pending, and how many have been read."""
    with redis.Redis.from_url(url, socket_timeout=PATIENCE) as client:
        groups = client.xinfo_groups(raw.STREAM if module == "benchmarks.contenders.raw" else ours.STREAM)
        return [(group["pending"], group["entries-read"]) for group in groups]


@pytest.mark.parametrize("module", MODULES)
async def test_consume_works_off_what_publish_has_left(module: str, redis_url: str) -> None:
    published = await perform(module, "publish", redis_url, "--count", COUNT, "--tasks", 500)
    assert (published["events"], stored(redis_url, module)) == (COUNT, COUNT)
    consumed = await perform(module, "consume", redis_url, "--count", COUNT)
    assert consumed["events"] == COUNT
    assert pending(redis_url, module) == [(0, COUNT)]
    assert published["seconds"] > 0
    assert consumed["seconds"] > 0
    assert set(consumed) == {"events", "seconds"}


@pytest.mark.parametrize("module", MODULES)
async def test_both_publishes_and_consumes_as_many(module: str, redis_url: str) -> None:
    assert (await perform(module, "both", redis_url, "--count", COUNT))["events"] == COUNT
    assert stored(redis_url, module) == COUNT
    assert pending(redis_url, module) == [(0, COUNT)]


@pytest.mark.parametrize("module", MODULES)
async def test_latency_has_its_percentiles_in_order(module: str, redis_url: str) -> None:
    result = await perform(module, "latency", redis_url, "--rate", 200, "--seconds", 1)
    assert (result["events"], result["rate"]) == (200, 200)
    assert 0 < result["p50"] <= result["p95"] <= result["p99"] <= result["max"]


@pytest.mark.parametrize("module", MODULES)
async def test_alone_stores_each(module: str, redis_url: str) -> None:
    assert (await perform(module, "alone", redis_url, "--count", 50))["events"] == 50
    assert stored(redis_url, module) == 50


@pytest.mark.parametrize("module", MODULES)
async def test_describe_says_who_it_is(module: str) -> None:
    about = await drive([sys.executable, "-m", module, "describe"], lambda _: None)
    assert set(about) == {"name", "version", "language", "settings", "guarantees"}
    assert all(about.values())


async def test_handlers_that_wait_hold_up_no_more_than_their_share(redis_url: str) -> None:
    await perform("benchmarks.contenders.ours", "publish", redis_url, "--count", 200)
    result = await perform(
        "benchmarks.contenders.ours", "consume", redis_url, "--count", 200, "--wait-ms", 50, "--concurrency", 20
    )
    assert 0.5 <= result["seconds"] < 5  # ten times fifty milliseconds, and not 200 times


async def test_the_raw_loop_has_no_handlers_that_could_wait(redis_url: str) -> None:
    with pytest.raises(Unsupported, match="without handlers"):
        await perform("benchmarks.contenders.raw", "consume", redis_url, "--count", 1, "--wait-ms", 5)


async def test_every_group_handles_all(redis_url: str) -> None:
    await perform("benchmarks.contenders.ours", "publish", redis_url, "--count", 100)
    result = await perform("benchmarks.contenders.ours", "consume", redis_url, "--count", 100, "--groups", 3)
    assert result["events"] == 300
    assert pending(redis_url, "benchmarks.contenders.ours") == [(0, 100)] * 3


async def test_delayed_events_wait_beside_the_stream(redis_url: str) -> None:
    await perform("benchmarks.contenders.ours", "publish", redis_url, "--count", 100, "--delay", 1000)
    with redis.Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
        assert (client.zcard("eb:{bench}:due"), client.exists(ours.STREAM)) == (100, 0)


async def test_only_events_from_a_number_on_count(redis_url: str) -> None:
    await perform("benchmarks.contenders.ours", "publish", redis_url, "--count", 100)
    await perform("benchmarks.contenders.ours", "publish", redis_url, "--count", 50, "--first", 100)
    result = await perform("benchmarks.contenders.ours", "consume", redis_url, "--count", 50, "--first", 100)
    assert result["events"] == 50
    assert pending(redis_url, "benchmarks.contenders.ours") == [(0, 150)]


@pytest.mark.parametrize("descended", [False, True])
async def test_the_envelope_is_full(descended: bool, redis_url: str) -> None:
    await perform(
        "benchmarks.contenders.ours", "publish", redis_url, "--count", 1, *(["--descended"] if descended else [])
    )
    with redis.Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
        [(_, fields)] = client.xrange(ours.STREAM)
    assert b'"subject":"lead-00000000"' in fields[b"meta"]
    assert b'"organization":"org-1"' in fields[b"meta"]
    assert (b"correlationId" in fields[b"meta"], b"causationId" in fields[b"meta"]) == (descended, descended)
    assert 95 <= len(fields[b"data"]) <= 110


def test_all_publish_the_same_number_of_bytes() -> None:
    assert len(raw.PAYLOAD) == len(ours.example(1).model_dump_json(by_alias=True))


async def test_a_server_that_is_away_is_a_failure_with_its_reason() -> None:
    with pytest.raises(DriverFailed, match=r"publish: exit code 1: .*Connection"):
        await perform("benchmarks.contenders.raw", "publish", "redis://127.0.0.1:1/0", "--count", 1)
