"""Stopping handlers from another process: what is asked for stands in the control hash, see eventbus.control.

abort:GROUP:EVENT   {"by", "until", "reason"}; GROUP is * for all. The handler that runs the event is cancelled, one
                    that has not begun does not begin, and the delivery becomes a dead letter: it can be replayed.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson
import structlog

from eventbus.context import Context
from eventbus.control import whoami
from eventbus.errors import Cancelled, EventBusError
from eventbus.event import Event
from eventbus.lifecycle import Finished
from eventbus.middleware import CallNext
from eventbus.transport import Transport

WITHIN = timedelta(hours=1)
LIMIT = 1_000  # every worker reads all of them twice a second

_ABORT = "abort:"
_EVERY = "*"

log = structlog.get_logger("eventbus.control")

Target = tuple[str, str]  # group and event id


class Abort(NamedTuple):
    """Who wants it, why, and how long."""

    by: str
    until: datetime
    reason: str = ""

    def __str__(self) -> str:
        return f"by {self.by}" + (f": {self.reason}" if self.reason else "")


async def abort(transport: Transport, event_id: str, group: str | None, reason: str, within: timedelta) -> None:
    """Raises Unavailable; EventBusError if so much is asked for already."""
    now = datetime.now(UTC)
    wanted = {target: note for target, note in aborts(await transport.controls()).items() if note.until <= now}
    for target in wanted:
        await transport.control(_name(target), None)
    if len(aborts(await transport.controls())) >= LIMIT:
        raise EventBusError(f"{LIMIT} aborts are under way already: pause the group, or wait until they are over")
    note = {"by": whoami(), "until": now + within, "reason": reason}
    await transport.control(_name((group or _EVERY, event_id)), orjson.dumps(note))


def aborts(controls: Mapping[str, bytes]) -> dict[Target, Abort]:
    """What is to be stopped, among all that is set."""
    found: dict[Target, Abort] = {}
    for name, value in controls.items():
        if name.startswith(_ABORT):
            group, _, event_id = name.removeprefix(_ABORT).rpartition(":")
            note = orjson.loads(value)
            found[group, event_id] = Abort(note["by"], datetime.fromisoformat(note["until"]), note["reason"])
    return found


def _name(target: Target) -> str:
    return f"{_ABORT}{target[0]}:{target[1]}"


class Aborting:
    """What one process has to stop: its middleware knows what runs, and `heed` what is to end."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._wanted: Mapping[Target, Abort] = {}
        self._running: dict[Target, asyncio.Task[object]] = {}
        self._struck: dict[Target, Abort] = {}
        self._clearing: set[asyncio.Task[None]] = set()

    def heed(self, controls: Mapping[str, bytes]) -> None:
        now = datetime.now(UTC)
        self._wanted = {target: note for target, note in aborts(controls).items() if note.until > now}
        if not self._wanted:
            return
        for target, task in self._running.items():
            note = self._note(target)
            if note is not None and target not in self._struck:
                self._struck[target] = note
                task.cancel()

    async def around(self, event: Event, ctx: Context, call_next: CallNext) -> None:
        """The middleware; outside of all others, so that they see the cancellation pass."""
        target = (ctx.group, ctx.event_id)
        if self._wanted and (note := self._note(target)) is not None:
            raise Cancelled(str(note))
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        self._running[target] = task
        try:
            await call_next(event, ctx)
        except BaseException as error:
            if target not in self._struck:
                raise
            # Whatever it made of being cancelled: it must not be tried again. That it was is undone, for the worker
            # that stops cancels its handlers, too, and means something else by it.
            raise Cancelled(str(self._struck[target])) from error
        finally:
            del self._running[target]
            if self._struck.pop(target, None) is not None:
                task.uncancel()

    def ended(self, finished: Finished) -> None:
        """The listener: what was asked of one group alone is done now."""
        envelope = finished.envelope
        if isinstance(finished.error, Cancelled) and envelope is not None:
            target = (finished.group, envelope.id)
            if target in self._wanted:
                clearing = asyncio.create_task(self._clear(target))
                self._clearing.add(clearing)
                clearing.add_done_callback(self._clearing.discard)

    async def _clear(self, target: Target) -> None:
        try:
            await self._transport.control(_name(target), None)
        except EventBusError as error:  # its time will run out
            log.debug("an abort stays noted", reason=str(error))
        else:  # a look that was under way has answered before this
            self._wanted = {other: note for other, note in self._wanted.items() if other != target}

    def _note(self, target: Target) -> Abort | None:
        return self._wanted.get(target) or self._wanted.get((_EVERY, target[1]))
