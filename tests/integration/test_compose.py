"""The files of deploy/ that are laid over compose.yaml: a service behind sentinels, and a cluster."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from eventbus import Event, EventBus, Unavailable
from eventbus.redis.keys import stream_keys
from eventbus.redis.seeds import Seeds
from eventbus.redis.sentinels import Sentinels
from eventbus.redis.where import locate
from tests.composed import Containers, composed
from tests.servers import redis_client
from tests.waiting import PATIENCE, eventually, until

SENTINEL, CLUSTER = "deploy/compose.sentinel.yaml", "deploy/compose.cluster.yaml"
OVERRIDES = [SENTINEL, CLUSTER]
MEANT = {SENTINEL: Sentinels, CLUSTER: Seeds}


class Laid(Event, type="compose.laid"):
    number: int


def of_the_bus(services: Any) -> set[str]:
    return {name for name, service in services.items() if service["image"] == "eventbus"}


def with_addresses(url: str, services: Any) -> str:
    """As the name server of the containers' network has them."""
    scheme, _, rest = url.partition("://")
    hosts, _, path = rest.partition("/")
    places = [host.split(":") for host in hosts.split(",")]
    found = ",".join(":".join((services[name]["environment"]["AT"], port)) for name, port in places)
    return f"{scheme}://{found}/{path}"


@pytest.mark.parametrize("override", OVERRIDES)
def test_each_service_of_the_bus_is_given_the_new_url(override: str) -> None:
    services = composed("compose.yaml", override)["services"]
    assert of_the_bus(services) == of_the_bus(composed("compose.yaml")["services"])
    [url] = {services[name]["environment"]["EVENTBUS_REDIS_URL"] for name in of_the_bus(services)}
    assert isinstance(locate(url), MEANT[override])
    hosts = url.partition("://")[2].partition("/")[0].split(",")
    assert {host.partition(":")[0] for host in hosts} <= services.keys()
    assert len(hosts) >= 3


@pytest.mark.parametrize("override", OVERRIDES)
def test_what_is_waited_for_comes(override: str) -> None:
    services = composed("compose.yaml", override)["services"]
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            if wait["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], f"{name} waits until {other} is healthy"
            else:
                assert (wait["condition"], services[other]["restart"]) == ("service_completed_successfully", "no")
    what = {SENTINEL: {"sentinel-1", "sentinel-2", "sentinel-3"}, CLUSTER: {"cluster"}}[override]
    for name in of_the_bus(services) - {"migrate"}:
        assert {"redis", "postgres", "migrate"} | what == services[name]["depends_on"].keys()


@pytest.mark.parametrize("override", OVERRIDES)
def test_each_server_has_an_address_and_a_volume_of_its_own(override: str) -> None:
    project = composed("compose.yaml", override)
    [pool] = project["networks"]["default"]["ipam"]["config"]
    servers = {name: service for name, service in project["services"].items() if "networks" in service}
    assert len(servers) == 6
    addresses = {service["networks"]["default"]["ipv4_address"] for service in servers.values()}
    assert addresses == {service["environment"]["AT"] for service in servers.values()}
    assert len(addresses) == 6
    for address in addresses:
        assert ip_address(address) in ip_network(pool["subnet"])
        assert ip_address(address) not in ip_network(pool["ip_range"]), "Docker may give it to somebody else"
    volumes = [volume.partition(":")[::2] for service in servers.values() for volume in service["volumes"]]
    assert {target for _, target in volumes} == {"/data"}
    assert len({source for source, _ in volumes} & project["volumes"].keys()) == 6


@pytest.mark.parametrize("override", OVERRIDES)
def test_events_are_data_at_each_server(override: str) -> None:
    services = composed("compose.yaml", override)["services"]
    names = {SENTINEL: ("redis", "redis-2", "redis-3"), CLUSTER: ("redis", *(f"redis-{n}" for n in range(2, 7)))}
    for name in names[override]:
        script = " ".join(services[name]["command"][-1].split())
        for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
            assert option in script
        writes = "--min-replicas-to-write 1 --min-replicas-max-lag 2"
        assert (writes in script) is (override == SENTINEL), "in a cluster a primary has one replica, which may fail"


@pytest.fixture
def network() -> str:
    """Of this machine alone, and of this test, whatever else runs."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"


@pytest.fixture
def services(request: pytest.FixtureRequest, network: str) -> Any:
    return composed("compose.yaml", request.param, EVENTBUS_NETWORK=network)["services"]


@pytest.fixture
def containers(services: Any, tmp_path: Path) -> Iterator[Containers]:
    with Containers(services, tmp_path) as containers:
        yield containers


async def publish(bus: EventBus, number: int) -> None:
    """As soon as somebody takes it."""

    async def published() -> bool:
        with suppress(Unavailable):
            await bus.publish(Laid(number=number))
            return True
        return False

    await eventually(published)


@pytest.mark.parametrize("services", [SENTINEL], indirect=True, ids=[SENTINEL])
async def test_a_replica_takes_over_and_a_server_comes_back_as_what_it_was(
    services: Any, containers: Containers
) -> None:
    servers, sentinels = ("redis", "redis-2", "redis-3"), ("sentinel-1", "sentinel-2", "sentinel-3")
    await up(containers, *servers)
    await up(containers, *sentinels)
    url = with_addresses(services["gateway"]["environment"]["EVENTBUS_REDIS_URL"], services)
    where, first = Sentinels(url), services["redis"]["environment"]["AT"]
    assert (await where.find()).place.host == first
    async with EventBus(url) as bus:
        await publish(bus, 1)
        containers.kill("redis")
        await until(lambda: "+switch-master main" in containers.log("sentinel-1"))
        await publish(bus, 2)
        await up(containers, "redis")
        await until(lambda: "REPLICAOF" in containers.log("redis"))
        await until(lambda: containers.healthy("redis"))
        containers.kill("redis")
        containers.forget_log("redis")
        await up(containers, "redis")
        assert "MASTER <-> REPLICA sync" in containers.log("redis")
        assert "REPLICAOF" not in containers.log("redis"), "it is a replica before a sentinel tells it so"
        await publish(bus, 3)
    assert (await where.find()).place.host != first


@pytest.mark.parametrize("services", [CLUSTER], indirect=True, ids=[CLUSTER])
async def test_a_cluster_is_made_once_and_found_again(services: Any, containers: Containers) -> None:
    nodes = [name for name, service in services.items() if "networks" in service]
    url = with_addresses(services["gateway"]["environment"]["EVENTBUS_REDIS_URL"], services)
    for turn in (1, 2):
        await up(containers, *nodes)
        making = containers.start("cluster")
        assert await asyncio.to_thread(making.wait, PATIENCE) == 0, containers.log("cluster")
        async with EventBus(url) as bus:
            await publish(bus, turn)
        with redis_client(url) as client:
            assert client.xlen(stream_keys("eb", "compose").stream) == turn
        for name in nodes:
            containers.stop(name)
    assert containers.log("cluster").count("All 16384 slots covered") == 1


async def up(containers: Containers, *names: str) -> None:
    """Started, and healthy."""
    for name in names:
        containers.start(name)
    for name in names:
        await until(partial(containers.healthy, name))
