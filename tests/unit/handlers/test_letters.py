"""What mails say."""

from typing import Any

import pytest

from eventbus import Reject
from handlers.email.letters import Kind, render

FULL: dict[Kind, dict[str, Any]] = {
    Kind.WELCOME: {"name": "Ada", "actionUrl": "https://crm.example/start"},
    Kind.LEAD_NOTIFICATION: {
        "leadId": "lead-1",
        "name": "Lea",
        "email": "lea@example.com",
        "phone": "+49 30 1",
        "company": "Example",
        "source": "WEBSITE",
        "score": 55,
        "actionUrl": "https://crm.example/leads/1",
    },
    Kind.SUBMISSION_CONFIRMATION: {"leadId": "lead-1", "name": "Lea"},
    Kind.BULK: {
        "subject": "News",
        "message": "There is news.\n\nRead on.",
        "name": "Lea",
        "unsubscribeUrl": "https://crm.example/no",
    },
}
LEAST: dict[Kind, dict[str, Any]] = {
    Kind.WELCOME: {},
    Kind.LEAD_NOTIFICATION: {"leadId": "lead-1"},
    Kind.SUBMISSION_CONFIRMATION: {},
    Kind.BULK: {"subject": "News", "message": "There is news."},
}


@pytest.mark.parametrize("kind", Kind)
def test_both_parts_hold_everything_that_is_given(kind: Kind) -> None:
    letter = render(kind, FULL[kind])
    assert letter.subject
    for field, value in FULL[kind].items():
        for text in (letter.text, letter.html):
            shown = value.partition("\n")[0] if isinstance(value, str) else str(value)
            assert shown in text or field == "subject", (field, text)


@pytest.mark.parametrize("kind", Kind)
def test_what_is_not_needed_may_be_absent_or_null(kind: Kind) -> None:
    least = render(kind, LEAST[kind])
    nothing = dict.fromkeys(FULL[kind].keys() - LEAST[kind].keys())
    assert render(kind, LEAST[kind] | nothing) == least
    assert "None" not in "".join(least)


@pytest.mark.parametrize(
    ("kind", "field"), [(Kind.LEAD_NOTIFICATION, "leadId"), (Kind.BULK, "subject"), (Kind.BULK, "message")]
)
def test_a_letter_with_a_hole_is_refused_by_the_name_of_what_lacks(kind: Kind, field: str) -> None:
    data = {name: value for name, value in FULL[kind].items() if name != field}
    with pytest.raises(Reject, match=f"no letter of kind {kind} .*'{field}' is undefined"):
        render(kind, data)


@pytest.mark.parametrize("field", ["subject", "message"])
def test_what_is_needed_and_null_is_refused(field: str) -> None:
    with pytest.raises(Reject, match="a field that it needs is null"):
        render(Kind.BULK, FULL[Kind.BULK] | {field: None})


def test_a_subject_of_blanks_is_none() -> None:
    with pytest.raises(Reject, match="its subject is empty"):
        render(Kind.BULK, FULL[Kind.BULK] | {"subject": "  "})


@pytest.mark.parametrize("kind", Kind)
def test_html_is_escaped_and_text_is_not(kind: Kind) -> None:
    evil = "<img src=x onerror='alert(1)'>&\""
    said = {name: evil for name in FULL[kind] if not name.endswith("Url")}
    letter = render(kind, FULL[kind] | said)
    assert evil in letter.text
    assert "<img" not in letter.html
    assert "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&#34;" in letter.html


@pytest.mark.parametrize("url", ["javascript:alert(1)", " https://x", "/leads/1", "", 5, None, {"a": 1}])
def test_only_web_addresses_become_links(url: object) -> None:
    letter = render(Kind.WELCOME, {"actionUrl": url})
    assert letter == render(Kind.WELCOME, {})


def test_a_link_does_not_leave_its_attribute() -> None:
    letter = render(Kind.WELCOME, {"actionUrl": 'https://x" onclick="alert(1)'})
    assert 'href="https://x&#34; onclick=&#34;alert(1)"' in letter.html


def test_data_is_no_template() -> None:
    letter = render(Kind.BULK, {"subject": "{{ 7 * 7 }}", "message": "{% raw %}{{ self }}"})
    assert (letter.subject, letter.text) == ("{{ 7 * 7 }}", "{% raw %}{{ self }}\n")


def test_empty_lines_part_paragraphs() -> None:
    letter = render(Kind.BULK, {"subject": "s", "message": "one\r\nline\r\n\r\ntwo\n \n\n\nthree"})
    assert letter.html.count("<p>") == 3
