"""A bus belongs to the event loop and the process that it was opened in: elsewhere it says so, and harms nobody."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eventbus import ConfigurationError, Context, Event, EventBus, Group, Receipt, Worker
from tests.waiting import until

Use = Callable[[EventBus], Awaitable[object]]


class Moved(Event, type="house.moved"):
    pass


def _group() -> Group:
    group = Group("house")

    @group.on(Moved)
    async def move(_event: Moved, _ctx: Context) -> None:
        return

    return group


async def _work(bus: EventBus) -> None:
    await Worker(bus, [_group()]).run(signals=False)


async def _collect(bus: EventBus) -> None:
    async with bus.session(organization="o") as session:
        await session.add(Moved())


async def _write(bus: EventBus) -> None:
    async with bus.transaction() as tx:
        await tx.publish(Moved())


USES: dict[str, Use] = {
    "publish": lambda bus: bus.publish(Moved()),
    "publish later": lambda bus: bus.publish(Moved(), delay=5.0),
    "publish many": lambda bus: bus.publish_many([Moved(), Moved()]),
    "broadcast": lambda bus: bus.shared.broadcast("rooms", b"hello"),
    "cancel": lambda bus: bus.cancel("01a22c4a-21fb-7000-9ed5-8b986a16492c", Moved),
    "session": _collect,
    "worker": _work,
}
IN_MEMORY = ("publish", "publish later", "publish many", "worker")


async def _refused(bus: EventBus, use: Use, message: str) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(ConfigurationError, match=message):
            await use(bus)


@pytest.mark.parametrize("where", ["memory://", "redis"])
async def test_it_opens_once(where: str, redis_url: str) -> None:
    bus = EventBus(redis_url if where == "redis" else where)
    async with bus:
        with pytest.raises(ConfigurationError, match="is open already"):
            await bus.__aenter__()
        assert isinstance(await bus.publish(Moved()), Receipt)
    with pytest.raises(ConfigurationError, match="was closed"):
        await bus.__aenter__()
    await bus.close()
    for name, use in USES.items():
        if where == "redis" or name in IN_MEMORY:
            await _refused(bus, use, "this EventBus was closed")


async def test_it_is_used_when_it_is_open(redis_url: str) -> None:
    bus = EventBus(redis_url)
    for use in USES.values():
        await _refused(bus, use, "this EventBus is not open")
    await bus.close()


@pytest.mark.parametrize("where", ["memory://", "redis"])
def test_another_loop_is_refused_at_once_whatever_is_asked(where: str, redis_url: str, tmp_path: Path) -> None:
    bus = EventBus(redis_url if where == "redis" else where, spool=tmp_path / "spool")
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(bus.__aenter__())
        first.run(bus.publish(Moved()))

        async def elsewhere() -> None:
            for name, use in USES.items():
                if where == "redis" or name in IN_MEMORY:
                    await _refused(bus, use, r"opened in the event loop \S+ 0x\w+.* used in \S+ 0x\w+")
            with pytest.raises(ConfigurationError, match="opened in the event loop"):
                await bus.close()

        second.run(elsewhere())
        first.run(bus.publish(Moved()))  # it is unharmed
        first.run(bus.close())


async def test_the_database_of_another_loop_is_refused(redis_url: str, database_url: str) -> None:
    async with EventBus(redis_url, database=database_url) as bus:
        await asyncio.to_thread(asyncio.run, _refused(bus, _write, "opened in the event loop"))


_FORKING = """
import asyncio, os, sys
import uvloop
from eventbus import EventBus
from tests.integration.test_affinity import IN_MEMORY, USES, Moved, _refused, _write

redis, postgres, spool = sys.argv[1:]

async def child(bus, url, database):
    uses = dict(USES, write=_write) if database else USES
    for name, use in uses.items():
        if not url.startswith("memory") or name in IN_MEMORY:
            await _refused(bus, use, f"belongs to process {os.getppid()}, and process {os.getpid()} was forked")
    await bus.close()

async def publish_until(bus, done):
    receipts = []
    while not done.is_set():
        receipts += await asyncio.gather(*(bus.publish(Moved()) for _ in range(5)))
    return receipts

async def main(url, database, new_event_loop):
    name = new_event_loop.__module__
    async with EventBus(url, database=database, spool=spool, namespace=name) as bus:
        done, before = asyncio.Event(), await bus.publish(Moved())
        publishing = asyncio.create_task(publish_until(bus, done))
        await asyncio.sleep(0)
        forked = os.fork()
        if forked == 0:
            code = 1
            try:
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(child(bus, url, database))
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, forked, 0)
        done.set()
        receipts = [before, *await publishing]
        assert status == 0, status
        assert {receipt.status.value for receipt in receipts} == {"stored"}
        if not url.startswith("memory"):
            [state] = await bus.transport.inspect(["house"])
            assert state.length == len(receipts), (state, len(receipts))
        if database:
            async with bus.transaction() as tx:
                await tx.connection.execute("SELECT 1")
        print("ok", len(receipts) > 1)

for url, database, factory in (
    ("memory://", None, asyncio.new_event_loop),
    (redis, postgres, asyncio.new_event_loop),
    (redis, postgres, uvloop.new_event_loop),
):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(url, database, factory))
"""


def test_a_forked_child_is_refused_and_its_parent_unharmed(redis_url: str, database_url: str, tmp_path: Path) -> None:
    """In memory, and with servers on both loops."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKING, redis_url, database_url, str(tmp_path / "spool")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("ok True\n" * 3, 0), done.stderr


async def test_workers_that_come_and_go_leave_nothing_on_their_bus(any_redis_url: str) -> None:
    """A connection for each that ever ran came to be too many."""
    async with EventBus(any_redis_url) as bus:
        transport = bus.transport
        for _ in range(30):
            worker = Worker(bus, [_group()])
            running = asyncio.create_task(worker.run(signals=False))
            await until(lambda: transport._readers)  # type: ignore[attr-defined]
            await worker.stop()
            await running
        clients = await transport._router.execute("CLIENT", "LIST")  # type: ignore[attr-defined]
        assert clients.count(b"name=eventbus-read") == 0
        assert (transport._readers, transport._reclaiming._schedules) == ({}, {})  # type: ignore[attr-defined]
        assert bus.metrics.in_process == {}
