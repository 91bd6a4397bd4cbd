"""The Lua scripts, each in a file of its own with its KEYS, ARGV and returns at the head.

A server forgets scripts when it restarts, fails over or is told to. So none is ever taken for granted: a call goes out
by its digest, and by its text when the server says that it does not know it.
"""

import hashlib
from importlib.resources import files

from eventbus.redis.link import Argument, Link, Reply, ReplyError

Command = tuple[Argument, ...]


class Script:
    """`script(keys, args)` is the command that calls it."""

    def __init__(self, name: str) -> None:
        self.text = files(__name__).joinpath(f"{name}.lua").read_text()
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        _texts[self.digest] = self.text

    def __call__(self, keys: tuple[str, ...], *args: Argument) -> Command:
        return ("EVALSHA", self.digest, len(keys), *keys, *args)


_texts: dict[Argument, str] = {}

APPEND_AGAIN = Script("append_again")
SCHEDULE = Script("schedule")
PROMOTE = Script("promote")
RECLAIM = Script("reclaim")
RENEW = Script("renew")
PARK = Script("park")
ACK = Script("ack")
BURY = Script("bury")
REPLAY = Script("replay")


async def run(link: Link, commands: list[Command]) -> list[Reply]:
    """All commands in one write; replies in order, a refusal as a ReplyError or Full in its place."""
    replies = await link.pipeline(commands)
    unknown = [
        i for i, reply in enumerate(replies) if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")
    ]
    if unknown:
        again = await link.pipeline([("EVAL", _texts[commands[i][1]], *commands[i][2:]) for i in unknown])
        for i, reply in zip(unknown, again, strict=True):
            replies[i] = reply
    return replies


async def call(link: Link, command: Command) -> Reply:
    """One command. Raises what the server refused it with."""
    [reply] = await run(link, [command])
    if isinstance(reply, Exception):
        raise reply
    return reply
