"""Runs a command with servers that are not simply at an address:

    python -m tests.behind cluster|cluster-redis|sentinel|haproxy python -m pytest tests/conformance -k "not memory-"
    python -m tests.behind pgbouncer-session|pgbouncer-transaction python -m pytest tests/gateway -n 4

`EVENTBUS_TEST_REDIS_URL` names that Redis; what is of a single server (the marker one_server) is left out. Each test
empties it, and some stop all its clients: run one process. `EVENTBUS_TEST_POOL_MODE` is that of a pooler before each
PostgreSQL, through which goes what is tested; what makes databases, and looks into them, goes past it.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from eventbus.embedded import EmbeddedRedis
from eventbus.embedded.ports import LOOPBACK, free_port, is_free
from tests.cluster import cluster_of
from tests.sentinels import sentinel_service
from tests.servers import POOL_MODE, REDIS_URL, redis_binaries

Environment = Mapping[str, str]

# What clouds and companies put in front of a Redis: connections that are quiet for half a minute are cut.
HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen redis
    bind {host}:{port}
    server one {host}:{target}
"""


@contextmanager
def cluster(name: str, folder: Path) -> Iterator[Environment]:
    """Three primaries, each with a replica."""
    with cluster_of(folder, redis_binaries()[name]) as made:
        asyncio.run(made.join())
        yield {REDIS_URL: made.seeds}


@contextmanager
def sentinel(folder: Path) -> Iterator[Environment]:
    """A primary, its replica, three sentinels."""
    with sentinel_service(folder, redis_binaries()["valkey"], {}) as service:
        asyncio.run(service.settled())
        yield {REDIS_URL: service.url}


@contextmanager
def haproxy(folder: Path) -> Iterator[Environment]:
    """One server behind HAProxy."""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    with EmbeddedRedis(folder / "redis", binary=redis_binaries()["valkey"]) as server:
        port, config = free_port(), folder / "haproxy.cfg"
        config.write_text(HAPROXY.format(host=LOOPBACK, port=port, target=server.port), encoding="ascii")
        process = subprocess.Popen([program, "-f", str(config)])
        try:
            while is_free(port):
                if process.poll() is not None:
                    raise OSError(f"haproxy did not start, and ended with {process.returncode}")
            yield {REDIS_URL: f"redis://:{server.password}@{LOOPBACK}:{port}/0"}
        finally:
            process.terminate()
            process.wait()


@contextmanager
def pgbouncer(mode: str, folder: Path) -> Iterator[Environment]:
    """PgBouncer before PostgreSQL."""
    yield {POOL_MODE: mode}


KINDS: dict[str, Callable[[Path], AbstractContextManager[Environment]]] = {
    "cluster": partial(cluster, "valkey"),
    "cluster-redis": partial(cluster, "redis"),
    "sentinel": sentinel,
    "haproxy": haproxy,
    "pgbouncer-session": partial(pgbouncer, "session"),
    "pgbouncer-transaction": partial(pgbouncer, "transaction"),
}


def main(kind: str, *command: str) -> int:
    """The command's exit code."""
    with tempfile.TemporaryDirectory() as folder, KINDS[kind](Path(folder)) as environment:
        return subprocess.call(command, env={**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
