"""Mails on their way to a server, and what its answers mean."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from eventbus import Reject
from handlers.email import postbox as module
from handlers.email.letters import Letter
from handlers.email.mail import address, compose
from handlers.email.postbox import Server, SmtpPostbox, server_of
from handlers.partners.calls import Unreachable
from tests.mailserver import DROPPED, MailServer, mail_server

SENDER, LEA = address("EMAIL_FROM", "Sales <sales@example.com>"), address("the recipient", "lea@example.com")
MESSAGE = compose(Letter("Hello", "Hello\n", "<p>Hello</p>\n"), sender=SENDER, to=LEA, event_id="id-1")
ADA = f"ada:{quote('s3:cr/et', safe='')}@"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 5.0)


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


async def _send(url: str) -> None:
    await SmtpPostbox(server_of(url), SENDER).send(MESSAGE, LEA)


async def test_it_is_sent(server: MailServer) -> None:
    await _send(server.url)
    [mail] = server.received
    assert (mail.to, mail.message["Subject"], mail.message["Message-ID"]) == (
        LEA.addr_spec,
        "Hello",
        MESSAGE["Message-ID"],
    )


@pytest.mark.parametrize("place", ["rcpt", "data"])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("550 no such\tuser here", Reject),
        ("552 too large", Reject),
        ("451 come back later", Unreachable),
        ("421 we are closing", Unreachable),
    ],
)
async def test_the_server_says_whether_to_come_again(
    place: str, answer: str, kind: type[Exception], server: MailServer
) -> None:
    getattr(server, place)[LEA.addr_spec].append(answer)
    with pytest.raises(kind) as told:
        await _send(server.url)
    assert f"the mail server answered {answer[:3]}: {answer[4:].replace(chr(9), ' ')}" in str(told.value)
    assert server.received == []
    await _send(server.url)
    assert len(server.received) == 1


async def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match=r"the mail server is away: .*127\.0\.0\.1"):
        await _send("smtp://127.0.0.1:1")


async def test_a_connection_that_breaks_before_the_answer_is_tried_again(server: MailServer) -> None:
    server.data[LEA.addr_spec].append(DROPPED)
    with pytest.raises(Unreachable, match="the mail server is away"):
        await _send(server.url)


async def test_what_was_taken_is_sent_though_nobody_says_goodbye(server: MailServer) -> None:
    server.drops_after_data = True
    await _send(server.url)
    assert len(server.received) == 1


async def test_who_hangs_is_not_waited_for(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    server.hangs = True
    with pytest.raises(Unreachable, match=r"has not answered within 0\.1 s"):
        await _send(server.url)


async def test_whoever_waits_may_be_cancelled(server: MailServer) -> None:
    server.hangs = True
    sending = asyncio.create_task(_send(server.url))
    await asyncio.sleep(0.05)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


# Login and encryption -------------------------------------------------------------------------------------------------


class Certificate(NamedTuple):
    path: Path
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "mail.pem"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return Certificate(path, context)


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    return certificate.context


async def test_with_a_login_over_tls(trusted: ssl.SSLContext) -> None:
    async with mail_server(tls=trusted, login=True) as server:
        await _send(f"smtps://{ADA}127.0.0.1:{server.port}")
        assert (server.logins, len(server.received)) == ([server.login], 1)


async def test_starttls_where_it_is_offered(trusted: ssl.SSLContext) -> None:
    async with mail_server(start_tls=trusted, login=True) as server:
        await _send(f"smtp://{ADA}127.0.0.1:{server.port}")
        assert (server.logins, len(server.received)) == ([server.login], 1)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_that_nobody_vouches_for(scheme: str, certificate: Certificate) -> None:
    tls, start_tls = (certificate.context, None) if scheme == "smtps" else (None, certificate.context)
    async with mail_server(login=True, tls=tls, start_tls=start_tls) as server:
        with pytest.raises(Reject, match="certificate is not to be trusted: self-signed"):
            await _send(f"{scheme}://{ADA}127.0.0.1:{server.port}")
        assert server.logins == []


async def test_a_wrong_password_is_not_tried_again() -> None:
    async with mail_server(login=True) as server:
        with pytest.raises(Reject, match=r"the mail server answered 535: .*invalid") as told:
            await _send(f"smtp://ada:hush@127.0.0.1:{server.port}")
        assert "hush" not in str(told.value)
        assert set(server.logins) == {("ada", "hush")}  # once by each mechanism that is offered


async def test_no_password_goes_over_the_wire_in_the_clear(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_local", lambda host: False)
    with pytest.raises(Reject, match=r"the mail server cannot take it: .*STARTTLS"):
        await _send(f"smtp://{ADA}127.0.0.1:{server.port}")
    assert server.logins == []


async def test_letters_that_the_server_has_no_way_to_write(server: MailServer) -> None:
    """It does not offer SMTPUTF8."""
    to = address("the recipient", "łukasz@example.com")
    with pytest.raises(Reject, match=r"the mail server cannot take it: .*SMTPUTF8"):
        await SmtpPostbox(server_of(server.url), SENDER).send(MESSAGE, to)


# SMTP_URL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "server", "start_tls"),
    [
        ("smtp://mail.example", Server("mail.example", 587, False, None, None), None),
        ("smtp://mail.example:25/", Server("mail.example", 25, False, None, None), None),
        ("smtps://mail.example", Server("mail.example", 465, True, None, None), False),
        ("smtp://a:b@mail.example", Server("mail.example", 587, False, "a", "b"), True),
        ("smtp://a:b@localhost", Server("localhost", 587, False, "a", "b"), None),
        ("smtp://a:b@[::1]:2525", Server("::1", 2525, False, "a", "b"), None),
        ("smtps://a%40x:p%2Fq%3A@mail.example", Server("mail.example", 465, True, "a@x", "p/q:"), False),
    ],
)
def test_urls(url: str, server: Server, start_tls: bool | None) -> None:
    assert server_of(url) == server
    assert server_of(url).start_tls is start_tls


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example",
        "http://a:hush@mail",
        "smtp://",
        "smtp://a:hush@",
        "smtp://a:hush@mail:port",
        "smtp://[a:hush",
    ],
)
def test_a_url_that_is_none_is_not_shown(url: str) -> None:
    with pytest.raises(Reject, match=r"^SMTP_URL is not smtp://") as told:
        server_of(url)
    assert "hush" not in str(told.value)
