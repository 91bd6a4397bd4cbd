"""A process that may open no more files says so, and blames no server."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group
from eventbus.errors import Unavailable
from eventbus.postgres import Database
from eventbus.process import open_files
from eventbus.redis.link import Link
from tests.waiting import until
from tests.working import working

SAID = "this process has all"


class Opened(Event, type="file.opened"):
    pass


@contextmanager
def no_more_files() -> Iterator[None]:
    """A limit at the first number that is free."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(autouse=True)
def not_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "_told_at", -open_files.AGAIN)


async def test_redis_is_not_away_when_files_are_used_up(redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        links = [Link(redis_url, timeout=5, name=f"test-{number}") for number in range(20)]
        for link in links:
            stack.push_async_callback(link.close)
        with capture_logs() as lines:
            with no_more_files():
                errors = await asyncio.gather(*(link.ready() for link in links), return_exceptions=True)
            await links[0].ready()
    assert all(isinstance(error, Unavailable) and SAID in str(error) for error in errors), errors
    assert f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]} at the most" in str(errors[0])
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("error", "no connection can be opened: too many open files")
    ]
    assert "RLIMIT_NOFILE" in lines[0]["reason"]


async def test_nor_is_postgresql(migrated_url: str) -> None:
    database = Database(migrated_url, pool_size=2)
    with capture_logs() as lines:
        with no_more_files(), pytest.raises(Unavailable, match=SAID):
            await database.connect()
        await database.connect()
        async with database.connection():
            with no_more_files(), pytest.raises(Unavailable, match=SAID):
                async with database.connection():
                    pass
        async with database.connection():
            pass
    await database.close()
    assert [line["log_level"] for line in lines] == ["error"], "once, though two have found it"


async def test_who_listens_tells_it_too(redis_url: str) -> None:
    async with EventBus(redis_url) as bus:
        joined = asyncio.Event()

        async def listen() -> None:
            async for _ in bus.shared.listen("news", joined.set):
                pass

        with capture_logs() as lines:
            with no_more_files():
                listening = asyncio.create_task(listen())
                await until(lambda: [line for line in lines if line["log_level"] == "error"])
            await asyncio.wait_for(joined.wait(), 90)
        listening.cancel()
        await asyncio.wait([listening])


def test_what_is_of_the_machine_is_told_as_such() -> None:
    assert "fs.file-max" in (open_files.exhausted(OSError(23, "Too many open files in system")) or "")
    assert open_files.exhausted(ConnectionRefusedError(111, "Connection refused")) is None
    assert open_files.exhausted(TimeoutError()) is None


async def test_a_worker_raises_its_limit(redis_url: str) -> None:
    group = Group("opening")

    @group.on(Opened)
    async def handle(event: Opened, ctx: Context) -> None:
        pass

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(open_files.OPEN_FILES, limits[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted - 1, limits[1]))
    try:
        async with EventBus(redis_url) as bus, working(bus, group):
            await until(lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0] == wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
