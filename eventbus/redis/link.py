"""One connection, many callers: every command of a loop tick leaves in one write, replies are matched in order.

redis-py spends 80-90 µs on a command by itself and 10 µs in a pipeline; this layer spends about 2. It never repeats a
command: whether something was applied when a connection breaks is for the caller to find out, who knows what it means.

Longer than other files: connecting, writing, matching replies and losing a connection are one state machine.
"""

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self, cast

import hiredis

from eventbus.errors import ConfigurationError, EventBusError, Full, Unavailable
from eventbus.process.affinity import Affinity
from eventbus.process.open_files import exhausted
from eventbus.process.safe_logging import get_logger
from eventbus.redis.address import Address, Where
from eventbus.redis.links import Argument, Command, Redirected, Reply, ReplyError, UnknownScript, answered
from eventbus.redis.where import locate

CONNECT_TIMEOUT = 2.0  # seconds
LATE = 0.1  # seconds; a timer that comes later than this tells that the loop itself stood still
FLUSH_AT = 100  # commands; so many are written at once, before the loop's tick ends
IDLE = 3.0  # seconds without a word after which a connection is kept in memory by what lies between, with a PING
_PING = hiredis.pack_command(("PING",))
# Only in RESP3 can a server say something between two replies.
_LISTEN = (("HELLO", 3), ("CLIENT", "TRACKING", "ON", "NOLOOP"))
# Errors of a server that is the primary no more. It may stay so for good, while the address leads to another by now.
_DEMOTED = ("READONLY", "MASTERDOWN", "UNBLOCKED force unblock from blocking operation")
# Errors of a server that is there but not ready: it loads its AOF, is failing over, cannot write to its disk, lacks the
# replicas that it needs, has no connection left.
_NOT_READY = (
    *("LOADING", "CLUSTERDOWN", "TRYAGAIN", "BUSY ", "MISCONF", "NOREPLICAS", *_DEMOTED),
    "ERR max number of clients",
)
_ALONE = b"min_slaves_good_slaves:0\r"  # in INFO, where a primary takes no write without a replica, and has none

Told = Callable[[Reply], None]

log = get_logger("eventbus.redis")


class _Wire(asyncio.Protocol):
    """Hands out replies in the order of their commands. A reply whose caller went away is dropped: its future is done.

    name  makes an error of the bus out of a refusal, or of why the connection ended
    told  is called with what the server says unasked, and with None when the connection is lost; it raises nothing"""

    def __init__(self, name: Callable[[ReplyError | str], EventBusError], told: Told | None = None) -> None:
        self._name = name
        self._told = told
        self.waiting: deque[asyncio.Future[Reply]] = deque()
        self.out: list[bytes] = []
        self.watched = False
        self.looking = False  # for its replicas
        self.quiet_since = 0.0  # loop time of the last reply, or of a later command that found none waiting
        self.ending = "the server closed the connection"
        self.transport: asyncio.Transport | None = None
        self.keeping: asyncio.TimerHandle | None = None  # the timer that keeps a quiet connection in memory
        self.loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self.loop.create_future()
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._next = self._reader.gets if told is None else partial(self._next_reply, told)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        self.quiet_since = asyncio.get_running_loop().time()
        self._reader.feed(data)
        try:
            self._hand_out()
        except hiredis.ProtocolError as error:
            self.give_up(f"it does not speak Redis' protocol: {error}")

    def _hand_out(self) -> None:
        waiting = self.waiting
        while (reply := self._next()) is not False:
            if not waiting:  # said before it hangs up: "max number of clients reached"
                self.ending = str(reply)
                continue
            future = waiting.popleft()
            if isinstance(reply, ReplyError):
                error = self._name(reply)
                if str(reply).startswith(_DEMOTED):
                    self.give_up(str(reply))
                if not future.done():
                    future.set_exception(error)
            elif not future.done():
                future.set_result(reply)

    def _next_reply(self, told: Told) -> Reply:
        while isinstance(reply := self._reader.gets(), hiredis.PushNotification):
            told(reply)
        return reply

    def give_up(self, reason: str) -> None:
        """What waits for a reply is told so; a reply that comes later is not looked at."""
        self.ending = reason
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.keeping is not None:
            self.keeping.cancel()
        if not self.lost.done():
            self.lost.set_result(None)
        if self._told is not None:
            self._told(None)
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_exception(self._name(str(exc or self.ending)))


class Link:
    """`await link.execute("XADD", …)`. Connects by itself, again and again; fails fast while the server is away.

    where: a URL, or what was made of it (see eventbus.redis.where).
    timeout: seconds without any reply, while commands wait for one, after which the connection is given up. It may be
    changed, and the change holds for commands that wait already.
    primary: whoever answers as a replica counts as away.
    affinity: the process and event loop in which the link may be used; by default those of its first use.
    away: called when the server is lost, or is not reached.
    told: called with what the server says unasked, and with None when the connection is lost. With it, the server tells
    which keys have changed that were read over this connection, unless it is refused: see `listens`.
    `epoch` counts connections: when it has changed, replies may have been lost. Of the present or last connection:
    `client_id`, the server's number for it; `address`; `clustered`, whether the server is a node of a cluster;
    `listens`, whether it tells of changed keys; `server_id`, which names the primary that it leads to, and the time
    since it became one, '' for a user who may not know.
    """

    def __init__(
        self,
        where: str | Where,
        *,
        timeout: float,
        name: str,
        affinity: Affinity | None = None,
        primary: bool = True,
        away: Callable[[], None] = lambda: None,
        told: Told | None = None,
    ) -> None:
        self._where = locate(where) if isinstance(where, str) else where
        self._server = self._where.name
        self._primary = primary
        self.timeout = timeout
        self._name = name
        self._affinity = affinity or Affinity()
        self._wire: _Wire | None = None
        self._attempt: asyncio.Task[_Wire] | None = None
        self._away = False
        self._closed = False
        self.epoch = 0
        self.connected_at = 0.0
        self.client_id = 0
        self.server_id = ""
        self.address: Address | None = None
        self.clustered = False
        self._moves = 0  # of where it is, when the present connection began
        self._known_as: tuple[Argument, ...] = ()  # of the last connection: see _greet
        self._told: set[Argument] = set()
        self._alone = False  # it was left because it was: see _look_around
        self._tell_away = away
        self._listener = told
        self.listens = False
        _links.add(self)

    @property
    def name(self) -> str:
        """What messages call the server."""
        return self._server

    @property
    def where(self) -> Where:
        """Where it leads."""
        return self._where

    @property
    def database(self) -> int:
        """The number of the database that the URL names."""
        return self._where.database

    @property
    def connected(self) -> bool:
        return self._wire is not None and self._wire.transport is not None

    @property
    def closed(self) -> bool:
        return self._closed

    async def ready(self, key: str = "") -> None:  # noqa: ARG002 - all keys are there
        """Connected when it returns. Raises Unavailable, or ConfigurationError if its first login is refused."""
        if self._wire is None or self._wire.transport is None:
            await self._connect()

    def begin(self, command: Command) -> asyncio.Future[Reply] | None:
        """A future of the reply; it raises what `execute` raises. None while there is no connection."""
        wire = self._wire
        return None if wire is None or wire.transport is None else self._send(wire, _pack(command))

    async def execute(self, *command: Argument) -> Reply:
        """The reply. Raises Unavailable, Full, or ReplyError with the server's words."""
        wire = self._wire
        if wire is None or wire.transport is None:
            wire = await self._connect()
        return await self._send(wire, _pack(command))

    async def pipeline(self, commands: list[Command]) -> list[Reply]:
        """Replies in order; a command that was refused has a ReplyError in its place. Raises Unavailable."""
        return answered(await self.each(commands))

    async def each(self, commands: list[Command]) -> list[Reply]:
        """As `pipeline`; a command without a reply has an Unavailable in its place: it may have been applied or not.

        Raises Unavailable if nothing was sent."""
        wire = self._wire
        if wire is None or wire.transport is None:
            wire = await self._connect()
        # All are packed before the first is sent: what cannot be packed must leave no gap between commands and replies.
        futures = [self._send(wire, packed) for packed in [_pack(command) for command in commands]]
        replies: list[Reply] = []
        try:
            for future in futures:
                try:
                    replies.append(await future)
                except (ReplyError, Full, Unavailable) as error:
                    replies.append(error)
        finally:
            for future in futures[len(replies) :]:
                _forget(future)
        return replies

    def told(self, command: Command) -> set[Argument]:  # noqa: ARG002 - all commands take the same connection
        """Digests of scripts whose text this connection has carried."""
        return self._told

    async def nodes(self) -> Sequence[Self]:
        """This one."""
        return [self]

    def leave(self, reason: str) -> None:
        """End the connection, as if it were lost for that reason. The next command connects anew."""
        if self._wire is not None:
            self._wire.give_up(reason)

    def follow(self) -> None:
        """Leave a server that is not the one to reach any more: what it still acknowledges, it may lose."""
        if self._wire is not None and self._where.moves != self._moves:
            self.leave("the primary has moved")

    async def close(self) -> None:
        """In a process that was forked from the link's, this sends nothing and leaves the parent's connection alone."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()  # a server that is away must not delay closing
            await asyncio.wait([self._attempt])
        wire, self._wire = self._wire, None
        if wire is not None and wire.transport is not None:
            wire.transport.abort()
            await wire.lost

    # Writing ----------------------------------------------------------------------------------------------------------

    def _send(self, wire: _Wire, packed: bytes) -> asyncio.Future[Reply]:
        loop = asyncio.get_running_loop()
        if loop is not wire.loop:  # the caller's loop would never see the reply
            self._affinity.check()
        future = loop.create_future()
        if wire.transport is None:  # lost after _connect, before its caller went on
            future.set_exception(self._named(wire.ending))
            return future
        if not wire.waiting:
            wire.quiet_since = loop.time()
        if not wire.watched:
            wire.watched = True
            loop.call_later(self.timeout, self._watch, wire, loop.time() + self.timeout)
        wire.waiting.append(future)
        if not wire.out:
            loop.call_soon(_flush, wire)
        wire.out.append(packed)
        if len(wire.out) == FLUSH_AT:
            _flush(wire)  # the server may as well begin
        return future

    def _watch(self, wire: _Wire, due: float) -> None:
        """Gives the connection up if no reply came for a whole timeout: it is half open, or the server is frozen. If
        this loop itself stood still and looks too late, replies may be there that it has not read: it waits for as long
        again, at most a timeout."""
        if wire.transport is None or not wire.waiting:
            wire.watched = False
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - due > LATE:
            wire.quiet_since = max(wire.quiet_since, now - self.timeout + min(now - due, self.timeout))
        left = wire.quiet_since + self.timeout - now
        if left > 0:
            loop.call_later(left, self._watch, wire, now + left)
        else:
            wire.give_up(f"no answer for {self.timeout:g} s")

    def _named(self, reason: ReplyError | str) -> EventBusError:
        """The bus's error for a refusal (a ReplyError), or for why the connection ended (a text)."""
        text = str(reason)
        if isinstance(reason, str):
            self._note_away(text)
            return Unavailable(self._server, text)
        if text.startswith(_DEMOTED):
            self._note_away(text)
        if text.startswith("OOM"):
            return Full(f"{self._server} is full: {text}")
        if text.startswith("NOSCRIPT"):
            return UnknownScript(text)
        if text.startswith("NOREPLICAS"):
            self._look_around(text)
        if text.startswith(("MOVED ", "ASK ")):
            return Redirected(text, "" if self.address is None else self.address.place.host)
        return Unavailable(self._server, text) if text.startswith(_NOT_READY) else reason

    def _look_around(self, refusal: str) -> None:
        """A primary without any of the replicas that it needs may be cut off from all, and another elected: it is left
        for whoever answers now at its address, or is named. One that has some of them is waited for."""
        wire = self._wire
        if wire is None or wire.transport is None or wire.looking:
            return

        def judge(told: asyncio.Future[Reply]) -> None:
            wire.looking = False
            if not told.cancelled() and told.exception() is None and _ALONE in cast(bytes, told.result()):
                self._alone = True
                self._note_away(refusal)
                wire.give_up(refusal)

        wire.looking = True
        self._send(wire, _pack(("INFO", "replication"))).add_done_callback(judge)

    # Connecting -------------------------------------------------------------------------------------------------------

    async def _connect(self) -> _Wire:
        """One attempt at a time, and all who need it wait for the same one."""
        if self._closed and not self._affinity.closed:
            raise Unavailable(self._server, "this connection is closed")
        self._affinity.check()
        if self._affinity.loop is None:  # nobody opened it: its first use does
            self._affinity.enter()
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.create_task(self._connect_once())
            self._attempt.add_done_callback(_forget)  # all who wait for it may be cancelled
        attempt, task = self._attempt, asyncio.current_task()
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            if attempt.cancelled() and not (task is not None and task.cancelling()):  # by `close`, or the loop's end
                raise Unavailable(self._server, "connecting was cut short") from None
            raise

    async def _connect_once(self) -> _Wire:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                wire = await self._open()
        except (OSError, TimeoutError) as error:
            if (full := exhausted(error)) is not None:
                raise Unavailable(self._server, full) from None
            detail = "no answer" if isinstance(error, TimeoutError) else str(error)
            self._note_away(detail)
            raise Unavailable(self._server, detail) from None
        except Unavailable as error:  # it is there, but not ready
            self._note_away(error.detail)
            raise
        except ReplyError as error:
            if "DB index" in str(error):  # all servers' words, for a number above its `databases`
                raise ConfigurationError(f"{self._server} has no such database: {error}") from None
            if not self._affinity.admitted:
                raise ConfigurationError(f"{self._server} refused the login: {error}") from None
            # The login was right once: a password is being changed, or an ACL file is late. That passes, as an outage.
            self._note_away(f"it refuses the login: {error}", refused=True)
            raise Unavailable(self._server, f"it refuses the login: {error}") from None
        self._affinity.admitted = True
        self._wire = wire
        self._told.clear()
        self.epoch += 1
        loop = asyncio.get_running_loop()
        self.connected_at = loop.time()
        if wire.transport is not None:
            wire.keeping = loop.call_later(IDLE, self._keep_alive, wire)
        if self._away:
            log.info("redis is back", server=self._server, connection=self._name)
            self._away = False
        return wire

    async def _open(self) -> _Wire:
        moves, address = self._where.moves, await self._where.find()
        wire = await address.connect(partial(_Wire, self._named, self._listener))
        try:
            await self._greet(wire, address)
        except BaseException:
            if wire.transport is not None:
                wire.transport.abort()
            raise
        if self._where.moves != moves:
            wire.give_up("the primary has moved meanwhile")
            raise Unavailable(self._server, wire.ending)
        self._moves, self.address = moves, address
        return wire

    async def _greet(self, wire: _Wire, address: Address) -> None:
        """Logs in, and ends the connection before this one: what it has sent is executed by now, or never will be. Else
        the server might execute a command again after it was repeated over this connection, because the first try lay
        in the socket of a frozen server or in a slow network.

        All in one round trip: on a slow network, several would take longer than CONNECT_TIMEOUT each time."""
        ending = [("CLIENT", "KILL", *self._known_as)] if self._known_as else []
        greeting = (*address.login, ("CLIENT", "SETNAME", self._name), ("CLIENT", "ID"))
        greeted = [self._send(wire, _pack(command)) for command in greeting]
        asked = [self._send(wire, _pack(command)) for command in (*ending, ("CLIENT", "INFO"))]
        role = self._send(wire, _pack(("INFO", "replication", "cluster")))
        listening = [self._send(wire, _pack(command)) for command in (_LISTEN if self._listener is not None else ())]
        try:
            *_, self.client_id = [await future for future in greeted]
            self._known_as = await _name_of(asked)
            told = await _told(role)
            self.clustered = b"cluster_enabled:1" in told
            if self._primary and b"role:slave" in told and not self.clustered:  # there it says who is not
                raise Unavailable(self._server, "it is a replica, and refuses writes")
            if self._alone and _ALONE in told:
                raise Unavailable(self._server, "NOREPLICAS: it has no replica, and refuses writes without one")
            self._alone = False
            self.server_id = told.partition(b"master_replid:")[2][:40].decode(errors="replace")
            self.listens = await _agreed(listening)
        finally:
            for future in (*greeted, *asked, role, *listening):
                _forget(future)

    def _keep_alive(self, wire: _Wire) -> None:
        """What lies between (NAT, a balancer, a firewall) forgets a connection without a word on it, and tells nobody:
        the next command would wait a whole timeout for nothing."""
        if wire.transport is None:
            return
        loop = asyncio.get_running_loop()
        silent = 0.0 if wire.waiting else loop.time() - wire.quiet_since
        if silent > IDLE * 0.9:  # what is left may be less than a clock can tell
            self._send(wire, _PING).add_done_callback(_forget)
            silent = 0.0
        wire.keeping = loop.call_later(IDLE - silent, self._keep_alive, wire)

    def disown(self) -> None:
        """This process was forked from the one that the connection belongs to."""
        if self._wire is not None:
            # It is kept: if it were freed, its socket would be taken out of the set (epoll) that the parent's loop
            # waits for, since both processes share that.
            _inherited.append(self._wire)
        self._wire = self._attempt = None

    def _note_away(self, detail: str, *, refused: bool = False) -> None:
        """Logs one line when the server goes away (and there is one when it is back), however many callers try
        meanwhile. A refused login is logged as an error: somebody must mend it."""
        self._tell_away()
        if not self._away and not self._closed:
            tell = log.error if refused else log.warning
            tell("redis is away", server=self._server, connection=self._name, reason=detail)
            self._away = True


async def _told(info: asyncio.Future[Reply]) -> bytes:
    """Nothing, for a user who may not ask."""
    try:
        return bytes(await info)
    except ReplyError:
        return b""


async def _agreed(replies: Sequence[asyncio.Future[Reply]]) -> bool:
    """Whether there are any, and none is a refusal."""
    try:
        return bool([await reply for reply in replies])
    except ReplyError:
        return False


async def _name_of(replies: Sequence[asyncio.Future[Reply]]) -> tuple[Argument, ...]:
    """A filter for CLIENT KILL that names a connection and no other one, also after restarts. The last reply is that of
    its CLIENT INFO. () for a user who may not do that, and does without."""
    try:
        *_, told = [await reply for reply in replies]
    except ReplyError:
        return ()
    names = dict(part.partition("=")[::2] for part in told.decode().split())
    if names.get("addr", ":0").endswith(":0"):  # a Unix socket: all have the same address, and numbers begin anew
        return ()
    return ("ID", names["id"], "ADDR", names["addr"])


_links: "weakref.WeakSet[Link]" = weakref.WeakSet()
_inherited: list[object] = []


def _disown_all() -> None:
    for link in list(_links):
        link.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


def _pack(command: tuple[Argument, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub names a 1-tuple
    return packed


def _flush(wire: _Wire) -> None:
    out, wire.out = wire.out, []
    if out and wire.transport is not None:
        wire.transport.write(b"".join(out))


def _forget(future: asyncio.Future[Reply]) -> None:
    """Nobody will await this one: keep asyncio from reporting its exception."""
    if not future.cancel() and not future.cancelled():
        future.exception()
