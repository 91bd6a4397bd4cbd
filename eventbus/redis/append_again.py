"""Appending events that may be there already: a look through the newest entries, then an append of those not found.

The look takes several commands, so that the server has time for others in between. Entries that come in meanwhile are
looked at by the script that appends; if they are too many, by another look. So no entry comes in unseen between the
last look and the append.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from eventbus.contract.codec import encode
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import EventBusError, Full, Unavailable
from eventbus.event import Envelope
from eventbus.redis import scripts
from eventbus.redis.commands import command, due
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from eventbus.redis.look_back import age, look, look_since
from eventbus.redis.shared_look import Lane, Placed, Repeats, Wait

PART, PART_BYTES = 500, 2**20  # events, and about how many bytes of them, that one script appends
SINCE, SINCE_BYTES = 500, 2**19  # entries, and bytes of them, that may come in between a look and the append

_OF_THE_PLACE = ("NOPERM", "WRONGTYPE")  # refusals that every item of a lane would meet


class Repeating:
    """What RedisTransport.append does with `again`."""

    def __init__(self, links: Links, namespace: str) -> None:
        self._links = links
        self._namespace = namespace
        self._plain = Repeats(self._append_missing)
        self._keyed = Repeats(self._find)

    async def append(self, placed: Sequence[Placed]) -> list[Wait]:
        """For each: ms until it is due (0: it is stored), -1 for a duplicate, or its error. Raises Unavailable."""
        plain = iter(await self._plain.append([each for each in placed if each[1].once is None]))
        keyed = iter(await self._append_keyed([each for each in placed if each[1].once is not None]))
        return [next(plain) if item.once is None else next(keyed) for _, item in placed]

    async def find(self, placed: Sequence[Placed]) -> list[Wait]:
        """For each: ms until it is due (0: it is stored), -1 if it is not there, or an error. Raises Unavailable."""
        return await self._keyed.append(placed)

    # Without a dedupe key ---------------------------------------------------------------------------------------------

    async def _append_missing(self, lane: Lane, outgoing: list[Outgoing]) -> list[Wait]:
        items = {item.envelope.id: item for item in outgoing}
        looked = await look(self._links, self._lane(lane), items, age(_envelopes(outgoing)))
        waits: dict[str, Wait] = dict.fromkeys(looked.found, -1)
        newest = looked.newest
        try:
            for part in _parts([item for event_id, item in items.items() if event_id not in looked.found]):
                newest = await self._append_part(lane, part, newest, waits)
        except Unavailable as error:  # the events behind it are not tried: they would overtake
            for event_id in items:
                waits.setdefault(event_id, error)
        return [waits[item.envelope.id] for item in outgoing]

    async def _append_part(self, lane: Lane, part: list[Outgoing], newest: str, waits: dict[str, Wait]) -> str:
        """Fills in `waits`, and returns the newest entry's id. An event that is refused for a fault of its own does not
        keep the others from being appended."""
        patience = SINCE
        while part:
            try:
                reply = await self._try(lane, part, newest, patience)
            except Unavailable:
                raise
            except EventBusError as error:
                if len(part) == 1 or isinstance(error, Full) or str(error).startswith(_OF_THE_PLACE):
                    waits.update((item.envelope.id, error) for item in part)
                    return newest
                half = len(part) // 2
                newest = await self._append_part(lane, part[:half], newest, waits)
                return await self._append_part(lane, part[half:], newest, waits)
            if reply:
                top, *found = reply
                waits.update(zip((item.envelope.id for item in part), found, strict=True))
                return top.decode() or newest
            looked = await look_since(self._links, self._lane(lane), [item.envelope.id for item in part], newest)
            waits.update(dict.fromkeys(looked.found, -1))
            part = [item for item in part if item.envelope.id not in looked.found]
            newest, patience = looked.newest, patience * 2  # so that it ends, however much comes in
        return newest

    async def _try(self, lane: Lane, part: list[Outgoing], newest: str, patience: int) -> list[Any]:
        log, priority = lane
        keys = stream_keys(self._namespace, log)
        fields = [value for item in part for value in (*due(item), *encode(item.envelope))]
        where = (keys.lane(priority), keys.due, keys.scheduled, keys.counts)
        since = (newest, patience, SINCE_BYTES * patience // SINCE)
        reply: list[Any] = await scripts.call(self._links, scripts.APPEND_AGAIN(where, *since, priority, *fields))
        return reply

    # With a dedupe key ------------------------------------------------------------------------------------------------

    async def _append_keyed(self, placed: Sequence[Placed]) -> list[Wait]:
        """An event that is there was stored by an earlier try, though its key may have expired since then."""
        found = await self.find(placed)
        missing = [each for each, wait in zip(placed, found, strict=True) if wait == -1]
        commands = [command(self._namespace, item, log) for log, item in missing]
        appended = iter(await scripts.each(self._links, commands))
        return [next(appended) if wait == -1 else wait for wait in found]

    async def _find(self, lane: Lane, outgoing: list[Outgoing]) -> list[Wait]:
        """For each: ms until it is due, 0 if it is stored, -1 if it is neither. The schedule comes first: an event that
        is promoted meanwhile is seen in the lane."""
        ids = [item.envelope.id for item in outgoing]
        keys = stream_keys(self._namespace, lane[0])
        scheduled: list[int] = await scripts.call(self._links, scripts.DUE((keys.due,), *ids))
        others = [event_id for event_id, wait in zip(ids, scheduled, strict=True) if wait < 0]
        stored = (await look(self._links, self._lane(lane), others, age(_envelopes(outgoing)))).found
        return [0 if event_id in stored else wait for event_id, wait in zip(ids, scheduled, strict=True)]

    def _lane(self, lane: Lane) -> str:
        log, priority = lane
        return stream_keys(self._namespace, log).lane(priority)


def _envelopes(outgoing: Sequence[Outgoing]) -> list[Envelope]:
    return [item.envelope for item in outgoing]


def _parts(outgoing: list[Outgoing]) -> Iterator[list[Outgoing]]:
    """In order, each as large as one script should take."""
    part, size = list[Outgoing](), 0
    for item in outgoing:
        if part and (len(part) == PART or size + len(item.envelope.data) > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item.envelope.data)
    if part:
        yield part
