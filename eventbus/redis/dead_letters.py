"""The dead-letter stream of each stream: an entry is the original entry, verbatim, and our fields behind it."""

import re
from datetime import UTC, datetime

from eventbus.contract.codec import Fields, decode, encode, pairs
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.delivery import Dead, Delivery
from eventbus.errors import CodecError
from eventbus.redis import scripts
from eventbus.redis.keys import dead_pattern, stream_keys, stream_of_dead
from eventbus.redis.links import Argument, Links
from eventbus.redis.scanning import keys_like

MOST_FIELDS = 1_000  # of a foreign entry that are kept; Lua unpacks at most some 8,000 values
MOST_BYTES = 16 * 2**20  # of an entry that are kept; far more than an event may have
REST_BYTES = 64 * 2**10  # that are kept of all fields beyond these two bounds

_OURS = b"dead."
_REST = b"dead.rest"
_DIGITS = 15  # that a number may have; a longer one is taken for unknown
_LAST_MS = 253_402_300_799_000  # the end of the year 9999
_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


def fields_of(delivery: Delivery, outcome: Dead) -> tuple[Argument, ...]:
    """Field, value, … of the dead letter; bury.lua adds dead.firstFailedAt.

    An event of ours is kept whole. A foreign entry may have more fields, or more bytes, than a script can take. Then
    its first fields are kept, and of all the others the beginning, as one value (dead.rest); the error says so."""
    original, rest, note = _bounded(delivery.fields)
    return (
        *original,
        *(("dead.rest", rest) if note else ()),
        *("dead.group", delivery.subscription.group, "dead.entry", delivery.entry_id),
        *("dead.attempts", outcome.attempts, "dead.crashes", delivery.crashes),
        *("dead.error", _utf8(outcome.failure.error + note), "dead.traceback", _utf8(outcome.failure.traceback)),
    )


def _bounded(fields: Fields) -> tuple[list[bytes], bytes, str]:
    """(field, value, … that are kept as they are; what is kept of the rest; a note on that, '' if there is no rest)."""
    sizes = [len(name) + len(value) for name, value in fields.items()]
    if len(sizes) <= MOST_FIELDS and sum(sizes) <= MOST_BYTES:
        return [part for pair in fields.items() for part in pair], b"", ""
    kept: list[bytes] = []
    rest: list[bytes] = []
    size = rest_size = 0
    for name, value in fields.items():
        size += len(name) + len(value)
        if not rest and len(kept) < 2 * MOST_FIELDS and size <= MOST_BYTES:
            kept += (name, value)
        elif rest_size < REST_BYTES:
            rest.append(name[:REST_BYTES] + b"=" + value[:REST_BYTES])
            rest_size += len(rest[-1])
    note = (
        f" [kept in part: {len(kept) // 2} of {len(sizes)} fields, which have {sum(sizes)} bytes; "
        "what follows begins in dead.rest, and the whole is in the stream until it is trimmed]"
    )
    return kept, b"\n".join(rest)[:REST_BYTES], note


def _utf8(text: str) -> bytes:
    """Messages may quote what is no UTF-8, such as a file's name: Python holds that as lone surrogates."""
    return text.encode(errors="backslashreplace")


async def read(links: Links, namespace: str, stream: str, after: str, limit: int) -> list[DeadLetter]:
    start = f"({after}" if after else "-"
    entries = await links.execute("XRANGE", stream_keys(namespace, stream).dead, start, "+", "COUNT", limit)
    return [_letter(stream, entry_id.decode(), pairs(fields)) for entry_id, fields in entries]


async def find(links: Links, namespace: str, stream: str, letter_id: str) -> DeadLetter | None:
    if not _ID.fullmatch(letter_id):
        return None
    entries = await links.execute("XRANGE", stream_keys(namespace, stream).dead, letter_id, letter_id)
    return _letter(stream, letter_id, pairs(entries[0][1])) if entries else None


async def streams(links: Links, namespace: str) -> list[str]:
    pages = keys_like(links, dead_pattern(namespace))
    return sorted({stream_of_dead(namespace, key.decode()) async for keys in pages for key in keys})


async def replay(links: Links, namespace: str, letter: DeadLetter) -> bool:
    if letter.envelope is None:
        raise CodecError(f"dead letter {letter.id} is no envelope: it cannot be replayed")
    keys = stream_keys(namespace, letter.stream)
    envelope = letter.envelope._replace(only=letter.group or None, replayed=True)
    where = (keys.lane(envelope.priority), keys.dead, keys.counts)
    command = scripts.REPLAY(where, letter.id, letter.group, *encode(envelope))
    return await scripts.call(links, command) is not None


async def discard(links: Links, namespace: str, letter: DeadLetter) -> bool:
    keys = stream_keys(namespace, letter.stream)
    command = scripts.DISCARD((keys.dead, keys.counts), letter.id, letter.group)
    return bool(await scripts.call(links, command))


def _letter(stream: str, letter_id: str, entry: Fields) -> DeadLetter:
    """Reads whatever stands in the dead-letter stream: somebody may have added an entry by hand."""
    original = {name: value for name, value in entry.items() if not name.startswith(_OURS) or name == _REST}
    try:
        envelope = decode(original)
    except CodecError:
        envelope = None
    died_at = letter_id.partition("-")[0]
    return DeadLetter(
        id=letter_id,
        stream=stream,
        group=_text(entry, "group"),
        envelope=envelope,
        fields=original,
        error=_text(entry, "error"),
        traceback=_text(entry, "traceback"),
        attempts=_number(entry, "attempts", 0),
        crashes=_number(entry, "crashes", 0),
        first_failed_at=_time(_number(entry, "firstFailedAt", int(died_at))),
        died_at=_time(int(died_at)),
    )


def _text(entry: Fields, name: str) -> str:
    return entry.get(_OURS + name.encode(), b"").decode(errors="backslashreplace")


def _number(entry: Fields, name: str, unknown: int) -> int:
    value = entry.get(_OURS + name.encode(), b"")
    return int(value) if value.isdigit() and len(value) <= _DIGITS else unknown


def _time(ms: int) -> datetime:
    """At most the end of the year 9999, where Python's calendar ends: an id may be dated beyond it."""
    return datetime.fromtimestamp(min(ms, _LAST_MS) / 1000, UTC)
