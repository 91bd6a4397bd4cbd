"""The server that is measured on, and what the machine is."""

import asyncio
import os
import platform
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from eventbus.embedded import EmbeddedRedis

# A rewrite of the append-only file forks the server, and would disturb what is being measured: `flush` does it instead.
OPTIONS = {"auto-aof-rewrite-min-size": "4gb"}
REWRITE_BYTES = 64 * 2**20  # the file is rewritten between steps when it has grown so large
CONFIG = ("appendonly", "appendfsync", "save", "maxmemory-policy", "io-threads", "auto-aof-rewrite-min-size")


def server(binary: Path | None = None) -> AbstractContextManager[str]:
    """The configured server, or an embedded one with the persistence that production has. A run flushes it.

    binary: another embedded server of the family, whatever is configured."""
    if binary is None and (url := os.environ.get("EVENTBUS_BENCH_REDIS_URL")):
        return nullcontext(url)
    return _Embedded(binary)


def debian_redis() -> Path | None:
    """The distribution's redis-server, if it is installed."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


class _Embedded(AbstractContextManager[str]):
    def __init__(self, binary: Path | None) -> None:
        self._binary = binary

    def __enter__(self) -> str:
        self._folder = tempfile.TemporaryDirectory(prefix="eventbus-bench-")
        self._server = EmbeddedRedis(Path(self._folder.name), binary=self._binary, options=OPTIONS)
        self._server.start()
        return self._server.url

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._folder.cleanup()


async def flush(url: str) -> None:
    """Empty the server; if its append-only file is larger than REWRITE_BYTES, rewrite that as well."""
    async with Redis.from_url(url, protocol=2) as client:
        await client.flushdb()
        persistence = await client.info("persistence")
        if int(persistence.get("aof_current_size", 0)) > REWRITE_BYTES:
            with suppress(ResponseError):  # the server has begun a rewrite by itself
                await client.bgrewriteaof()
            while (await client.info("persistence"))["aof_rewrite_in_progress"]:
                await asyncio.sleep(0.02)


async def identity(url: str) -> dict[str, str]:
    """Which server it is, and how it is configured."""
    async with Redis.from_url(url, protocol=2, decode_responses=True) as client:
        about = await client.info("server")
        configured = {name: (await client.config_get(name)).get(name) for name in CONFIG}
    name, version = about.get("server_name", "redis"), about.get("valkey_version", about["redis_version"])
    return {"name": str(name), "version": str(version), **{k: str(v) for k, v in configured.items() if v is not None}}


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"
