"""Looking for events among the newest entries of a lane, in pages.

The server reads entries whole: if they are large, one look at many of them would keep it from everybody else for
seconds. So a page is bounded in entries and in bytes, and the whole look as well.
"""

import time
from collections.abc import Collection, Iterable
from typing import NamedTuple

from eventbus.event import Envelope, unix_ms
from eventbus.redis import scripts
from eventbus.redis.links import Links

LOOK_BACK, LOOK_BACK_BYTES = 20_000, 128 * 2**20  # entries, and bytes of them, that a look goes through at the most
PAGE, PAGE_BYTES = 1_000, 2**19  # how many of these one command looks at: it takes some milliseconds
MARGIN = 60_000  # ms that a look goes further back than an event is old: its publisher's clock may be fast


class Looked(NamedTuple):
    """`found`: ids of events that are there. `newest`: the id of the newest entry that was looked at, '' for none."""

    found: set[str]
    newest: str


async def look(links: Links, lane: str, ids: Collection[str], age: int) -> Looked:
    """Looks for these events among entries that are at most `age` ms old, but not at entries that come in meanwhile.

    Raises Unavailable, or what the server refuses the look with."""
    return await _look(links, lane, ids, age)


async def look_since(links: Links, lane: str, ids: Collection[str], newest: str) -> Looked:
    """As `look`, among the entries behind the one with the id `newest`; among all entries, if that is ''."""
    looked = await _look(links, lane, ids, f"({newest or '0-0'}")
    return looked._replace(newest=looked.newest or newest)


async def _look(links: Links, lane: str, ids: Collection[str], to: int | str) -> Looked:
    missing, found, newest = list(ids), set[str](), ""
    begin, entries, size = "+", 0, 0
    while missing and begin and entries < LOOK_BACK and size < LOOK_BACK_BYTES:
        page = min(PAGE, LOOK_BACK - entries)
        reply = await scripts.call(links, scripts.LOOK((lane,), begin, to, page, PAGE_BYTES, *missing))
        begin, count, bytes_, top, places = reply
        begin, entries, size, newest = begin.decode(), entries + count, size + bytes_, newest or top.decode()
        here = {missing[place - 1] for place in places}
        found |= here
        missing = [event_id for event_id in missing if event_id not in here]
    return Looked(found, newest)


def age(envelopes: Iterable[Envelope]) -> int:
    """ms: none of them can have been stored longer ago. An age and no time, because the server's clock may differ."""
    # An id from the future tells about how far the publisher's clock and ours are apart: look back as far as that.
    now = time.time_ns() // 1_000_000
    return max((abs(now - unix_ms(envelope.id)) for envelope in envelopes), default=0) + MARGIN
