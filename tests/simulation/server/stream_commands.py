"""The commands of streams, as Redis 7.0 answers them. XREADGROUP here never waits: see server.py."""

from typing import NamedTuple

from tests.simulation.server.commands import command, integer
from tests.simulation.server.keyspace import Keyspace
from tests.simulation.server.replies import NIL_ARRAY, OK, Refused, Reply
from tests.simulation.server.streams import FIRST, LAST, Id, Pending, Stream, StreamGroup, spell


def parse(text: bytes, sequence: int = 0) -> Id:
    """An id; `sequence` stands in for one that is left out."""
    ms, dash, rest = text.partition(b"-")
    if not ms.isdigit() or (dash and not rest.isdigit()):
        raise Refused("ERR Invalid stream ID specified as stream command argument")
    return int(ms), int(rest) if dash else sequence


def _bound(text: bytes, *, end: bool) -> Id:
    if text == b"-":
        return FIRST
    if text == b"+":
        return LAST
    if not text.startswith(b"("):
        return parse(text, LAST[1] if end else 0)
    ms, sequence = parse(text[1:], LAST[1] if end else 0)
    return (ms, sequence - 1) if end else (ms, sequence + 1)


def _stream(db: Keyspace, key: bytes) -> Stream:
    return db.find(key, Stream) or Stream()


def _no_group(key: bytes, group: bytes, where: str = "") -> Refused:
    return Refused(f"NOGROUP No such key '{key.decode()}' or consumer group '{group.decode()}'{where}")


def _group(db: Keyspace, key: bytes, name: bytes, where: str = "") -> StreamGroup:
    stream = db.find(key, Stream)
    if stream is None or name not in stream.groups:
        raise _no_group(key, name, where)
    return stream.groups[name]


def _entries(stream: Stream, ids: list[Id]) -> list[Reply]:
    return [[spell(entry), stream.fields[entry]] for entry in ids]


@command("XADD", grows=True)
def xadd(db: Keyspace, args: list[bytes]) -> Reply:
    key, wanted, *fields = args
    if not fields or len(fields) % 2:
        raise Refused("ERR wrong number of arguments for 'xadd' command")
    stream = db.make(key, Stream)
    entry = stream.next_id(db.ms()) if wanted == b"*" else parse(wanted)
    if entry <= stream.last:
        raise Refused("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    stream.add(entry, fields)
    db.dirty.append(key)
    db.added(key, spell(entry), fields)
    return spell(entry)


@command("XLEN")
def xlen(db: Keyspace, args: list[bytes]) -> Reply:
    return len(_stream(db, args[0]).ids)


def _count(options: list[bytes]) -> int | None:
    return integer(options[1]) if options and options[0].upper() == b"COUNT" else None


@command("XRANGE")
def xrange(db: Keyspace, args: list[bytes]) -> Reply:
    stream = _stream(db, args[0])
    found = stream.between(_bound(args[1], end=False), _bound(args[2], end=True))
    return _entries(stream, found[: _count(args[3:])])


@command("XREVRANGE")
def xrevrange(db: Keyspace, args: list[bytes]) -> Reply:
    stream = _stream(db, args[0])
    found = stream.between(_bound(args[2], end=False), _bound(args[1], end=True))[::-1]
    return _entries(stream, found[: _count(args[3:])])


@command("XDEL")
def xdel(db: Keyspace, args: list[bytes]) -> Reply:
    stream = _stream(db, args[0])
    return sum(stream.remove(parse(entry)) for entry in args[1:])


@command("XTRIM")
def xtrim(db: Keyspace, args: list[bytes]) -> Reply:
    key, strategy, *rest = args
    threshold = rest[1] if rest[0] in {b"=", b"~"} else rest[0]
    stream = _stream(db, key)
    if strategy.upper() == b"MAXLEN":
        return stream.cut(max(0, len(stream.ids) - integer(threshold)))
    first = parse(threshold)
    return stream.cut(sum(entry < first for entry in stream.ids))


@command("XGROUP", grows=True)
def xgroup(db: Keyspace, args: list[bytes]) -> Reply:
    verb, key, name, *rest = args
    stream = db.find(key, Stream)
    if verb.upper() == b"CREATE":
        if stream is None:
            if b"MKSTREAM" not in [option.upper() for option in rest[1:]]:
                raise Refused("ERR The XGROUP subcommand requires the key to exist.")
            stream = db.make(key, Stream)
        if name in stream.groups:
            raise Refused("BUSYGROUP Consumer Group name already exists")
        stream.groups[name] = StreamGroup(stream.last if rest[0] == b"$" else parse(rest[0]))
        return OK
    if stream is None:
        raise Refused("ERR The XGROUP subcommand requires the key to exist.")
    if verb.upper() == b"DESTROY":
        return int(stream.groups.pop(name, None) is not None)
    if name not in stream.groups:
        raise Refused(f"NOGROUP No such consumer group '{name.decode()}' for key name '{key.decode()}'")
    group = stream.groups[name]  # DELCONSUMER
    held = group.held(consumer=rest[0])
    for entry in held:
        del group.pending[entry]
    group.consumers.pop(rest[0], None)
    return len(held)


class Wanted(NamedTuple):
    """The options of an XREADGROUP. `block`: ms, None if it does not wait."""

    group: bytes
    consumer: bytes
    most: int
    block: int | None
    sources: list[tuple[bytes, bytes]]  # key and id


def read_options(args: list[bytes]) -> Wanted:
    count, block, place = 2**31, None, 3
    while args[place].upper() != b"STREAMS":
        if args[place].upper() == b"COUNT":
            count = integer(args[place + 1]) or count
        elif args[place].upper() == b"BLOCK":
            block = integer(args[place + 1])
        place += 2
    names = args[place + 1 :]
    half = len(names) // 2
    return Wanted(args[1], args[2], count, block, list(zip(names[:half], names[half:], strict=True)))


@command("XREADGROUP")
def xreadgroup(db: Keyspace, args: list[bytes]) -> Reply:
    found = read_group(db, read_options(args))
    return found or NIL_ARRAY


def read_group(db: Keyspace, wanted: Wanted) -> list[Reply]:
    """What is there."""
    groups = [
        _group(db, key, wanted.group, " in XREADGROUP with GROUP option") for key, _ in wanted.sources
    ]  # all are looked at before any is read
    found: list[Reply] = []
    for (key, start), group in zip(wanted.sources, groups, strict=True):
        stream = _stream(db, key)
        entries = (
            _take_new(db, stream, group, wanted)
            if start == b">"
            else _take_own(db, stream, group, wanted, parse(start))
        )
        if entries or start != b">":
            found.append([key, entries])
    return found


def _take_new(db: Keyspace, stream: Stream, group: StreamGroup, wanted: Wanted) -> list[Reply]:
    ids = stream.behind(group.last, wanted.most)
    if ids:
        group.consumer(wanted.consumer, db.ms())
        group.last = ids[-1]
    for entry in ids:
        group.pending[entry] = Pending(wanted.consumer, db.ms(), 1)
    return _entries(stream, ids)


def _take_own(db: Keyspace, stream: Stream, group: StreamGroup, wanted: Wanted, after: Id) -> list[Reply]:
    """Its history: idle times begin anew, and the delivery is counted."""
    group.consumer(wanted.consumer, db.ms())
    found: list[Reply] = []
    for entry in group.held(after, LAST, wanted.consumer):
        if entry <= after or len(found) >= wanted.most:
            continue
        pending = group.pending[entry]
        if entry in stream.fields:
            pending.at = db.ms()
            pending.count += 1
        found.append([spell(entry), stream.fields.get(entry, NIL_ARRAY)])
    return found


@command("XACK")
def xack(db: Keyspace, args: list[bytes]) -> Reply:
    group = _stream(db, args[0]).groups.get(args[1])
    entries = [parse(entry) for entry in args[2:]]
    if group is None:
        return 0
    return sum(group.pending.pop(entry, None) is not None for entry in entries)


@command("XPENDING")
def xpending(db: Keyspace, args: list[bytes]) -> Reply:
    key, name, *rest = args
    group = _group(db, key, name)
    if not rest:
        return _summary(group)
    idle = 0
    if rest[0].upper() == b"IDLE":
        idle, rest = integer(rest[1]), rest[2:]
    start, end, count = _bound(rest[0], end=False), _bound(rest[1], end=True), integer(rest[2])
    consumer, now = rest[3] if len(rest) > 3 else None, db.ms()
    held = group.held(start, end) if start != end else [start] if start in group.pending else []
    found: list[Reply] = []
    for entry in held:
        pending = group.pending[entry]
        since = max(0, now - pending.at)
        if len(found) < count and since >= idle and consumer in {None, pending.consumer}:
            found.append([spell(entry), pending.consumer, since, pending.count])
    return found


def _summary(group: StreamGroup) -> Reply:
    if not group.pending:
        return [0, None, None, NIL_ARRAY]
    held: dict[bytes, int] = {}
    for pending in group.pending.values():
        held[pending.consumer] = held.get(pending.consumer, 0) + 1
    ids = group.held()
    return [len(ids), spell(ids[0]), spell(ids[-1]), [[name, b"%d" % count] for name, count in sorted(held.items())]]


@command("XCLAIM")
def xclaim(db: Keyspace, args: list[bytes]) -> Reply:
    key, name, consumer, idle, *rest = args
    group, stream, now = _group(db, key, name), _stream(db, key), db.ms()
    least = integer(idle)
    only_id = b"JUSTID" in [part.upper() for part in rest]
    claimed: list[Reply] = []
    for entry in [parse(part) for part in rest if part[:1].isdigit()]:
        pending = group.pending.get(entry)
        if pending is None:
            continue
        if entry not in stream.fields:  # it was deleted: nobody will handle it
            del group.pending[entry]
            continue
        if least and now - pending.at < least:  # 0 claims also what was given out in times to come
            continue
        group.consumer(consumer, now)
        pending.consumer, pending.at = consumer, now
        pending.count += not only_id
        claimed.append(spell(entry) if only_id else [spell(entry), stream.fields[entry]])
    return claimed


@command("XINFO")
def xinfo(db: Keyspace, args: list[bytes]) -> Reply:
    verb, key, *rest = args
    stream, now = db.find(key, Stream), db.ms()
    if stream is None:
        raise Refused("ERR no such key")
    if verb.upper() == b"GROUPS":
        return [_told(name, group) for name, group in sorted(stream.groups.items())]
    if verb.upper() == b"STREAM":
        told = [b"length", len(stream.ids), b"last-generated-id", spell(stream.last), b"groups", len(stream.groups)]
        return [*told, b"entries-added", stream.added]
    if rest[0] not in stream.groups:
        raise Refused(f"NOGROUP No such consumer group '{rest[0].decode()}' for key name '{key.decode()}'")
    group = stream.groups[rest[0]]
    return [
        [b"name", name, b"pending", len(group.held(consumer=name)), b"idle", max(0, now - consumer.seen)]
        for name, consumer in sorted(group.consumers.items())
    ]


def _told(name: bytes, group: StreamGroup) -> Reply:
    return [
        *(b"name", name, b"consumers", len(group.consumers), b"pending", len(group.pending)),
        *(b"last-delivered-id", spell(group.last)),
    ]
