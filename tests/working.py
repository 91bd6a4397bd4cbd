"""A worker in the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventbus import EventBus, Group, Worker


@asynccontextmanager
async def working(bus: EventBus, *groups: Group) -> AsyncIterator[None]:
    """The groups are worked for inside the block, and drained at its end."""
    worker = Worker(bus, groups, grace=5)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await worker.stop()
        await running
