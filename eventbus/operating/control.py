"""What an operator wants of all workers: one small hash, which each worker looks at twice a second.

pause:GROUP     {"by", "at", "reason"}: take nothing new

A value that is no such note, because somebody has set it by hand, counts as a pause all the same: that is what was
meant, and a pause can be undone. It is logged once.
"""

import asyncio
import getpass
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from eventbus.contract.controls import Controls
from eventbus.errors import EventBusError
from eventbus.process.safe_logging import get_logger

INTERVAL = 0.5  # seconds between looks; a pause is promised to be seen within one second

_PAUSE = "pause:"
_MOMENTS = ("at", "until")  # the names under which notes hold a time: that of a pause, and that of an abort

log = get_logger("eventbus.control")


class Pause(NamedTuple):
    """Who stopped a group, when and why."""

    by: str
    at: datetime
    reason: str = ""


async def pause(transport: Controls, group: str, reason: str = "", by: str = "") -> bool:
    """Pause a group. False if it is paused already: then the first note stays."""
    if group in await paused(transport):
        return False
    note = {"by": by or whoami(), "at": datetime.now(UTC), "reason": reason}
    await transport.control(_PAUSE + group, orjson.dumps(note))
    return True


async def resume(transport: Controls, group: str) -> bool:
    """False if the group was not paused."""
    return await transport.control(_PAUSE + group, None)


async def paused(transport: Controls) -> dict[str, Pause]:
    """The paused groups."""
    return pauses(await transport.controls())


def pauses(controls: Mapping[str, bytes]) -> dict[str, Pause]:
    """The paused groups among all that is set."""
    found: dict[str, Pause] = {}
    for name, value in controls.items():
        if name.startswith(_PAUSE):
            note = read_note(value, "at")
            found[name.removeprefix(_PAUSE)] = Pause(*note) if note is not None else _unreadable(value)
    return found


def read_note(value: bytes, moment: str) -> tuple[str, datetime, str] | None:
    """(who, the time under the name `moment`, why); None if the value is no note."""
    try:
        note = orjson.loads(value)
        at = datetime.fromisoformat(note[moment])
        by, reason = note["by"], note.get("reason", "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not (isinstance(by, str) and isinstance(reason, str)):
        return None
    return by, at if at.tzinfo is not None else at.replace(tzinfo=UTC), reason


def _unreadable(value: bytes) -> Pause:
    shown = value[:50].decode(errors="backslashreplace")
    return Pause("unknown", datetime.now(UTC), f"its note is {shown!r}, which was not set by eventbus groups pause")


def whoami() -> str:
    """user@host, for those who come after."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class Watch:
    """`run()` for ever: tells `heed` what is set, at every look. While the server is away, what was read last holds."""

    def __init__(self, transport: Controls, heed: Callable[[Mapping[str, bytes]], None]) -> None:
        self._transport = transport
        self._heed = heed
        self._told: set[str] = set()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Look once."""
        try:
            controls = await self._transport.controls()
        except EventBusError as error:
            log.debug("controls cannot be read; trying again", reason=str(error))
            return
        self._tell_strange(controls)
        self._heed(controls)

    def _tell_strange(self, controls: Mapping[str, bytes]) -> None:
        """Log the controls that cannot be read, once for each name until it is gone."""
        strange = {
            name for name, value in controls.items() if all(read_note(value, moment) is None for moment in _MOMENTS)
        }
        for name in sorted(strange - self._told):
            meant = "counts as a pause" if name.startswith(_PAUSE) else "is ignored"
            log.error(f"a control cannot be read and {meant}", control=name, value=repr(controls[name][:50]))
        self._told = strange
