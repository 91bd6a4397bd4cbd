"""The names of all keys. Keys of one stream share a hash tag, so that they live on one node of a Redis Cluster."""

from typing import NamedTuple

PARKED = "parked"  # the consumer name under which entries rest until their retry is due


class StreamKeys(NamedTuple):
    """`stream`: the log. `due` (ZSET: event id by due ms) and `scheduled` (HASH: event id to fields): what is delayed.
    `dead`: the dead-letter stream."""

    stream: str
    due: str
    scheduled: str
    dead: str


class GroupKeys(NamedTuple):
    """`retry` (ZSET: entry id by due ms), `failures` (HASH: entry id to 'count first-failed-ms'), `crashes` (HASH).

    They only add to what the pending list says; losing one delays, and loses nothing."""

    stream: str
    retry: str
    failures: str
    crashes: str


def stream_keys(namespace: str, stream: str) -> StreamKeys:
    prefix = f"{namespace}:{{{stream}}}"
    return StreamKeys(f"{prefix}:stream", f"{prefix}:due", f"{prefix}:scheduled", f"{prefix}:dead")


def group_keys(namespace: str, stream: str, group: str) -> GroupKeys:
    prefix = f"{namespace}:{{{stream}}}"
    return GroupKeys(
        f"{prefix}:stream", f"{prefix}:{group}:retry", f"{prefix}:{group}:failures", f"{prefix}:{group}:crashes"
    )


def dead_pattern(namespace: str) -> str:
    return f"{namespace}:{{*}}:dead"


def stream_of_dead(namespace: str, key: str) -> str:
    """The stream that a dead-letter key belongs to: the inverse of `stream_keys(…).dead`."""
    return key.removeprefix(f"{namespace}:{{").removesuffix("}:dead")
