"""Records of tracked groups: each update of an event's record takes one script, and all leave in one write."""

from collections.abc import AsyncIterator, Mapping, Sequence

from eventbus.contract.codec import pairs
from eventbus.contract.states import Keep, Update
from eventbus.redis import scripts
from eventbus.redis.keys import channel_name, tracking_keys
from eventbus.redis.links import Argument, Command
from eventbus.redis.notices import listen
from eventbus.redis.router import Router

OPEN_TTL = 7 * 86_400_000  # ms that a record is kept that never ends, because its event was lost
NEWS = "*"  # corrects no record: stands where scripts/track.lua expects when the corrected one was written
ENDED_TTL = 60_000  # ms for which an event's end can still be seen if the group keeps no record of it


class RedisRecords:
    """See eventbus.contract.states.Records."""

    def __init__(self, router: Router, namespace: str) -> None:
        self._router = router
        self._namespace = namespace

    async def track(self, group: str, keep: Keep, updates: Sequence[Update]) -> None:
        await scripts.run_all(self._router, [self._command(group, keep, update) for update in updates])

    async def find(self, group: str, event_id: str) -> Mapping[str, bytes]:
        key = tracking_keys(self._namespace, group).record(event_id)
        flat, (seconds, micros) = await scripts.run_all(self._router, [("HGETALL", key), ("TIME",)])
        record = {name.decode(): value for name, value in pairs(flat).items()}
        return record and {**record, "now": b"%d" % (int(seconds) * 1000 + int(micros) // 1000)}

    async def totals(self, group: str) -> tuple[int, int]:
        counters = tracking_keys(self._namespace, group).counters
        completed, failed = await self._router.execute("HMGET", counters, "completed", "failed")
        return int(completed or 0), int(failed or 0)

    def watch(self, group: str) -> AsyncIterator[bytes]:
        return listen(self._router.anywhere(), self._channel(group))

    def _channel(self, group: str) -> str:
        database = self._router.database
        if database == 0:
            return tracking_keys(self._namespace, group).channel
        return channel_name(self._namespace, database, f"tracked:{group}")

    def _command(self, group: str, keep: Keep, update: Update) -> Command:
        keys = tracking_keys(self._namespace, group)
        fields: list[Argument] = [part for pair in update.record.items() for part in pair]
        where = (keys.record(update.event_id), keys.active, keys.completed, keys.failed, keys.counters)
        what = (update.event_id, update.version, update.phase, NEWS if update.replaces is None else update.replaces)
        how = (keep.completed, keep.failed, OPEN_TTL, ENDED_TTL, keys.prefix, self._channel(group), len(update.notices))
        return scripts.TRACK(where, *what, *how, *update.notices, *fields)
