"""The dead-letter stream of each stream: an entry is the original entry, verbatim, and our fields behind it."""

import re
from datetime import UTC, datetime

from eventbus.codec import Fields, decode, encode, pairs
from eventbus.errors import CodecError
from eventbus.redis import scripts
from eventbus.redis.keys import dead_pattern, stream_keys, stream_of_dead
from eventbus.redis.link import Argument, Link
from eventbus.transport import Dead, DeadLetter, Delivery

_OURS = b"dead."
_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


def fields_of(delivery: Delivery, outcome: Dead) -> tuple[Argument, ...]:
    """Field, value, … of the dead letter; bury.lua adds dead.firstFailedAt."""
    original = (part for pair in delivery.fields.items() for part in pair)
    return (
        *original,
        *("dead.group", delivery.subscription.group, "dead.entry", delivery.entry_id),
        *("dead.attempts", outcome.attempts, "dead.crashes", delivery.crashes),
        *("dead.error", _utf8(outcome.failure.error), "dead.traceback", _utf8(outcome.failure.traceback)),
    )


def _utf8(text: str) -> bytes:
    """Messages may quote what is no UTF-8, such as a file's name: Python holds that as lone surrogates."""
    return text.encode(errors="backslashreplace")


async def read(link: Link, namespace: str, stream: str, after: str, limit: int) -> list[DeadLetter]:
    start = f"({after}" if after else "-"
    entries = await link.execute("XRANGE", stream_keys(namespace, stream).dead, start, "+", "COUNT", limit)
    return [_letter(stream, entry_id.decode(), pairs(fields)) for entry_id, fields in entries]


async def find(link: Link, namespace: str, stream: str, letter_id: str) -> DeadLetter | None:
    if not _ID.fullmatch(letter_id):
        return None
    entries = await link.execute("XRANGE", stream_keys(namespace, stream).dead, letter_id, letter_id)
    return _letter(stream, letter_id, pairs(entries[0][1])) if entries else None


async def streams(link: Link, namespace: str) -> list[str]:
    found: set[str] = set()
    cursor = "0"
    while True:
        cursor, keys = await link.execute("SCAN", cursor, "MATCH", dead_pattern(namespace), "COUNT", 1000)
        found.update(stream_of_dead(namespace, key.decode()) for key in keys)
        if int(cursor) == 0:
            return sorted(found)


async def replay(link: Link, namespace: str, letter: DeadLetter) -> bool:
    if letter.envelope is None:
        raise CodecError(f"dead letter {letter.id} is no envelope: it cannot be replayed")
    keys = stream_keys(namespace, letter.stream)
    envelope = letter.envelope._replace(only=letter.group, replayed=True)
    command = scripts.REPLAY((keys.lane(envelope.priority), keys.dead), letter.id, *encode(envelope))
    return await scripts.call(link, command) is not None


async def discard(link: Link, namespace: str, letter: DeadLetter) -> bool:
    command = scripts.DISCARD((stream_keys(namespace, letter.stream).dead,), letter.id)
    return bool(await scripts.call(link, command))


def _letter(stream: str, letter_id: str, entry: Fields) -> DeadLetter:
    original = {name: value for name, value in entry.items() if not name.startswith(_OURS)}
    ours = {
        name.removeprefix(_OURS).decode(): value.decode() for name, value in entry.items() if name.startswith(_OURS)
    }
    try:
        envelope = decode(original)
    except CodecError:
        envelope = None
    return DeadLetter(
        id=letter_id,
        stream=stream,
        group=ours["group"],
        envelope=envelope,
        fields=original,
        error=ours["error"],
        traceback=ours["traceback"],
        attempts=int(ours["attempts"]),
        crashes=int(ours["crashes"]),
        first_failed_at=_time(ours["firstFailedAt"]),
        died_at=_time(letter_id.partition("-")[0]),
    )


def _time(ms: str) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1000, UTC)
