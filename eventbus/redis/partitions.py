"""Which streams have partitions, as Redis knows it: all processes go by that, whatever they were told when they began.

A hash holds for each such stream 'how many logs' and 'how many before it last grew'. Whoever is told of more than it
says raises it when it connects; nobody lowers it. Every process looks at it every few seconds: until it has seen that a
stream has grown, it stores its events in the old logs and reads no new ones. Nothing is lost by that.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from eventbus.contract.codec import pairs
from eventbus.contract.dedupe import Once
from eventbus.contract.inspection import Finding, Severity
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.partitions import MOST, WHOLE, Division, log_of, logs_of
from eventbus.errors import EventBusError
from eventbus.event import Envelope, stream_of
from eventbus.process.safe_logging import get_logger
from eventbus.redis import scripts
from eventbus.redis.commands import creation
from eventbus.redis.keys import partitions_key, stream_keys
from eventbus.redis.links import Links, Reply

INTERVAL = 2.0  # seconds between looks

log = get_logger("eventbus.redis")


class Partitions:
    """What is known of them. `divisions` is empty as long as no stream has any, and that is quickly seen."""

    def __init__(self, links: Links, namespace: str, wanted: Mapping[str, int]) -> None:
        """`wanted`: how many logs these streams are to have at least."""
        self._links = links
        self._namespace = namespace
        self._key = partitions_key(namespace)
        self._wanted = {stream: count for stream, count in wanted.items() if count > 1}
        self._told: set[tuple[str, bytes]] = set()
        self.divisions: dict[str, Division] = {}

    def log_of(self, envelope: Envelope, once: Once | None) -> str:
        """The log that this event is stored in."""
        return log_of(envelope, once, self.divisions.get(envelope.stream, WHOLE).now)

    def former_log_of(self, item: Outgoing) -> str | None:
        """The log that it was stored in before its stream last grew, if that is another one."""
        division = self.divisions.get(item.envelope.stream)
        if division is None:
            return None
        former = log_of(item.envelope, item.once, division.before)
        return former if former != log_of(item.envelope, item.once, division.now) else None

    def logs(self, stream: str) -> Sequence[str]:
        """All logs of a stream; a log has itself alone."""
        return logs_of(stream, self.divisions.get(stream, WHOLE).now)

    def all_logs(self, streams: Iterable[str]) -> list[str]:
        """All logs of these streams."""
        return [each for stream in streams for each in self.logs(stream)]

    async def declare(self) -> None:
        """Let the streams have as many as is wanted, and see how many there are."""
        await self.look()
        for stream, count in self._wanted.items():
            if count <= len(self.logs(stream)):
                continue
            await self._prepare(stream, count)
            before = await scripts.call(self._links, scripts.DIVIDE((self._key,), stream, count))
            if before < count:
                log.warning("stream divided", stream=stream, partitions=count, before=before)
        await self.look()

    async def _prepare(self, stream: str, count: int) -> None:
        """What is stored in a new log is kept for all groups of the stream, those that nobody works for now included:
        a log is trimmed when the groups that it knows have settled what is in it."""
        groups = await self._links.execute("HKEYS", stream_keys(self._namespace, stream).groups)
        new = logs_of(stream, count)[len(self.logs(stream)) :]
        await scripts.run_all(
            self._links, [creation(self._namespace, each, group.decode()) for each in new for group in groups]
        )

    async def look(self) -> None:
        """See how many there are. What is known never shrinks: logs that have been read are read on. If Redis has lost
        the number, it is told again: whoever starts from now on would not read what is in them."""
        kept = dict[str, int]()
        for stream, told in pairs(await self._links.execute("HGETALL", self._key)).items():
            found = _read(told)
            kept[stream.decode(errors="replace")] = 0 if found is None else found.now
            known = self.divisions.get(name := stream.decode(errors="replace"), WHOLE)
            if found is None:
                self._tell_strange(name, told)
            elif found.now > known.now:
                self.divisions[name] = found
        for name, known in self.divisions.items():
            if kept.get(name, 0) < known.now:
                await scripts.call(self._links, scripts.DIVIDE((self._key,), name, known.now))

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            with suppress(EventBusError):  # it is away: what is known holds
                await self.look()

    def _tell_strange(self, stream: str, told: bytes) -> None:
        if (stream, told) not in self._told:
            self._told.add((stream, told))
            log.error("the number of a stream's partitions cannot be read", key=self._key, stream=stream, value=told)


async def logs_of_streams(links: Links, namespace: str, streams: Collection[str]) -> list[str]:
    """All logs of these streams; a log stands for itself."""
    partitions = Partitions(links, namespace, {})
    await partitions.look()
    return partitions.all_logs(streams)


async def examine(links: Links, namespace: str, logs: Collection[str]) -> list[Finding]:
    """`logs`: those that there are. One beyond the number that Redis keeps was read before, and is not any more."""
    read = set(await logs_of_streams(links, namespace, {stream_of(each) for each in logs}))
    lost = [each for each in logs if each not in read and each.partition(".")[2].isdecimal()]
    if not lost:
        return [Finding("partitions", Severity.OK, "every log is read")]
    counts: dict[str, int] = {}
    for each in lost:
        counts[stream_of(each)] = max(counts.get(stream_of(each), 0), int(each.partition(".")[2]) + 1)
    wanted = ",".join(f"{stream}={count}" for stream, count in sorted(counts.items()))
    told = f"nobody reads {', '.join(sorted(lost))}: {partitions_key(namespace)} says that there are fewer"
    return [Finding("partitions", Severity.ERROR, told, f"start a worker with EVENTBUS_PARTITIONS={wanted}")]


def _read(told: Reply) -> Division | None:
    parts = told.split()
    if len(parts) != len(WHOLE) or not all(part.isdigit() and 1 <= int(part[:9]) <= MOST for part in parts):
        return None
    return Division(*map(int, parts))
