"""Calls to addresses that users name: none of them may reach into the house.

A call goes by http or https, without a login in the URL, to a port that a web server would have, with no redirects and
no proxies, bounded in time and size. Only addresses of the public internet are connected to. The address is checked
where the socket is made. So none of these gets past: a name that resolves to the inside, a name that resolves to
something else the second time, another spelling of an address.

`EVENTBUS_CALLBACK_ALLOW` names hosts that are let through all the same, for local use: `localhost,10.0.0.7:8081`.
"""

import ipaddress
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import aiohttp
from aiohttp.connector import AddrInfoType
from yarl import URL

from eventbus import Reject, Resource, Use
from handlers.partners.calls import TIMEOUT, Answer, call
from handlers.partners.services import SERVICES, Services

LONGEST = 2_048  # characters of a URL
LOCAL_NAMES = re.compile(r"(.*\.)?(localhost|localdomain|local|internal)")

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
# Python's own lists of special addresses grow from release to release: these are refused in all of them.
_NEVER: list[IPv4Network | IPv6Network] = [
    *map(IPv4Network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15")),  # first: Azure's host
    *map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")),  # 2002: carries an IPv4 address
]
_PUBLIC_IPV6 = IPv6Network("2000::/3")  # neither mapped, compatible, NAT64, local, link-local nor multicast


class Allowed:
    """`host` or `host:port`, with commas between them; IPv6 addresses in brackets."""

    def __init__(self, text: str = "") -> None:
        self._entries = {entry.strip().lower() for entry in text.split(",") if entry.strip()}

    def lets(self, host: str, port: int) -> bool:
        name = host.lower().rstrip(".")
        name = f"[{name}]" if ":" in name else name
        return bool({name, f"{name}:{port}"} & self._entries)


def check_callback_url(text: str, allow: str | None = None) -> None:
    """Raises ValueError if the URL alone shows, before its name is resolved, that no call may go there.

    `allow` is EVENTBUS_CALLBACK_ALLOW; left out, it is read from the environment. A URL that passes may still be
    refused when its name is resolved."""
    _check(text, Allowed(Services().callback_allow if allow is None else allow))


def _check(text: str, allowed: Allowed) -> URL:
    """The URL. Raises ValueError."""
    if not _VISIBLE_ASCII.fullmatch(text) or "\\" in text or len(text) > LONGEST:
        raise ValueError(f"must be a URL of at most {LONGEST} visible ASCII characters")
    try:
        url = URL(text, encoded=True)
        host, port = url.raw_host, url.port
    except ValueError:
        raise ValueError("is no URL") from None
    if url.scheme not in {"http", "https"} or not host or port is None:
        raise ValueError("must begin with http:// or https:// and a host")
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError("must hold no user or password")
    if allowed.lets(host, port):
        return url
    if not (port in {80, 443} or port >= 1024):
        raise ValueError(f"port {port} is none of a web server's: 80, 443, or 1024 and above")
    if LOCAL_NAMES.fullmatch(host.lower().rstrip(".")):
        raise ValueError(f"{host} is a name of this host or network")
    if (reason := _refusal_of_literal(host)) is not None:
        raise ValueError(reason)
    return url


def _refusal_of_literal(host: str) -> str | None:
    """As `refusal`, for a host in any spelling that some resolver takes for an address: 127.1, 0x7f000001, 2130706433,
    0177.0.0.1. None for a name."""
    try:
        if ":" in host:
            return refusal(host)
        return refusal(socket.inet_ntoa(socket.inet_aton(host.rstrip("."))))
    except OSError:
        return None  # a name


def refusal(address: str) -> str | None:
    """Why nothing may connect to this numeric address; None if it is one of the public internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return f"{address} is no address"
    return None if _is_public(ip) else f"{address} is no address of the public internet"


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address) and (ip not in _PUBLIC_IPV6 or ip.scope_id is not None):
        return False
    return (
        ip.is_global
        and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
        and not any(network.version == ip.version and ip in network for network in _NEVER)
    )


_let_through: ContextVar[bool] = ContextVar("let_through", default=False)


def _make_socket(found: AddrInfoType) -> socket.socket:
    """The connector calls this right before it connects, with the very address. A Reject passes through it."""
    family, kind, protocol, _, address = found
    if not _let_through.get() and (reason := refusal(str(address[0]))) is not None:
        raise Reject(f"refused to call: {reason}")
    return socket.socket(family, kind, protocol)


class Guarded:
    """An HTTP client for addresses that users name."""

    def __init__(self, session: aiohttp.ClientSession, allowed: Allowed) -> None:
        self._session = session
        self._allowed = allowed

    async def post(
        self, service: str, url: str, body: bytes, headers: dict[str, str], *, timeout: float = TIMEOUT
    ) -> Answer:
        """As handlers.partners.calls.call. Raises Reject where the guard refuses."""
        try:
            checked = _check(url, self._allowed)
        except ValueError as error:
            raise Reject(f"{service}: its URL {error}") from None
        assert checked.raw_host is not None
        assert checked.port is not None
        token = _let_through.set(self._allowed.lets(checked.raw_host, checked.port))
        try:
            return await call(self._session, service, "POST", checked, body=body, headers=headers, timeout=timeout)
        finally:
            _let_through.reset(token)


@asynccontextmanager
async def guarded(allow: str = "", resolver: aiohttp.abc.AbstractResolver | None = None) -> AsyncIterator[Guarded]:
    """A Guarded client. `resolver` replaces the system's."""
    # Addresses are tried one after the other, in the task of the request: a race would swallow the refusal. Each
    # request opens its own connection, so that each is checked.
    connector = aiohttp.TCPConnector(
        resolver=resolver,
        use_dns_cache=False,
        force_close=True,
        happy_eyeballs_delay=None,
        socket_factory=_make_socket,
        limit_per_host=10,
    )
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        yield Guarded(session, Allowed(allow))


async def _open(use: Use) -> AsyncIterator[Guarded]:
    services = await use(SERVICES)
    async with guarded(services.callback_allow) as client:
        yield client


GUARDED = Resource("calls to addresses that users name", asynccontextmanager(_open))
