"""Finds what is dated ahead of the server's clock: the clock was wrong once, or somebody made the date up."""

from collections.abc import Iterator, Sequence

from eventbus.contract.codec import pairs
from eventbus.contract.inspection import Finding, Severity
from eventbus.redis import scripts
from eventbus.redis.keys import fired_key, group_keys, stream_keys
from eventbus.redis.links import Command, Links, Reply

TOLERATED = 60.0  # seconds; a clock that is being set right jumps no further than this
PARKING = 366 * 86_400.0  # seconds; nothing rests for longer than a year

Dated = dict[str, float]  # what is dated ahead, in words, and by how many seconds


async def examine(links: Links, namespace: str, streams: Sequence[tuple[str, Sequence[str]]]) -> list[Finding]:
    """`streams`: each with its groups. A warning for each that has something dated ahead, or one finding that all is
    well. Raises Unavailable."""
    found: list[Finding] = []
    for stream, groups in streams:
        dated = await _dated(links, namespace, stream, groups)
        if dated:
            found.append(_told(stream, dated))
    return found or [Finding("dates", Severity.OK, "nothing is dated ahead of the server's clock")]


async def _dated(links: Links, namespace: str, stream: str, groups: Sequence[str]) -> Dated:
    keys = stream_keys(namespace, stream)
    logs = (*keys.lanes, keys.dead)
    looks: list[Command] = [("TIME",), ("HGETALL", fired_key(namespace, stream))]
    looks += [("XREVRANGE", log, "+", "-", "COUNT", 1) for log in logs]
    looks += [("ZREVRANGE", group_keys(namespace, stream, group).retry, 0, 0, "WITHSCORES") for group in groups]
    time, fired, *others = await scripts.run(links, looks)
    now = int(time[0]) + int(time[1]) / 1e6
    dated: Dated = {}
    for log, entries in zip(logs, others, strict=False):
        for entry_id in _ids(entries):
            dated[f"{log} has the id {entry_id}"] = _ms(entry_id.partition("-")[0]) - now
    for name, moment in pairs(() if isinstance(fired, Exception) else fired).items():
        dated[f"the last firing of {name.decode(errors='replace')}"] = _ms(moment.decode(errors="replace")) - now
    for group, row in zip(groups, others[len(logs) :], strict=True):
        if not isinstance(row, Exception) and row:
            dated[f"a retry of {group}"] = float(row[1]) / 1000 - now - PARKING
    return {what: seconds for what, seconds in dated.items() if seconds > TOLERATED}


def _ids(entries: Reply) -> Iterator[str]:
    if not isinstance(entries, Exception):
        for entry in entries:
            yield entry[0].decode()


def _ms(text: str) -> float:
    """A text of ms, in seconds; 0.0, which is never ahead, if it is no number."""
    return int(text) / 1000 if text.isdigit() and len(text) <= 20 else 0.0


def _told(stream: str, dated: Dated) -> Finding:
    what = "; ".join(f"{name}, {seconds / 3600:.1f} h ahead" for name, seconds in sorted(dated.items()))
    return Finding(
        "dates",
        Severity.WARNING,
        f"stream {stream} has what is dated ahead of the server's clock: {what}",
        "let the server follow NTP; nothing waits: entries are trimmed by their order, and a firing counts as now",
    )
