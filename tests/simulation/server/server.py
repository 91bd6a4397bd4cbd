"""A server with its clients: it executes what arrives, lets readers wait, can be frozen, killed and started again.

Frozen, it executes nothing, and its kernel goes on taking connections and bytes. On thaw it comes to its sockets in any
order, also to those whose clients have gone: what they had sent is executed, and nobody is there for the reply."""

import hashlib
import math
import random
from collections.abc import Callable
from typing import Protocol

import hiredis

from tests.simulation.server import stream_commands
from tests.simulation.server.commands import COMMANDS
from tests.simulation.server.keyspace import Keyspace
from tests.simulation.server.lua import interpreter
from tests.simulation.server.replies import NIL_ARRAY, OK, Refused, Reply, encode
from tests.simulation.server.stream_commands import Wanted

EPOCH = 1_764_500_000  # seconds; what the server's clock says when the simulation begins


# Commands that write and need no memory; those that do are marked where they are.
SHRINKING = frozenset(
    b"DEL UNLINK PEXPIRE PEXPIREAT PERSIST HDEL LPOP LTRIM ZREM ZREMRANGEBYSCORE ZREMRANGEBYRANK XDEL XTRIM XACK XCLAIM"
    b" XREADGROUP".split()
)


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the server needs of the simulation."""

    def time(self) -> float:
        """Seconds since its beginning."""

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at that time."""


class Client:
    """A connection as the server sees it. `send` takes the bytes of replies; `hang_up` ends it from here."""

    def __init__(self, number: int, send: Callable[[bytes], None], hang_up: Callable[[], None]) -> None:
        self.number = number
        self.name = ""
        self.owner = ""  # the process at the other end, for whoever watches; the server does not know
        self.send = send
        self.hang_up = hang_up
        self.reader = hiredis.Reader()
        self.inbox: list[tuple[bytes | None, float]] = []  # what the kernel holds, sent when; None is the end
        self.sent = math.inf  # when that was sent which it has read last
        self.next: list[bytes] | None = None  # what it comes to next
        self.waiting: Wanted | None = None
        self.timer: Timer | None = None
        self.open = True


# Told of each command before and after it is executed: client, label, whether it is over. False if it was cut off.
Watcher = Callable[[Client, str, bool], bool]


class Server:
    """`deliver` and `accept` are the network's; `freeze`, `thaw`, `kill`, `start`, `step_clock` those of whoever plays
    fate. `labels`: what to call scripts, by digest."""

    def __init__(self, clock: Clock, rng: random.Random, labels: dict[str, str]) -> None:
        self._clock = clock
        self._rng = rng
        self._labels = labels
        self._step = 0.0
        self.db = Keyspace(self._micros)
        self._texts: dict[bytes, bytes] = {}
        self._clients: dict[int, Client] = {}
        self._number = 0
        self.up = True
        self.frozen = False
        self.full = False
        self._script_runs = False
        self._in_the_middle = False  # of a script that has written: no want of memory stops it any more
        self.watch: Watcher = lambda _client, _label, _over: True
        self.executing: Client | None = None

    def _micros(self) -> int:
        return int((EPOCH + self._clock.time() + self._step) * 1_000_000)

    @property
    def ms(self) -> int:
        """Its clock."""
        return self._micros() // 1000

    # Fate -----------------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        clients = list(self._clients.values())
        self._rng.shuffle(clients)
        for client in clients:
            self._read(client)
        self._expire_waits()

    def kill(self) -> None:
        """What was executed is on disk."""
        self.up, self.frozen = False, False
        clients, self._clients = self._clients, {}
        for client in clients.values():
            self._forget(client)
            client.hang_up()

    def start(self) -> None:
        self.up = True
        self._texts.clear()

    def flush_scripts(self) -> None:
        self._texts.clear()

    def step_clock(self, seconds: float) -> None:
        self._step += seconds

    # The network's side -----------------------------------------------------------------------------------------------

    def accept(self, send: Callable[[bytes], None], hang_up: Callable[[], None]) -> Client:
        self._number += 1
        client = self._clients[self._number] = Client(self._number, send, hang_up)
        return client

    def deliver(self, client: Client, data: bytes | None, sent: float = math.inf) -> None:
        """Bytes have arrived, or the end of the connection. `sent`: when, if that is known."""
        if client.open and self.up:
            client.inbox.append((data, sent))
            self._read(client)

    def drop(self, client: Client) -> None:
        """Its connection is dead: what it had sent is gone, too."""
        self._clients.pop(client.number, None)
        self._forget(client)

    def _read(self, client: Client) -> None:
        self._execute_all(client)
        while client.inbox and client.open and not self.frozen:
            data, client.sent = client.inbox.pop(0)
            if data is None:
                self.drop(client)
                return
            client.reader.feed(data)
            self._execute_all(client)

    def _forget(self, client: Client) -> None:
        client.open = False
        client.waiting = None
        if client.timer is not None:
            client.timer.cancel()

    # Executing --------------------------------------------------------------------------------------------------------

    def _execute_all(self, client: Client) -> None:
        """What stands in its buffer; one that waits for a stream gets no further."""
        while self._attends(client):
            parts = client.next or client.reader.gets()
            client.next = None
            if parts is False:
                return
            label = self.label(parts)
            if not self.watch(client, label, False):
                return
            if not self._attends(client):
                client.next = parts
                return
            self.executing = client
            reply = self._reply(client, parts)
            watched = self.watch(client, label, True)
            if watched and client.waiting is None:
                client.send(encode(reply))
            self._serve_waiting()

    def _attends(self, client: Client) -> bool:
        return client.open and self.up and not self.frozen and client.waiting is None

    def label(self, parts: list[bytes]) -> str:
        """What to call a command: the name of its script, if it is one."""
        name = parts[0].decode().upper()
        if name == "EVALSHA":
            return self._labels.get(parts[1].decode(), name)
        if name == "EVAL":
            return self._labels.get(hashlib.sha1(parts[1], usedforsecurity=False).hexdigest(), name)
        if name == "XREADGROUP":
            return "WAIT" if b"BLOCK" in parts else "OWN" if parts[-1] == b"0" else name
        return name

    def _reply(self, client: Client, parts: list[bytes]) -> Reply:
        try:
            return self._execute(client, parts)
        except Refused as refused:
            return refused

    def _execute(self, client: Client, parts: list[bytes]) -> Reply:
        name, args = parts[0].upper(), parts[1:]
        if name in {b"EVALSHA", b"EVAL"}:
            return self._run_script(name == b"EVAL", args)
        if name == b"CLIENT":
            return self._client(client, args)
        if name == b"XREADGROUP":
            return self._read_group(client, args)
        if name in {b"AUTH", b"SELECT"}:
            return OK
        return self._call(name, args)

    def _call(self, name: bytes, args: list[bytes]) -> Reply:
        found = COMMANDS.get(name.upper())
        if found is None:
            raise Refused(f"ERR unknown command '{name.decode()}'")
        if self.full and found.grows and not self._in_the_middle:
            raise Refused("OOM command not allowed when used memory > 'maxmemory'.")
        self._in_the_middle = self._script_runs and (self._in_the_middle or found.grows or name.upper() in SHRINKING)
        return found.handler(self.db, args)

    def _run_script(self, by_text: bool, args: list[bytes]) -> Reply:
        known = args[0] if by_text else self._texts.get(args[0])
        if known is None:
            raise Refused("NOSCRIPT No matching script. Please use EVAL.")
        if by_text:
            self._texts[hashlib.sha1(known, usedforsecurity=False).hexdigest().encode()] = known
        keys = int(args[1])
        if self.full and known.startswith(b"#!") and b"allow-oom" not in known.partition(b"\n")[0]:
            raise Refused("OOM command not allowed when used memory > 'maxmemory'.")
        self.db.hold_clock()
        self._script_runs, self._in_the_middle = True, False
        try:
            return interpreter().run(known, args[2 : 2 + keys], args[2 + keys :], self._call)
        finally:
            self.db.release_clock()
            self._script_runs = self._in_the_middle = False

    def _client(self, client: Client, args: list[bytes]) -> Reply:
        verb = args[0].upper()
        if verb == b"ID":
            return client.number
        if verb == b"SETNAME":
            client.name = args[1].decode()
            return OK
        if verb == b"INFO":
            return b"id=%d addr=10.0.0.1:%d name=%b" % (client.number, 10_000 + client.number, client.name.encode())
        if verb in {b"KILL", b"UNBLOCK"}:
            return self._end_other(kill=verb == b"KILL", number=int(args[2 if verb == b"KILL" else 1]))
        raise Refused(f"ERR unknown subcommand '{verb.decode()}'")

    def _end_other(self, *, kill: bool, number: int) -> Reply:
        """A client, or its wait."""
        other = self._clients.get(number)
        if other is None or (not kill and other.waiting is None):
            return 0
        if kill:
            self.drop(other)
            other.hang_up()
        else:
            self._end_wait(other, NIL_ARRAY)
        return 1

    # Readers that wait ------------------------------------------------------------------------------------------------

    def _read_group(self, client: Client, args: list[bytes]) -> Reply:
        wanted = stream_commands.read_options(args)
        found = stream_commands.read_group(self.db, wanted)
        if found or wanted.block is None:
            return found or NIL_ARRAY
        client.waiting = wanted
        until = self._clock.time() + wanted.block / 1000
        client.timer = self._clock.at(until, lambda: self._time_out(client, until))
        return None

    def _time_out(self, client: Client, until: float) -> None:
        client.timer = None
        if client.open and client.waiting is not None and self.up:
            if self.frozen:
                return  # thawing looks at all
            self._end_wait(client, NIL_ARRAY)

    def _expire_waits(self) -> None:
        for client in list(self._clients.values()):
            if client.waiting is not None and client.timer is None:
                self._end_wait(client, NIL_ARRAY)

    def _serve_waiting(self) -> None:
        """Those that have waited longest first."""
        if not self.db.dirty:
            return
        dirty, self.db.dirty = set(self.db.dirty), []
        for client in list(self._clients.values()):
            wanted = client.waiting
            if wanted is None or not any(key in dirty for key, _ in wanted.sources):
                continue
            keys = [source for source in wanted.sources if source[0] in dirty]
            try:
                reply: Reply = stream_commands.read_group(self.db, wanted._replace(sources=keys[:1]))
            except Refused as refused:
                reply = refused
            if reply:
                self.watch(client, "SERVED", True)
                self._end_wait(client, reply)

    def _end_wait(self, client: Client, reply: Reply) -> None:
        client.waiting = None
        if client.timer is not None:
            client.timer.cancel()
            client.timer = None
        client.send(encode(reply))
        self._execute_all(client)
