"""What sentinels say, and what is made of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import ConfigurationError, EventBus, Unavailable
from eventbus.redis.sentinels import Sentinels
from tests.integration.commands import eventbus_here as eventbus
from tests.sentinels import SERVICE, Service, sentinel_service
from tests.servers import redis_binaries
from tests.waiting import eventually


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with sentinel_service(tmp_path, redis_binaries()["valkey"], {}) as service:
        yield service


async def test_an_old_answer_is_not_believed(service: Service) -> None:
    """Of one that was away during the failover, has forgotten all, and is the only one left."""
    await service.settled()
    sentinels = Sentinels(service.url)
    before = (await sentinels.find()).url
    service.sentinels[2].kill()
    await eventually(lambda: failover(service))

    async def moved() -> bool:
        return (await sentinels.find()).url != before

    await eventually(moved)
    assert sentinels.moves == 1
    for sentinel in service.sentinels[:2]:
        sentinel.kill()
    service.sentinels[2].start()  # with the configuration that it began with

    async def refused() -> bool:
        try:
            told = await sentinels.find()
        except Unavailable as error:
            return "which was the primary before" in str(error)
        assert told.url != before
        return False

    await eventually(refused)


async def test_doctor_tells_of_the_topology(service: Service) -> None:
    await service.settled()
    found = doctor(service.url)
    assert {name: found[name]["severity"] for name in ("role", "sentinels", "replicas", "failover")} == {
        "role": "ok",
        "sentinels": "ok",
        "replicas": "ok",
        "failover": "warning",
    }
    assert "min-replicas-to-write" in found["failover"]["remedy"]
    service.sentinels[0].kill()
    found = doctor(service.url)
    assert found["sentinels"]["severity"] == "warning"
    assert service.sentinels[0].password not in str(found)


async def test_a_service_that_they_do_not_watch(service: Service) -> None:
    with pytest.raises(ConfigurationError, match="watch no such service"):
        async with EventBus(service.url.replace(f"/{SERVICE}/", "/other/")):
            pass
    run = eventbus("status", EVENTBUS_REDIS_URL=service.url)
    assert (run.returncode, service.sentinels[0].password in run.stdout + run.stderr) == (0, False)


def doctor(url: str) -> dict[str, dict[str, str]]:
    """The findings by check, of several of one check the worst."""
    run = eventbus("doctor", "--json", "--watch", "0", EVENTBUS_REDIS_URL=url)
    found = json.loads(run.stdout)["findings"]
    return {one["check"]: one for one in sorted(found, key=lambda one: one["severity"] != "ok")}


async def failover(service: Service) -> bool:
    """It is refused while a sentinel thinks that there is no good replica yet."""
    return bool(await service.ask(0, "SENTINEL", "FAILOVER", SERVICE) == b"OK")
