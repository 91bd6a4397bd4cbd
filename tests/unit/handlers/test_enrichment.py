"""What a lead's address and number tell, and how what is found is laid over what was there."""

from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.lead.enrichment import _NUL, derive, merge

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def found(field: str, value: str | None) -> Any:
    return derive({"name": None, "email": None, "phone": None, field: value}, [field])[field]


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        ("lea@Example.COM", {"domain": "example.com", "kind": "company"}),
        ("lea@googlemail.com", {"domain": "googlemail.com", "kind": "free"}),
        ("gmail.com@example.com", {"domain": "example.com", "kind": "company"}),
        (None, None),
        ("", None),
    ],
)
def test_an_address(email: str | None, expected: object) -> None:
    assert found("email", email) == expected


@pytest.mark.parametrize(
    ("phone", "expected"),
    [
        ("+49 (30) 1234567", {"number": "+49301234567", "country": "DE", "kind": "FIXED_LINE"}),
        ("+49 171 1234567", {"number": "+491711234567", "country": "DE", "kind": "MOBILE"}),
        ("+1 212-555-0123", {"country": "US", "kind": "FIXED_LINE_OR_MOBILE", "timeZones": ["America/New_York"]}),
        ("+7 727 258 2244", {"callingCode": 7, "country": "KZ"}),
        ("+800 1234 5678", {"callingCode": 800, "kind": "TOLL_FREE"}),
    ],
)
def test_a_number(phone: str, expected: dict[str, object]) -> None:
    assert expected.items() <= found("phone", phone).items()


def test_the_carrier_is_that_of_the_prefix() -> None:
    assert found("phone", "+49 171 1234567")["carrier"]
    assert "carrier" not in found("phone", "+49 30 1234567")


@pytest.mark.parametrize("phone", [None, "", "030 1234567", "+49 1", "+999 123456", "+1 212 555 01234567", "x"])
def test_a_number_that_tells_nothing(phone: str | None) -> None:
    assert found("phone", phone) is None


def test_only_what_is_asked_for_is_looked_at() -> None:
    assert derive({"email": "a@b.example", "phone": None}, ["name", "company"]) == {}


def test_what_is_found_replaces_what_was_there_and_nothing_takes_it_away() -> None:
    before = {"email": {"kind": "free"}, "phone": {"country": "DE"}, "own": 1, "source": "provider"}
    after = merge(before, {"email": {"domain": "x"}, "phone": None}, source="derived", at=NOW)
    assert after == {"email": {"domain": "x"}, "own": 1, "source": "derived", "enrichedAt": "2026-01-02T03:04:05Z"}
    assert merge(None, {}, source="derived", at=NOW) == {"source": "derived", "enrichedAt": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("raw", "holds"),
    [(rb'"a\u0000"', True), (rb'"a\\u0000"', False), (rb'"a\\\u0000"', True), (rb'"\u0001"', False)],
)
def test_a_nul_is_told_from_the_text_that_looks_like_one(raw: bytes, holds: bool) -> None:
    assert (_NUL.search(raw) is not None) is holds
