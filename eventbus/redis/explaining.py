"""Where an event is, and what every group has made of it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import product

from eventbus.contract.codec import Fields, decode, pairs
from eventbus.contract.delivery import SUSPECT_FROM
from eventbus.contract.inspection import AHEAD_LIMIT, EventStanding, GroupStanding, Standing
from eventbus.contract.limiting import member_of
from eventbus.errors import CodecError
from eventbus.event import Envelope, unix_ms
from eventbus.redis import scripts
from eventbus.redis.inspection import find_logs
from eventbus.redis.keys import PARKED, QUEUED, entry_name, group_keys, priority_of, stream_keys
from eventbus.redis.limiting import in_lines
from eventbus.redis.links import Command, Links, Reply, ReplyError
from eventbus.redis.reading import count_of, failure_count, first_failure

LOOK = 2_000  # entries a look: the server does nothing else meanwhile
MARGIN = 60_000  # ms by which the clock of the event's publisher may have been fast
NOW = ("TIME",)


async def explain(links: Links, namespace: str, event_id: str, streams: Collection[str] | None = None) -> EventStanding:
    """Looks at the schedules, then through the logs from the time in the event's id on. If it is not found, looks
    through the whole logs: the publisher's clock may have been wrong. event_id must be a UUIDv7."""
    logs = await find_logs(links, namespace, streams)
    for stream in logs:
        due, time = await scripts.run_all(links, [("ZSCORE", stream_keys(namespace, stream).due, event_id), NOW])
        if due is not None:
            return EventStanding(event_id, stream, scheduled=max(0.0, (float(due) - _ms(time)) / 1000))
    since = str(max(0, unix_ms(event_id) - MARGIN))
    for start, stream in product((since, "-"), logs):
        standing = await _Log(links, namespace, stream).explain(event_id, start)
        if standing is not None:
            return standing
    return EventStanding(event_id)


async def pending(links: Links, namespace: str, stream: str, group: str, entry: str) -> GroupStanding | None:
    """How an entry stands that was given to the group and is not settled; None if there is none."""
    lane, keys = stream_keys(namespace, stream).lane(priority_of(entry)), group_keys(namespace, stream, group)
    entry_id = entry.partition("@")[0]
    commands: list[Command] = [
        ("XPENDING", lane, group, entry_id, entry_id, 1),
        ("ZSCORE", keys.retry, entry),
        ("HGET", keys.failures, entry),
        ("HGET", keys.crashes, entry),
        NOW,
    ]
    replies = await scripts.run(links, commands)
    if isinstance(replies[0], ReplyError) and str(replies[0]).startswith("NOGROUP"):
        return None
    held, due, failed, crashed, time = scripts.checked(replies)
    if not held:
        return None
    now, crashes = _ms(time), count_of(crashed)
    failures, first = failure_count(failed), first_failure(failed)
    _, consumer, idle, _ = held[0]
    if consumer.decode() == QUEUED:
        return GroupStanding(group, entry, Standing.WAITING)
    resting = consumer.decode() == PARKED
    return GroupStanding(
        group,
        entry,
        Standing.RESTING if resting else Standing.RUNNING,
        consumer=None if resting else consumer.decode(),
        seconds=None if resting else idle / 1000,
        due=(float(due) - now) / 1000 if resting and due is not None else None,
        failures=failures,
        first_failed=None if first is None else (now - first) / 1000,
        crashes=crashes,
        suspect=crashes >= SUSPECT_FROM,
    )


async def _find(links: Links, log: str, event_id: str, start: str) -> list[tuple[str, Fields]]:
    found: list[tuple[str, Fields]] = []
    while start:
        following, entries = await scripts.call(links, scripts.FIND((log,), event_id, start, LOOK))
        start = following.decode()
        found += [(entry_id.decode(), pairs(fields)) for entry_id, fields in entries]
    return found


class _Log:
    """One stream, with all its lanes."""

    def __init__(self, links: Links, namespace: str, stream: str) -> None:
        self._links = links
        self._namespace = namespace
        self._stream = stream

    async def explain(self, event_id: str, start: str) -> EventStanding | None:
        """None if the event is not in this stream, from the id `start` on."""
        entries = [
            (lane, entry_id, fields)
            for lane in stream_keys(self._namespace, self._stream).lanes
            for entry_id, fields in await _find(self._links, lane, event_id, start)
        ]
        letters = await _find(self._links, stream_keys(self._namespace, self._stream).dead, event_id, start)
        if not entries and not letters:
            return None
        envelope = _envelope([*(fields for _, _, fields in entries), *(fields for _, fields in letters)])
        dead = [_dead(self._stream, letter_id, fields) for letter_id, fields in letters]
        graves = {(letter.group, letter.entry) for letter in dead}
        replays = {
            only: order for order, only in sorted((_order(entry), _only(fields)) for _, entry, fields in entries)
        }
        living = [_unless_replayed(standing, replays) for entry in entries for standing in await self._groups(*entry)]
        told = [*dead, *(standing for standing in living if (standing.group, standing.entry) not in graves)]
        return EventStanding(
            event_id,
            self._stream,
            type=envelope.type if envelope else None,
            subject=envelope.subject if envelope else None,
            priority=envelope.priority if envelope else None,
            groups=tuple(sorted(told, key=lambda standing: (standing.group, standing.entry))),
            envelope=envelope,
        )

    async def _groups(self, lane: str, entry_id: str, fields: Fields) -> list[GroupStanding]:
        infos = [pairs(flat) for flat in await self._links.execute("XINFO", "GROUPS", lane)]
        envelope, name, told = _envelope([fields]), entry_name(lane, entry_id), []
        for info in infos:
            group = info[b"name"].decode()
            if envelope is not None and envelope.only not in {None, group}:
                told.append(GroupStanding(group, name, Standing.PASSED))
            elif _order(entry_id) > _order(last := info[b"last-delivered-id"].decode()):
                between = await scripts.call(self._links, scripts.BETWEEN((lane,), last, entry_id, AHEAD_LIMIT))
                told.append(GroupStanding(group, name, Standing.WAITING, ahead=between))
            else:
                told.append(await self._delivered(lane, entry_id, group))
        return told

    async def _delivered(self, lane: str, entry_id: str, group: str) -> GroupStanding:
        name = entry_name(lane, entry_id)
        found = await pending(self._links, self._namespace, self._stream, group, name)
        if found is None or found.standing is not Standing.RESTING:
            return found or GroupStanding(group, name, Standing.DONE)
        lines = await in_lines(self._links, self._namespace, group, member_of(self._stream, name))
        return replace(found, lines=tuple(lines))


def _unless_replayed(standing: GroupStanding, replays: Mapping[str, tuple[int, int]]) -> GroupStanding:
    """`replays`: by group, the last entry that is addressed to it. An earlier entry that is settled is taken to have
    died: it is not DONE but REPLAYED."""
    last = replays.get(standing.group, (0, 0))
    if standing.standing is Standing.DONE and _order(standing.entry.partition("@")[0]) < last:
        return replace(standing, standing=Standing.REPLAYED)
    return standing


def _only(fields: Fields) -> str:
    envelope = _envelope([fields])
    return (envelope and envelope.only) or ""


def _dead(stream: str, letter_id: str, fields: Fields) -> GroupStanding:
    return GroupStanding(
        fields.get(b"dead.group", b"").decode(errors="replace"),
        fields.get(b"dead.entry", b"").decode(errors="replace"),
        Standing.DEAD,
        failures=count_of(fields.get(b"dead.attempts")),
        crashes=count_of(fields.get(b"dead.crashes")),
        letter=f"{stream}/{letter_id}",
        error=fields.get(b"dead.error", b"").decode(errors="replace"),
    )


def _envelope(candidates: Iterable[Fields]) -> Envelope | None:
    """The first that can be read."""
    for fields in candidates:
        try:
            return decode(fields)
        except CodecError:
            continue
    return None


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence)


def _ms(time: Reply) -> int:
    return int(time[0]) * 1000 + int(time[1]) // 1000
