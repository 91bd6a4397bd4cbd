"""Looking through all events that are, or may be, still to be handled: page by page, to let others have their turn."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from eventbus.contract.codec import Fields, pairs
from eventbus.redis import dead_letters as letters_of
from eventbus.redis import scripts
from eventbus.redis.keys import lane_key, sessions_pattern, stream_keys
from eventbus.redis.links import Links, Reply
from eventbus.redis.scanning import keys_like
from eventbus.redis.sessions import unpacked

PAGE = 200  # entries a look


async def in_flight(links: Links, namespace: str, stream: str, priority: int) -> AsyncIterator[Fields]:
    """Entries of a lane that some group has not settled: pending, or not read by all. About the oldest first."""
    lane = lane_key(namespace, stream, priority)
    if not await links.execute("EXISTS", lane):
        return
    infos = [pairs(flat) for flat in await links.execute("XINFO", "GROUPS", lane)]
    read_by_all = min((info[b"last-delivered-id"].decode() for info in infos), key=_order, default="0-0")
    async for fields in _pending(links, lane, [info[b"name"].decode() for info in infos], read_by_all):
        yield fields
    async for fields in _behind(links, lane, read_by_all):
        yield fields


async def in_sessions(links: Links, namespace: str) -> AsyncIterator[Fields]:
    """Events of sessions that are open, or are being committed."""
    seen = set[bytes]()
    async for keys in keys_like(links, sessions_pattern(namespace)):
        for key in keys:
            status = await links.execute("HGET", key.removesuffix(b":events"), "status")
            if key not in seen and status in {b"ACTIVE", b"COMMITTING"}:
                seen.add(key)
                async for fields in _collected(links, key):
                    yield fields


async def _collected(links: Links, key: bytes) -> AsyncIterator[Fields]:
    start = 0
    while found := await links.execute("LRANGE", key, start, start + PAGE - 1):
        for packed in found:
            yield unpacked(packed)
        start += len(found)


async def scheduled(links: Links, namespace: str, stream: str) -> AsyncIterator[Fields]:
    """What is kept back, in no order, each once."""
    key, cursor, seen = stream_keys(namespace, stream).scheduled, b"0", set[bytes]()
    while True:
        cursor, entries = await scripts.call(links, scripts.SCHEDULED((key,), cursor, PAGE))
        for fields in map(pairs, entries):
            if fields[b"id"] not in seen:  # HSCAN may return one again while the hash grows
                seen.add(fields[b"id"])
                yield fields
        if cursor == b"0":
            return


async def dead_letters(links: Links, namespace: str, stream: str) -> AsyncGenerator[tuple[str, Fields], None]:
    """STREAM/ID and what stood in the stream, oldest first."""
    after = ""
    while letters := await letters_of.read(links, namespace, stream, after, PAGE):
        for letter in letters:
            yield f"{stream}/{letter.id}", letter.fields
        after = letters[-1].id


async def _pending(links: Links, lane: str, groups: Sequence[str], until: str) -> AsyncIterator[Fields]:
    """Entries up to the id `until` that are pending in any of these groups, each once. `_behind` finds later ones."""
    seen: set[bytes] = set()
    for group in groups:
        start = "-"
        while rows := await links.execute("XPENDING", lane, group, start, until, PAGE):
            fresh = [row[0] for row in rows if row[0] not in seen]
            seen.update(fresh)
            found = await scripts.run_all(links, [("XRANGE", lane, entry_id, entry_id) for entry_id in fresh])
            for entries in found:
                for _, fields in entries:  # none, if something deleted it
                    yield pairs(fields)
            start = f"({rows[-1][0].decode()}"


async def _behind(links: Links, lane: str, start: str) -> AsyncIterator[Fields]:
    while entries := await _page(links, lane, start):
        for _, fields in entries:
            yield pairs(fields)
        start = entries[-1][0].decode()


async def _page(links: Links, lane: str, start: str) -> Reply:
    return await links.execute("XRANGE", lane, f"({start}", "+", "COUNT", PAGE)


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence)
