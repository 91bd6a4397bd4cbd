"""The Lua scripts, each in a file of its own with its KEYS, ARGV and returns at the head.

A server forgets scripts when it restarts, fails over or is told to. So none is ever taken for granted: the first call
over a connection carries the text, later ones its digest, and the text again if the server does not know it any more.
"""

import asyncio
import hashlib
import math
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from eventbus.errors import EventBusError, Full, Unavailable
from eventbus.redis.links import Argument, Command, Links, Reply, UnknownScript, answered

_LANES = files(__name__).joinpath("lanes.lua").read_text(encoding="utf-8")
_SESSION, _LOOKING, _ACCOUNTS, _KEEPING, _LETTERS, _TRIMMING, _ORDERING = (
    files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    for name in ("session", "looking", "accounts", "keeping", "letters", "trimming", "ordering")
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Script:
    """`script(keys, args)` is the command that calls it. `behind`: another text that stands before its own."""

    def __init__(self, name: str, behind: str = "") -> None:
        own = behind + files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.text = own if own.startswith("#!") else _LANES + own  # flags must stand in the first line
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        _texts[self.digest] = self.text

    def __call__(self, keys: tuple[str, ...], *args: Argument) -> Command:
        return ("EVALSHA", self.digest, len(keys), *keys, *args)


_texts: dict[Argument, str] = {}

APPEND_AGAIN = Script("append_again", _LOOKING + _KEEPING)
LOOK = Script("look", _LOOKING)
DUE = Script("due")
CREATE_GROUP = Script("create_group")
DIVIDE = Script("divide")
READ = Script("read", _ORDERING)
SCHEDULE = Script("schedule", _KEEPING)
CANCEL = Script("cancel", _KEEPING)
PROMOTE = Script("promote")
RECLAIM = Script("reclaim")
RENEW = Script("renew")
RESTART = Script("restart")
PARK = Script("park")
REST = Script("rest")
ACK = Script("ack")
ACK_IN_ORDER = Script("ack_in_order", _ORDERING)
MEND_ORDER = Script("mend_order", _ORDERING)
BURY = Script("bury", _ORDERING)
REPLAY = Script("replay", _LETTERS)
TIDY = Script("tidy", _ACCOUNTS + _LETTERS + _TRIMMING)
ACCOUNT = Script("account", _ACCOUNTS)
COUNT = Script("count")
ADMIT = Script("admit")
STAY = Script("stay")
SPEND = Script("spend")
FORGET_GROUP = Script("forget_group")
DISCARD = Script("discard", _LETTERS)
FIND = Script("find")
RELATED = Script("related")
ONCE = Script("once", _KEEPING)
TRACK = Script("track")
BALANCE = Script("balance")
GONE = Script("gone")
BETWEEN = Script("between")
FIRE = Script("fire")
LAST_FIRING = Script("last_firing")
INSPECT = Script("inspect")
CIRCUIT_ASK = Script("circuit_ask")
CIRCUIT_FAILED = Script("circuit_failed")
RECENT = Script("recent")
TALLY = Script("tally")
SCHEDULED = Script("scheduled")
SESSION_START = Script("session_start", _SESSION)
SESSION_ADD = Script("session_add", _SESSION)
SESSION_BEGIN = Script("session_begin", _SESSION)
SESSION_FINISH = Script("session_finish", _SESSION)
SESSION_ROLL_BACK = Script("session_roll_back", _SESSION)
SESSION_FIND = Script("session_find", _SESSION)
SESSION_PUBLISH = Script("session_publish")
SESSION_NOTE = Script("session_note")
SESSION_UNFINISHED = Script("session_unfinished")


def by_text(command: Command) -> Command:
    """The call of a script, for a server that does not know its digest."""
    return ("EVAL", _texts[command[1]], *command[2:])


async def run(links: Links, commands: list[Command]) -> list[Reply]:
    """All commands in one write; replies in order, a refusal as a ReplyError or Full in its place. Raises Unavailable
    if one has no reply."""
    return answered(await each(links, commands))


async def each(links: Links, commands: list[Command]) -> list[Reply]:
    """As `run`; what has no reply has an Unavailable in its place, and may have been applied or not. Raises Unavailable
    if nothing was sent."""
    replies = await links.each([_known(links, command) for command in commands])
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, UnknownScript)]
    if unknown:
        try:
            again = await links.each([by_text(commands[i]) for i in unknown])
        except Unavailable as error:
            again = [error] * len(unknown)
        for i, reply in zip(unknown, again, strict=True):
            replies[i] = reply
    return replies


def _known(links: Links, command: Command) -> Command:
    """Calls a script by its text the first time over a connection: if the server did not know the digest, the call
    would be repeated, and run after the commands behind it."""
    if command[0] != "EVALSHA" or command[1] in (told := links.told(command)):
        return command
    told.add(command[1])
    return by_text(command)


def begin(links: Links, command: Command) -> asyncio.Future[Reply] | None:
    """One command, without a coroutine around its reply. The future may raise UnknownScript: then use `call`. None if
    there is no connection, or the script's text has not gone over it yet."""
    return links.begin(command) if command[1] in links.told(command) else None


async def call(links: Links, command: Command) -> Reply:
    """One command. Raises what the server refused it with."""
    [reply] = await run(links, [command])
    if isinstance(reply, Exception):
        raise reply
    return reply


async def run_all(links: Links, commands: list[Command]) -> list[Reply]:
    """As `run`. Raises if one was refused: Full first, which is worth more to know than what else went wrong."""
    return checked(await run(links, commands))


def checked(replies: list[Reply]) -> list[Reply]:
    """The replies, if none is a refusal."""
    refused = [reply for reply in replies if isinstance(reply, EventBusError)]
    for error in sorted(refused, key=lambda error: not isinstance(error, Full)):
        raise error
    return replies


def ms(seconds: float) -> int:
    """As the scripts count time. Rounded up: nothing is ever early."""
    return math.ceil(seconds * 1000)


def unix(moment: datetime) -> int:
    """Absolute times, as the scripts count them: ms since the epoch, rounded up."""
    return -((_EPOCH - moment) // timedelta(milliseconds=1))


def moment(unix_ms: int) -> datetime:
    """The inverse of `unix`."""
    return _EPOCH + timedelta(milliseconds=unix_ms)
