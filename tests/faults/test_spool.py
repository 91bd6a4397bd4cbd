"""Fault 14: the spool is torn, changed, out of room, replayed twice, or its replay is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from eventbus.contract.outgoing import Outgoing
from eventbus.event import uuid7
from eventbus.memory import MemoryTransport
from eventbus.publishing.spool import SPOOL_BYTES, Replayed, SpoolFile, replay
from eventbus.publishing.spool.file import BATCH
from eventbus.publishing.spool.record import Spooled, pack
from eventbus.redis.keys import stream_keys
from tests.conformance.reach import connected
from tests.samples import STREAM, consumer, envelope, numbers
from tests.waiting import PATIENCE

KEY = stream_keys("eb", STREAM).stream
ANN = consumer()


@pytest.fixture
def file(tmp_path: Path) -> SpoolFile:
    return SpoolFile(tmp_path / "spool.jsonl", SPOOL_BYTES)


def lines(*found: int) -> list[bytes]:
    return [pack(Spooled.of(Outgoing(envelope(number, id=uuid7())), 0.0)) for number in found]


async def replayed(file: SpoolFile) -> list[int]:
    """What arrives in an empty transport, after two replays of the same file."""
    transport, content = MemoryTransport(), file.path.read_bytes()
    await replay(file, transport)
    assert file.size() == 0
    file.path.write_bytes(content)
    await replay(file, transport)
    return numbers(await transport.read(ANN, 100, 0.001))


def aside(file: SpoolFile) -> bytes:
    """What was set aside, which is forgotten."""
    content = file.rejected_path.read_bytes() if file.rejected_path.exists() else b""
    file.rejected_path.unlink(missing_ok=True)
    return content


async def test_torn_at_any_byte_the_rest_is_replayed_once_and_the_torn_line_set_aside(file: SpoolFile) -> None:
    records = lines(1, 2, 3)
    whole, last = b"".join(records[:2]), records[2]
    for length in range(len(last)):
        file.path.write_bytes(whole + last[:length])
        kept = length == len(last) - 1  # all but the newline
        assert await replayed(file) == ([1, 2, 3] if kept else [1, 2]), length
        assert aside(file) == (b"" if kept or not length else last[:length] + b"\n"), length


def flips(content: bytes, start: int, end: int) -> Iterator[bytes]:
    for place in range(start, end):
        yield content[:place] + bytes([content[place] ^ 0x01]) + content[place + 1 :]


async def test_with_any_byte_flipped_the_rest_is_replayed_once_and_the_bad_line_set_aside(file: SpoolFile) -> None:
    records = lines(1, 2, 3)
    content, start = b"".join(records), len(records[0])
    end = start + len(records[1])
    for flipped in flips(content, start, end - 1):
        file.path.write_bytes(flipped)
        assert await replayed(file) == [1, 3]
        assert aside(file) == flipped[start:end]
    [joined] = flips(content, end - 1, end)  # the newline between two good records
    file.path.write_bytes(joined)
    assert await replayed(file) == [1, 2, 3]
    assert aside(file) == b""


def run(program: str, *arguments: str, crash: str = "") -> tuple[int, str]:
    """In a process of its own: exit code and what it printed."""
    environment = {**os.environ, **({"EVENTBUS_CRASH": crash} if crash else {})}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout.strip()


async def test_a_full_disk_is_told_and_leaves_no_half_a_record(file: SpoolFile) -> None:
    """A limit on the size of files cuts a write in the middle, as a full disk does."""
    program = """
import resource, sys
from pathlib import Path
from eventbus.publishing.spool import SpoolFile
from tests.faults.test_spool import lines
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
file, taken = SpoolFile(Path(sys.argv[1]), 10**9), 0
try:
    for number in range(100):
        taken += file.append(lines(number))
except OSError as error:
    print(taken, error.strerror)
"""
    taken, _, reason = run(program, str(file.path))[1].partition(" ")
    assert (int(taken) > 5, reason) == (True, "File too large")
    assert await replayed(file) == list(range(int(taken)))
    assert aside(file) == b""


REPLAY = """
import asyncio, sys
from pathlib import Path
from eventbus.redis import RedisTransport
from eventbus.publishing.spool import SPOOL_BYTES, SpoolFile, replay
asyncio.run(replay(SpoolFile(Path(sys.argv[1]), SPOOL_BYTES), RedisTransport(sys.argv[2])))
"""


async def stored(url: str) -> list[int]:
    async with Redis.from_url(url, socket_timeout=PATIENCE) as client:
        entries: Any = await client.xrange(KEY)
    return [int(fields[b"data"]) for _, fields in entries]


@pytest.mark.parametrize(
    "boundary", ["spool.rejected", "spool.replayed", "spool.replayed:2", "spool.marked", "spool.marked:3"]
)
async def test_a_replay_killed_at_any_boundary_stores_nothing_twice_and_loses_nothing(
    boundary: str, file: SpoolFile, redis_url: str
) -> None:
    count = 2 * BATCH + 10
    records = lines(*range(count))
    file.path.write_bytes(b"".join([*records[:5], b'{"torn\n', *records[5:]]))
    code, _ = run(REPLAY, str(file.path), redis_url, crash=boundary)
    assert code == -9
    file.append(lines(count))  # publishes do not wait for the replay
    run(REPLAY, str(file.path), redis_url)
    assert await stored(redis_url) == list(range(count + 1))
    assert aside(file) == b'{"torn\n'
    assert file.size() == 0


async def test_a_copy_that_is_put_back_and_replayed_again_stores_nothing_twice(
    file: SpoolFile, any_redis_url: str
) -> None:
    records = lines(*range(2 * BATCH))
    async with connected(any_redis_url) as transport:
        for _ in range(2):
            file.path.write_bytes(b"".join(records))
            assert await replay(file, transport) == Replayed(2 * BATCH, 0)
    assert await stored(any_redis_url) == list(range(2 * BATCH))
