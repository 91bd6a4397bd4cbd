"""What mails say: templates, and the data that an order brings for them.

A letter kind is a folder of templates/ with subject.txt, body.txt and body.html. In HTML every value is escaped. A
field that a template can do without has a default there. If another one is missing, the letter is refused with the name
of the field: a mail cannot be taken back, and half a sentence to a customer is worse than a dead letter.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError, UndefinedError, select_autoescape

from eventbus import Reject

_EMPTY_LINE = re.compile(r"\n[ \t]*\n\s*")


class Kind(StrEnum):
    """The folders of templates/."""

    WELCOME = "welcome"
    LEAD_NOTIFICATION = "lead_notification"
    SUBMISSION_CONFIRMATION = "submission_confirmation"
    BULK = "bulk"


class Letter(NamedTuple):
    """The same words twice: as plain text and as HTML."""

    subject: str
    text: str
    html: str


def _is_web_address(value: object) -> bool:
    """Whether a value may be a link. Escaping keeps it inside of its attribute, but `javascript:` works there, too."""
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def _paragraphs(value: object) -> list[str]:
    return _EMPTY_LINE.split(str(value).replace("\r\n", "\n").strip())


def _not_null(value: object) -> object:
    if value is None:  # else the letter would say "None"
        raise UndefinedError("a field that it needs is null")
    return value


_templates = Environment(
    loader=PackageLoader("handlers.email"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    finalize=_not_null,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.tests["web_address"] = _is_web_address
_templates.filters["paragraphs"] = _paragraphs


def render(kind: Kind, data: Mapping[str, Any]) -> Letter:
    """Raises Reject for data that does not make a whole letter."""
    try:
        subject, text, html = (
            _templates.get_template(f"{kind}/{part}").render(data).strip()
            for part in ("subject.txt", "body.txt", "body.html")
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise Reject(f"no letter of kind {kind} can be made of this data: {error}") from None
    if not subject:
        raise Reject(f"no letter of kind {kind} can be made of this data: its subject is empty")
    return Letter(subject, text + "\n", html + "\n")
