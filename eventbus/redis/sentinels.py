"""The primary of a service, as its sentinels name it.

redis+sentinel://[user:password@]host[:port],host[:port],…/service[/db][?sentinel_username=…&sentinel_password=…]

User and password are those of the servers; sentinels have their own. `rediss+sentinel://` is TLS to all of them.

After a planned failover the old primary lives on for some ten seconds, and acknowledges what it will lose. So the
sentinels' news is listened to, and a connection goes to whom they name last: the number of their configuration, which
grows with each failover, tells an old answer from a new one.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple, cast
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from redis.exceptions import RedisError, ResponseError

from eventbus.contract.inspection import Finding, Severity
from eventbus.errors import ConfigurationError, Unavailable, hide_password
from eventbus.process.safe_logging import get_logger
from eventbus.redis.address import Address
from eventbus.redis.notices import listen
from eventbus.redis.polling import ask, briefly

ENOUGH = 3  # sentinels: of two, one alone cannot agree on anything
SCHEMES = ("redis+sentinel", "rediss+sentinel")
PORT = 26379
CHECK_EVERY = 5.0  # seconds between looks, should news have been lost
BELIEVED = 30.0  # seconds for which what was once told with a higher number is believed, whatever is told since

log = get_logger("eventbus.redis")


class _Told(NamedTuple):
    """A sentinel's answer. `epoch`: the number of its configuration."""

    epoch: int
    host: str
    port: int


class Sentinels:
    """Raises ConfigurationError for a URL that does not name sentinels and a service.

    moves  how often the primary has moved since the first look"""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:  # brackets that do not match
            raise _not_named(url) from None
        path = parts.path.strip("/").split("/")
        login, at, hosts = parts.netloc.rpartition("@")
        if not all(hosts.split(",")) or not path[0] or len(path) > 2:
            raise _not_named(url)
        self._service = unquote(path[0])
        self._parts, self._login, self._database = parts, login + at, path[1] if len(path) == 2 else "0"
        self._query, own = _divided(parts)
        self._sentinels = [Address(self._sentinel_url(host, own)) for host in hosts.split(",")]
        self.database = self._at("localhost", 1).database  # what is wrong with login or query is told now, too
        self.name = f"Redis {self._service!r} of the sentinels at {hosts}"
        self.moves = 0
        self._known: _Told | None = None
        self._confirmed = 0.0  # loop time of the last answer that had the number of `_known`

    @property
    def seeds(self) -> Sequence[Address]:
        """None: what the sentinels watch is no cluster."""
        return ()

    @property
    def url(self) -> str:
        """Of the primary, as far as is known. Raises Unavailable before the first answer."""
        if self._known is None:
            raise Unavailable(self.name, "no sentinel has named the primary yet")
        return self._at(self._known.host, self._known.port).url

    async def find(self) -> Address:
        """Ask them. Raises Unavailable if none knows, ConfigurationError if they know no such service."""
        told = await self._ask()
        now = asyncio.get_running_loop().time()
        known = self._known
        if known is not None and told.epoch < known.epoch and now - self._confirmed < BELIEVED:
            raise Unavailable(self.name, f"sentinels name {told.host}:{told.port}, which was the primary before")
        self._note(told, now)
        return self._at(told.host, told.port)

    async def watch(self, moved: Callable[[], None]) -> None:
        """For ever: calls `moved` when the primary is another than before."""
        unsure = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for sentinel in self._sentinels:
                tasks.create_task(self._hear(sentinel, unsure, moved), name=f"hear {sentinel.name}")
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_EVERY):
                        await unsure.wait()
                unsure.clear()
                before = self.moves
                with suppress(Unavailable, ConfigurationError):  # who connects is told
                    await self.find()
                if self.moves != before:
                    moved()

    async def _hear(self, sentinel: Address, unsure: asyncio.Event, moved: Callable[[], None]) -> None:
        async with aclosing(listen(sentinel, "+switch-master", unsure.set)) as messages:  # also if it is cancelled here
            async for message in messages:
                if message.split(b" ")[0].decode(errors="replace") != self._service:
                    continue
                before = self.moves
                try:  # it has the number of its news, which the message has not
                    self._note(await self._ask_one(sentinel), asyncio.get_running_loop().time())
                except (RedisError, OSError):
                    unsure.set()
                if self.moves != before:
                    moved()

    def _note(self, told: _Told, now: float) -> None:
        known, self._known, self._confirmed = self._known, told, now
        if known is not None and known[1:] != told[1:]:
            self.moves += 1
            log.warning(
                "the primary has moved",
                service=self._service,
                before=f"{known[1]}:{known[2]}",
                now=f"{told[1]}:{told[2]}",
            )

    async def examine(self) -> list[Finding]:
        """Whether they answer, and agree."""
        told = await asyncio.gather(*map(self._ask_one, self._sentinels), return_exceptions=True)
        return list(self._judge(told))

    def _judge(self, told: Sequence[_Told | BaseException]) -> Iterator[Finding]:
        answers = [answer for answer in told if isinstance(answer, _Told)]
        named = {f"{answer.host}:{answer.port}" for answer in answers}
        for sentinel, answer in zip(self._sentinels, told, strict=True):
            if isinstance(answer, BaseException):
                most = 2 * len(answers) > len(told)
                severity = Severity.WARNING if most else Severity.ERROR
                why = f"{sentinel.name} does not answer: {answer}"
                yield Finding("sentinels", severity, why, "no failover takes place without most of them")
        if len(named) > 1:
            why = f"they name different primaries: {', '.join(sorted(named))}"
            yield Finding("sentinels", Severity.WARNING, why, "a failover is under way, or they do not see each other")
        if len(named) == 1 and len(answers) == len(told):
            yield Finding("sentinels", Severity.OK, f"{len(answers)} name {named.pop()}")
        if len(told) < ENOUGH:
            why = f"only {len(told)} are named in the URL: what they do not see is not seen"
            yield Finding("sentinels", Severity.WARNING, why, "run three at least, and name them all")

    # Asking -----------------------------------------------------------------------------------------------------------

    async def _ask(self) -> _Told:
        """The newest answer of all that come in time; when most have come, the others are waited for only SHORTLY."""
        told, errors = await ask([self._ask_one(sentinel) for sentinel in self._sentinels])
        if told:
            return max(told)
        raise self._reason(errors)

    def _reason(self, errors: Sequence[BaseException]) -> Exception:
        """Why nobody has answered."""
        unknown = [error for error in errors if isinstance(error, ResponseError)]
        if unknown and "No such master" in str(unknown[0]):
            return ConfigurationError(f"{self.name}: they watch no such service. `SENTINEL MASTERS` lists theirs")
        details = dict.fromkeys(str(error) or "no answer" for error in errors)
        return Unavailable(self.name, "; ".join(details) or "no answer")

    async def _ask_one(self, sentinel: Address) -> _Told:
        """Raises RedisError or OSError."""
        async with briefly(sentinel) as client:
            state = cast(dict[str, Any], await client.sentinel_master(self._service))
            return _Told(int(state["config-epoch"]), state["ip"], int(state["port"]))

    # Addresses --------------------------------------------------------------------------------------------------------

    @property
    def _scheme(self) -> str:
        return self._parts.scheme.partition("+")[0]

    def _at(self, host: str, port: int) -> Address:
        """A server of the service."""
        where = f"[{host}]" if ":" in host else host
        return Address(f"{self._scheme}://{self._login}{where}:{port}/{self._database}{self._query}")

    def _sentinel_url(self, host: str, own: dict[str, str]) -> str:
        user, password = own.get("sentinel_username", ""), own.get("sentinel_password", "")
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        port = "" if host.rpartition("]")[2].rpartition(":")[1] else f":{PORT}"
        return f"{self._scheme}://{login}{host}{port}{self._query}"


def _not_named(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"{hide_password(url)!r} does not name sentinels and their service: "
        "redis+sentinel://host:port,host:port/service/db, for example redis+sentinel://a:26379,b:26379/main/0"
    )


def _divided(parts: SplitResult) -> tuple[str, dict[str, str]]:
    """A URL's query without what is about the sentinels, and that."""
    given = parse_qsl(parts.query, keep_blank_values=True)
    own = {name: value for name, value in given if name.startswith("sentinel_")}
    rest = urlencode([(name, value) for name, value in given if name not in own])
    return f"?{rest}" if rest else "", own
