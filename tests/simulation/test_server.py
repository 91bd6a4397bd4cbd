"""The simulated server answers as a real one does: random commands and random scripts go to both."""

import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import hiredis
import pytest

from eventbus.redis import scripts
from eventbus.redis.keys import PARKED, group_keys, stream_keys
from eventbus.redis.links import Command
from eventbus.redis.scripts import by_text
from tests.simulation.loop import Loop
from tests.simulation.server.replies import Refused, Reply
from tests.simulation.server.server import EPOCH, Server

_ID = re.compile(rb"\d{13,}-\d+")
_MOMENT = re.compile(rb"\b\d{13}\b")
COMMANDS = 1500
CALLS = 400

Ask = Callable[[Command], Reply]


@pytest.fixture
def real(any_redis_url: str) -> Iterator[Ask]:
    address = urlsplit(any_redis_url)
    connection = socket.create_connection((address.hostname or "", address.port or 6379))
    reader = hiredis.Reader(replyError=Refused)

    def ask(command: Command) -> Reply:
        connection.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub names a 1-tuple
        while (reply := reader.gets()) is False:
            reader.feed(connection.recv(65536))
        return reply

    if address.password:
        ask(("AUTH", address.password))
    ask(("SELECT", address.path.strip("/") or "0"))
    yield ask
    connection.close()


def simulated() -> Ask:
    """By the machine's clock."""
    loop = Loop(random.Random(1))
    server = Server(loop, random.Random(1), {})
    answers: list[bytes] = []
    client = server.accept(answers.append, lambda: None)
    reader = hiredis.Reader(replyError=Refused)

    def ask(command: Command) -> Reply:
        loop.now = time.time() - EPOCH
        server.deliver(client, hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub names a 1-tuple
        for answer in answers:
            reader.feed(answer)
        answers.clear()
        return reader.gets()

    loop.close()
    return ask


class Normal:
    """Replies without what no two servers share: ids that they chose are counted, times are rounded, and of an error
    its code is kept."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self.ids: list[bytes] = []

    def __call__(self, reply: Reply) -> Any:
        if isinstance(reply, Exception):
            return f"refused: {str(reply).partition(' ')[0]}"
        if isinstance(reply, (list, tuple)):
            return [self(part) for part in reply]
        if isinstance(reply, str):
            reply = reply.encode()
        if isinstance(reply, bytes):
            return _MOMENT.sub(b"now", _ID.sub(self._count, reply))
        return round(reply, -4) if isinstance(reply, int) and reply > 5_000 else reply

    def _count(self, match: re.Match[bytes]) -> bytes:
        name = match.group()
        if name not in self._known:
            self._known[name] = b"id%d" % len(self._known)
            self.ids.append(name)
        return self._known[name]


def without_idle(command: Command, reply: Any) -> Any:
    """Of XPENDING and XINFO CONSUMERS, which tell how long ago something was."""
    if command[0] == "XPENDING" and len(command) > 3 and isinstance(reply, list):
        return [[entry, consumer, count] for entry, consumer, _, count in reply]
    if command[:2] == ("XINFO", "CONSUMERS") and isinstance(reply, list):
        return [row[:4] for row in reply if row[3]]  # a read that finds nothing makes a consumer on Valkey alone
    if command[:2] == ("XINFO", "GROUPS") and isinstance(reply, list):
        return [(*row[:2], *row[4:8]) for row in reply]  # what follows counts what nobody here asks for
    return reply


def commands(rng: random.Random) -> Iterator[Command]:
    """Of streams, with ids of their own, and of all else that is stored."""
    last = 0
    keys, groups, consumers, members = ["s1", "s2"], ["g1", "g2"], ["ann", "bob", "cid"], ["a", "b", "c", "d"]

    def entry() -> str:
        return f"{rng.randint(max(0, last - 12), last + 1)}-{rng.choice((0, 0, 0, 1))}"

    def score() -> str:
        return rng.choice(("1", "2", "3.5", "1764500000123"))

    for _ in range(COMMANDS):
        key, group, consumer, member = map(rng.choice, (keys, groups, consumers, members))
        last += 1
        bounds = rng.choice(
            (("-", "+"), (entry(), "+"), ("-", entry()), (f"({entry()}", f"({entry()}"), (entry(), entry()))
        )
        low, high = rng.choice((("-inf", "+inf"), ("-inf", "2"), ("(1", "3.5"), ("2", "(1764500000123")))
        own = [("z", "zset"), ("h", "hash"), ("l", "list"), ("t", "string"), ("u", "set")]
        name = rng.choice(own)[0] if rng.random() < 0.05 else ""
        yield rng.choice(
            [
                ("XADD", name or key, f"{last}-0", "field", member, "other", "x" * rng.randint(0, 3)),
                ("XADD", key, entry(), "field", member),
                ("XGROUP", "CREATE", key, group, rng.choice(("0", "$", entry())), *rng.choice(((), ("MKSTREAM",)))),
                ("XREADGROUP", "GROUP", group, consumer, "COUNT", rng.randint(1, 4), "STREAMS", *keys, ">", ">"),
                ("XREADGROUP", "GROUP", group, consumer, "COUNT", rng.randint(1, 4), "STREAMS", key, ">"),
                ("XREADGROUP", "GROUP", group, consumer, "COUNT", rng.randint(1, 9), "STREAMS", *keys, "0", entry()),
                ("XACK", key, group, entry(), entry()),
                (
                    "XCLAIM",
                    key,
                    group,
                    consumer,
                    rng.choice((0, 0, 10**9)),
                    entry(),
                    entry(),
                    *rng.choice(((), ("JUSTID",))),
                ),
                ("XPENDING", key, group),
                ("XPENDING", key, group, *bounds, rng.randint(1, 9)),
                ("XPENDING", key, group, *bounds, rng.randint(1, 9), consumer),
                ("XPENDING", key, group, "IDLE", rng.choice((0, 10**9)), *bounds, 9, consumer),
                ("XRANGE", key, *bounds, "COUNT", rng.randint(1, 9)),
                ("XREVRANGE", key, *reversed(bounds), "COUNT", rng.randint(1, 9)),
                ("XDEL", key, entry()),
                ("XLEN", name or key),
                ("XTRIM", key, "MINID", "=", entry()) if rng.random() < 0.2 else ("XLEN", key),
                ("XTRIM", key, "MAXLEN", "=", 15),
                ("XINFO", "GROUPS", key),
                ("XINFO", "CONSUMERS", key, group),
                ("XGROUP", "DELCONSUMER", key, group, consumer) if rng.random() < 0.2 else ("EXISTS", key, "z"),
                ("XGROUP", "DESTROY", key, group) if rng.random() < 0.1 else ("PTTL", key),
                ("DEL", key) if rng.random() < 0.1 else ("EXISTS", *keys),
                ("ZADD", name or "z", *rng.choice(((), ("NX",))), score(), member, score(), "e"),
                ("ZREM", name or "z", member, "e"),
                ("ZCARD", "z"),
                ("ZSCORE", "z", member),
                ("ZRANGE", "z", rng.randint(-3, 2), rng.randint(-3, 3), *rng.choice(((), ("WITHSCORES",)))),
                ("ZREVRANGE", "z", 0, rng.randint(-3, 3), "WITHSCORES"),
                ("ZRANGEBYSCORE", "z", low, high, *rng.choice(((), ("WITHSCORES",))), "LIMIT", rng.randint(0, 1), 2),
                ("ZREMRANGEBYSCORE", "z", low, high) if rng.random() < 0.3 else ("ZCOUNT", "z", low, high),
                ("ZREMRANGEBYRANK", "z", 0, -4),
                ("HSET", name or "h", member, rng.randint(1, 9), "e", "5"),
                ("HSETNX", "h", member, "5"),
                ("HGET", name or "h", member),
                ("HMGET", "h", *members),
                ("HGETALL", name or "none"),
                ("HINCRBY", "h", member, rng.randint(-3, 3)),
                ("HDEL", "h", member, "e"),
                ("HLEN", "h"),
                ("RPUSH", name or "l", member, "e"),
                ("LPUSH", "l", member, "e"),
                ("LPOP", "l"),
                ("LRANGE", "l", rng.randint(-3, 2), rng.randint(-3, 3)),
                ("LTRIM", "l", 0, rng.randint(0, 5)),
                ("LINDEX", "l", rng.randint(-3, 3)),
                ("LSET", "l", rng.randint(-3, 3), member),
                ("LLEN", "l"),
                ("SADD", "u", member, "e"),
                ("SISMEMBER", name or "u", member),
                ("SET", "t", member, *rng.choice(((), ("NX",), ("PX", 10**8)))),
                ("GET", name or "t"),
                ("PTTL", "t"),
                ("PEXPIRE", "t", rng.choice((10**8, -1))),
                ("PERSIST", "t"),
            ]
        )


def test_commands_are_answered_as_a_real_server_answers_them(real: Ask) -> None:
    ours, theirs = simulated(), real
    we, they = Normal(), Normal()
    for number, command in enumerate(commands(random.Random(7))):
        expected, found = (without_idle(command, norm(ask(command))) for norm, ask in ((they, theirs), (we, ours)))
        assert found == expected, (number, command)


def call(number: int, known: list[bytes]) -> Command:
    """The nth call of a script, or a look at what they have left. `known`: the ids that the server has given."""
    rng = random.Random(f"call {number}")
    keys, groups = stream_keys("sim", "s"), group_keys("sim", "s", "g")
    lanes, lane = keys.lanes, rng.choice((5, 5, 1))
    consumer, wait, earlier = (
        rng.choice(("ann", "bob")),
        rng.choice((0, 0, 600_000)),
        max(0, number - rng.randrange(20)),
    )
    chosen = known[int(rng.random() * len(known))].decode() if known else "1764500000000-0"
    entry = chosen if lane == 5 else f"{chosen}@{lane}"
    where, schedule = (lanes[lane - 1], *groups), (lanes[lane - 1], keys.due, keys.scheduled, keys.counts)
    age, credit, suspects, meant = (
        rng.choice((0, 10**9, "")),
        rng.randint(1, 4),
        rng.choice((0, 0, 1)),
        rng.choice(("", "", 1)),
    )

    letter = ("id", "x", "dead.group", rng.choice(("g", "h")))

    def envelope(number: int) -> tuple[str, ...]:
        return ("id", f"event{number}", "type", "sim.asked", "meta", "{}", "data", str(number))

    return rng.choice(
        [
            ("XADD", lanes[lane - 1], "*", *envelope(number)),
            scripts.CREATE_GROUP((*lanes, keys.groups, keys.counts), "g"),
            scripts.READ(lanes, "g", consumer, 3, *([1] * 10)),
            scripts.RECLAIM((*lanes, *groups), "g", consumer, age, credit, 2, suspects, PARKED, meant, 5, 5000),
            scripts.RENEW(where[:1], "g", consumer, entry),
            scripts.PARK(where, "g", consumer, entry, wait, rng.choice(("", 1, 2)), PARKED),
            scripts.ACK((*where, keys.counts), "g", f"acked:{lane}:g", entry),
            scripts.BURY((*where, keys.dead, keys.counts), "g", consumer, entry, f"buried:{lane}:g", *letter),
            scripts.SCHEDULE(schedule, wait, 0, f"event{number}", lane, *envelope(number)),
            scripts.PROMOTE((*lanes, keys.due, keys.scheduled, keys.dead, keys.counts), 500, 60_000),
            scripts.APPEND_AGAIN(schedule, "", 500, 10**6, lane, wait, 0, *envelope(earlier)),
            scripts.LOOK(where[:1], "+", 60_000, rng.choice((3, 500)), 10**6, f"event{earlier}", f"event{earlier + 1}"),
            scripts.DUE((keys.due,), f"event{earlier}", f"event{earlier + 1}"),
            scripts.ONCE(("sim:holder", *schedule), 600_000, rng.choice(("0", "1")), wait, 0, lane, *envelope(number)),
            scripts.CANCEL((keys.due, keys.scheduled, keys.counts), f"event{earlier}"),
            scripts.TIDY(
                (*lanes, keys.groups, keys.dead, keys.counts, keys.due, keys.scheduled),
                *(0, 100, 0, 10**9, PARKED, 10**9, 3, 1, 0),
            ),
            ("HMGET", keys.counts, "acked:5:g", "acked:1:g", "buried:5:g", "base:5:g", "letters:g", "removed:g"),
            ("XPENDING", lanes[4], "g"),
            ("HGETALL", groups.crashes),
            ("ZRANGE", groups.retry, 0, -1),
        ]
    )


def test_scripts_are_run_as_a_real_server_runs_them(real: Ask) -> None:
    ours = simulated()
    we, they = Normal(), Normal()
    for number in range(CALLS):
        there, here = call(number, they.ids), call(number, we.ids)
        expected, found = they(real(_spelled_out(there))), we(ours(_spelled_out(here)))
        assert found == expected, (number, here)
        time.sleep(0.0011)  # so that ids of two lanes are as different with the one as with the other


def _spelled_out(command: Command) -> Command:
    return by_text(command) if command[0] == "EVALSHA" else command
