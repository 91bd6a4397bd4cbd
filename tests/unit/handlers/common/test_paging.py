"""Cursors are opaque, and only ours are taken."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from handlers.common.paging import PageQuery, cut, encode_cursor
from handlers.message.models import HistoryQuery

KEY = UUID("01a20176-e951-7000-bf62-337e538f3d95")


def test_a_cursor_comes_back_as_its_key() -> None:
    assert PageQuery.model_validate({"cursor": encode_cursor(KEY)}).cursor == KEY
    assert HistoryQuery.model_validate({"cursor": encode_cursor(7)}).cursor == 7
    assert encode_cursor(KEY).isascii()
    assert "=" not in encode_cursor(KEY)


@pytest.mark.parametrize("cursor", ["", "abc", "é", "\x00", str(KEY), encode_cursor(7), "A" * 10_000])
def test_another_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValidationError):
        PageQuery.model_validate({"cursor": cursor})


@pytest.mark.parametrize("cursor", [encode_cursor(KEY), encode_cursor(-1), encode_cursor(2**63), "abc"])
def test_another_position_is_refused(cursor: str) -> None:
    with pytest.raises(ValidationError):
        HistoryQuery.model_validate({"cursor": cursor})


def test_a_page_ends_where_rows_end() -> None:
    rows: list[Any] = [{"id": n} for n in range(3)]
    assert cut(rows, 3) == (rows, None)
    assert cut(rows, 2) == (rows[:2], encode_cursor(1))
    assert cut([], 2) == ([], None)
