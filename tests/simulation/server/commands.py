"""The commands that the engine uses, but for those of streams: one function each, by name.

They answer as Redis 7.0 does; tests/simulation/test_server.py compares the two."""

import fnmatch
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.simulation.server.keyspace import Keyspace, SortedSet
from tests.simulation.server.replies import OK, Refused, Reply, Status

Handler = Callable[[Keyspace, list[bytes]], Reply]


class Command(NamedTuple):
    """`grows`: refused while memory is used up."""

    handler: Handler
    grows: bool


COMMANDS: dict[bytes, Command] = {}


def command(name: str, *, grows: bool = False) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        COMMANDS[name.encode()] = Command(handler, grows)
        return handler

    return register


def integer(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused("ERR value is not an integer or out of range") from None


def number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refused("ERR value is not a valid float") from None


def spelled(score: float) -> bytes:
    """A score as the server writes it."""
    return b"%d" % int(score) if score == int(score) and abs(score) < 1e17 else b"%.17g" % score


# Keys and the server ------------------------------------------------------------------------------------------------


@command("PING")
def ping(db: Keyspace, args: list[bytes]) -> Reply:
    return Status(b"PONG")


@command("TIME")
def time(db: Keyspace, args: list[bytes]) -> Reply:
    seconds, micros = divmod(db.micros(), 1_000_000)
    return [b"%d" % seconds, b"%d" % micros]


@command("INFO")
def info(db: Keyspace, args: list[bytes]) -> Reply:
    return b"redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n"


@command("EXISTS")
def exists(db: Keyspace, args: list[bytes]) -> Reply:
    return sum(db.exists(key) for key in args)


@command("DEL")
@command("UNLINK")
def delete(db: Keyspace, args: list[bytes]) -> Reply:
    return sum(db.exists(key) and db.delete(key) for key in args)


@command("PEXPIRE")
def pexpire(db: Keyspace, args: list[bytes]) -> Reply:
    return int(db.expire(args[0], db.ms() + integer(args[1])))


@command("PEXPIREAT")
def pexpireat(db: Keyspace, args: list[bytes]) -> Reply:
    return int(db.expire(args[0], integer(args[1])))


@command("PERSIST")
def persist(db: Keyspace, args: list[bytes]) -> Reply:
    return int(db.persist(args[0]))


@command("PTTL")
def pttl(db: Keyspace, args: list[bytes]) -> Reply:
    if not db.exists(args[0]):
        return -2
    at = db.expires_at(args[0])
    return -1 if at is None else at - db.ms()


@command("SCAN")
def scan(db: Keyspace, args: list[bytes]) -> Reply:
    """All at once."""
    pattern = dict(zip(args[1::2], args[2::2], strict=False)).get(b"MATCH", b"*")
    return [b"0", [key for key in list(db.values) if db.exists(key) and fnmatch.fnmatchcase(key, pattern)]]


@command("PUBLISH")
def publish(db: Keyspace, args: list[bytes]) -> Reply:
    return 0


# Strings ------------------------------------------------------------------------------------------------------------


@command("GET")
def get(db: Keyspace, args: list[bytes]) -> Reply:
    return db.find(args[0], bytes)


@command("SET", grows=True)
def set_(db: Keyspace, args: list[bytes]) -> Reply:
    key, value, *options = args
    names = [option.upper() for option in options]
    if b"NX" in names and db.exists(key):
        return None
    db.set(key, value)
    if b"PX" in names:
        db.expire(key, db.ms() + integer(options[names.index(b"PX") + 1]))
    return OK


# Hashes -------------------------------------------------------------------------------------------------------------


@command("HSET", grows=True)
def hset(db: Keyspace, args: list[bytes]) -> Reply:
    found: dict[bytes, bytes] = db.make(args[0], dict)
    before = len(found)
    found.update(zip(args[1::2], args[2::2], strict=True))
    return len(found) - before


@command("HSETNX", grows=True)
def hsetnx(db: Keyspace, args: list[bytes]) -> Reply:
    found: dict[bytes, bytes] = db.make(args[0], dict)
    if args[1] in found:
        return 0
    found[args[1]] = args[2]
    return 1


def _hash(db: Keyspace, key: bytes) -> dict[bytes, bytes]:
    return db.find(key, dict) or {}


@command("HGET")
def hget(db: Keyspace, args: list[bytes]) -> Reply:
    return _hash(db, args[0]).get(args[1])


@command("HMGET")
def hmget(db: Keyspace, args: list[bytes]) -> Reply:
    found = _hash(db, args[0])
    return [found.get(name) for name in args[1:]]


@command("HGETALL")
def hgetall(db: Keyspace, args: list[bytes]) -> Reply:
    return [part for item in _hash(db, args[0]).items() for part in item]


@command("HKEYS")
def hkeys(db: Keyspace, args: list[bytes]) -> Reply:
    return list(_hash(db, args[0]))


@command("HVALS")
def hvals(db: Keyspace, args: list[bytes]) -> Reply:
    return list(_hash(db, args[0]).values())


@command("HLEN")
def hlen(db: Keyspace, args: list[bytes]) -> Reply:
    return len(_hash(db, args[0]))


@command("HDEL")
def hdel(db: Keyspace, args: list[bytes]) -> Reply:
    found = _hash(db, args[0])
    gone = sum(found.pop(name, None) is not None for name in args[1:])
    db.shed(args[0])
    return gone


@command("HINCRBY", grows=True)
def hincrby(db: Keyspace, args: list[bytes]) -> Reply:
    found: dict[bytes, bytes] = db.make(args[0], dict)
    value = integer(found.get(args[1], b"0")) + integer(args[2])
    found[args[1]] = b"%d" % value
    return value


@command("HSCAN")
def hscan(db: Keyspace, args: list[bytes]) -> Reply:
    """All at once."""
    return [b"0", hgetall(db, args)]


# Lists and sets -----------------------------------------------------------------------------------------------------


def _list(db: Keyspace, key: bytes) -> list[bytes]:
    return db.find(key, list) or []


@command("RPUSH", grows=True)
def rpush(db: Keyspace, args: list[bytes]) -> Reply:
    found: list[bytes] = db.make(args[0], list)
    found.extend(args[1:])
    return len(found)


@command("LPUSH", grows=True)
def lpush(db: Keyspace, args: list[bytes]) -> Reply:
    found: list[bytes] = db.make(args[0], list)
    found[:0] = reversed(args[1:])
    return len(found)


@command("LPOP")
def lpop(db: Keyspace, args: list[bytes]) -> Reply:
    found = _list(db, args[0])
    popped = found.pop(0) if found else None
    db.shed(args[0])
    return popped


@command("LLEN")
def llen(db: Keyspace, args: list[bytes]) -> Reply:
    return len(_list(db, args[0]))


def _slice(length: int, start: bytes, stop: bytes) -> slice:
    first, last = integer(start), integer(stop)
    first = max(0, first + length) if first < 0 else first
    last = last + length if last < 0 else last
    return slice(first, max(0, last + 1))


@command("LRANGE")
def lrange(db: Keyspace, args: list[bytes]) -> Reply:
    found = _list(db, args[0])
    return found[_slice(len(found), args[1], args[2])]


@command("LTRIM")
def ltrim(db: Keyspace, args: list[bytes]) -> Reply:
    found = _list(db, args[0])
    found[:] = found[_slice(len(found), args[1], args[2])]
    db.shed(args[0])
    return OK


@command("LINDEX")
def lindex(db: Keyspace, args: list[bytes]) -> Reply:
    found, index = _list(db, args[0]), integer(args[1])
    return found[index] if -len(found) <= index < len(found) else None


@command("LSET", grows=True)
def lset(db: Keyspace, args: list[bytes]) -> Reply:
    found = _list(db, args[0])
    try:
        found[integer(args[1])] = args[2]
    except IndexError:
        raise Refused("ERR index out of range" if found else "ERR no such key") from None
    return OK


@command("SADD", grows=True)
def sadd(db: Keyspace, args: list[bytes]) -> Reply:
    found: set[bytes] = db.make(args[0], set)
    before = len(found)
    found.update(args[1:])
    return len(found) - before


@command("SISMEMBER")
def sismember(db: Keyspace, args: list[bytes]) -> Reply:
    return int(args[1] in (db.find(args[0], set) or ()))


# Sorted sets --------------------------------------------------------------------------------------------------------


def _sorted(db: Keyspace, key: bytes) -> SortedSet:
    return db.find(key, SortedSet) or SortedSet()


@command("ZADD", grows=True)
def zadd(db: Keyspace, args: list[bytes]) -> Reply:
    key, *rest = args
    only_new = rest[0].upper() == b"NX"
    if only_new:
        rest = rest[1:]
    scores = [number(score) for score in rest[::2]]
    found = db.make(key, SortedSet)
    before = len(found)
    for score, member in zip(scores, rest[1::2], strict=True):
        if not (only_new and member in found):
            found[member] = score
    return len(found) - before


@command("ZREM")
def zrem(db: Keyspace, args: list[bytes]) -> Reply:
    found = _sorted(db, args[0])
    gone = sum(found.pop(member, None) is not None for member in args[1:])
    db.shed(args[0])
    return gone


@command("ZCARD")
def zcard(db: Keyspace, args: list[bytes]) -> Reply:
    return len(_sorted(db, args[0]))


@command("ZSCORE")
def zscore(db: Keyspace, args: list[bytes]) -> Reply:
    score = _sorted(db, args[0]).get(args[1])
    return None if score is None else spelled(score)


def _told(found: list[tuple[bytes, float]], *, scores: bool) -> list[bytes]:
    return [part for member, score in found for part in ((member, spelled(score)) if scores else (member,))]


@command("ZRANGE")
def zrange(db: Keyspace, args: list[bytes]) -> Reply:
    ranked = _sorted(db, args[0]).ranked()
    return _told(ranked[_slice(len(ranked), args[1], args[2])], scores=b"WITHSCORES" in args[3:])


@command("ZREVRANGE")
def zrevrange(db: Keyspace, args: list[bytes]) -> Reply:
    ranked = _sorted(db, args[0]).ranked()[::-1]
    return _told(ranked[_slice(len(ranked), args[1], args[2])], scores=b"WITHSCORES" in args[3:])


def _within(found: SortedSet, low: bytes, high: bytes) -> Iterator[tuple[bytes, float]]:
    bottom, top = number(low.lstrip(b"(")), number(high.lstrip(b"("))
    for member, score in found.ranked():
        above = score > bottom if low.startswith(b"(") else score >= bottom
        below = score < top if high.startswith(b"(") else score <= top
        if above and below:
            yield member, score


@command("ZRANGEBYSCORE")
def zrangebyscore(db: Keyspace, args: list[bytes]) -> Reply:
    found, options = list(_within(_sorted(db, args[0]), args[1], args[2])), [arg.upper() for arg in args[3:]]
    if b"LIMIT" in options:
        place = options.index(b"LIMIT")
        offset, count = integer(options[place + 1]), integer(options[place + 2])
        found = found[offset:] if count < 0 else found[offset : offset + count]
    return _told(found, scores=b"WITHSCORES" in options)


@command("ZCOUNT")
def zcount(db: Keyspace, args: list[bytes]) -> Reply:
    return len(list(_within(_sorted(db, args[0]), args[1], args[2])))


@command("ZREMRANGEBYSCORE")
def zremrangebyscore(db: Keyspace, args: list[bytes]) -> Reply:
    found = _sorted(db, args[0])
    gone = [member for member, _ in _within(found, args[1], args[2])]
    for member in gone:
        del found[member]
    db.shed(args[0])
    return len(gone)


@command("ZREMRANGEBYRANK")
def zremrangebyrank(db: Keyspace, args: list[bytes]) -> Reply:
    found = _sorted(db, args[0])
    ranked = found.ranked()
    gone = ranked[_slice(len(ranked), args[1], args[2])]
    for member, _ in gone:
        del found[member]
    db.shed(args[0])
    return len(gone)
