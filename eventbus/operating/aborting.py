"""Stopping handlers from another process: what is asked for stands in the control hash, see eventbus.operating.control.

abort:GROUP:EVENT   {"by", "until", "reason"}; GROUP is * for all. The handler that runs the event is cancelled, one
                    that has not begun does not begin, and the delivery becomes a dead letter: it can be replayed.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson

from eventbus.contract.controls import Controls
from eventbus.contract.delivery import Delivery
from eventbus.errors import EventBusError
from eventbus.operating.control import read_note, whoami
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import Background

WITHIN = timedelta(hours=1)
LIMIT = 1_000  # every worker reads all of them twice a second

_ABORT = "abort:"
_EVERY = "*"

log = get_logger("eventbus.control")

Target = tuple[str, str]  # group and event id
Running = tuple[Delivery, asyncio.Task[None]]


class Abort(NamedTuple):
    """Who wants it, why, and how long."""

    by: str
    until: datetime
    reason: str = ""

    def __str__(self) -> str:
        return f"by {self.by}" + (f": {self.reason}" if self.reason else "")


async def abort(transport: Controls, event_id: str, group: str | None, reason: str, within: timedelta) -> None:
    """Ask all workers to stop an event's handlers. Raises Unavailable; EventBusError if LIMIT aborts are under way
    already."""
    now = datetime.now(UTC)
    wanted = {target: note for target, note in aborts(await transport.controls()).items() if note.until <= now}
    for target in wanted:
        await transport.control(_name(target), None)
    if len(aborts(await transport.controls())) >= LIMIT:
        raise EventBusError(f"{LIMIT} aborts are under way already: pause the group, or wait until they are over")
    note = {"by": whoami(), "until": now + within, "reason": reason}
    await transport.control(_name((group or _EVERY, event_id)), orjson.dumps(note))


def aborts(controls: Mapping[str, bytes]) -> dict[Target, Abort]:
    """The aborts among all that is set."""
    found: dict[Target, Abort] = {}
    for name, value in controls.items():
        if name.startswith(_ABORT):
            group, _, event_id = name.removeprefix(_ABORT).rpartition(":")
            note = read_note(value, "until")
            if note is not None:  # else nobody can say what was meant; eventbus.operating.control tells of it
                found[group, event_id] = Abort(*note)
    return found


def _name(target: Target) -> str:
    return f"{_ABORT}{target[0]}:{target[1]}"


class Aborting:
    """What one process has to stop: `heed` cancels what runs, and `refusal` says what must not begin."""

    def __init__(self, transport: Controls) -> None:
        self._transport = transport
        self.wanted: Mapping[Target, Abort] = {}
        self._background = Background("aborting")

    def heed(self, controls: Mapping[str, bytes], running: Callable[[], Iterable[Running]]) -> None:
        """Cancel handlers that are to be stopped. `running`: what runs in this process; called only if there is an
        abort."""
        now = datetime.now(UTC)
        self.wanted = {target: note for target, note in aborts(controls).items() if note.until > now}
        if not self.wanted:
            return
        for delivery, task in running():
            event_id = delivery.fields.get(b"id", b"").decode(errors="replace")
            reason = self.refusal(delivery.subscription.group, event_id)
            if reason is not None and delivery.aborted is None:
                delivery.aborted = reason
                task.cancel()

    def refusal(self, group: str, event_id: str) -> str | None:
        """Why a handler must not begin; None if it may."""
        note = self.wanted.get((group, event_id)) or self.wanted.get((_EVERY, event_id))
        return None if note is None else str(note)

    def ended(self, group: str, event_id: str) -> None:
        """A handler was stopped. An abort of its group alone is done now, and is cleared; one of all groups stands
        until its time is over."""
        if (group, event_id) in self.wanted:
            self._background.start(self._clear((group, event_id)), f"abort:{group}:{event_id}")

    async def _clear(self, target: Target) -> None:
        try:
            await self._transport.control(_name(target), None)
        except EventBusError as error:  # its time will run out
            log.debug("an abort stays noted", reason=str(error))
        else:  # a look that was under way has answered by now, and cannot bring it back
            self.wanted = {other: note for other, note in self.wanted.items() if other != target}
