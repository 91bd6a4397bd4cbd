"""Hands mails to an SMTP server, each over a connection of its own: a connection that is kept may be dead by the next
mail, and whether that mail was sent would not be known.

2xx     the server has taken it
4xx, no connection, broken off, no answer in time    Unreachable: the same mail may be taken later
5xx     Reject, with the server's words: the same mail will be refused again. That holds for a login (535), too: three
        tries for each mail with a wrong password would get the account locked
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.headerregistry import Address
from email.message import EmailMessage
from ipaddress import ip_address
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import aiosmtplib

from eventbus import Reject, Resource, Use
from eventbus.checks.addresses import url_fault
from handlers.email.mail import address
from handlers.partners.calls import Unreachable, quote
from handlers.partners.services import SERVICES, Services

TIMEOUT = 30.0  # seconds, from connecting to the server's answer to all of the mail
GOODBYE = 1.0  # seconds
_PORTS = {"smtp": 587, "smtps": 465}  # RFC 8314


class Server(NamedTuple):
    """Where mails go. `tls`: TLS from the first byte. Otherwise STARTTLS, which a login requires unless the server is
    on this machine: the password would go over the wire in the clear."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    @property
    def start_tls(self) -> bool | None:
        """True: required. None: used if the server offers it. False: not used, since there is TLS from the start."""
        if self.tls:
            return False
        return True if self.user and not _is_local(self.host) else None


def server_of(url: str) -> Server:
    """The server that SMTP_URL names. Raises Reject for no such URL, without showing it: it may hold a password."""
    fault = url_fault(url, _PORTS)
    parts = urlsplit(url if fault is None else "")
    if not parts.hostname:
        reason = fault or "it names no host"
        raise Reject(f"SMTP_URL is not smtp://[user:password@]host[:port], or smtps://…: {reason}")
    return Server(parts.hostname, parts.port or _PORTS[parts.scheme], parts.scheme == "smtps", *_login(parts))


def _login(parts: SplitResult) -> tuple[str | None, str | None]:
    return (unquote(parts.username), unquote(parts.password or "")) if parts.username else (None, None)


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Postbox(Protocol):
    """What the group needs of it. `sender` is in the From of all mails."""

    @property
    def sender(self) -> Address: ...

    async def send(self, message: EmailMessage, to: Address) -> None:
        """Returns when the server has taken it. Raises Unreachable, Reject: see the module."""


class SmtpPostbox:
    """A Postbox on an SMTP server."""

    def __init__(self, server: Server, sender: Address) -> None:
        self.sender = sender
        self._server = server
        self._tls = ssl.create_default_context()  # once: it reads all certificates of the system

    async def send(self, message: EmailMessage, to: Address) -> None:
        """If the connection breaks after the last byte and before the answer, the server may have it all the same; that
        is Unreachable, too, since a mail that comes twice is better than one that never does."""
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.tls,
            start_tls=server.start_tls,
            tls_context=self._tls,
            timeout=TIMEOUT,
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                await client.connect()
                await client.send_message(message, sender=self.sender.addr_spec, recipients=[to.addr_spec])
            await _say_goodbye(client)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise _verdict(error) from None
        finally:
            client.close()


async def _say_goodbye(client: aiosmtplib.SMTP) -> None:
    """The server has the mail by now: however this ends, the mail is not sent again."""
    try:
        async with asyncio.timeout(GOODBYE):
            await client.quit()
    except (aiosmtplib.SMTPException, OSError, TimeoutError):
        pass


def _verdict(error: Exception) -> Exception:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]  # each mail has one recipient
    said = quote(getattr(error, "message", str(error)).encode()) or type(error).__name__
    if isinstance(error, aiosmtplib.SMTPResponseException):
        words = f"the mail server answered {error.code}: {said}"
        return Reject(words) if error.code >= 500 else Unreachable(words)
    if isinstance(error, aiosmtplib.SMTPNotSupported) or type(error) is aiosmtplib.SMTPException:
        return Reject(f"the mail server cannot take it: {said}")  # STARTTLS or AUTH is missing, which a login needs
    for cause in (error, error.__cause__):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Reject(f"the mail server's certificate is not to be trusted: {cause.verify_message}")
    if isinstance(error, TimeoutError):
        return Unreachable(f"the mail server has not answered within {TIMEOUT:g} s")
    return Unreachable(f"the mail server is away: {said}")


async def _open(use: Use) -> AsyncIterator[Postbox]:
    services: Services = await use(SERVICES)
    url, sender = services.require("E-mail", "smtp_url", "email_from")
    yield SmtpPostbox(server_of(url), address("EMAIL_FROM", sender))


POSTBOX: Resource[Postbox] = Resource("the mail server", asynccontextmanager(_open))
