"""What `eventbus doctor` makes of streams, groups and the database."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING

from eventbus.cli.durations import spoken
from eventbus.cli.status import alive
from eventbus.contract.inspection import Finding, GroupState, OutboxStanding, Severity, StreamState
from eventbus.errors import EventBusError, Unavailable
from eventbus.operating.control import Pause
from eventbus.publishing.spool import SPOOL_BYTES, SpoolFile
from eventbus.settings import Settings

if TYPE_CHECKING:
    from eventbus.postgres import Lacking

LATE = 60.0  # seconds that an event may wait for a group that is at work
STUCK = 3_600.0  # seconds for which an event may be unsettled
GROWTH = 100  # entries by which a backlog may grow between two looks
AWAY = "postgresql is away"  # the name of that check
FIRST = 3  # rows set aside that are named
OUTBOX_LATE = 10.0  # seconds that a row of the outbox may wait

_START = "start one: eventbus worker --group {group}"


def examine(
    before: Sequence[StreamState], now: Sequence[StreamState], pauses: Mapping[str, Pause] = MappingProxyType({})
) -> Iterator[Finding]:
    """What two looks at the same streams, a moment apart, tell."""
    earlier = {(stream.name, group.name): group for stream in before for group in stream.groups}
    for stream in now:
        if stream.length and not stream.groups:
            yield _odd(
                "groups", f"no group reads stream {stream.name} ({stream.length} entries)", _START.format(group="…")
            )
        for group in stream.groups:
            if pause := pauses.get(group.name):
                told = f"{group.name} is paused, by {pause.by}" + (f": {pause.reason}" if pause.reason else "")
                yield _odd("pause", told, f"when it may go on: eventbus groups resume {group.name}")
            yield from _group(stream.name, group, earlier.get((stream.name, group.name)))
    dead = {stream.name: stream.dead for stream in now if stream.dead}
    if dead:
        told = ", ".join(f"{count} in {name}" for name, count in dead.items())
        yield _odd("dead letters", told, "see why: eventbus dead list; then: eventbus dead replay, or discard")
    else:
        yield Finding("dead letters", Severity.OK, "none")


def _group(stream: str, group: GroupState, earlier: GroupState | None) -> Iterator[Finding]:
    where = f"{group.name} on {stream}"
    if not alive(group):
        waiting = group.backlog + group.pending
        severity = Severity.ERROR if waiting else Severity.WARNING
        yield Finding(
            "workers", severity, f"no worker runs {where}: {waiting} events wait", _START.format(group=group.name)
        )
        return
    yield from _orphans(where, group)
    grown = group.backlog - earlier.backlog if earlier else 0
    if grown > GROWTH:
        yield _odd("lag", f"{where} falls behind: {grown} more wait than a moment ago", "run more workers of it")
    elif group.oldest_undelivered is not None and group.oldest_undelivered > LATE:
        told = f"{where}: the oldest of {group.backlog} has waited for {spoken(group.oldest_undelivered)}"
        yield _odd("lag", told, "run more workers, or raise its concurrency; is it paused or limited?")
    else:
        yield Finding("lag", Severity.OK, f"{where}: {'unknown' if group.lag is None else group.lag}")
    if group.oldest_unacked is not None and group.oldest_unacked > STUCK:
        told = f"{where}: one of {group.pending} has been unsettled for {spoken(group.oldest_unacked)}"
        yield _odd("pending", told, "what fails is in the log of its workers; it pins what the stream keeps")
    if earlier and group.pending - earlier.pending > GROWTH:
        yield _odd(
            "pending", f"{where}: grows, by {group.pending - earlier.pending} in a moment", "what fails so often?"
        )


def _orphans(where: str, group: GroupState) -> Iterator[Finding]:
    lost = [consumer for consumer in group.consumers if consumer not in alive(group) and consumer.pending]
    if lost:
        told = f"{where}: {sum(c.pending for c in lost)} events in the hands of {len(lost)} consumers that are silent"
        yield _odd("orphans", told, "live workers take them over when a lease has run out: are they of this version?")


def examine_spool(settings: Settings) -> Iterator[Finding]:
    """The spool of this machine, if there is one."""
    if settings.spool_path is None or not settings.spool_path.parent.is_dir():
        return
    try:
        file = SpoolFile(settings.spool_path, SPOOL_BYTES)
        found, reasons = file.status(), file.aside.reasons()
    except OSError as error:
        yield _bad("spool", f"{settings.spool_path} cannot be read: {error}", "is it this user's?")
        return
    if found.rejected:
        reason = next(iter(reasons))
        told = f"{found.rejected} lines of {found.path} were set aside, most of them for: {reason}"
        remedy = "see eventbus spool status; once the cause is gone: eventbus spool replay --rejected"
        yield _bad("spool", told, remedy)
    if found.records:
        told = f"{found.records} wait in {found.path}, the oldest since {found.oldest}"
        yield _odd("spool", told, "a gateway or worker with this spool replays it; or by hand: eventbus spool replay")
    if not found.rejected and not found.records:
        yield Finding("spool", Severity.OK, "nothing waits")


async def examine_database(settings: Settings) -> list[Finding]:
    """Reachable, migrated, and relayed."""
    if settings.database_url is None:
        return [Finding("postgresql", Severity.OK, "not configured: no outbox, no inbox")]
    if not find_spec("asyncpg"):
        return [_bad("postgresql", "configured, but asyncpg is not installed", "pip install 'eventbus[postgres]'")]
    try:
        return await _database(settings.database_url)
    except Unavailable as error:
        return [_bad(AWAY, str(error), "check EVENTBUS_DATABASE_URL and the server")]
    except EventBusError as error:
        return [_bad("postgresql", str(error), "check EVENTBUS_DATABASE_URL; eventbus migrate")]


async def _database(dsn: str) -> list[Finding]:
    from eventbus.postgres import Database, installed, lacking, pending, standing  # noqa: PLC0415 - asyncpg is an extra

    database = Database(dsn)
    await database.connect()
    try:
        async with database.connection() as connection:
            missing = await pending(connection, installed())
            if missing:
                names = ", ".join(migration.name for migration in missing)
                return [_bad("migrations", f"not applied: {names}", "eventbus migrate")]
            return [*_rights(await lacking(connection)), *_outbox(await standing(connection, FIRST))]
    finally:
        await database.close()


def _rights(lacking: "Lacking") -> Iterator[Finding]:
    if lacking.rights:
        told = f"{lacking.login} lacks {', '.join(lacking.rights)}"
        yield _bad("rights", told, f"the owner of the tables grants them to {lacking.login}")
    if lacking.partitions:
        told = f"no partitions are made or dropped for the history: {lacking.login} {lacking.partitions}"
        mend = "let the owner run `eventbus migrate` every month, or make the login a member of that role"
        yield _odd("history", told, mend)


def _outbox(outbox: OutboxStanding) -> Iterator[Finding]:
    for row in outbox.first:
        told = f"row {row.position} (event {row.event_id}, {row.type or 'without a type'}) was set aside: {row.error}"
        remedy = f"mend it, then: eventbus outbox retry {row.position}; or: eventbus outbox discard {row.position}"
        yield _bad("outbox", told, remedy)
    if outbox.aside > len(outbox.first):
        told = f"{outbox.aside} rows were set aside in all"
        yield _bad("outbox", told, "see all: eventbus outbox list; then: eventbus outbox retry, or discard")
    late = [waiting for waiting in outbox.waiting if waiting.seconds > OUTBOX_LATE]
    if late and not outbox.relay_at_work:
        told = f"{outbox.rows} events wait in the outbox, the oldest for {spoken(outbox.seconds)}"
        yield _bad("outbox", told, "no relay is at work: start a worker with EVENTBUS_DATABASE_URL")
    for waiting in late if outbox.relay_at_work else ():
        why = f": Redis refuses them: {waiting.error}" if waiting.error else ", though a relay is at work"
        told = f"{waiting.rows} events of stream {waiting.stream} wait, the oldest for {spoken(waiting.seconds)}{why}"
        mend = "mend the key or the rights of the workers' login, and they flow by themselves"
        yield _bad("outbox", told, mend if waiting.error else "what the relay waits for is in the log of its worker")
    if not outbox.first and not late:
        told = f"reachable and migrated, {outbox.rows} waiting in the outbox"
        yield Finding("postgresql", Severity.OK, told)


def _odd(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Severity.WARNING, message, remedy)


def _bad(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Severity.ERROR, message, remedy)
