"""Runs a command with a Redis that is more than one server at an address:

    python -m tests.behind cluster|cluster-redis|sentinel|haproxy python -m pytest tests/conformance -k "not memory-"

`EVENTBUS_TEST_REDIS_URL` names it; what is of a single server (the marker one_server) is left out. Each test empties
it, and some stop all its clients: run one process.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from eventbus.embedded import EmbeddedRedis
from eventbus.embedded.ports import LOOPBACK, free_port, is_free
from tests.cluster import cluster_of
from tests.sentinels import sentinel_service
from tests.servers import REDIS_URL, redis_binaries

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
def cluster(folder: Path, binary: Path) -> Iterator[str]:
    """Three primaries, each with a replica."""
    with cluster_of(folder, binary) as made:
        asyncio.run(made.join())
        yield made.seeds


@contextmanager
def sentinel(folder: Path, binary: Path) -> Iterator[str]:
    """A primary, its replica, three sentinels."""
    with sentinel_service(folder, binary, {}) as service:
        asyncio.run(service.settled())
        yield service.url


@contextmanager
def haproxy(folder: Path, binary: Path) -> Iterator[str]:
    """One server behind HAProxy."""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    with EmbeddedRedis(folder / "redis", binary=binary) as server:
        port, config = free_port(), folder / "haproxy.cfg"
        config.write_text(HAPROXY.format(host=LOOPBACK, port=port, target=server.port), encoding="ascii")
        process = subprocess.Popen([program, "-f", str(config)])
        try:
            while is_free(port):
                if process.poll() is not None:
                    raise OSError(f"haproxy did not start, and ended with {process.returncode}")
            yield f"redis://:{server.password}@{LOOPBACK}:{port}/0"
        finally:
            process.terminate()
            process.wait()


KINDS: dict[str, tuple[Callable[[Path, Path], AbstractContextManager[str]], str]] = {
    "cluster": (cluster, "valkey"),
    "cluster-redis": (cluster, "redis"),
    "sentinel": (sentinel, "valkey"),
    "haproxy": (haproxy, "valkey"),
}


def main(kind: str, *command: str) -> int:
    """The command's exit code."""
    start, binary = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), redis_binaries()[binary]) as url:
        return subprocess.call(command, env={**os.environ, REDIS_URL: url})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
