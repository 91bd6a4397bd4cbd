"""Whatever a password is made of: no part of it is in what is said of its URL, and the URL says no when it must."""

import asyncio
import io
from contextlib import redirect_stderr, suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from eventbus import ConfigurationError, EventBus, Reject, Unavailable
from eventbus.checks.addresses import show_url
from eventbus.cli.screen import report
from eventbus.errors import EventBusError, hide_password
from eventbus.postgres import Database
from handlers.email.postbox import server_of
from tests.properties import few

NOBODY = "127.0.0.1:1"  # refuses connections
SHORTEST = 4  # characters of a password that tell something of it
# Letters and digits that are in none of our own words, so that what is found comes from the password.
passwords = st.text("QXZJ738/#?@%:[]=&,;+'\"\\ ℀", min_size=SHORTEST, max_size=24)


def assert_untold(password: str, told: str) -> None:
    for start in range(len(password) - SHORTEST + 1):
        part = password[start : start + SHORTEST]
        if any(letter in "QXZJ738" for letter in part):
            assert part not in told, f"{part!r} in {told!r}"


def screen(error: EventBusError) -> str:
    with redirect_stderr(io.StringIO()) as printed:
        report(error)
    return f"{error} {error!r} {printed.getvalue()}"


async def say_all(password: str, tail: str) -> str:
    """What Redis', PostgreSQL's and the mails' part say of a server that is away, or of its URL."""
    said: list[str] = []
    redis, postgres = (f"{scheme}://me:{password}@{NOBODY}{tail}" for scheme in ("redis", "postgresql"))
    with capture_logs() as lines:
        try:
            async with EventBus(redis):
                pass
        except (ConfigurationError, Unavailable) as error:
            said.append(screen(error))
        database = Database(postgres)
        try:
            await database.connect()
        except (ConfigurationError, Unavailable) as error:
            said.append(screen(error))
    with suppress(Reject):
        server = server_of(f"smtp://me:{password}@{NOBODY}")
        assert f"{server.host}:{server.port}" == NOBODY
        said.append(server.host)
    try:
        server_of(f"smtp://me:{password}@{NOBODY}")
    except Reject as error:
        said.append(str(error))
    assert len(said) == 3
    return " ".join([*said, str(lines), show_url(redis), show_url(postgres)])


@pytest.mark.parametrize("tail", ["/0", "", "/0?socket_timeout=5"])
@given(password=passwords)
@example(password="7777/ZZ")
@example(password="QQQQ?ZZZZ=XXXX")
@example(password="QQQQ?password=ZZZZ")
@example(password="Q[7777]Q")
@example(password="QQQQ@ZZZZ:XXXX")
@few(60)
def test_no_part_of_a_password_is_told(password: str, tail: str) -> None:
    assert_untold(password, asyncio.run(say_all(password, tail)))


@given(password=passwords.filter(lambda text: " " not in text))
@few(200)
def test_nor_is_one_in_a_text_of_others(password: str) -> None:
    text = f"cannot reach redis://me:{password}@host:6379/0 now, nor postgresql://h/db?user=me&password={password}"
    if not set(password) & set("&'\""):
        assert_untold(password, hide_password(text))
    assert_untold(password, hide_password(text.partition(" now")[0]))
