"""What takes commands: a link to one server, or a router over the links to several.

`await links.execute("XADD", …)` goes to the server that has the key. Whoever calls need not know how many there are.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from eventbus.contract.outgoing import NotBegun
from eventbus.errors import EventBusError, Unavailable
from eventbus.redis.address import Place

# What a reply holds is decided by the command: bytes, int, None or nested lists of them.
Reply = Any
Argument = str | bytes | int | float
Command = tuple[Argument, ...]


class ReplyError(EventBusError):
    """The server refused a command."""


class UnknownScript(ReplyError, NotBegun):
    """The server has forgotten the script, or never knew it. Nothing was done: send the script's text instead."""


class Redirected(ReplyError, NotBegun):
    """The key is on another node of the cluster. Nothing was done.

    asking  for this once: the slot is on its way there"""

    def __init__(self, text: str, host: str) -> None:
        """`host`: of the node which says so; it may not know that of the other."""
        super().__init__(text)
        kind, slot, place = text.split(" ")[:3]
        told, _, port = place.rpartition(":")
        self.slot, self.asking = int(slot), kind == "ASK"
        self.place = Place(host if told in {"", "?"} else told.strip("[]"), int(port))


class Links(Protocol):
    """Replies: a refusal is a ReplyError with the server's words, or Full; Unavailable is an outage."""

    @property
    def name(self) -> str:
        """What messages call it: without secrets."""

    @property
    def database(self) -> int:
        """The number of the database that the URL names."""

    async def ready(self, key: str = "") -> None:
        """The server that has this key is connected when it returns. Raises Unavailable, or ConfigurationError if its
        first login is refused."""

    def begin(self, command: Command) -> asyncio.Future[Reply] | None:
        """A future of the reply; it raises what `execute` raises, or Redirected. None while there is no connection."""

    async def execute(self, *command: Argument) -> Reply:
        """The reply. Raises Unavailable, Full, or ReplyError."""

    async def pipeline(self, commands: list[Command]) -> list[Reply]:
        """Replies in order; a command that was refused has a ReplyError in its place. Raises Unavailable.

        Those for one server leave in one write, and are executed in order; one without a key goes with them."""

    async def each(self, commands: list[Command]) -> list[Reply]:
        """As `pipeline`; a command without a reply has an Unavailable in its place: it may have been applied or not.

        Raises Unavailable if nothing was sent."""

    def told(self, command: Command) -> set[Argument]:
        """Digests of the scripts whose text the connection has carried that this command will take."""

    async def nodes(self) -> "Sequence[Links]":
        """Each primary by itself. Raises Unavailable."""


def answered(replies: list[Reply]) -> list[Reply]:
    """The replies, if each command has one. Raises Unavailable."""
    for reply in replies:
        if isinstance(reply, Unavailable):
            raise reply
    return replies


def key_of(command: Command) -> str | None:
    """The first key that a command names, as this program sends it; None if it has none."""
    name = command[0]
    if name in _KEYLESS:
        return None
    if name in _COUNTED:
        return str(command[3]) if int(command[2]) else None
    if name in {"XREADGROUP", "XREAD"}:
        return str(command[command.index("STREAMS") + 1])
    place = 2 if name in _CONTAINERS else 1
    return str(command[place]) if len(command) > place else None


_OF_THE_SERVER = ("PING", "TIME", "INFO", "CONFIG", "WAIT", "CLUSTER", "ACL", "COMMAND", "SCRIPT", "SCAN", "FLUSHDB")
_KEYLESS = frozenset((*_OF_THE_SERVER, "CLIENT", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"))
_COUNTED = frozenset(("EVALSHA", "EVAL"))
_CONTAINERS = frozenset(("XGROUP", "XINFO", "OBJECT", "MEMORY"))
