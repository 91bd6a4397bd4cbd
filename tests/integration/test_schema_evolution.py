"""What old code has published is handled by new code, wherever it is by then: in the outbox, delayed, in flight, in the
hands of a worker that died, dead and replayed. And old code bears what new code publishes, while a deploy lasts."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from eventbus.postgres import apply, installed
from tests.integration.commands import CLEAN, Run, eventbus
from tests.lines import whole_lines
from tests.waiting import PATIENCE, eventually, until

COMMON = """
import asyncio, json, os
from pathlib import Path
from typing import Any
from eventbus import Context, Event, EventBus, Group, Reject, RetryPolicy, Worker

post = Group("post", lease=1.0, concurrency=200, retry=RetryPolicy(1))

def tell(**fields: Any) -> None:
    with Path(os.environ["POST_LOG"]).open("a") as log:
        log.write(json.dumps(fields) + "\\n")
"""

# Of each four events one is taken and not given back, one dies, one waits for its time, one goes through the outbox.
OLD = (
    COMMON
    + """
class Posted(Event, type="post.parcel", version=2):
    number: int
    sender: str
    kilos: float | None = None
    fragile: bool = False

@post.on(Posted)
async def handle(event: Posted, ctx: Context) -> None:
    tell(number=event.number, sender=event.sender)
    if event.number % 4 == 0:
        raise Reject("no stamps")
    await asyncio.sleep(3600)

async def main() -> None:
    async with EventBus(database=os.environ["EVENTBUS_DATABASE_URL"]) as bus:
        for fields in json.loads(os.environ["POST_EVENTS"]):
            event = Posted(**fields)
            if event.number % 4 < 2:
                await bus.publish(event, key=str(event.number), organization="acme")
        working = asyncio.create_task(Worker(bus, [post], relay=False).run())
        taken = sum(fields["number"] % 4 < 2 for fields in json.loads(os.environ["POST_EVENTS"]))
        while len(Path(os.environ["POST_LOG"]).read_text().splitlines()) < taken:
            await asyncio.sleep(0.01)
        while (await bus.transport.inspect(["post"]))[0].dead < len(json.loads(os.environ["POST_EVENTS"])) // 4:
            await asyncio.sleep(0.01)
        for fields in json.loads(os.environ["POST_EVENTS"]):
            if fields["number"] % 4 == 2:
                await bus.publish(Posted(**fields), delay=3.0, organization="acme")
            if fields["number"] % 4 == 3:
                async with bus.transaction() as tx:
                    await tx.publish(Posted(**fields), organization="acme")
        os._exit(9)

if __name__ == "__main__":
    asyncio.run(main())
"""
)

NEW = (
    COMMON
    + """
class Posted(Event, type="post.parcel", version=4):
    number: int
    first_name: str
    last_name: str | None
    grams: int | None

@Posted.upcast(from_version=1)
def first(data: dict[str, Any]) -> dict[str, Any]:
    raise LookupError("there never was a version 1: it has been lost on the way")

@Posted.upcast(from_version=2)
def grams(data: dict[str, Any]) -> dict[str, Any]:
    kilos = data.pop("kilos")
    return {**data, "grams": None if kilos is None else round(kilos * 1000)}

@Posted.upcast(from_version=3)
def names(data: dict[str, Any]) -> dict[str, Any]:
    first, _, last = data.pop("sender").partition(" ")
    return {**data, "firstName": first, "lastName": last or None}

@post.on(Posted)
async def handle(event: Posted, ctx: Context) -> None:
    tell(**event.model_dump(), replayed=ctx.envelope.replayed, version=ctx.envelope.version)
"""
)
BROKEN = NEW.replace('data.pop("kilos")', 'data["weight"]')


@pytest.fixture
async def database(database_url: str) -> str:
    connection = await asyncpg.connect(database_url)
    await apply(connection, [one for one in installed() if one.source == "eventbus"])
    await connection.close()
    return database_url


@pytest.fixture
def environment(tmp_path: Path, redis_url: str, database: str) -> dict[str, str]:
    (tmp_path / "log").write_text("")
    path = ":".join([str(tmp_path), *(entry for entry in sys.path if entry)])
    return {
        "EVENTBUS_REDIS_URL": redis_url,
        "EVENTBUS_DATABASE_URL": database,
        "POST_LOG": str(tmp_path / "log"),
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",  # the module is written anew within a second
    }


def parcels(count: int) -> list[dict[str, Any]]:
    draw = random.Random(7)
    names = ["Ada", "Ada Lovelace", "Jürgen von der Lippe", "", " ", "名前 氏", 'a "b" \\', "x\u2028y\x00z"]
    weights = [None, 0.0, 1.5, 0.001, 99.999]
    return [
        {
            "number": number,
            "sender": draw.choice(names),
            "kilos": draw.choice(weights),
            "fragile": draw.random() < 0.5,
        }
        for number in range(count)
    ]


def expected(parcel: dict[str, Any]) -> dict[str, Any]:
    first, _, last = parcel["sender"].partition(" ")
    kilos = parcel["kilos"]
    return {
        "number": parcel["number"],
        "first_name": first,
        "last_name": last or None,
        "grams": None if kilos is None else round(kilos * 1000),
        "replayed": parcel["number"] % 4 == 0,
        "version": 2,
    }


def told(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole_lines(log)]


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "eventbus.cli", "worker", "--app", "parcels"],
        env={**CLEAN, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def command(environment: dict[str, str], *arguments: str) -> Run:
    return await asyncio.to_thread(lambda: eventbus(*arguments, **environment))


async def test_new_code_handles_all_that_old_code_has_left(tmp_path: Path, environment: dict[str, str]) -> None:
    left, log = parcels(48), tmp_path / "log"
    (tmp_path / "parcels.py").write_text(OLD)
    old = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(tmp_path / "parcels.py")],
        env={**os.environ, **environment, "POST_EVENTS": json.dumps(left)},
        timeout=PATIENCE,
        check=False,
    )
    assert old.returncode == 9
    assert len(told(log)) == 24, "half were taken"
    log.write_text("")

    check = ("schema", "check", "--app", "parcels", "--json")
    (tmp_path / "parcels.py").write_text(BROKEN)
    refused = await command(environment, *check)
    assert refused.returncode == 1, refused.stderr
    [found] = json.loads(refused.stdout)["types"]
    assert (found["type"], found["version"], found["knownVersion"], found["failing"]) == ("post.parcel", 2, 4, 48)
    reasons = {fault["in"]: (fault["count"], "KeyError: 'weight'" in fault["reason"]) for fault in found["faults"]}
    assert reasons == dict.fromkeys(("outbox", "scheduled", "stream", "dead"), (12, True))
    assert told(log) == [], "to look handles nothing"

    (tmp_path / "parcels.py").write_text(NEW)
    agreed = await command(environment, *check)
    assert agreed.returncode == 0, agreed.stdout
    with worker(environment):
        await until(lambda: len(told(log)) >= 36)
        replay = await command(environment, "dead", "replay", "--all")
        assert replay.stdout == "replayed 12\n", replay.stderr
        await until(lambda: len(told(log)) >= 48)
    assert sorted(told(log), key=lambda one: one["number"]) == [expected(parcel) for parcel in left]


async def test_old_code_bears_what_new_code_publishes(tmp_path: Path, environment: dict[str, str]) -> None:
    """What fits is handled, what does not is a dead letter that says why, and comes back behind the deploy."""
    log = tmp_path / "log"
    newer = NEW.replace("version=4", "version=5").replace("@Posted.upcast", "# ")
    (tmp_path / "parcels.py").write_text(
        newer.replace("    grams: int | None", "    grams: int | None\n    color: str")
    )
    fitting = '{"number": 1, "firstName": "Ada", "lastName": null, "grams": 5, "color": "red"}'
    assert (await command(environment, "publish", "post.parcel", fitting, "--app", "parcels")).returncode == 0
    (tmp_path / "parcels.py").write_text(newer.replace("first_name", "given_name"))
    other = '{"number": 2, "givenName": "Bo", "lastName": null, "grams": 5}'
    assert (await command(environment, "publish", "post.parcel", other, "--app", "parcels")).returncode == 0
    (tmp_path / "parcels.py").write_text(NEW)
    with worker(environment):
        await until(lambda: told(log))

        async def dead() -> list[Any]:
            listed = await command(environment, "dead", "list", "--json")
            items: list[Any] = json.loads(listed.stdout)["items"]
            return items

        [letter] = await eventually(dead)
    assert "it is of version 5, and this process has 4" in letter["error"]
    assert "firstName: Field required" in letter["error"]
    [handled] = told(log)
    assert (handled["number"], handled["first_name"]) == (1, "Ada")
