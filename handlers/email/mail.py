"""A letter becomes a message (RFC 5322): text and HTML as alternatives, headers that nobody can add to."""

from email.errors import HeaderParseError, NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

from eventbus import Reject
from handlers.common.fields import CONTROL
from handlers.email.letters import Letter

# A dot in a name; letters that only servers with SMTPUTF8 take: any other server will say so.
_HARMLESS = (ObsoleteHeaderDefect, NonASCIILocalPartDefect)


def address(setting: str, text: str) -> Address:
    """`ada@example.com` or `Ada <ada@example.com>`. A domain in other letters than ASCII's goes as IDNA, which every
    server understands. Raises Reject for any other text; `setting` is what that message calls it."""
    if CONTROL.search(text):
        raise Reject(f"{setting} holds control characters, which could add headers of their own")
    try:
        return _parsed(text)
    except (ValueError, IndexError, HeaderParseError):
        raise Reject(f"{setting} is no mail address: {text[:100]!r}") from None


def _parsed(text: str) -> Address:
    """Raises ValueError, and errors of the parser itself: IndexError, HeaderParseError."""
    message = EmailMessage(policy=SMTP)
    message["From"] = text
    [found] = message["From"].addresses
    broken = [one for one in message["From"].defects if not isinstance(one, _HARMLESS)]
    if broken or not (found.username and found.domain):
        raise ValueError(text)
    return Address(found.display_name, found.username, found.domain.encode("idna").decode())


def compose(letter: Letter, *, sender: Address, to: Address, event_id: str) -> EmailMessage:
    """The Message-ID is made of the event's id: two mails with one Message-ID are the same mail. Raises Reject for a
    subject with control characters, line breaks above all."""
    if CONTROL.search(letter.subject):
        raise Reject("the subject holds control characters, which could add headers of their own")
    message = EmailMessage(policy=SMTP)
    try:
        message["Subject"] = letter.subject
        message["From"] = sender
        message["To"] = to
        message["Date"] = formatdate(usegmt=True)
        message["Message-ID"] = f"<{event_id}@{sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: keeps "I am on holiday" from coming back
        # Seven bits, so that no server on the way has to change it.
        message.set_content(letter.text, cte="quoted-printable")
        message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
    except ValueError as error:  # separators of lines that are no control characters, halves of surrogate pairs
        raise Reject(f"the mail cannot be written: {error}") from None
    return message
