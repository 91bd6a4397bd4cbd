"""A login that was right once: a password that is being changed, an ACL file that is late. It is an outage."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from eventbus import Event, EventBus
from eventbus.errors import ConfigurationError, Unavailable
from eventbus.event import Status
from eventbus.redis.link import Link
from tests.waiting import until

USER = "changing"


class Noted(Event, type="note.made"):
    number: int


@pytest.fixture
async def raw(any_redis_url: str) -> AsyncIterator[Link]:
    link = Link(any_redis_url, timeout=5, name="test")
    await link.execute("ACL", "SETUSER", USER, "reset", "on", ">right", "~*", "&*", "+@all")
    yield link
    await link.execute("ACL", "DELUSER", USER)
    await link.close()


@pytest.fixture
def url(any_redis_url: str) -> str:
    parts = urlsplit(any_redis_url)
    return parts._replace(netloc=f"{USER}:right@{parts.hostname}:{parts.port}").geturl()


async def other_password(raw: Link) -> None:
    await raw.execute("ACL", "SETUSER", USER, "resetpass", ">other")


async def fewer_rights(raw: Link) -> None:
    await raw.execute("ACL", "SETUSER", USER, "-client")


async def mend(raw: Link) -> None:
    await raw.execute("ACL", "SETUSER", USER, "resetpass", ">right", "+client")


Change = Callable[[Link], Awaitable[None]]


@pytest.mark.parametrize("change", [other_password, fewer_rights], ids=["WRONGPASS", "NOPERM"])
async def test_with_a_spool_events_wait_there_until_it_is_mended(
    raw: Link, url: str, tmp_path: Path, change: Change
) -> None:
    with capture_logs() as lines:
        async with EventBus(url, spool=tmp_path / "spool.jsonl", publish_timeout=2.0) as bus:
            assert (await bus.publish(Noted(number=0))).status is Status.STORED
            await change(raw)
            await raw.execute("CLIENT", "KILL", "USER", USER)
            receipts = [await bus.publish(Noted(number=number)) for number in range(1, 4)]
            assert [receipt.status for receipt in receipts] == [Status.SPOOLED] * 3
            assert bus.spool is not None
            await mend(raw)
            await until(lambda: not bus.spool.size)  # type: ignore[union-attr]
            assert await raw.execute("XLEN", "eb:{note}:stream") == 4
    told = [line for line in lines if line["log_level"] == "error"]
    assert len(told) == 1, "once, however many try"
    assert "refuses the login" in told[0]["reason"]
    assert "right" not in str(lines)


async def test_without_one_a_publish_is_unavailable_and_a_bus_does_not_open(raw: Link, url: str) -> None:
    async with EventBus(url, publish_timeout=0.5) as bus:
        await bus.publish(Noted(number=0))
        await other_password(raw)
        await raw.execute("CLIENT", "KILL", "USER", USER)
        with pytest.raises(Unavailable, match="refuses the login: WRONGPASS"):
            await bus.publish(Noted(number=1))
        with pytest.raises(ConfigurationError, match="refused the login"):
            async with EventBus(url):
                pass
        await mend(raw)
        assert (await bus.publish(Noted(number=2))).status is Status.STORED
