"""An SMTP server of a test's own, on a free port of this machine."""

import asyncio
import ssl
import time
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NamedTuple, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

DROPPED = "dropped"  # instead of an answer: the connection goes


class Received(NamedTuple):
    """A mail that was taken; `at`: seconds of the loop's clock, `raw`: as it came."""

    to: str
    message: EmailMessage
    raw: bytes
    at: float

    @property
    def parts(self) -> tuple[str, str]:
        """Text and HTML."""
        text, html = [part.get_content() for part in self.message.iter_parts()]
        return text, html


class MailServer:
    """`rcpt[address]` and `data[address]` are the answers to the next tries for it; then it is taken."""

    def __init__(self) -> None:
        self.port = 0
        self.received: list[Received] = []
        self.rcpt: defaultdict[str, list[str]] = defaultdict(list)
        self.data: defaultdict[str, list[str]] = defaultdict(list)
        self.tries: list[tuple[str, float]] = []  # address and time of each RCPT
        self.logins: list[tuple[str, str]] = []
        self.login = ("ada", "s3:cr/et")
        self.drops_after_data = False
        self.hangs = False

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def to(self, address: str) -> list[Received]:
        return [one for one in self.received if one.to == address]

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Any, envelope: Envelope, hostname: str, answer: list[str]
    ) -> list[str]:
        session.host_name = hostname
        if self.hangs:
            await asyncio.Event().wait()
        return answer

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.tries.append((address, time.monotonic()))
        if self.rcpt[address]:
            return self.rcpt[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:  # noqa: N802
        [address] = envelope.rcpt_tos
        if self.data[address]:
            answer = self.data[address].pop(0)
            if answer != DROPPED:
                return answer
            _transport(server).abort()
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.received.append(Received(address, message, envelope.content, time.monotonic()))
        if self.drops_after_data:
            asyncio.get_running_loop().call_soon(_transport(server).close)
        return "250 OK"

    def authenticate(self, server: SMTP, session: Any, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        login = (given.login.decode(), given.password.decode())
        self.logins.append(login)
        return AuthResult(success=login == self.login, handled=False)


def _transport(server: SMTP) -> asyncio.Transport:
    return cast(asyncio.Transport, server.transport)  # uvloop's is none by inheritance


@asynccontextmanager
async def mail_server(
    *,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    start_tls: ssl.SSLContext | None = None,
    login: bool = False,
) -> AsyncIterator[MailServer]:
    """`tls`: from the first byte on. `start_tls`: offered. `login`: demanded."""
    server = MailServer()
    connections: list[SMTP] = []

    def answer() -> SMTP:
        with warnings.catch_warnings(action="ignore"):  # a password in the clear is what some tests are about
            connection = SMTP(
                server,
                hostname="mail.test",
                tls_context=start_tls,
                auth_required=login,
                auth_require_tls=False,
                authenticator=server.authenticate,
                loop=asyncio.get_running_loop(),
            )
        connections.append(connection)
        return connection

    listening = await asyncio.get_running_loop().create_server(answer, "127.0.0.1", port, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await asyncio.sleep(0.01)  # what the kernel had accepted becomes a connection
        for connection in connections:
            if connection.transport is not None:  # its client was killed, and that has not been read yet
                _transport(connection).abort()
        await asyncio.sleep(0.01)
