"""Letters as messages."""

from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

import pytest

from eventbus import Reject
from eventbus.event import uuid7
from handlers.email.letters import Letter
from handlers.email.mail import address, compose

LETTER = Letter("Grüße an Łukasz, schön, daß es Ihnen gut geht", "Grüße\n.\n" + "lang " * 300 + "\n", "<p>Grüße</p>\n")
EVENT = uuid7()


def _mail(letter: Letter = LETTER, sender: str = "Häuser & Söhne <sales@example.com>") -> EmailMessage:
    composed = compose(
        letter, sender=address("EMAIL_FROM", sender), to=address("the recipient", "lea@example.com"), event_id=EVENT
    )
    raw = composed.as_bytes()
    assert raw.isascii()
    assert max(len(line) for line in raw.splitlines()) <= 998
    return message_from_bytes(raw, policy=policy.default)


def test_what_arrives_is_what_was_written() -> None:
    mail = _mail()
    assert mail["Subject"] == LETTER.subject
    assert mail["From"] == "Häuser & Söhne <sales@example.com>"
    assert mail["To"] == "lea@example.com"
    assert mail["Message-ID"] == f"<{EVENT}@example.com>"
    assert parsedate_to_datetime(mail["Date"]).tzinfo is not None
    assert (mail.get_content_type(), mail["MIME-Version"]) == ("multipart/alternative", "1.0")
    text, html = mail.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(html, EmailMessage)
    assert [part.get_content_type() for part in (text, html)] == ["text/plain", "text/html"]
    assert [part.get_content_charset() for part in (text, html)] == ["utf-8", "utf-8"]
    written = [part.get_content().replace("\r\n", "\n") for part in (text, html)]
    assert written == [LETTER.text, LETTER.html]


@pytest.mark.parametrize("subject", ["a\r\nBcc: eve@example.com", "a\nb", "a\rb", "a\0b", "a\x85b", "a\x1bb"])
def test_a_subject_adds_no_header(subject: str) -> None:
    with pytest.raises(Reject, match="the subject holds control characters"):
        _mail(LETTER._replace(subject=subject))


@pytest.mark.parametrize("subject", ["a\u2028b", "a\ud800b"])
def test_a_subject_that_cannot_be_written_is_refused(subject: str) -> None:
    with pytest.raises(Reject, match="the mail cannot be written"):
        _mail(LETTER._replace(subject=subject))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sales@example.com\r\nBcc: eve@example.com", "EMAIL_FROM holds control characters"),
        ("sales@example.com\nBcc: eve@example.com", "EMAIL_FROM holds control characters"),
        ("sales", "EMAIL_FROM is no mail address: 'sales'"),
        ("", "EMAIL_FROM is no mail address"),
        ("a@example.com, b@example.com", "EMAIL_FROM is no mail address"),
        ("Sales <>", "EMAIL_FROM is no mail address"),
        ("@example.com", "EMAIL_FROM is no mail address"),
        (f"a@{'x' * 70}.example", "EMAIL_FROM is no mail address"),
    ],
)
def test_what_is_no_address_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        address("EMAIL_FROM", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.com", Address("", "ada", "example.com")),
        ("Ada L. <ada@example.com>", Address("Ada L.", "ada", "example.com")),
        ('"Sales, North" <ada@example.com>', Address("Sales, North", "ada", "example.com")),
        ("ada@münchen.example", Address("", "ada", "xn--mnchen-3ya.example")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert address("EMAIL_FROM", text) == expected
