"""As much of PostgreSQL as the relay speaks to: the outbox, sessions that can die, advisory locks, a notification.

Transactions of the application take their position when they write and are seen when they commit, in any order."""

import asyncio
import random
from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any

import asyncpg

from eventbus.event import Envelope
from eventbus.postgres import outbox
from tests.simulation.loop import Loop, Process
from tests.simulation.network import owner

Row = dict[str, Any]
OID = 16_384  # of the outbox' table
ASLEEP = outbox.ASLEEP + OID


class Database:
    def __init__(self, loop: Loop, rng: random.Random) -> None:
        self.loop = loop
        self._rng = rng
        self._position = 0
        self.rows: dict[int, Row] = {}  # that are committed, by position
        self.sessions: list[Session] = []
        self.locks: dict[int, Session] = {}
        self._sharing = 0  # open transactions that hold the lock of sleeping relays
        self.silent_until = 0.0
        self.watch: Callable[[Session, str], None] = lambda _session, _label: None

    def write(
        self, envelope: Envelope, meta: str, data: str, commit_after: float, committed: Callable[[], None]
    ) -> None:
        """A transaction of the application that writes now and commits later."""
        self._position += 1
        row: Row = {
            "position": self._position,
            "event_id": envelope.id,
            "type": envelope.type,
            "meta": meta,
            "data": data,
            "dedupe_key": None,
            "dedupe_window": None,
            "dedupe_replace": False,
            "place": envelope.stream,
            "delay": 0.0,
            "published_at": None,
            "failed_at": None,
        }
        sleeper = ASLEEP in self.locks
        self._sharing += not sleeper

        def commit() -> None:
            self._sharing -= not sleeper
            self.rows[row["position"]] = row
            committed()
            if sleeper:
                self.notify()

        self.loop.at(self.loop.now + commit_after, commit)

    def notify(self) -> None:
        for session in self.sessions:
            if session.listener is not None:
                session.process.post(session.tell)

    def waiting(self) -> list[Row]:
        return [row for _, row in sorted(self.rows.items()) if row["published_at"] is row["failed_at"] is None]

    async def connect(self, *_args: object, **_options: object) -> "Session":
        await asyncio.sleep(self.latency())
        session = Session(self, owner())
        self.sessions.append(session)
        return session

    def latency(self) -> float:
        late = max(0.0, self.silent_until - self.loop.now)
        usual = late + self._rng.uniform(0.0002, 0.002)
        return usual if self._rng.random() > 0.05 else usual + self._rng.uniform(0, 1.0)

    def end(self, session: "Session") -> None:
        """The server has done with it."""
        if session in self.sessions:
            self.sessions.remove(session)
            self.unlock(session)

    def unlock(self, session: "Session", only: int | None = None) -> None:
        """Its transaction has ended, or goes back to where it did not have this one yet."""
        mine = [lock for lock, holder in self.locks.items() if holder is session and only in (None, lock)]
        for lock in mine:
            del self.locks[lock]

    def try_lock(self, session: "Session", lock: int) -> bool:
        if lock == ASLEEP and self._sharing:
            return False
        return self.locks.setdefault(lock, session) is session


class Session:
    """What asyncpg calls a connection."""

    def __init__(self, database: Database, process: Process) -> None:
        self._database = database
        self.process = process
        self._dead = False
        self._gone = False  # the server has ended it, and the client does not know yet
        self.listener: Callable[..., object] | None = None
        self._farewell: Callable[..., object] | None = None
        process.ended.append(lambda: database.end(self))

    def cut(self) -> None:
        """It dies: the server has done with it, and the client learns of it."""
        if not self._dead:
            self._dead = True
            self._database.end(self)
            if self._farewell is not None:
                self.process.post(self._farewell, self)

    def lose(self) -> None:
        """The server ends all of this process, behind an answer that still arrives; the client learns of it when it
        asks next."""
        for session in [each for each in self._database.sessions if each.process is self.process]:
            session._gone = True
            self._database.end(session)

    def tell(self) -> None:
        if self.listener is not None and not self._dead:
            self.listener(self, 0, "", "")

    async def _ask(self, statement: Callable[[], Any], label: str = "") -> Any:
        """The way there, the statement, the way back."""
        await self._way()
        if self._gone:
            self.cut()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        answer = statement()
        if answer:
            self._database.watch(self, label)
        await self._way()
        return answer

    async def _way(self) -> None:
        if not self._dead:
            await asyncio.sleep(self._database.latency())
        if self._dead:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    async def fetchval(self, query: str, *args: Any) -> Any:
        if "pg_try_advisory_xact_lock($" in query:
            return await self._ask(lambda: self._database.try_lock(self, args[-1]))
        if "'eventbus_outbox'::regclass" in query:
            return await self._ask(lambda: OID)
        if "pg_is_in_recovery" in query:
            return await self._ask(lambda: False)
        if "max(position)" in query:
            return await self._ask(lambda: max((row["position"] for row in self._database.waiting()), default=0))
        raise NotImplementedError(query)

    async def fetch(self, query: str, *args: Any) -> list[Row]:
        if "eventbus_outbox" in query and query.lstrip().startswith("SELECT"):
            return list(await self._ask(lambda: self._select(*args), "SELECT"))
        raise NotImplementedError(query)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if "UPDATE eventbus_outbox" in query:
            columns = [column for column in ("published_at", "failed_at") if f"SET {column}" in query]
            return str(await self._ask(lambda: self._set(columns, args[0]), "UPDATE"))
        if query.startswith("ROLLBACK TO SAVEPOINT"):
            return str(await self._ask(lambda: self._database.unlock(self, ASLEEP)))
        if query == "ROLLBACK":
            return str(await self._ask(lambda: self._database.unlock(self)))
        if query == "SELECT 1":  # the relay's lock is proved
            return str(await self._ask(lambda: query, "PROVE"))
        if query.startswith(("BEGIN", "SAVEPOINT", "SELECT WHERE pg_backend_pid")):
            return str(await self._ask(lambda: "SELECT 1"))
        if query.lstrip().startswith("DELETE"):
            return str(await self._ask(lambda: "DELETE 0"))
        raise NotImplementedError(query)

    def _select(self, limit: int, places: list[str], positions: list[int]) -> list[Row]:
        waiting = (r for r in self._database.waiting() if r["place"] not in places and r["position"] not in positions)
        return [dict(row) for row in islice(waiting, int(limit))]

    def _set(self, columns: list[str], positions: list[int]) -> str:
        for position in positions:
            self._database.rows[position].update(dict.fromkeys(columns, self._database.loop.now))
        return f"UPDATE {len(positions)}"

    async def add_listener(self, _channel: str, callback: Callable[..., object]) -> None:
        await self._way()
        self.listener = callback

    def add_termination_listener(self, callback: Callable[..., object]) -> None:
        self._farewell = callback

    async def close(self, *, timeout: float | None = None) -> None:
        await self._way()
        self.terminate()

    def get_server_pid(self) -> int:
        return 1

    def get_server_version(self) -> SimpleNamespace:
        return SimpleNamespace(major=18)

    def terminate(self) -> None:
        self._dead = True
        self._database.end(self)

    def is_closed(self) -> bool:
        return self._dead
