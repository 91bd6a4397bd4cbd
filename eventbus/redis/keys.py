"""The names of all keys and channels. Keys of one stream share a hash tag: they live on one node of a Redis Cluster.

Where a stream has partitions, that holds of each of its logs: `stream` is the name of a log everywhere here.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from eventbus.contract.limiting import Scope
from eventbus.contract.priorities import LANES
from eventbus.contract.session_store import SessionId
from eventbus.event import NORMAL_PRIORITY

NAMESPACE = "eb"  # if nobody says otherwise
PARKED = "parked"  # the consumer name under which entries rest until their retry is due
QUEUED = (
    "queued"  # that under which those of ordered groups wait behind another of their key; scripts/lanes.lua has it too
)


class StreamKeys(NamedTuple):
    """`stream`: the log of normal priority. `due` (ZSET: event id by due ms) and `scheduled` (HASH: event id to lane
    and fields): what is delayed. `dead`: the dead-letter stream. `groups` (HASH): the groups that must have settled an
    entry before it is trimmed. `counts` (HASH): what groups have settled, see scripts/accounts.lua."""

    stream: str
    due: str
    scheduled: str
    dead: str
    groups: str
    counts: str

    @property
    def lanes(self) -> tuple[str, ...]:
        """The logs of all priorities, most urgent first."""
        return tuple(self.lane(priority) for priority in LANES)

    def lane(self, priority: int) -> str:
        return self.stream if priority == NORMAL_PRIORITY else f"{self.stream}:p{priority}"


class GroupKeys(NamedTuple):
    """`retry` (ZSET: entry by due ms), `failures` (HASH: entry to what park.lua notes), `crashes` (HASH: entry to
    count). They only add to what the pending lists say; losing one delays, and loses nothing.

    An entry is named by its id and, where its lane is not the normal one, by '@' and the lane's priority."""

    retry: str
    failures: str
    crashes: str


@lru_cache(1024)
def stream_keys(namespace: str, stream: str) -> StreamKeys:
    prefix = f"{namespace}:{{{stream}}}"
    return StreamKeys(*(f"{prefix}:{name}" for name in ("stream", "due", "scheduled", "dead", "groups", "counts")))


@lru_cache(4096)
def lane_key(namespace: str, stream: str, priority: int) -> str:
    """`stream_keys(…).lane(…)`, for every publish."""
    return stream_keys(namespace, stream).lane(priority)


@lru_cache(1024)
def group_keys(namespace: str, stream: str, group: str) -> GroupKeys:
    prefix = f"{namespace}:{{{stream}}}:{group}"
    return GroupKeys(f"{prefix}:retry", f"{prefix}:failures", f"{prefix}:crashes")


def order_key(namespace: str, stream: str, group: str) -> str:
    """What waits behind which in an ordered group (HASH): see scripts/ordering.lua."""
    return f"{namespace}:{{{stream}}}:{group}:order"


def limit_keys(namespace: str, scope: Scope, kind: str) -> tuple[str, str, str]:
    """Keys of a limit: what it let start (`kind`: 'starts' of a rate, 'running' of places), its line, and what it
    remembers; see scripts/admit.lua. They belong to a group, whatever streams it reads."""
    prefix = f"{namespace}:{{@{scope.group}}}:{scope.limit}"
    name = f"{prefix}:{scope.key}" if scope.key else prefix
    return f"{name}:{kind}", f"{name}:line", f"{name}:last"


def lines_key(namespace: str, group: str) -> str:
    """The lines in which something of a group waits."""
    return f"{namespace}:{{@{group}}}:lines"


def quota_key(namespace: str, quota: str) -> str:
    """What was taken from a quota: see scripts/spend.lua. The key holds a digest, for the quota's text may be anything,
    and need not be seen by whoever lists keys. A hash tag of its own lets a cluster spread quotas."""
    return f"{namespace}:{{~{blake2b(quota.encode(), digest_size=16).hexdigest()}}}:quota"


class TallyKeys(NamedTuple):
    """What the groups have made of an organization's events: see scripts/tally.lua. Losing it loses counts."""

    minutes: str
    failures: str

    @property
    def prefix(self) -> str:
        """With a worker's name behind it: the key that holds the number of that worker's last addition."""
        return self.minutes + ":"


def tally_keys(namespace: str, organization: str | None) -> TallyKeys:
    """The hash tag is a digest: an organization's name may be anything, and of any length."""
    tag = f"{namespace}:{{~{blake2b((organization or '').encode(errors='surrogatepass'), digest_size=16).hexdigest()}}}"
    return TallyKeys(f"{tag}:activity", f"{tag}:activity:failures")


class TrackingKeys(NamedTuple):
    """Of a tracked group, on whatever streams it is. `active`, `completed`, `failed` (ZSETs: event id by ms) name the
    records (HASHes) that there are; `counters` (HASH). Losing any of it loses no event. `channel`: for notices, in
    database 0; see `channel_name`."""

    prefix: str
    active: str
    completed: str
    failed: str
    counters: str
    channel: str

    def record(self, event_id: str) -> str:
        return self.prefix + event_id


def tracking_keys(namespace: str, group: str) -> TrackingKeys:
    tag = f"{namespace}:{{@{group}}}"
    names = ("active", "completed", "failed", "counters")
    active, completed, failed, counters = (f"{tag}:{name}" for name in names)
    return TrackingKeys(f"{tag}:state:", active, completed, failed, counters, f"{namespace}:tracked:{group}")


def channel_name(namespace: str, database: int, channel: str) -> str:
    """What a channel is really called. Redis divides keys by databases and channels by nothing: the name does it, so
    that who shares a server hears his own. A namespace has no braces, so no two of these are one. Where both are the
    usual ones, the name is the application's: programs beside this one listen to `pubsub:response:web` by that."""
    return channel if (namespace, database) == (NAMESPACE, 0) else f"{namespace}:{{{database}}}:{channel}"


def control_key(namespace: str) -> str:
    """What operators want of all workers (HASH): see eventbus.operating.control."""
    return f"{namespace}:control"


def partitions_key(namespace: str) -> str:
    """Streams of more than one log (HASH): see eventbus.redis.partitions."""
    return f"{namespace}:partitions"


def circuits_key(namespace: str) -> str:
    """Circuits that have met failures (HASH): see scripts/circuit_failed.lua."""
    return f"{namespace}:circuits"


def recent_key(namespace: str, name: str) -> str:
    """See eventbus.contract.recent_cache (ZSET: item by position). It is a copy of what is somewhere else."""
    return f"{namespace}:recent:{name}"


class SessionKeys(NamedTuple):
    """Keys of one session. All sessions of an organization share a hash tag, so that `active` (ZSET: session id by ms
    at which it expires) changes in one step with the session itself. `state` (HASH): see scripts/session.lua; `events`
    (LIST); `additions` (SET of those that were made)."""

    state: str
    active: str
    events: str
    additions: str


def session_keys(namespace: str, session: SessionId) -> SessionKeys:
    """Whatever an organization is called, no two sessions share a key: each ends with the id, which is of one form."""
    state = f"{namespace}:{{session:{session.organization}}}:{session.id}"
    return SessionKeys(state, active_sessions_key(namespace, session.organization), f"{state}:events", f"{state}:adds")


def sessions_pattern(namespace: str) -> str:
    """Matches the `events` keys of all organizations' sessions. Without ':events' each is the key of its `state`."""
    return f"{namespace}:{{session:*}}:*:events"


def active_sessions_key(namespace: str, organization: str) -> str:
    return f"{namespace}:{{session:{organization}}}:active"


def cursor_key(namespace: str, stream: str, session: SessionId) -> str:
    """STRING, a position in the session: the events before it that go to this stream are all there. It outlives the
    session: see eventbus.contract.session_store."""
    return f"{namespace}:{{{stream}}}:session:{session.organization}:{session.id}"


def committing_key(namespace: str) -> str:
    """ZSET, by ms: sessions that somebody began to commit, as 'id organization'."""
    return f"{namespace}:{{@sessions}}:committing"


def recovering_key(namespace: str) -> str:
    """STRING that expires: somebody has looked at `committing_key`."""
    return f"{namespace}:{{@sessions}}:recovering"


def entry_name(lane: str, entry_id: str) -> str:
    """How an entry of a lane's key is called in deliveries and records."""
    return entry_id + entry_mark(lane)


def entry_mark(lane: str) -> str:
    """'@' and the priority, which an entry of this lane has behind its id in its name; '' in the normal lane."""
    priority = lane.rpartition(":p")[2]
    return f"@{priority}" if priority.isdecimal() else ""


def priority_of(entry: str) -> int:
    """The priority of the lane that an entry, as it is named in deliveries and records, is in."""
    priority = entry.partition("@")[2]
    return int(priority) if priority else NORMAL_PRIORITY


def fired_key(namespace: str, stream: str) -> str:
    """HASH: name of a recurring function to the ms at which its last firing was due."""
    return f"{namespace}:{{{stream}}}:fired"


def dead_pattern(namespace: str) -> str:
    return f"{namespace}:{{*}}:dead"


def stream_of_dead(namespace: str, key: str) -> str:
    """The stream that a dead-letter key belongs to: the inverse of `stream_keys(…).dead`."""
    return key.removeprefix(f"{namespace}:{{").removesuffix("}:dead")


def due_pattern(namespace: str) -> str:
    return f"{namespace}:{{*}}:due"


def stream_of_due(namespace: str, key: str) -> str:
    """The inverse of `stream_keys(…).due`."""
    return key.removeprefix(f"{namespace}:{{").removesuffix("}:due")
