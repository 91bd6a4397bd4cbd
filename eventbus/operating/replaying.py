"""Events of the store sent again, to one group.

Each goes into its stream as a new entry, addressed to the group and marked as replayed, with the id that it had: the
inbox knows it, and an effect that a `ctx.transaction()` has committed is not repeated, however often this is done. With
new ids the effect is repeated: the copies are other events, each caused by the one that it is a copy of.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from eventbus.contract.broker import Broker
from eventbus.contract.history import Selection
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.replays import Replay, Replays, Source
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.event import Envelope, stream_of, uuid7
from eventbus.operating.control import whoami
from eventbus.process.safe_logging import get_logger

PAGE = 200  # events that are read at a time, and written in one go; each may be a megabyte
STEPS = 10  # writes a second, with a rate
NOTED_EVERY = 1.0  # seconds between notes of how far it has got

log = get_logger("eventbus.replay")


class NoSuchGroup(EventBusError):
    """The group does not read what it is to be sent."""


@dataclass(slots=True)
class Replayed:
    """What became of a replay. `matched`: wanted events, by type. `forgotten`: how many of these are left out, since
    the inbox no longer knows whether their effects are there. `done`: how many were sent; `last`: the last one's id."""

    group: str
    matched: Mapping[str, int]
    forgotten: int
    done: int = 0
    last: str | None = None

    @property
    def total(self) -> int:
        """How many are to be sent."""
        return sum(self.matched.values()) - self.forgotten


class Replaying:
    """One replay: `plan` it, look at `result`, then `run` it.

    new_ids    send copies, whose effects come on top of those that there are
    forgotten  send also what is older than the inbox remembers: its effects may come a second time
    """

    def __init__(
        self,
        transport: Broker,
        replays: Replays,
        group: str,
        wanted: Selection,
        *,
        new_ids: bool = False,
        forgotten: bool = False,
    ) -> None:
        self._transport = transport
        self._replays = replays
        # Events that are made from now on are left out: with new ids, the replay would send its own copies again, and
        # never end. The time is cut to the millisecond, as the times in ids are.
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self._wanted = replace(wanted, until=min(wanted.until or now, now))
        self._new_ids = new_ids
        self._all = forgotten or new_ids
        self.result = Replayed(group, {}, 0)

    async def plan(self) -> Replayed:
        """Count the events. Raises NoSuchGroup if the group reads none of them, ValueError for an id that no event can
        have."""
        group = self.result.group
        streams = await self._streams(group)
        _check_read({stream_of(name) for name in self._wanted.types}, group, streams)
        if not (self._wanted.types or self._wanted.ids):  # then all that the group reads is wanted
            self._wanted = replace(self._wanted, types=sorted(f"{stream}.*" for stream in streams))
        counted = await self._replays.count(self._wanted, group, copies=not self._new_ids)
        if self._wanted.ids:
            _check_read({stream_of(found.type) for found in counted}, group, streams)
        forgotten = 0 if self._all else sum(found.forgotten for found in counted)
        self.result = Replayed(group, {found.type: found.total for found in counted}, forgotten)
        return self.result

    async def run(self, *, why: str, by: str = "", rate: float | None = None) -> Replayed:
        """Send what was planned, at most `rate` a second. Before that, the replay is put on record, with `why` and
        `by`.

        Raises Unavailable, Full: then `result` says how far it got, but for a last write whose fate is not known. With
        `after` in its selection, another replay goes on from there; with the original ids, beginning anew does no harm
        either."""
        if not why.strip():
            raise ConfigurationError("a replay needs a reason, for those who come after: why=…")
        if rate is not None and rate <= 0:
            raise ConfigurationError(f"a rate of {rate} a second would take for ever")
        result = self.result
        record = Replay(
            id=uuid7(),
            began_at=datetime.now(UTC),
            by=by or whoami(),
            why=why,
            source=Source.HISTORY,
            group=result.group,
            filter=described(self._wanted),
            new_ids=self._new_ids,
            matched=result.total,
        )
        await self._replays.keep(record)
        try:
            await self._send(record, rate)
        except BaseException:
            await self._conclude(replace(record, replayed=result.done, last=result.last))
            raise
        await self._conclude(replace(record, replayed=result.done, last=result.last, ended_at=datetime.now(UTC)))
        return result

    async def _send(self, record: Replay, rate: float | None) -> None:
        loop, result = asyncio.get_running_loop(), self.result
        began = noted = loop.time()
        size = PAGE if rate is None else max(1, min(PAGE, int(rate / STEPS)))
        async for envelopes in self._pages(size):
            if rate is not None and (wait := began + result.done / rate - loop.time()) > 0:
                await asyncio.sleep(wait)
            # Never `again`: that would find the first entry of the event, and store nothing.
            await self._transport.append([Outgoing(self._copy(envelope)) for envelope in envelopes])
            result.done += len(envelopes)
            result.last = envelopes[-1].id
            if loop.time() - noted >= NOTED_EVERY:
                noted = loop.time()
                await self._replays.keep(replace(record, replayed=result.done, last=result.last))

    async def _pages(self, size: int) -> AsyncIterator[list[Envelope]]:
        group, wanted = self.result.group, self._wanted
        copies = not self._new_ids  # a copy of a copy would be the third of its kind
        while page := await self._replays.page(wanted, group, copies=copies, forgotten=self._all, limit=PAGE):
            meant = [envelope for envelope in page if _is_meant(envelope, wanted)]
            for start in range(0, len(meant), size):
                yield meant[start : start + size]
            wanted = replace(wanted, after=page[-1].id)

    def _copy(self, envelope: Envelope) -> Envelope:
        copy = envelope._replace(only=self.result.group, replayed=True)
        if not self._new_ids:
            return copy
        return copy._replace(id=uuid7(), correlation_id=envelope.correlation, causation_id=envelope.id)

    async def _conclude(self, record: Replay) -> None:
        try:
            await self._replays.keep(record)
        except EventBusError as error:
            log.warning("the end of the replay is not on record", replay_id=record.id, reason=str(error))

    async def _streams(self, group: str) -> set[str]:
        """The streams that the group reads. Raises NoSuchGroup if there are none."""
        states = await self._transport.inspect(await self._transport.find_streams())
        known = {found.name for state in states for found in state.groups}
        if group not in known:
            told = f"there are {', '.join(sorted(known))}" if known else "there is none at all"
            raise NoSuchGroup(f"no stream knows a group {group!r}; {told}: see `eventbus status`")
        return {state.name for state in states for found in state.groups if found.name == group}


async def replay(replaying: Replaying, *, why: str, by: str, rate: float | None, dry_run: bool) -> Replayed:
    """Plan a replay and run it, with a line in the log; with `dry_run`, only plan it."""
    result = await replaying.plan()
    if dry_run:
        return result
    told = {"group": result.group, "of": result.total, "why": why, "by": by or whoami()}
    try:
        await replaying.run(why=why, by=by, rate=rate)
    except BaseException:
        log.warning("replay cut short", replayed=result.done, last=result.last, **told)
        raise
    log.info("replayed", replayed=result.done, last=result.last, **told)
    return result


def described(wanted: Selection) -> dict[str, object]:
    """A selection for the record: what was asked for, and nothing that was not."""
    asked: dict[str, object] = {}
    for name in wanted.__slots__:
        value = getattr(wanted, name)
        if isinstance(value, datetime):
            asked[name] = value.isoformat()
        elif value:
            asked[name] = value if isinstance(value, str) else list(value)
    return asked


def _is_meant(envelope: Envelope, wanted: Selection) -> bool:
    """Whether an event that was found by its columns is wanted: they hold only the beginning of what is very long."""
    return (
        wanted.organization in {None, envelope.organization}
        and wanted.subject in {None, envelope.subject}
        and wanted.correlation_id in {None, envelope.correlation}
    )


def _check_read(wanted: set[str], group: str, streams: set[str]) -> None:
    if unread := sorted(wanted - streams):
        raise NoSuchGroup(
            f"group {group!r} does not read {', '.join(unread)}: nobody would ever take what is sent there. "
            f"It reads {', '.join(sorted(streams))}"
        )
