"""One record of the spool holds up no other, and what was set aside comes back when the cause is gone."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eventbus.cli.checks import examine_spool
from eventbus.contract.inspection import Severity
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import Unavailable
from eventbus.event import uuid7
from eventbus.memory import MemoryTransport
from eventbus.publishing.breaker import Breaker
from eventbus.publishing.spool import SPOOL_BYTES, Replayed, SpoolFile, replay, replay_rejected
from eventbus.publishing.spool.record import Spooled, pack
from eventbus.publishing.spool.replay import Replayer
from eventbus.redis import RedisTransport
from eventbus.redis.link import Link
from eventbus.settings import Settings
from tests.conformance.reach import connected
from tests.integration.commands import eventbus_here
from tests.samples import consumer, envelope, numbers, receive
from tests.waiting import until


@pytest.fixture
def file(tmp_path: Path) -> SpoolFile:
    return SpoolFile(tmp_path / "spool.jsonl", SPOOL_BYTES)


@pytest.fixture
async def raw(any_redis_url: str) -> AsyncIterator[Link]:
    link = Link(any_redis_url, timeout=5, name="test")
    yield link
    await link.close()


def record(number: int, **attributes: Any) -> bytes:
    return pack(Spooled.of(Outgoing(envelope(number, **attributes)), 0.0))


def uuid7_at(ms: int) -> str:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}{uuid7()[13:]}"


async def test_a_record_that_is_refused_is_set_aside_and_the_rest_is_replayed(
    file: SpoolFile, any_redis_url: str, raw: Link
) -> None:
    await raw.execute("SET", "eb:{secret}:stream", "no stream")
    refused = [record(number, stream="secret") for number in (1, 3)]
    old = record(5, id=uuid7_at(30_000)), record(6, id=uuid7_at(4_102_444_799_999))
    file.append([record(0), refused[0], record(2), refused[1], record(4), *old])
    async with connected(any_redis_url) as transport:
        assert await replay(file, transport) == Replayed(5, 2)
        assert numbers(await receive(transport, consumer(), 5)) == [0, 2, 4, 5, 6]
        assert (file.size(), file.rejected()) == (0, 2)
        assert file.rejected_path.read_bytes() == b"".join(refused), "as they were"
        [reason] = file.aside.reasons()
        assert "WRONGTYPE" in reason

        settings = Settings(spool_path=file.path)
        [finding] = examine_spool(settings)
        assert finding.severity is Severity.ERROR
        assert "WRONGTYPE" in finding.message
        shown = eventbus_here("spool", "status", "--json", "--path", str(file.path))
        assert json.loads(shown.stdout)["reasons"] == {reason: 2}

        assert await replay_rejected(file, transport) == Replayed(0, 2), "the cause is still there"
        await raw.execute("DEL", "eb:{secret}:stream")
        with file.rejected_path.open("ab") as aside:
            aside.write(b"torn\n")
        done = eventbus_here(
            "spool", "replay", "--rejected", "--json", "--path", str(file.path), EVENTBUS_REDIS_URL=any_redis_url
        )
        assert json.loads(done.stdout) == {"records": 2, "rejected": 1}, done
        assert numbers(await receive(transport, consumer(stream="secret"), 2)) == [1, 3]
    assert file.rejected_path.read_bytes() == b"torn\n"
    assert file.aside.reasons() == {"torn, changed, or none of ours": 1}


class Stumbling(MemoryTransport):
    async def append(self, outgoing, *, again=False):  # type: ignore[no-untyped-def]
        if any(item.envelope.data == b"1" for item in outgoing):
            raise KeyError("nobody has foreseen it")
        return await super().append(outgoing, again=again)


async def test_what_nobody_has_foreseen_holds_up_its_own_record(file: SpoolFile) -> None:
    file.append([record(number) for number in range(3)])
    transport = Stumbling()
    assert await replay(file, transport) == Replayed(2, 1)
    assert numbers(await transport.read(consumer(), 10, 0.01)) == [0, 2]


class StumblingOnce(MemoryTransport):
    stumbled = False

    async def connect(self) -> None:
        if not self.stumbled:
            self.stumbled = True
            raise KeyError("nobody has foreseen it")


async def test_a_replayer_outlives_what_nobody_has_foreseen(file: SpoolFile) -> None:
    file.append([record(1)])
    transport = StumblingOnce()
    running = asyncio.create_task(Replayer(file, transport, Breaker()).run())
    await until(lambda: file.size() == 0)
    assert transport.stumbled
    running.cancel()
    await asyncio.wait([running])


async def test_who_looks_again_reads_what_is_new(file: SpoolFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gauges ask each few seconds, and each process twice a second while Redis is away."""
    pread, read = os.pread, 0

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        found = pread(descriptor, length, offset)
        read += len(found)
        return found

    file.append([record(number) for number in range(2_000)])
    away = RedisTransport("redis://127.0.0.1:1")
    size, times = file.size(), 20
    monkeypatch.setattr(os, "pread", counted)
    for _ in range(times):
        assert file.waiting() == 2_000
        with pytest.raises(Unavailable):
            await replay(file, away)
    assert read <= 2 * size + times * 1_000, "it is read once, whoever asks again"
    assert file.replayed() == 0
    file.append([record(1)])
    assert file.waiting() == 2_001
    await away.close()
