"""What an operator wants of all workers: one small hash, which each worker looks at twice a second.

pause:GROUP     {"by", "at", "reason"}: take nothing new
"""

import asyncio
import getpass
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from eventbus.errors import EventBusError
from eventbus.telling import get_logger
from eventbus.transport import Transport

INTERVAL = 0.5  # seconds between looks; a pause is promised to be seen within one second

_PAUSE = "pause:"

log = get_logger("eventbus.control")


class Pause(NamedTuple):
    """Who stopped a group, when and why."""

    by: str
    at: datetime
    reason: str = ""


async def pause(transport: Transport, group: str, reason: str = "", by: str = "") -> bool:
    """False if the group is paused already: then it stays as it is known."""
    if group in await paused(transport):
        return False
    note = {"by": by or whoami(), "at": datetime.now(UTC), "reason": reason}
    await transport.control(_PAUSE + group, orjson.dumps(note))
    return True


async def resume(transport: Transport, group: str) -> bool:
    """False if the group was not paused."""
    return await transport.control(_PAUSE + group, None)


async def paused(transport: Transport) -> dict[str, Pause]:
    """The paused groups."""
    return pauses(await transport.controls())


def pauses(controls: Mapping[str, bytes]) -> dict[str, Pause]:
    """The paused groups among all that is set."""
    found: dict[str, Pause] = {}
    for name, value in controls.items():
        if name.startswith(_PAUSE):
            note = orjson.loads(value)
            found[name.removeprefix(_PAUSE)] = Pause(note["by"], datetime.fromisoformat(note["at"]), note["reason"])
    return found


def whoami() -> str:
    """user@host, for those who come after."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class Watch:
    """`run()` for ever: tells `heed` what is set, at every look. While the server is away the last word holds."""

    def __init__(self, transport: Transport, heed: Callable[[Mapping[str, bytes]], None]) -> None:
        self._transport = transport
        self._heed = heed

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Once."""
        try:
            self._heed(await self._transport.controls())
        except EventBusError as error:
            log.debug("looking again soon", reason=str(error))
