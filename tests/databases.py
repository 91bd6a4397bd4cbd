"""Databases for tests. To make one takes a tenth of a second of the processor, and to empty one a twentieth of that: so
they are copies of a template, which is prepared once, and are lent again and again."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

T = TypeVar("T")

Prepare = Callable[[asyncpg.Connection], Awaitable[object]]

# All that a test could have changed beside rows: then the database is not lent again.
_SHAPE = r"""
SELECT md5(string_agg(part, '|' ORDER BY part)) FROM (
    SELECT concat(c.relname, c.relkind, c.relacl, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) AS part
    FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat(conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT concat(proname, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT concat(tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT concat(setrole, setconfig) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'
) AS parts
"""
_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1
"""
_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_RESTART = """
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) FROM pg_sequences
WHERE last_value IS NOT NULL
"""


@dataclass
class _Template:
    name: str
    shape: str
    tables: list[str]  # that are empty in it
    kept: dict[str, int]  # rows of those that are not
    free: list[str] = field(default_factory=list)  # URLs of copies that nobody has


class Databases:
    """Databases of one server, for one process of tests. They are looked after from a thread, over connections that
    stay: a new one, and a look with it into a catalog that is new to it, would be most of the work."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._templates: dict[Prepare | None, _Template] = {}
        self._lent: dict[str, _Template] = {}
        self._connections: dict[str, asyncpg.Connection] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="databases")
        self._thread.start()

    def close(self) -> None:
        for url in list(self._connections):
            self._run(self._leave(url))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def create(self, template: str = "template1") -> str:
        """The URL of a new one, to be dropped by whoever asked for it."""
        name = f"test_{uuid4().hex}"
        self._run(self._execute(f"CREATE DATABASE {name} TEMPLATE {template}"))
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()

    def drop(self, url: str) -> None:
        self._run(self._leave(url))
        self._run(self._execute(f"DROP DATABASE IF EXISTS {_name(url)} WITH (FORCE)"))

    def lend(self, prepare: Prepare | None = None) -> str:
        """The URL of one as `prepare` leaves it, which is called once."""
        if prepare not in self._templates:
            self._templates[prepare] = self._make_template(prepare)
        template = self._templates[prepare]
        url = template.free.pop() if template.free else self.create(template.name)
        self._lent[url] = template
        return url

    def take_back(self, url: str) -> None:
        """Whatever a test has done to it, and whoever is still connected."""
        template = self._lent.pop(url)
        if self._run(self._cleaned(url, template)):
            template.free.append(url)
        else:
            self.drop(url)

    def _make_template(self, prepare: Prepare | None) -> _Template:
        url = self.create()
        shape, rows = self._run(_prepare(url, prepare))
        empty = [table for table, count in rows.items() if not count]
        return _Template(_name(url), shape, empty, {table: count for table, count in rows.items() if count})

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _execute(self, statement: str) -> None:
        await (await self._at(self._url)).execute(statement)

    async def _cleaned(self, url: str, template: _Template) -> bool:
        try:
            return await _clean(await self._at(url), template)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # a test may have forbidden anything
            return False

    async def _at(self, url: str) -> asyncpg.Connection:
        connection = self._connections.get(url)
        if connection is None or connection.is_closed():  # a test may have ended it
            connection = self._connections[url] = await asyncpg.connect(url)
        return connection

    async def _leave(self, url: str) -> None:
        connection = self._connections.pop(url, None)
        if connection is not None:
            with suppress(asyncpg.PostgresError, OSError):
                await connection.close()


class Looking:
    """For who looks into a database again and again: a connection that stays, and is opened anew when it is lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """Raises what asyncpg does, while the database is away."""
        if self._connection is not None and not self._connection.is_closed():
            with suppress(asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
                return list(await self._connection.fetch(query, *values))
            await self.close()
        self._connection = await asyncpg.connect(self._url)
        return list(await self._connection.fetch(query, *values))

    async def close(self) -> None:
        if self._connection is not None:
            with suppress(asyncpg.PostgresError, OSError):
                await self._connection.close()


async def _prepare(url: str, prepare: Prepare | None) -> tuple[str, dict[str, int]]:
    connection = await asyncpg.connect(url)
    try:
        if prepare is not None:
            await prepare(connection)
        return await connection.fetchval(_SHAPE), await _rows(connection)
    finally:
        await connection.close()


async def _clean(connection: asyncpg.Connection, template: _Template) -> bool:
    """Whether it is as its template again."""
    await connection.execute(_OTHERS)
    if await connection.fetchval(_SHAPE) != template.shape or not await _kept(connection, template):
        return False
    filled = [f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in template.tables]
    found = [row[0] for row in await connection.fetch(" UNION ALL ".join(filled))] if filled else []
    if found:
        await connection.execute(f"TRUNCATE {', '.join(found)} CASCADE")
    await connection.execute(_RESTART)
    return True


async def _kept(connection: asyncpg.Connection, template: _Template) -> bool:
    return {table: await _count(connection, table) for table in template.kept} == template.kept


async def _rows(connection: asyncpg.Connection) -> dict[str, int]:
    return {row["relname"]: await _count(connection, row["relname"]) for row in await connection.fetch(_TABLES)}


async def _count(connection: asyncpg.Connection, table: str) -> int:
    count: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return count


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in a loop of its own, from wherever: fixtures of plain and of async tests are the same."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
