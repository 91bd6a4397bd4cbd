"""Records of tracked groups inside one process: the rules of Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eventbus.contract.states import Keep, Phase, Update


@dataclass(slots=True)
class _Tracked:
    records: dict[str, dict[str, bytes]] = field(default_factory=dict)
    ended: dict[Phase, list[str]] = field(default_factory=lambda: {Phase.COMPLETED: [], Phase.FAILED: []})
    totals: dict[Phase, int] = field(default_factory=lambda: {Phase.COMPLETED: 0, Phase.FAILED: 0})
    watchers: set[asyncio.Queue[bytes]] = field(default_factory=set)


class MemoryRecords:
    """See eventbus.contract.states.Records. Records that a group does not keep go at once: nobody outside of this
    process asks for them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._groups: dict[str, _Tracked] = {}

    async def track(self, group: str, keep: Keep, updates: Sequence[Update]) -> None:
        tracked = self._tracked(group)
        for update in updates:
            self._apply(tracked, keep, update)

    def _apply(self, tracked: _Tracked, keep: Keep, update: Update) -> None:
        event_id, version, phase = update.event_id, update.version.encode(), update.phase
        record = tracked.records.get(event_id, {})
        if record.get("version", b"") > version or update.replaces not in {None, record.get("written", b"")}:
            return
        tracked.records[event_id] = record
        again = (record.get("version"), record.get("phase")) == (version, phase.encode())
        record |= {"version": version, "phase": phase.encode(), **update.record, "written": self._now()}
        for ids in tracked.ended.values():
            if event_id in ids:
                ids.remove(event_id)
        if phase in tracked.ended:
            tracked.totals[phase] += not again
            ids = tracked.ended[phase]
            ids.append(event_id)
            most = keep.completed if phase is Phase.COMPLETED else keep.failed
            for old in ids[: max(0, len(ids) - most)]:
                ids.remove(old)
                tracked.records.pop(old, None)
        for notice in update.notices:
            for watcher in tracked.watchers:
                watcher.put_nowait(notice)

    async def find(self, group: str, event_id: str) -> Mapping[str, bytes]:
        record = self._tracked(group).records.get(event_id)
        return {**record, "now": self._now()} if record else {}

    def _now(self) -> bytes:
        return b"%d" % (self._clock() * 1000)

    async def totals(self, group: str) -> tuple[int, int]:
        totals = self._tracked(group).totals
        return totals[Phase.COMPLETED], totals[Phase.FAILED]

    async def watch(self, group: str) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        watchers = self._tracked(group).watchers
        watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            watchers.discard(queue)

    def _tracked(self, group: str) -> _Tracked:
        return self._groups.setdefault(group, _Tracked())
