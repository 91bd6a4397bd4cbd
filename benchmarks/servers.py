"""The server that is measured on, and what the machine is."""

import os
import platform
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from redis.asyncio import Redis

from eventbus.embedded import EmbeddedRedis


def server() -> AbstractContextManager[str]:
    """The configured server, or an embedded one with the persistence that production has. It is flushed."""
    if url := os.environ.get("EVENTBUS_BENCH_REDIS_URL"):
        return nullcontext(url)
    return _Embedded()


class _Embedded(AbstractContextManager[str]):
    def __enter__(self) -> str:
        self._folder = tempfile.TemporaryDirectory(prefix="eventbus-bench-")
        self._server = EmbeddedRedis(Path(self._folder.name))
        self._server.start()
        return self._server.url

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._folder.cleanup()


async def flush(url: str) -> None:
    client = Redis.from_url(url, protocol=2)
    await client.flushdb()
    await client.aclose()


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"
