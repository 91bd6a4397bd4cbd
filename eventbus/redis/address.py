"""Where one Redis server is, how it is reached, and how one logs in there."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from eventbus.checks.addresses import database_fault, show_url, url_fault
from eventbus.contract.inspection import Finding
from eventbus.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "unix")

P = TypeVar("P", bound=asyncio.Protocol)


class Place(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Where(Protocol):
    """Where the primary is: at an address for good, or wherever the sentinels say.

    name   what messages call it: without secrets
    moves  how often the primary has moved, as far as known
    url    the primary's, with all secrets, for other clients; raises Unavailable while it is not known
    """

    name: str

    @property
    def moves(self) -> int: ...

    @property
    def database(self) -> int:
        """The number of the database that the URL names."""

    @property
    def url(self) -> str: ...

    @property
    def seeds(self) -> Sequence["Address"]:
        """Servers that can tell who else there is; none, where nobody but the one that is found counts."""

    async def find(self) -> "Address":
        """Raises Unavailable, or ConfigurationError if there can be none."""

    async def watch(self, moved: Callable[[], None]) -> None:
        """Call `moved` whenever the primary has moved, for ever; returns if it never does."""

    async def examine(self) -> list[Finding]:
        """What is to be said about those who know where it is."""


class Address:
    """`redis://[user:password@]host[:port][/db]`; `rediss://` is over TLS, `unix:///path` a socket. Raises
    ConfigurationError for what is no such URL."""

    def __init__(self, url: str) -> None:
        self._options = _options_of(url)
        self.url = url
        self.moves = 0
        self.name = f"Redis at {show_url(url)}"

    @property
    def seeds(self) -> Sequence["Address"]:
        """This one: it may be a node of a cluster."""
        return [self]

    async def find(self) -> "Address":
        """This one, whatever server answers there."""
        return self

    async def watch(self, moved: Callable[[], None]) -> None:
        """It stays where it is."""

    async def examine(self) -> list[Finding]:
        """Nobody has to know more than the URL."""
        return []

    @property
    def database(self) -> int:
        return int(self._options.get("db") or 0)

    @property
    def place(self) -> Place:
        """Of a socket that is no TCP port: the host it is on, and 0."""
        port = 0 if "path" in self._options else self._options.get("port", 6379)
        return Place(self._options.get("host", "localhost"), port)

    def beside(self, place: Place) -> "Address":
        """The same login and options at another server."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":  # a node that is reached so tells where the others listen
            parts = parts._replace(scheme="redis", path=f"/{self.database}")
        login, at, _ = parts.netloc.rpartition("@")
        host = f"[{place.host}]" if ":" in place.host else place.host
        return Address(parts._replace(netloc=f"{login}{at}{host}:{place.port}").geturl())

    async def connect(self, protocol: Callable[[], P]) -> P:
        """A connection. Raises OSError."""
        loop, options = asyncio.get_running_loop(), self._options
        kind = options.get("connection_class")
        if kind is UnixDomainSocketConnection:
            _, opened = await loop.create_unix_connection(protocol, options["path"])
        else:
            tls = _tls(dict(options)) if kind is SSLConnection else None
            host, port = options.get("host", "localhost"), options.get("port", 6379)
            _, opened = await loop.create_connection(protocol, host, port, ssl=tls)
        return opened

    @property
    def login(self) -> list[tuple[str | int, ...]]:
        """The commands that a connection begins with."""
        options = self._options
        commands: list[tuple[str | int, ...]] = []
        if options.get("password"):
            user = (options["username"],) if options.get("username") else ()
            commands.append(("AUTH", *user, options["password"]))
        if options.get("db"):
            commands.append(("SELECT", options["db"]))
        return commands


def _options_of(url: str) -> dict[str, Any]:
    """How to connect. Raises ConfigurationError, in words of our own: those of drivers quote parts of passwords."""
    fault = url_fault(url, SCHEMES) or database_fault(url)
    if fault is None:
        try:
            return cast(dict[str, Any], parse_url(url))
        except ValueError:
            fault = "an option behind the '?' has a value that it cannot have"
    raise ConfigurationError(f"{show_url(url)!r} is not a Redis URL: {fault}")


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    if options.get("ssl_check_hostname") is False:
        context.check_hostname = False
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
