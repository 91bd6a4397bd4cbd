"""The events of one request (of a correlation id), as far as a quick look at Redis finds them."""

from collections.abc import Collection

import orjson

from eventbus.contract.codec import decode, pairs
from eventbus.contract.inspection import Related
from eventbus.errors import CodecError
from eventbus.redis import scripts
from eventbus.redis.inspection import find_logs
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links

NEWEST = 200  # entries of each lane that are looked at: the server does nothing else meanwhile
FIRST = 1_000  # scheduled events that are looked at, the first due of each stream
LEAN = 16_384  # bytes of data; an event that has more is told without its data


async def related(
    links: Links, namespace: str, correlation_id: str, streams: Collection[str] | None = None
) -> list[Related]:
    names = await find_logs(links, namespace, streams)
    attribute = f'"correlationId":{orjson.dumps(correlation_id).decode()}'
    found: list[Related] = []
    for name in names:  # one after the other: others have their turn in between
        keys = stream_keys(namespace, name)
        command = scripts.RELATED(
            (*keys.lanes, keys.due, keys.scheduled), correlation_id, attribute, NEWEST, FIRST, LEAN
        )
        for wait, fields in await scripts.call(links, command):
            try:
                envelope = decode(pairs(fields))
            except CodecError:
                continue
            if envelope.correlation == correlation_id:  # the script may have found the same text in other metadata
                found.append(Related(envelope, None if wait < 0 else wait / 1000))
    return found
